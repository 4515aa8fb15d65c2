//! Name service for a sandbox whose node has its resolver on loopback: questions that reach the sockets init opened
//! inside are asked of the node's resolver, and nothing else is passed on.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use nix::sys::socket::{SockType, getsockopt, sockopt};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};

const DNS: u16 = 53;
/// How long a question may wait for its answer: what stub resolvers wait before they ask again.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most questions under way at once; more wait in the socket's buffer or are lost there, as DNS allows.
const MOST: usize = 64;
/// The longest message over UDP (EDNS, RFC 6891).
const LONGEST: usize = 65_535;

/// Serves the sockets init made for `resolvers` on the current runtime.
///
/// # Errors
/// `InvalidData` where the descriptors are not those that were asked for.
pub(super) fn relay(resolvers: &[IpAddr], fds: Vec<OwnedFd>) -> io::Result<()> {
    if fds.len() != resolvers.len() * 2 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let places = Arc::new(Semaphore::new(MOST));
    let mut fds = fds.into_iter();
    for resolver in resolvers {
        let resolver = SocketAddr::new(*resolver, DNS);
        let udp = std::net::UdpSocket::from(checked(fds.next(), SockType::Datagram)?);
        let tcp = std::net::TcpListener::from(checked(fds.next(), SockType::Stream)?);
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        tokio::spawn(datagrams(Arc::new(UdpSocket::from_std(udp)?), resolver, Arc::clone(&places)));
        tokio::spawn(streams(TcpListener::from_std(tcp)?, resolver, Arc::clone(&places)));
    }
    Ok(())
}

fn checked(fd: Option<OwnedFd>, kind: SockType) -> io::Result<OwnedFd> {
    let fd = fd.ok_or(io::ErrorKind::InvalidData)?;
    if getsockopt(&fd, sockopt::SockType)? == kind { Ok(fd) } else { Err(io::ErrorKind::InvalidData.into()) }
}

async fn datagrams(inside: Arc<UdpSocket>, resolver: SocketAddr, places: Arc<Semaphore>) {
    let mut buffer = vec![0; 4096];
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        // Only the sandbox's end can fail a receive, by a client that has gone; the next one may not.
        let Ok((len, client)) = inside.recv_from(&mut buffer).await else { continue };
        let (question, inside) = (buffer[..len].to_vec(), Arc::clone(&inside));
        tokio::spawn(async move {
            if let Ok(Ok(answer)) = timeout(PATIENCE, ask(&question, resolver)).await {
                let _ = inside.send_to(&answer, client).await;
            }
            drop(place);
        });
    }
}

/// Asks from a port of its own each time, so that answers cannot be mixed up.
async fn ask(question: &[u8], resolver: SocketAddr) -> io::Result<Vec<u8>> {
    let any: IpAddr = if resolver.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(resolver).await?;
    socket.send(question).await?;
    let mut answer = vec![0; LONGEST];
    let len = socket.recv(&mut answer).await?;
    answer.truncate(len);
    Ok(answer)
}

async fn streams(inside: TcpListener, resolver: SocketAddr, places: Arc<Semaphore>) {
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Ok((mut client, _)) = inside.accept().await else { continue };
        tokio::spawn(async move {
            let passed = async {
                let mut server = TcpStream::connect(resolver).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            };
            // Either end may break off; the other is closed with it.
            let _ = timeout(PATIENCE * 6, passed).await;
            drop(place);
        });
    }
}
