//! What listens, and who has a connection, asked of the kernel directly (`sock_diag(7)`): it walks its listeners only, or
//! looks one connection up, where `/proc/net/tcp` walks the table of all connections of the whole machine, which takes
//! milliseconds.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use nix::sys::socket::{MsgFlags, NetlinkAddr, recv, sendto};

const HEADER: usize = 16;
/// `SOCK_DIAG_BY_FAMILY`, of `linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;
/// `1 << TCP_LISTEN`, of `linux/tcp_states.h`.
const LISTENING: u32 = 1 << 10;
/// The length of `inet_diag_msg`, of `linux/inet_diag.h`, up to and with its inode.
const ANSWER: usize = 72;
/// The length of `inet_diag_sockid`, of `linux/inet_diag.h`.
const SOCKET_ID: usize = 48;
/// `TCP_ESTABLISHED`, of `linux/tcp_states.h`.
const ESTABLISHED: u8 = 1;

/// The listening TCP sockets of one family in the current network namespace, each with its inode.
///
/// # Errors
/// As `sock_diag(7)`; `NotFound` where the kernel has no such thing.
pub fn listening(family: Family) -> io::Result<Vec<(SocketAddr, u64)>> {
    let socket = ask(&request(family, libc::NLM_F_DUMP, LISTENING, &[0; SOCKET_ID]))?;
    let mut found = Vec::new();
    let mut buffer = [0_u8; 32 * 1024];
    loop {
        let len = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if read_messages(&buffer[..len], &mut found)? {
            return Ok(found);
        }
    }
}

