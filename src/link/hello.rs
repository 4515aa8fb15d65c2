//! What host and gateway say before the stream begins: one message each way.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::words::SessionId;

/// The version of all of this.
pub const VERSION: u32 = 1;
/// What a host is told that does not prove whose it is.
pub const NOT_ITS_HOST: &str = "you are not this session's host";
/// The longest of them: a MUNGE credential and a few numbers.
pub const LONGEST: u32 = 64 * 1024;

/// One run of a host process, told from the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(Uuid);

impl RunId {
    /// A new one, from the kernel's random source.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// One stream between host and gateway, told from the next.
pub(super) type StreamId = RunId;

/// What a host says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Run {
    /// This process.
    pub id: RunId,
    /// Its Slurm job.
    pub job: u32,
    /// How often that job was started before.
    pub restarts: u32,
    /// The node.
    pub node: String,
}

/// From a host.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    /// As [`VERSION`].
    pub version: u32,
    /// Whose host it is.
    pub session: SessionId,
    /// Which one.
    pub run: Run,
    /// Its user's word for it, bound to this connection.
    pub credential: Option<String>,
    /// The stream that it holds an end of.
    pub stream: Option<StreamId>,
}

/// From a gateway.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The stream goes on, or, where it is another than the one that was offered, begins.
    Welcome {
        /// Which.
        stream: StreamId,
    },
    /// The gateway does not know yet what to say: ask again soon.
    Later,
    /// It does, and it is no.
    Refused {
        /// What the host is told.
        why: String,
    },
}

/// What is proven by a credential: who, for what, over which connection.
pub fn statement(session: SessionId, run: &Run, binding: &str) -> String {
    format!("shlogin-link-{VERSION} {session} {} {}.{} {binding}", run.id, run.job, run.restarts)
}
