//! The ssh server of one session. Give it listeners and connections; it has none of its own. Owns the bounds on clients
//! who have not proved who they are.

use std::{
    ffi::OsString,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use nginx_free::{Peer, PeerKey};
use nix::sys::socket::{Shutdown, shutdown};
use russh::{Disconnect, MethodKind, keys::PublicKey, server};
use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader},
    net::{TcpListener, TcpStream, UnixStream},
    sync::{Semaphore, watch},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    agent::Temporary,
    algorithms,
    auth::{self, Authentication, Door, Progress, Seen, SpendToken, Way},
    connection::{Connection, ConnectionError},
    environment,
    host_key::{self, HostKeyError},
    owner::Owner,
    password::Passwords,
    penalties::{Offence, Penalties},
    prompt::prompt,
    startups::{Bounds, Startup, Startups},
};
use crate::{activity::Activity, config, host::Host, share::Guests, sys::diag, terminal::Terminals};

/// How long those under way may take when the session has ended.
const DRAIN: Duration = Duration::from_millis(200);
/// The most connections at once, over the network; and as many of the owner's own processes, whoever else is here.
const CONNECTIONS: usize = 256;
/// Read from the network in one go, so that a packet's length and the packet do not take a system call each.
const READ_AHEAD: usize = 64 * 1024;

/// What a server is to be.
pub struct Settings {
    /// What its clients get at.
    pub inside: Inside,
    /// The folder of its key.
    pub keys: PathBuf,
    /// How it is configured.
    pub config: config::Ssh,
    /// By which somebody who has a token of the session's in place of a password comes in.
    pub spend_token: SpendToken,
}

/// What clients get at.
pub struct Inside {
    /// The session's programs and its network.
    pub host: Arc<Host>,
    /// Its terminals.
    pub terminals: Terminals,
    /// Its temporary files, where they are on this machine.
    pub temporary: Option<Temporary>,
    /// Who is let in to a terminal.
    pub guests: Guests,
    /// Where it is counted how much it is used.
    pub activity: Activity,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// It has no key.
    #[error("{0}")]
    HostKey(String),
    /// The system does not know the user.
    #[error("cannot tell whose ssh server this is: {0}")]
    Owner(#[source] io::Error),
}

impl From<HostKeyError> for ServerError {
    fn from(error: HostKeyError) -> Self {
        Self::HostKey(error.to_string())
    }
}

/// A session's ssh server. Cheap to clone.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    key: PublicKey,
    inside: Arc<Inside>,
    door: Arc<Door>,
    /// For those who come over the network.
    network: Arc<server::Config>,
    /// For the owner's own processes.
    control: Arc<server::Config>,
    places: Arc<Semaphore>,
    own_places: Arc<Semaphore>,
    startups: Startups,
    grace: Duration,
    closing: watch::Sender<bool>,
}

impl Server {
    /// A server without clients.
    ///
    /// # Errors
    /// As [`ServerError`].
    pub fn new(settings: Settings) -> Result<Self, ServerError> {
        let Settings { inside, keys, config, spend_token } = settings;
        let key = host_key::load_or_create(&keys)?;
        let public = key.public_key().clone();
        let network = algorithms::config(key.clone(), &[MethodKind::PublicKey, MethodKind::Password]);
        let control = algorithms::config(key, &[MethodKind::None]);
        let owner = Owner::of_this_process().map_err(ServerError::Owner)?;
        let startups = Startups::new(Bounds::default(), PeerKey::Local(owner.uid));
        let passwords = config.password.then(|| Passwords::new(config.pam_service));
        let guests = inside.guests.clone();
        let penalties = Mutex::new(Penalties::default());
        let door = Door { owner, guests, passwords, spend_token, penalties };
        Ok(Self(Arc::new(Inner {
            key: public,
            inside: Arc::new(inside),
            door: Arc::new(door),
            network: Arc::new(network),
            control: Arc::new(control),
            places: Arc::new(Semaphore::new(CONNECTIONS)),
            own_places: Arc::new(Semaphore::new(CONNECTIONS)),
            startups,
            grace: config.login_grace.duration(),
            closing: watch::Sender::new(false),
        })))
    }

    /// Its key, as `known_hosts` has it: algorithm and key.
    pub fn host_key(&self) -> String {
        PublicKey::from(self.0.key.key_data().clone()).to_openssh().unwrap_or_default()
    }

    /// That key's fingerprint, as clients show it.
    pub fn fingerprint(&self) -> String {
        host_key::fingerprint(&self.0.key)
    }

