//! Listeners, and a run of the proxy on one of them.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::ServerConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener},
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{Admit, Peer, Proxy, connection, io::Socket, proxy::Shared, service::Run};

/// Where clients connect to.
pub struct Listener {
    kind: Kind,
    tls: Option<Arc<ServerConfig>>,
    who: Option<Box<Who>>,
}

/// Tells the user at the other end of a connection, given both of its addresses: ours, and theirs.
type Who = dyn Fn(SocketAddr, SocketAddr) -> Option<u32> + Send + Sync;

enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// A TCP listener, without TLS.
    pub fn tcp(listener: TcpListener) -> Self {
        // What is accepted has the options of what it was accepted from. None is worth losing clients for.
        let socket = SockRef::from(&listener);
        let _ = socket.set_tcp_nodelay(true);
        let _ = socket.set_tcp_keepalive(&keepalive());
        let _ = socket.set_tcp_notsent_lowat(UNSENT);
        Self { kind: Kind::Tcp(listener), tls: None, who: None }
    }

    /// A unix socket, without TLS.
    pub fn unix(listener: UnixListener) -> Self {
        Self { kind: Kind::Unix(listener), tls: None, who: None }
    }

    /// The same with TLS. HTTP/2 is spoken where the configuration offers `h2` by ALPN.
    #[must_use]
    pub fn with_tls(mut self, config: Arc<ServerConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// The same with `who` to tell the users of this machine apart, for all of them come from the same addresses. It is
    /// asked for each TCP connection that comes from loopback, or from the very address that it goes to: given our address
    /// and theirs, it tells the user id of the process at the other end, or that it does not know. It must not block.
    ///
    /// Limits then count for each user; those that are not known share what one client has, as all did before.
    #[must_use]
    pub fn identified_by<F>(mut self, who: F) -> Self
    where
        F: Fn(SocketAddr, SocketAddr) -> Option<u32> + Send + Sync + 'static,
    {
        self.who = Some(Box::new(who));
        self
    }

    fn peer(&self, stream: &TcpStream, theirs: SocketAddr) -> Peer {
        let peer = Peer::tcp(theirs);
        let Some(who) = &self.who else { return peer };
        let Ok(ours) = stream.local_addr() else { return peer };
        if !peer.ip().is_some_and(|ip| ip.is_loopback() || ip == ours.ip().to_canonical()) {
            return peer;
        }
        who(ours, theirs).map_or(peer, |uid| peer.identified(uid))
    }

    async fn accept(&self, stall: Duration) -> io::Result<(Socket, Peer)> {
        match &self.kind {
            Kind::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                let peer = self.peer(&stream, address);
                Ok((Socket::tcp(stream, stall), peer))
            }
            Kind::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
                Ok((Socket::unix(stream, stall), Peer::Unix { uid }))
            }
        }
    }
}

impl<A: Admit> Proxy<A> {
    /// Serves one listener until `closing` turns true, or its sender is gone. Then no connection is taken any more, open
    /// requests may end within [`Limits::drain`](crate::Limits::drain), and WebSockets are cut. Call it once for each
    /// listener.
    pub async fn serve(&self, listener: Listener, closing: watch::Receiver<bool>) {
        // In a task of its own: what a runtime is blocked on takes a system call to be woken, and this is for each connection.
        let mut serving = JoinSet::new();
        serving.spawn(serve(Arc::clone(&self.shared), listener, closing));
        if let Some(Err(error)) = serving.join_next().await
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

async fn serve<A: Admit>(shared: Arc<Shared<A>>, listener: Listener, mut closing: watch::Receiver<bool>) {
    let limits = &shared.room.limits;
    let (alive, mut ended) = mpsc::channel(1);
    let run = Run { closing: closing.clone(), _alive: alive };
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(limits.send_stall) => accepted,
            Some(_) = tasks.join_next() => continue,
            _ = closing.wait_for(|closing| *closing) => break,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        let (tls, run) = (listener.tls.clone(), run.clone());
        let Some(seat) = shared.room.seat(&peer) else {
            tracing::debug!(%peer, "a connection was turned away: too many are open");
            if let Some(exit) = shared.room.exit() {
                tasks.spawn(connection::turn_away(socket, tls, run, limits.clone(), exit));
            }
            continue;
        };
        tasks.spawn(connection::serve(Arc::clone(&shared), seat, socket, peer, tls, run));
    }
    drop((listener, run));
    // What is still open after this time is cut when `tasks` is dropped.
    let drained = tokio::time::timeout(limits.drain, ended.recv()).await;
    if drained.is_err() {
        tracing::debug!(open = tasks.len(), "connections were cut after the time to drain");
    }
}

/// Bytes that the kernel takes for a client beyond what it can send. Without this it takes more and more, up to megabytes,
/// while the client takes none of it: each time it would seem to us that the client reads on. What is on its way does
/// not count, so that a far client gets as much at a time as before.
const UNSENT: u32 = 32 * 1024;

/// A WebSocket may be silent for hours; a laptop that went away without a word is noticed within three minutes.
fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(90))
        .with_interval(Duration::from_secs(15))
        .with_retries(6)
}

/// Out of descriptors or memory: waiting lets others go, while retrying at once would spin.
async fn pause_after(error: &io::Error) {
    let of_the_client = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    );
    if !of_the_client {
        tracing::warn!(%error, "no connection could be accepted");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_accepted_has_the_listener_s_options() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let Kind::Tcp(listener) = Listener::tcp(listener).kind else { panic!("it is TCP") };
        let (_client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (stream, _) = accepted.unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(90));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(15));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 6);
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT);
    }
}
