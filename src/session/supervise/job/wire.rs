//! What gate and host say to each other over the link, beside what [`crate::host`] has for programs and connections.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    config::OutboundHelper,
    sandbox::protocol::Endpoint,
    session::{End, Work},
    words::{SessionId, SessionName},
};

/// The protocol of an app's life (RFC 8441): [`ToHost`] one way, [`FromHost`] the other.
pub(super) const LIFE: &str = "shlogin-life";
/// The protocol of what it says: bytes, from [`LogFrom`] on.
pub(super) const LOG: &str = "shlogin-log";
/// The longest message: a person's environment, and the words of a command.
pub(super) const LONGEST: u32 = 8 * 1024 * 1024;

/// From the gate to the host.
#[derive(Serialize, Deserialize)]
pub(super) enum ToHost {
    /// Do this, unless you do already.
    Begin(Box<Begin>),
    /// End it.
    Stop {
        /// Milliseconds between SIGTERM and SIGKILL.
        grace: u64,
    },
    /// End it as before the time limit: in a job that is lent, nobody else says so.
    TimeIsOver,
}

/// All that a host is to know.
#[derive(Serialize, Deserialize)]
pub(super) struct Begin {
    pub(super) id: SessionId,
    pub(super) name: SessionName,
    /// The session's URL, without a token.
    pub(super) base_url: String,
    pub(super) work: Work,
    pub(super) outbound: OutboundHelper,
    /// Where private folders go, on the node.
    pub(super) scratch: PathBuf,
}

/// From the host to the gate: each time something changes, and once in the beginning.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum FromHost {
    /// Nothing answers yet.
    Starting,
    /// The app does, there.
    Answers(Endpoint),
    /// It is over.
    Ended {
        end: End,
        cause: Cause,
        /// So many bytes it has said.
        said: u64,
    },
}

/// Who has ended it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Cause {
    /// Itself, or its gate.
    Own,
    /// Slurm, by SIGTERM: it was cancelled, preempted or requeued, which Slurm knows best.
    Slurm,
    /// Slurm, shortly before its time limit.
    Limit,
}

/// From where on to send what an app says.
pub(super) enum LogFrom {
    /// From what no gate has been sent.
    New,
    /// From this byte.
    Byte(u64),
}

impl LogFrom {
    pub(super) fn to_path(&self) -> String {
        match self {
            Self::New => "/new".to_owned(),
            Self::Byte(at) => format!("/{at}"),
        }
    }

    pub(super) fn from_path(path: &str) -> Option<Self> {
        match path.strip_prefix('/')? {
            "new" => Some(Self::New),
            at => at.parse().ok().map(Self::Byte),
        }
    }
}