    /// Serves a TCP listener until [`Server::close`]; with `only`, just those who come to this address: the port is bound on
    /// all of them, for that is what makes the pod ours.
    pub async fn serve_tcp(self, listener: std::net::TcpListener, only: Option<IpAddr>) {
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
                Ok((stream, from)) => self.accept(stream, from, only),
                // Out of descriptors, for one, which others are giving back.
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn accept(&self, stream: TcpStream, from: SocketAddr, only: Option<IpAddr>) {
        let Ok((to, cut)) = stream.local_addr().and_then(|to| Ok((to, Cut::of(&stream)?))) else { return };
        if only.is_some_and(|only| only.to_canonical() != to.ip().to_canonical()) {
            return;
        }
        let peer = match user_at(to, from) {
            Some(uid) => Peer::tcp(from).identified(uid),
            None => Peer::tcp(from),
        };
        // Who does not get a place is told nothing: telling takes one.
        if self.0.door.keeps_away(&peer) {
            return;
        }
        let Some(startup) = self.0.startups.begin(peer.key()) else { return };
        let Ok(place) = Arc::clone(&self.0.places).try_acquire_owned() else { return };
        // It is only slower without.
        let _ = stream.set_nodelay(true);
        let stream = prompt(stream, Arc::clone(&cut.0));
        let server = self.clone();
        tokio::spawn(async move {
            let arrival = Arrival {
                config: Arc::clone(&server.0.network),
                way: Way::Network,
                origin: environment::of_connection(Some(from), Some(to)),
                peer,
                cut,
                startup: Some(startup),
            };
            server.serve(stream, arrival).await;
            drop(place);
        });
    }

    /// Serves a connection that came from one of the owner's own processes, as the kernel has said.
    pub async fn serve_owner(&self, stream: std::os::unix::net::UnixStream) {
        let Ok(_place) = Arc::clone(&self.0.own_places).try_acquire_owned() else { return };
        let ready = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
        let Ok((stream, cut)) = ready.and_then(|stream| Cut::of(&stream).map(|cut| (stream, cut))) else {
            return;
        };
        let arrival = Arrival {
            config: Arc::clone(&self.0.control),
            way: Way::Control,
            origin: environment::of_connection(None, None),
            peer: Peer::Unix { uid: Some(self.0.door.owner.uid) },
            cut,
            startup: None,
        };
        self.serve(stream, arrival).await;
    }

    /// Says goodbye to all clients, and lets nobody in any more.
    pub async fn close(&self) {
        self.0.closing.send_replace(true);
        // All places are free when nobody is here any more.
        let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
        let gone =
            async { tokio::join!(self.0.places.acquire_many(all), self.0.own_places.acquire_many(all)) };
        let _ = timeout(DRAIN * 2, gone).await;
    }

    async fn serve<S>(&self, stream: S, arrival: Arrival)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Arrival { config, way, origin, peer, cut, mut startup } = arrival;
        let (authentication, seen) = Authentication::new(Arc::clone(&self.0.door), way, peer);
        let progress = seen.progress.clone();
        let connection = Connection::new(Arc::clone(&self.0.inside), authentication, origin);
        let stream = BufReader::with_capacity(READ_AHEAD, stream);
        let grace = Instant::now() + self.0.grace;
        let begun = timeout_at(grace, server::run_stream(config, stream, connection)).await;
        let mut session = match begun {
            Ok(Ok(session)) => session,
            Ok(Err(_)) => return self.0.door.note(&peer, Offence::NothingTried),
            Err(_) => return self.0.door.note(&peer, Offence::GraceExceeded),
        };
        let handle = session.handle();
        let mut closing = self.0.closing.subscribe();
        let ended = tokio::select! {
            ended = &mut session => ended,
            () = overdue(grace, progress.clone(), &mut startup) => {
                self.0.door.note(&peer, Offence::GraceExceeded);
                cut.now();
                return drop(session.await);
            }
            why = time_to_go(&mut closing, seen) => {
                let goodbye = handle.disconnect(Disconnect::ByApplication, why, String::new());
                let _ = timeout(DRAIN, goodbye).await;
                let ended = timeout(DRAIN, &mut session).await;
                cut.now();
                match ended {
                    Ok(ended) => ended,
                    Err(_) => session.await,
                }
            }
        };
        match *progress.borrow() {
            Progress::Silent => self.0.door.note(&peer, Offence::NothingTried),
            Progress::Refused => self.0.door.note(&peer, Offence::AuthenticationFailed),
            Progress::Known => {}
        }
        if let Err(error) = ended {
            if matches!(error, ConnectionError::Protocol(russh::Error::Join(_))) {
                self.0.door.note(&peer, Offence::Crash);
            }
            tracing::debug!(peer = auth::shown(&peer), %error, "an ssh connection broke off");
        }
    }
}

/// A connection that has just been made.
struct Arrival {
    config: Arc<server::Config>,
    way: Way,
    /// What programs hear of where it comes from.
    origin: Vec<(OsString, OsString)>,
    peer: Peer,
    cut: Cut,
    /// Its place among those who have not proved who they are.
    startup: Option<Startup>,
}

/// Waits until everybody has to go, or this client has: the session has ended, or a guest's visit has.
async fn time_to_go(closing: &mut watch::Receiver<bool>, seen: Seen) -> String {
    tokio::select! {
        () = async { drop(closing.wait_for(|closing| *closing).await); } => "the session has ended".to_owned(),
        why = seen.visit_over() => {
            // His terminal says it first, in its own way.
            sleep(DRAIN).await;
            format!("your visit is over: {why}")
        }
    }
}

/// Returns when it is time and the client has not proved who it is.
async fn overdue(at: Instant, mut progress: watch::Receiver<Progress>, startup: &mut Option<Startup>) {
    if timeout_at(at, progress.wait_for(|progress| *progress == Progress::Known)).await.is_ok() {
        // Known, or gone altogether.
        drop(startup.take());
        std::future::pending::<()>().await;
    }
}

/// Ends a connection from outside, whatever its task does at that moment.
struct Cut(Arc<OwnedFd>);

impl Cut {
    fn of(socket: &impl AsFd) -> io::Result<Self> {
        Ok(Self(Arc::new(socket.as_fd().try_clone_to_owned()?)))
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
