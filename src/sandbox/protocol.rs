//! What supervisor, keeper and init say to each other.
//!
//! ```text
//! supervisor                     keeper                         init
//!     │ ── spawn (fd 3, 4: init's) ─►│                             │
//!     │ ── SandboxSpec (file) ──────►│ ── spawn ─► unshare, fork ─►│ PID 1
//!     │                              │◄── Born(pid) ───────────────│ mounts …
//!     │                              │ ── helper (pasta) ──►       │ …
//!     │                              │ ── Go ─────────────────────►│ drops its rights
//!     │◄─────────────────────────────────────────────── Ready ─────│
//!     │ ── Spawn, Sftp, Dial, Listen, Listeners, Usage, … ────────►│
//!     │◄────────── Spawned, Exited, Connected, …, RoomBroken ──────│
//!     │◄── Ended(why) ───────────────│ when init or the helper dies │
//! ```
//! One message is one datagram of a `SOCK_SEQPACKET` pair, in JSON, its descriptors beside it. Whoever receives
//! something that does not fit ends the session: both ends are the same binary.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::sys::{message, process::Exit};

/// Numbers a request, so that its answer is known.
pub type RequestId = u64;

/// Where an app listens.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Endpoint {
    /// At this address in the sandbox's network.
    Tcp(SocketAddr),
    /// At a socket in the filesystem, with [`crate::words::Isolation::Socket`].
    Unix(PathBuf),
}

/// From the supervisor to init.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Start a program. Descriptors: a file with a [`crate::sys::spawn::Program`], then its stdin, stdout and stderr, or,
    /// with `terminal`, one terminal.
    Spawn {
        /// Answered by [`Event::Spawned`] or [`Event::NotSpawned`], later by [`Event::Exited`].
        id: RequestId,
        /// One terminal instead of three streams.
        terminal: bool,
    },
    /// Start the role that serves the session's files. Descriptors: a file with a [`crate::sftp::SftpSpec`], then its
    /// stdin, stdout and stderr.
    Sftp {
        /// Answered as a `Spawn`'s.
        id: RequestId,
    },
    /// Send a signal to the process group of a program started under `id`.
    Signal {
        /// That of its `Spawn` or `Sftp`.
        id: RequestId,
        /// As in `signal(7)`.
        signal: i32,
    },
    /// Connect to the app. Answered by [`Event::Connected`] or [`Event::NotConnected`].
    Dial {
        /// Numbers the request.
        id: RequestId,
        /// Where to.
        to: Endpoint,
    },
    /// Listen, for programs of the session. Answered by [`Event::Listening`] or [`Event::NotListening`].
    Listen {
        /// Numbers the request.
        id: RequestId,
        /// Where; port 0 for any.
        at: Endpoint,
    },
    /// Remove the unix socket at this path, if it is still the one that a [`Request::Listen`] made.
    Unlink {
        /// As it was told then.
        path: PathBuf,
    },
    /// Say what listens. Answered by [`Event::Listeners`].
    Listeners {
        /// Numbers the request.
        id: RequestId,
    },
    /// Say what its processes have used. Answered by [`Event::Usage`].
    Usage {
        /// Numbers the request.
        id: RequestId,
    },
    /// From now on, the end of any process that runs in the sandbox at this moment is [`Event::RoomBroken`].
    WatchRoom,
}

