//! Listeners, and a run of the proxy on one of them.

use std::{io, sync::Arc, time::Duration};

use rustls::ServerConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::{mpsc, watch},
};

use crate::{Admit, Peer, Proxy, connection, io::Socket, service::Run};

/// Where clients connect to.
pub struct Listener {
    kind: Kind,
    tls: Option<Arc<ServerConfig>>,
}

enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// A TCP listener, without TLS.
    pub fn tcp(listener: TcpListener) -> Self {
        Self { kind: Kind::Tcp(listener), tls: None }
    }

    /// A unix socket, without TLS.
    pub fn unix(listener: UnixListener) -> Self {
        Self { kind: Kind::Unix(listener), tls: None }
    }

    /// The same with TLS. HTTP/2 is spoken where the configuration offers `h2` by ALPN.
    #[must_use]
    pub fn with_tls(mut self, config: Arc<ServerConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    async fn accept(&self, stall: Duration) -> io::Result<(Socket, Peer)> {
        match &self.kind {
            Kind::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Neither is worth losing the client for.
                let socket = SockRef::from(&stream);
                let _ = socket.set_tcp_nodelay(true);
                let _ = socket.set_tcp_keepalive(&keepalive());
                Ok((Socket::tcp(stream, stall), Peer::tcp(address)))
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
    pub async fn serve(&self, listener: Listener, mut closing: watch::Receiver<bool>) {
        let limits = &self.shared.room.limits;
        let (alive, mut ended) = mpsc::channel(1);
        let run = Run { closing: closing.clone(), _alive: alive };
        let mut tasks = tokio::task::JoinSet::new();
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
            let Some(seat) = self.shared.room.seat(&peer) else {
                tracing::debug!(%peer, "a connection was turned away: too many are open");
                if let Some(exit) = self.shared.room.exit() {
                    tasks.spawn(connection::turn_away(socket, tls, run, limits.clone(), exit));
                }
                continue;
            };
            tasks.spawn(connection::serve(Arc::clone(&self.shared), seat, socket, peer, tls, run));
        }
        drop((listener, run));
        // What is still open after this time is cut when `tasks` is dropped.
        let drained = tokio::time::timeout(limits.drain, ended.recv()).await;
        if drained.is_err() {
            tracing::debug!(open = tasks.len(), "connections were cut after the time to drain");
        }
    }
}

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
