//! The ssh server of one session. Give it listeners and connections; it has none of its own. Owns the bounds on clients
//! who have not proved who they are.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use nix::sys::socket::{Shutdown, shutdown};
use russh::{Disconnect, MethodKind, keys::PrivateKey, server};
use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader},
    net::{TcpListener, TcpStream, UnixStream},
    sync::{Semaphore, watch},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    agent::Temporary,
    algorithms,
    auth::{Authentication, Door, Peer, Progress, Way},
    connection::Connection,
    environment,
    owner::Owner,
};
use crate::{host::LocalHost, sys::diag, terminal::Terminals};

/// How long a client has to say who it is.
const LOGIN_GRACE: Duration = Duration::from_secs(60);
/// How long those under way may take when the session has ended.
const DRAIN: Duration = Duration::from_millis(200);
/// The most connections at once.
const CONNECTIONS: usize = 256;
/// Read from the network in one go, so that a packet's length and the packet do not take a system call each.
const READ_AHEAD: usize = 64 * 1024;

/// What a server is to be.
pub struct Settings {
    /// What its clients get at.
    pub inside: Inside,
    /// Its key.
    pub host_key: PrivateKey,
}

/// What clients get at.
pub struct Inside {
    /// The session's programs and its network.
    pub host: Arc<LocalHost>,
    /// Its terminals.
    pub terminals: Terminals,
    /// Its temporary files.
    pub temporary: Temporary,
}

/// A session's ssh server. Cheap to clone.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    inside: Arc<Inside>,
    door: Arc<Door>,
    /// For those who come over the network.
    network: Arc<server::Config>,
    /// For the owner's own processes.
    control: Arc<server::Config>,
    places: Arc<Semaphore>,
    closing: watch::Sender<bool>,
}

impl Server {
    /// A server without clients.
    ///
    /// # Errors
    /// Where the user of this process is not known to the system.
    pub fn new(settings: Settings) -> io::Result<Self> {
        let Settings { inside, host_key } = settings;
        let network = algorithms::config(host_key.clone(), &[MethodKind::PublicKey, MethodKind::Password]);
        let control = algorithms::config(host_key, &[MethodKind::None]);
        Ok(Self(Arc::new(Inner {
            inside: Arc::new(inside),
            door: Arc::new(Door::new(Owner::of_this_process()?)),
            network: Arc::new(network),
            control: Arc::new(control),
            places: Arc::new(Semaphore::new(CONNECTIONS)),
            closing: watch::Sender::new(false),
        })))
    }

    /// Serves a TCP listener until [`Server::close`].
    pub async fn serve_tcp(self, listener: std::net::TcpListener) {
        let listener = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
        let listener = match listener {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "the ssh server cannot use its listener"),
        };
        let mut closing = self.0.closing.subscribe();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = closing.wait_for(|closing| *closing) => return,
            };
            match accepted {
                Ok((stream, from)) => self.accept(stream, from),
                // Out of descriptors, for one, which others are giving back.
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn accept(&self, stream: TcpStream, from: SocketAddr) {
        // Who does not get a place is told nothing: telling takes one.
        let Ok(place) = Arc::clone(&self.0.places).try_acquire_owned() else { return };
        let Ok((to, cut)) = stream.local_addr().and_then(|to| Ok((to, Cut::of(&stream)?))) else { return };
        // It is only slower without.
        let _ = stream.set_nodelay(true);
        let source = Peer { from: Some(from), to: Some(to), uid: user_at(to, from) };
        let server = self.clone();
        tokio::spawn(async move {
            let config = Arc::clone(&server.0.network);
            server.serve(stream, cut, config, Way::Network, source).await;
            drop(place);
        });
    }

    /// Serves a connection that came from one of the owner's own processes, as the kernel has said.
    pub async fn serve_owner(&self, stream: std::os::unix::net::UnixStream) {
        let Ok(_place) = Arc::clone(&self.0.places).try_acquire_owned() else { return };
        let ready = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
        let Ok((stream, cut)) = ready.and_then(|stream| Cut::of(&stream).map(|cut| (stream, cut))) else {
            return;
        };
        let config = Arc::clone(&self.0.control);
        self.serve(stream, cut, config, Way::Control, Peer::default()).await;
    }

    /// Says goodbye to all clients, and lets nobody in any more.
    pub async fn close(&self) {
        self.0.closing.send_replace(true);
        // All places are free when nobody is here any more.
        let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
        let _ = timeout(DRAIN * 2, self.0.places.acquire_many(all)).await;
    }

    async fn serve<S>(&self, stream: S, cut: Cut, config: Arc<server::Config>, way: Way, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (authentication, mut progress) = Authentication::new(Arc::clone(&self.0.door), way, peer);
        let origin = environment::of_connection(peer.from, peer.to);
        let connection = Connection::new(Arc::clone(&self.0.inside), authentication, origin);
        let stream = BufReader::with_capacity(READ_AHEAD, stream);
        let grace = Instant::now() + LOGIN_GRACE;
        let begun = timeout_at(grace, server::run_stream(config, stream, connection)).await;
        let Ok(Ok(mut session)) = begun else { return };
        let handle = session.handle();
        let mut closing = self.0.closing.subscribe();
        let ended = tokio::select! {
            ended = &mut session => ended,
            () = overdue(grace, &mut progress) => {
                tracing::info!(%peer, "an ssh client did not say in time who it is");
                cut.now();
                session.await
            }
            () = async { let _ = closing.wait_for(|closing| *closing).await; } => {
                let goodbye = handle.disconnect(Disconnect::ByApplication, "the session has ended".to_owned(), String::new());
                let _ = timeout(DRAIN, goodbye).await;
                let ended = timeout(DRAIN, &mut session).await;
                cut.now();
                match ended {
                    Ok(ended) => ended,
                    Err(_) => session.await,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "an ssh connection broke off");
        }
    }
}

/// Returns when it is time and the client has not said who it is.
async fn overdue(at: Instant, progress: &mut watch::Receiver<Progress>) {
    if timeout_at(at, progress.wait_for(|progress| *progress == Progress::Known)).await.is_ok() {
        // Known, or gone altogether.
        std::future::pending::<()>().await;
    }
}

/// Ends a connection from outside, whatever its task does at that moment.
struct Cut(OwnedFd);

impl Cut {
    fn of(socket: &impl AsFd) -> io::Result<Self> {
        Ok(Self(socket.as_fd().try_clone_to_owned()?))
    }

    fn now(&self) {
        // One that is closed already needs no more.
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Both);
    }
}

/// The user at the other end of a connection within this node, where the kernel tells.
fn user_at(ours: SocketAddr, theirs: SocketAddr) -> Option<u32> {
    diag::owner(theirs, ours).ok().flatten()
}
