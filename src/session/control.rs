//! How other processes of its owner speak to a live session: over the socket `control` in the session's folder.
//!
//! ```text
//! client                                   supervisor
//!   │ ── Url ─────────────────────────────────►│ ── Url { … } ──────────►
//!   │ ── Stop { grace } ──────────────────────►│ ── Stopping ───────────►  (the socket closes with the session)
//!   │ ── Restart (+ a socket) ────────────────►│ ── Started ────────────►  (which then speaks as with its launcher)
//!   │ ── Idle ────────────────────────────────►│ ── Idle { … } ─────────►
//!   │ ── LogBeyond { len } ───────────────────►│ ── Log { len, ended } ─►  (when it has grown or was rotated)
//!   │ ── Exec { … } + file, stdin, out, err ──►│ ── Started ─► … ── Exited { exit } ─►
//!   │ ── Resized(size) … ─────────────────────►│   (while it runs, on a terminal)
//!   │ ── Share { … } ─────────────────────────►│ ── Shared { … } ───────►
//!   │ ── Guests, Revoke, Extend ──────────────►│ ── Guests { … }, Changed { … } ─►
//!   │ ── Sftp + stdin, out, err ──────────────►│ ── Started ─► … ── Exited { exit } ─►
//!   │ ── Ssh + stream socket ─────────────────►│ ── Started ────────────►  (which then speaks ssh, as with its owner)
//!   │      closing the socket ends either      │
//! ```
//! One request a connection, but for `LogBeyond` and `Resized`. The folder keeps other users out; the kernel's word on who is at the
//! other end (`SO_PEERCRED`) is asked all the same.

use std::{
    ffi::OsString,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::{
    socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, connect, getsockopt, listen,
        setsockopt, socket, sockopt,
    },
    time::{TimeVal, TimeValLike},
};
use serde::{Deserialize, Serialize};

use crate::{
    sandbox::protocol,
    session::IdleReport,
    share::Guest,
    sys::process::Exit,
    words::{Access, Size},
};

/// What a client asks.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// A URL with a new token.
    Url,
    /// End the session.
    Stop {
        /// How long the app has between SIGTERM and SIGKILL; the session's own setting without one.
        grace: Option<Duration>,
    },
    /// Start it again, Slurm having ended its job. With a descriptor, whoever holds its other end follows that as one who
    /// launched it.
    Restart,
    /// Answer when the log is no longer `len` bytes long.
    LogBeyond {
        /// What the client has.
        len: u64,
    },
    /// Run a command in the session. Descriptors: a file with [`ExecSpec`], then a terminal, or stdin, stdout and stderr.
    Exec {
        /// One terminal instead of three streams.
        terminal: bool,
    },
    /// The terminal that a command runs on has this size now. The kernel tells a program on this machine; one elsewhere is on a
    /// terminal of its own.
    Resized(Size),
    /// Serve ssh on a stream socket, the message's one descriptor. Whoever is at its other end need not prove who she is.
    Ssh,
    /// Serve the session's files over SFTP. Descriptors: stdin, stdout and stderr.
    Sftp,
    /// Say whether it is used.
    Idle,
    /// Let one person in to a terminal.
    Share(ShareSpec),
    /// Say who is let in.
    Guests,
    /// End the visit of `who`, or all.
    Revoke {
        /// As the grant is called, or as its owner calls him.
        who: Option<String>,
    },
    /// Let `who` stay for so long from now on.
    Extend {
        /// As the grant is called, or as its owner calls him.
        who: String,
        /// For how long.
        lasts: Duration,
    },
}

/// Whom to let in, and to what.
#[derive(Debug, Serialize, Deserialize)]
pub struct ShareSpec {
    /// What he may do.
    pub access: Access,
    /// For how long.
    pub lasts: Duration,
    /// What his host calls him.
    pub label: Option<String>,
    /// Which terminal; the one last used without, made if there is none.
    pub terminal: Option<u32>,
    /// Record it to this new file.
    pub record: Option<PathBuf>,
}

/// A command to run in a session.
#[derive(Serialize, Deserialize)]
pub struct ExecSpec {
    /// Its words; none mean a shell.
    pub words: Vec<OsString>,
    /// What it gets besides the app's environment: `TERM` and the like.
    pub env: Vec<(OsString, OsString)>,
}