/// The user who has the TCP socket that is bound to `own` and connected to `other`, both of this network namespace. `None`
/// where there is none, or none any more: a socket that its process has closed belongs to nobody. It takes some ten
/// microseconds.
///
/// # Errors
/// As `sock_diag(7)`.
pub fn owner(own: SocketAddr, other: SocketAddr) -> io::Result<Option<u32>> {
    // A socket of IPv6 that speaks IPv4 is found where those of IPv4 are.
    let (own, other) = (canonical(own), canonical(other));
    let family = if own.is_ipv4() { Family::V4 } else { Family::V6 };
    let mut id = Vec::with_capacity(SOCKET_ID);
    id.extend_from_slice(&own.port().to_be_bytes());
    id.extend_from_slice(&other.port().to_be_bytes());
    id.extend_from_slice(&wide(own.ip()));
    id.extend_from_slice(&wide(other.ip()));
    // Whatever its interface, and no cookie known (INET_DIAG_NOCOOKIE).
    id.extend_from_slice(&[0; 4]);
    id.extend_from_slice(&[0xff; 8]);
    let socket = ask(&request(family, 0, u32::MAX, &id))?;
    let mut buffer = [0_u8; 1024];
    // The kernel has answered before `sendto` returned, so that this never waits.
    let len = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
    match one_message(&buffer[..len]) {
        Ok(body) => Ok(owner_in(body, own, other)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Which addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6, and IPv4 through it.
    V6,
}

/// Sends a question; the answer can be read from what is returned.
fn ask(request: &[u8]) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: socket(2) takes plain numbers; its result is checked before it is owned.
    let raw = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_SOCK_DIAG) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    sendto(socket.as_raw_fd(), request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    Ok(socket)
}

fn request(family: Family, flags: i32, states: u32, id: &[u8]) -> Vec<u8> {
    let family = match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    // inet_diag_req_v2: family, protocol, extensions, padding, states, inet_diag_sockid.
    let mut body = vec![
        u8::try_from(family).unwrap_or_default(),
        u8::try_from(libc::IPPROTO_TCP).unwrap_or_default(),
        0,
        0,
    ];
    body.extend_from_slice(&states.to_ne_bytes());
    body.extend_from_slice(id);
    let mut message = Vec::with_capacity(HEADER + body.len());
    // nlmsghdr: length, type, flags, sequence, port. All of it fits its field: the numbers are small and fixed.
    let flags = libc::NLM_F_REQUEST | flags;
    message.extend_from_slice(&u32::try_from(HEADER + body.len()).unwrap_or_default().to_ne_bytes());
    message.extend_from_slice(&BY_FAMILY.to_ne_bytes());
    message.extend_from_slice(&u16::try_from(flags).unwrap_or_default().to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(&body);
    message
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// An address as `inet_diag_sockid` has it.
fn wide(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => {
            let mut wide = [0; 16];
            wide[..4].copy_from_slice(&v4.octets());
            wide
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The one message of an answer that is not a dump.
fn one_message(bytes: &[u8]) -> io::Result<&[u8]> {
    let len = u32_at(bytes, 0).and_then(|len| usize::try_from(len).ok()).ok_or(io::ErrorKind::InvalidData)?;
    let body = bytes.get(HEADER..len).ok_or(io::ErrorKind::InvalidData)?;
    match u16::from_ne_bytes([bytes[4], bytes[5]]) {
        BY_FAMILY => Ok(body),
        _ => Err(error_in(body)),
    }
}

/// The user in an inet_diag_msg (state at 1, the socket's own port at 4 and the other at 6, its own address at 8 and the
/// other at 24, the user at 64), if it is of this connection. The kernel answers with a listener where it finds no
/// connection, and calls the user 0 of one that is closing.
fn owner_in(body: &[u8], own: SocketAddr, other: SocketAddr) -> Option<u32> {
    let same = canonical(address_at(body, 4, 8)?) == own && canonical(address_at(body, 6, 24)?) == other;
    if same && *body.get(1)? == ESTABLISHED { u32_at(body, 64) } else { None }
}

/// Takes in what one datagram holds. `true` where it was the last.
fn read_messages(mut bytes: &[u8], found: &mut Vec<(SocketAddr, u64)>) -> io::Result<bool> {
    while let (Some(len), Some(kind)) = (u32_at(bytes, 0), bytes.get(4..6)) {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let body = bytes.get(HEADER..len).ok_or(io::ErrorKind::InvalidData)?;
        match i32::from(u16::from_ne_bytes([kind[0], kind[1]])) {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => return Err(error_in(body)),
            _ => found.extend(socket_of(body)),
        }
        // Messages begin at multiples of four (netlink(3)).
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// nlmsgerr: the negative error number at 0.
fn error_in(body: &[u8]) -> io::Error {
    let code = u32_at(body, 0).map_or(libc::EINVAL, |code| i32::from_ne_bytes(code.to_ne_bytes()).abs());
    io::Error::from_raw_os_error(code)
}

/// inet_diag_msg: its own port at 4 and its address at 8, inode at 68.
fn socket_of(body: &[u8]) -> Option<(SocketAddr, u64)> {
    let body = body.get(..ANSWER)?;
    Some((address_at(body, 4, 8)?, u32_at(body, 68)?.into()))
}

/// inet_diag_msg: family at 0, ports and addresses in network order.
fn address_at(body: &[u8], port: usize, address: usize) -> Option<SocketAddr> {
    let octets = body.get(address..address + 16)?;
    let ip: IpAddr = match i32::from(*body.first()?) {
        libc::AF_INET => Ipv4Addr::from(<[u8; 4]>::try_from(&octets[..4]).ok()?).into(),
        libc::AF_INET6 => Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).into(),
        _ => return None,
    };
    let port = body.get(port..port + 2)?;
    Some(SocketAddr::new(ip, u16::from_be_bytes([port[0], port[1]])))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn an_error_and_a_cut_answer_are_errors() {
        let mut error = 20_u32.to_ne_bytes().to_vec();
        error.extend_from_slice(&2_u16.to_ne_bytes());
        error.extend_from_slice(&[0; 10]);
        error.extend_from_slice(&(-libc::ENOENT).to_ne_bytes());
        let told = read_messages(&error, &mut Vec::new()).unwrap_err();
        assert_eq!(told.kind(), io::ErrorKind::NotFound);
        assert!(read_messages(&error[..18], &mut Vec::new()).is_err());
    }

    /// Both ends of a connection, the client's first.
    fn connected(listen: &str, connect: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(listen).unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect((connect, port)).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn a_client_on_this_machine_has_its_user() {
        let me = nix::unistd::getuid().as_raw();
        for (listen, connect) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("[::1]:0", "::1"),
            ("[::]:0", "127.0.0.1"),
            ("[::]:0", "::ffff:127.0.0.1"),
            ("127.0.0.1:0", "::ffff:127.0.0.1"),
        ] {
            let (client, accepted) = connected(listen, connect);
            let (ours, theirs) = (accepted.local_addr().unwrap(), accepted.peer_addr().unwrap());
            assert_eq!(owner(theirs, ours).unwrap(), Some(me), "{connect} at {listen}");
            let other_port = SocketAddr::new(ours.ip(), ours.port() ^ 1);
            assert_eq!(owner(theirs, other_port).unwrap(), None);
            drop(client);
            assert_eq!(owner(theirs, ours).unwrap(), None, "what is closed is nobody's");
        }
    }

    #[test]
    fn only_the_connection_that_was_asked_for_counts() {
        let at = |port: u16| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        let mut told = [0_u8; ANSWER];
        (told[0], told[1]) = (u8::try_from(libc::AF_INET).unwrap(), ESTABLISHED);
        told[4..8].copy_from_slice(&[0, 1, 0, 2]);
        told[8..12].copy_from_slice(&[127, 0, 0, 1]);
        told[24..28].copy_from_slice(&[127, 0, 0, 1]);
        told[64..68].copy_from_slice(&7_u32.to_ne_bytes());
        assert_eq!(owner_in(&told, at(1), at(2)), Some(7));
        assert_eq!(owner_in(&told, at(1), at(3)), None);
        assert_eq!(owner_in(&told, at(3), at(2)), None);
        assert_eq!(owner_in(&told[..66], at(1), at(2)), None, "it is cut off");
    }

    #[test]
    fn a_listener_in_the_place_of_a_connection_is_not_its_user() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        assert_eq!(owner(at, "127.0.0.1:9".parse().unwrap()).unwrap(), None);
    }
}
