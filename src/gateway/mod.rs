//! The personal gateway: the one way into one session. Owns its tokens, cookies and pages, and decides who may pass;
//! carrying requests is the business of `nginx-free`, and reaching the app that of the [`Dial`] it is given.

mod admission;
pub mod certificate;
mod cookies;
mod filter;
mod follow;
#[cfg(fuzzing)]
pub mod fuzzing;
mod origin;
mod pages;
mod query;
mod terminal;
#[cfg(test)]
mod tests;
mod tokens;

use std::{
    io,
    net::SocketAddr,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use nginx_free::{Dial, Limits, Listener, PeerKey, Proxy, log::AccessLog};
use rustls::ServerConfig;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    activity::Activity,
    share::Guests,
    sys::diag,
    terminal::Terminals,
    words::{Secret, SessionId, SessionName},
};
use admission::{App, Door};

/// What one session's gateway is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// The session; its cookie is named after it.
    pub session: SessionId,
    /// What its pages call it.
    pub name: SessionName,
    /// The host names under which it answers, without ports. IP addresses are always answered.
    pub names: Vec<String>,
    /// How long a token is good.
    pub token_lifetime: Duration,
    /// How long a cookie is good.
    pub cookie_lifetime: Duration,
    /// Whether a cookie is good only from the address that fetched it. The text of `cookies` says why.
    pub bind_cookie: bool,
    /// Whether browsers are told how long the app took to answer.
    pub server_timing: bool,
    /// The file that the starting page follows.
    pub log: PathBuf,
}

/// How far a session's app is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Phase {
    /// No node runs it yet, or none any more.
    Waiting {
        /// Where it stands, in a sentence for its owner.
        summary: String,
    },
    /// It does not answer yet.
    Starting,
    /// It answers.
    Running,
    /// Its job is over, and it may be started again.
    Interrupted {
        /// Why, in a sentence for its owner.
        summary: String,
    },
    /// It is gone.
    Ended {
        /// How it ended, in a sentence for its owner.
        summary: String,
    },
}

/// Somebody who may wants the session to be started again.
pub struct Restart {
    /// The socket of a process that wants to follow it.
    pub follower: Option<OwnedFd>,
    /// Hears that it is on its way, or why not.
    pub answer: oneshot::Sender<Result<(), String>>,
}

/// What else of the session a gateway sees.
pub struct Seen {
    /// How far its app is.
    pub phase: watch::Receiver<Phase>,
    /// How many bytes its log has: the starting page reads on when it grows.
    pub log_len: watch::Receiver<u64>,
    /// Its terminals.
    pub terminals: Terminals,
    /// Who is let in to them.
    pub guests: Guests,
    /// When its time is over, where something limits that.
    pub ends: watch::Receiver<Option<Timestamp>>,
    /// To whoever can start it again; where nobody hears that, it runs in no job.
    pub restart: mpsc::Sender<Restart>,
    /// Where it is counted how much it is used.
    pub activity: Activity,
}

/// Each client may need a connection to the app as well, and what is not a client's needs some, too: strangers must not
/// be able to take the last descriptor.
fn most_connections() -> usize {
    let spare = crate::sys::process::descriptor_limit().saturating_sub(128) / 2;
    spare.clamp(16, Limits::default().connections)
}

/// Whatever the others of this node do, its owner gets in from it: a part of what there is is kept for her.
fn limits() -> Limits {
    let (usual, connections) = (Limits::default(), most_connections());
    Limits {
        // Our own paths are told from the app's by their first segment.
        routed_segments: 1,
        connections,
        connections_per_peer: usual.connections_per_peer.min(connections / 4),
        // As many as a browser's tabs and a program's clients use at once: over a link, a new one costs several round trips.
        pool: 64,
        reserved: Some(PeerKey::Local(nix::unistd::getuid().as_raw())),
        ..usual
    }
}

/// One session's gateway. Give it listeners; it has none of its own.
pub struct Gateway<D: Dial> {
    proxy: Proxy<Door<D>>,
    tls: Arc<ServerConfig>,
}

impl<D: Dial> Gateway<D> {
    /// A gateway that reaches its app by `dial`, and tells `log` what it was asked.
    pub fn new(
        options: Options,
        tls: Arc<ServerConfig>,
        dial: D,
        seen: Seen,
        log: impl AccessLog,
    ) -> Arc<Self> {
        let limits = limits();
        let app = App::new(&options.session.to_string(), dial, &limits, &seen.activity);
        let (metrics, server_timing) = (Arc::default(), options.server_timing);
        let door = Door::new(options, app, limits.clone(), Arc::clone(&metrics), seen);
        let proxy = Proxy::counting(door, limits, metrics).with_access_log(log);
        Arc::new(Self { proxy: if server_timing { proxy.with_server_timing() } else { proxy }, tls })
    }

    /// A new token for the URL. It is good once, for [`Options::token_ttl`].
    ///
    /// # Errors
    /// Where the kernel has no random numbers.
    pub fn issue(&self) -> io::Result<Secret> {
        self.proxy.admit().issue()
    }

    /// Spends a token that was not presented to the gateway but to the session's ssh server. Whether it was good.
    pub fn spend(&self, token: &str) -> bool {
        self.proxy.admit().spend(token)
    }

    /// Serves a TCP listener until `closing` turns true, then lets open requests end. All users of this node come from the
    /// same addresses, `ssh -L` included: the kernel tells them apart.
    pub async fn serve_tcp(self: Arc<Self>, listener: std::net::TcpListener, closing: watch::Receiver<bool>) {
        let listener =
            listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener));
        let identified = |listener| Listener::tcp(listener).identified_by(user_at);
        self.serve(listener.map(identified), closing).await;
    }

    /// Serves a unix socket, with TLS as well: what a browser at the end of `ssh -L` sees is the same.
    pub async fn serve_unix(self: Arc<Self>, listener: UnixListener, closing: watch::Receiver<bool>) {
        let listener =
            listener.set_nonblocking(true).and_then(|()| tokio::net::UnixListener::from_std(listener));
        self.serve(listener.map(Listener::unix), closing).await;
    }

    async fn serve(&self, listener: io::Result<Listener>, closing: watch::Receiver<bool>) {
        match listener {
            Ok(listener) => self.proxy.serve(listener.with_tls(Arc::clone(&self.tls)), closing).await,
            Err(error) => tracing::error!(%error, "the gateway cannot use its listener"),
        }
    }
}

/// The user at the other end of a connection within this node. That of a process in another network namespace, and of one
/// that has chosen an interface, is not found: those share one client's limits.
fn user_at(ours: SocketAddr, theirs: SocketAddr) -> Option<u32> {
    diag::owner(theirs, ours).unwrap_or_else(|error| {
        tracing::debug!(%error, "the kernel does not tell whose a connection is");
        None
    })
}
