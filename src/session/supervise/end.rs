//! What supervisor and launching process say to each other, and why a session ends.
//!
//! ```text
//! launching process                      supervisor
//!   │ ── spec, lock, sockets ───────────────►│ (at its start)
//!   │◄─ Log(len) … ──────────────────────────│
//!   │◄─ Ready { record, url } ───────────────│ or Ended { … }
//!   │ ── Detach ────────────────────────────►│ or, in the foreground, Stop, Kill
//!   │◄─ Detached ────────────────────────────│ later Ended { … }
//! ```

use std::time::Duration;

use crate::{
    session::{Record, idle::exact},
    sys::process::Exit,
};

/// From the supervisor to the process that launched it.
#[derive(serde::Serialize, serde::Deserialize)]
pub enum ToLauncher {
    /// The session is as this says: it waits for a node, or begins on one.
    Waits(Box<Record>),
    /// The app answers.
    Ready {
        /// The session as it is now.
        record: Box<Record>,
        /// Its URL, with a token.
        url: String,
    },
    /// The log is this long, in bytes.
    Log(u64),
    /// The launching process may go: the session no longer heeds it. (A socket that closes with messages unread is an
    /// error at its other end, so it has to read to this one.)
    Detached,
    /// The session is no more.
    Ended {
        /// Why.
        end: End,
        /// The session as it was; none where it did not get that far.
        record: Option<Box<Record>>,
        /// The log's last lines.
        tail: Vec<String>,
    },
}

/// From the launching process to the supervisor. Its silence is one more message: if it goes without `Detach`, so does the
/// session.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub enum FromLauncher {
    /// The session goes on by itself.
    Detach,
    /// It ends.
    Stop,
    /// It ends now.
    Kill,
}

/// Why a session ended.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub enum End {
    /// Its app ended.
    App(Exit),
    /// It was stopped, and its app ended so.
    Stopped(Option<Exit>),
    /// Nobody used it, and it computed nothing; it was stopped, and its app ended so.
    Idle {
        /// For how many seconds.
        after: u64,
        /// How its app ended.
        exit: Option<Exit>,
    },
    /// Its app did not answer in time.
    Timeout {
        /// In seconds.
        after: u64,
        /// What listened meanwhile, without speaking HTTP.
        listening: Vec<String>,
    },
    /// The machine refuses this isolation.
    Forbidden(String),
    /// The image cannot be used.
    Image(String),
    /// The app does not keep to its unix socket.
    OpenPort(String),
    /// Its app could not be run at all.
    NotRun(String),
    /// There is no job for it.
    NotSubmitted(String),
    /// Slurm has ended its job.
    Job(String),
    /// Another gateway has its job now.
    TakenOver,
    /// Anything else.
    Broken(String),
}

impl End {
    /// The same, if it was stopped because nobody used it for so long.
    pub(super) fn of_idle(self, after: Option<Duration>) -> Self {
        match (self, after) {
            (Self::Stopped(exit), Some(after)) => Self::Idle { after: after.as_secs(), exit },
            (end, _) => end,
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::App(exit) => write!(f, "its app ended with {exit}"),
            Self::Stopped(Some(exit)) => write!(f, "it was stopped; its app ended with {exit}"),
            Self::Stopped(None) => f.write_str("it was stopped"),
            Self::Idle { after, .. } => {
                write!(f, "nobody used it for {}", exact(Duration::from_secs(*after)))
            }
            Self::TakenOver => f.write_str("another gateway has taken it over"),
            Self::Timeout { after, listening } if listening.is_empty() => {
                write!(f, "its app opened no port within {after} s")
            }
            Self::Timeout { after, listening } => {
                write!(
                    f,
                    "its app did not answer HTTP within {after} s, though it listens on {}",
                    listening.join(", ")
                )
            }
            Self::Forbidden(why)
            | Self::Image(why)
            | Self::OpenPort(why)
            | Self::NotRun(why)
            | Self::NotSubmitted(why)
            | Self::Job(why)
            | Self::Broken(why) => f.write_str(why),
        }
    }
}