/// What the supervisor answers.
#[derive(Serialize, Deserialize)]
pub enum Answer {
    /// The URL, token and all: for the owner's eyes.
    Url {
        /// It.
        url: String,
    },
    /// How it was judged last; none where it may be idle for as long as it likes.
    Idle {
        /// The judgement.
        report: Option<IdleReport>,
    },
    /// It is on its way.
    Stopping,
    /// The log is this long.
    Log {
        /// In bytes.
        len: u64,
    },
    /// The command runs, or ssh is spoken, or it is being started again.
    Started,
    /// The command ended.
    Exited {
        /// How.
        exit: Exit,
    },
    /// The command could not be run.
    NotRun {
        /// Why, for the owner.
        why: String,
        /// As a shell has it: 127 where there is no such program, 126 where it cannot be run.
        status: u8,
    },
    /// Somebody is let in.
    Shared {
        /// The grant's name.
        guest: String,
        /// The terminal's number.
        terminal: u32,
        /// The code, which is for one person's eyes.
        code: String,
        /// The page, code and all.
        url: String,
    },
    /// Who is let in.
    Guests {
        /// In the order in which they were.
        guests: Vec<Guest>,
    },
    /// So many visits were ended or extended.
    Changed {
        /// How many.
        visits: usize,
    },
    /// It cannot be done.
    Failed {
        /// Why, for the owner.
        why: String,
    },
}

/// Where a session's control socket is.
pub fn path_in(session: &Path) -> PathBuf {
    session.join("control")
}

/// Makes a session's control socket.
///
/// # Errors
/// As `bind(2)`.
pub(super) fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let made = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    bind(made.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&made, Backlog::new(64)?)?;
    Ok(made)
}

/// Takes one waiting client, if it is of this user (or root).
///
/// # Errors
/// As `accept(2)`; `WouldBlock` where nobody waits; `PermissionDenied` for anybody else.
pub(super) fn accept_own(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let raw = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
    let client = crate::sys::descriptor::just_made(raw);
    let who = getsockopt(&client, sockopt::PeerCredentials)?;
    if who.uid() == nix::unistd::geteuid().as_raw() || who.uid() == 0 {
        Ok(client)
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

/// A client's end.
pub struct Client(OwnedFd);

impl Client {
    /// Connects to the session whose folder this is.
    ///
    /// # Errors
    /// As `connect(2)`: `ECONNREFUSED` or `ENOENT` where no supervisor is there; `PermissionDenied` where another user's
    /// process is.
    pub fn connect(session: &Path) -> io::Result<Self> {
        let made = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        connect(made.as_raw_fd(), &UnixAddr::new(&path_in(session))?)?;
        // Whoever listens there gets our commands, and with `exec` our terminal: it has to be ourselves.
        if getsockopt(&made, sockopt::PeerCredentials)?.uid() != nix::unistd::geteuid().as_raw() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(Self(made))
    }

    /// Bounds the wait for each answer: a supervisor that is stopped gives none.
    ///
    /// # Errors
    /// As `setsockopt(2)`.
    pub fn be_patient_for(&self, limit: Duration) -> io::Result<()> {
        let seconds = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
        Ok(setsockopt(&self.0, sockopt::ReceiveTimeout, &TimeVal::seconds(seconds))?)
    }

    /// Asks.
    ///
    /// # Errors
    /// As `sendmsg(2)`.
    pub fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        protocol::send(self.0.as_fd(), request, fds)
    }

    /// Waits for an answer. `None` where the session has ended.
    ///
    /// # Errors
    /// As `recvmsg(2)`.
    pub fn answer(&self) -> io::Result<Option<Answer>> {
        match protocol::receive(self.0.as_fd()) {
            Ok(received) => Ok(received.map(|(answer, _)| answer)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks, and waits for the one answer.
    ///
    /// # Errors
    /// As the two. `UnexpectedEof` where the session ended first.
    pub fn call(&self, request: &Request) -> io::Result<Answer> {
        self.ask(request, &[])?;
        self.answer()?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