/// From init to the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub enum Event {
    /// The sandbox stands, and nothing runs in it yet. Descriptors: a UDP and a TCP socket for each of
    /// [`super::SandboxSpec::resolvers`], in this order.
    Ready,
    /// It could not be made.
    Failed {
        /// What was tried.
        what: String,
        /// `errno(3)`, 0 where none.
        errno: i32,
    },
    /// The program runs.
    Spawned {
        /// That of its `Spawn`.
        id: RequestId,
    },
    /// The program could not be started.
    NotSpawned {
        /// That of its `Spawn`.
        id: RequestId,
        /// `errno(3)`, 0 where none.
        errno: i32,
    },
    /// The program ended.
    Exited {
        /// That of its `Spawn`.
        id: RequestId,
        /// How.
        exit: Exit,
    },
    /// A connection to the app, as the message's one descriptor.
    Connected {
        /// That of its `Dial`.
        id: RequestId,
    },
    /// No connection.
    NotConnected {
        /// That of its `Dial`.
        id: RequestId,
        /// `errno(3)`, 0 where none.
        errno: i32,
    },
    /// A listening socket, as the message's one descriptor.
    Listening {
        /// That of its `Listen`.
        id: RequestId,
    },
    /// None.
    NotListening {
        /// That of its `Listen`.
        id: RequestId,
        /// `errno(3)`, 0 where none.
        errno: i32,
    },
    /// What listens in the sandbox's network, or, without one, what its processes opened to everybody.
    Listeners {
        /// That of the request.
        id: RequestId,
        /// In no order.
        addresses: Vec<SocketAddr>,
        /// Without namespaces, the abstract unix sockets that the session's processes opened.
        names: Vec<String>,
    },
    /// What the processes of the sandbox have used, init itself left out.
    Usage {
        /// That of the request.
        id: RequestId,
        /// Time on processors; none where it cannot be read.
        cpu: Option<std::time::Duration>,
    },
    /// A process of the room ended: its file system or its instance is no more.
    RoomBroken {
        /// The process's name.
        name: String,
    },
}

/// From init's first stage, and then from init, to the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub enum InitToKeeper {
    /// PID 1 of the sandbox, by its number outside.
    Born {
        /// As the keeper sees it.
        pid: i32,
    },
    /// The namespaces could not be made.
    Failed {
        /// What was tried.
        what: String,
        /// `errno(3)`, 0 where none.
        errno: i32,
    },
}

/// From the keeper to init: the network is in place.
#[derive(Debug, Serialize, Deserialize)]
pub struct Go;

/// From the keeper to the supervisor: the sandbox is no more.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ended {
    /// Why, for the record.
    pub why: Demise,
}

/// Why a sandbox ended, or did not come to be.
#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Demise {
    /// The machine refused the namespaces.
    #[error("this machine does not allow the sandbox: {what}: {}", io::Error::from_raw_os_error(*.errno))]
    Forbidden {
        /// What was tried.
        what: String,
        /// `errno(3)`, 0 where none.
        errno: i32,
    },
    /// The network helper could not be started or said why not.
    #[error("no network from {program}: {detail}")]
    NoNetwork {
        /// Its path.
        program: String,
        /// Its last words.
        detail: String,
    },
    /// The network helper died in mid-session.
    #[error("the network helper ended ({0})")]
    HelperEnded(Exit),
    /// Init died.
    #[error("the sandbox's first process ended ({0})")]
    InitEnded(Exit),
    /// A process could not be started.
    #[error("cannot start the sandbox: {what}: {}", io::Error::from_raw_os_error(*.errno))]
    Failed {
        /// What was tried.
        what: String,
        /// `errno(3)`, 0 where none.
        errno: i32,
    },
}

/// Sends one message.
///
/// # Errors
/// As [`message::send`].
pub fn send<T: Serialize>(socket: BorrowedFd<'_>, value: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    message::send(socket, &serde_json::to_vec(value)?, fds)
}

/// Receives one message. `None` where the other end is gone.
///
/// # Errors
/// As [`message::receive`]; `InvalidData` where it is not a `T`.
pub fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut buffer = vec![0; message::MAX_LEN];
    match message::receive(socket, &mut buffer)? {
        Some((len, fds)) => Ok(Some((serde_json::from_slice(&buffer[..len])?, fds))),
        None => Ok(None),
    }
}

/// Puts a value of any size into an anonymous file, to be sent by its descriptor.
///
/// # Errors
/// As [`crate::sys::descriptor::anonymous_file`].
pub fn to_file<T: Serialize>(value: &T) -> io::Result<OwnedFd> {
    crate::sys::descriptor::anonymous_file("shlogin", &serde_json::to_vec(value)?)
}

/// Reads a value that [`to_file`] wrote.
///
/// # Errors
/// As `read(2)`; `InvalidData` where it is not a `T`.
pub fn from_file<T: DeserializeOwned>(file: OwnedFd) -> io::Result<T> {
    Ok(serde_json::from_reader(io::BufReader::new(std::fs::File::from(file)))?)
}

/// Waits until a socket has something to receive, or its other end is gone.
///
/// # Errors
/// As `poll(2)`; `TimedOut` after `limit`.
pub fn wait_readable<Fd: AsFd>(socket: Fd, limit: std::time::Duration) -> io::Result<()> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut set = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    match poll(&mut set, timeout)? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}
