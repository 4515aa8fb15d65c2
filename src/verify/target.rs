//! What an attacker is told of a session: where everything is, and nothing that opens it.

use std::path::PathBuf;

use nix::unistd::{Gid, Uid, User, getegid, geteuid};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::paths::Root;
use crate::{
    link::Fingerprint,
    words::{Isolation, SessionId, SessionName},
};

/// A user.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// As `ls -l` shows it.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// Its first group.
    pub gid: u32,
}

impl Identity {
    /// The user of this process.
    pub fn of_this_process() -> Self {
        Self::of(geteuid(), getegid())
    }

    fn of(uid: Uid, gid: Gid) -> Self {
        let known = User::from_uid(uid).ok().flatten();
        let name = known.map_or_else(|| uid.to_string(), |user| user.name);
        Self { name, uid: uid.as_raw(), gid: gid.as_raw() }
    }

    /// The user that the user database has under this name.
    pub fn named(name: &str) -> Option<Self> {
        let user = User::from_name(name).ok().flatten()?;
        Some(Self { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() })
    }
}

/// A session as its attacker knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Target {
    pub(super) name: SessionName,
    pub(super) id: SessionId,
    pub(super) owner: Identity,
    pub(super) isolation: Isolation,
    /// Where the app is.
    pub(super) sandbox: SandboxAt,
    /// Where its host comes in, where that is another machine.
    pub(super) link: Option<LinkDoor>,
    /// Those that hold what others want: the supervisor and PID 1 of the sandbox.
    pub(super) keepers: Vec<Process>,
    /// All of them, those included.
    pub(super) processes: Vec<Process>,
    /// What listens inside.
    pub(super) ports: Vec<u16>,
    pub(super) abstracts: Vec<AbstractSocket>,
    pub(super) roots: Vec<Root>,
    pub(super) door: Door,
    /// The ports of the gateways of all the owner's sessions: the one kind of port of theirs that is meant to answer.
    pub(super) doors: Vec<u16>,
    pub(super) used_token: String,
    /// `name=value`, the name right and the value made up.
    pub(super) made_up_cookie: String,
    pub(super) mark: Option<Mark>,
}

/// Where a session's sandbox is, seen from where it is attacked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum SandboxAt {
    /// On this machine.
    Here,
    /// On another.
    Elsewhere {
        /// Which, where it is known.
        node: Option<String>,
        /// What the app listens on there.
        port: Option<u16>,
    },
}

/// Where a session's host comes in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LinkDoor {
    /// By what hosts reach it.
    pub(super) hosts: Vec<String>,
    pub(super) port: u16,
    pub(super) gateway: Fingerprint,
    /// What proves whose a host is.
    pub(super) proof: LinkProof,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum LinkProof {
    /// MUNGE, with its daemon's socket where it is not MUNGE's own default.
    Munge(Option<PathBuf>),
    Key,
}

/// A process, by its number on the host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) name: String,
}

impl Process {
    pub(super) fn what(&self) -> String {
        format!("process {} ({})", self.pid, self.name)
    }
}

/// A socket in the abstract namespace (`unix(7)`).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(super) struct AbstractSocket {
    /// Without the leading zero byte.
    pub(super) name: Vec<u8>,
    /// As in `socket(2)`.
    pub(super) kind: i32,
    /// One for each socket of the machine, whatever its namespace.
    pub(super) inode: u64,
}

/// A session's gateway.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Door {
    pub(super) place: Place,
    /// The name in its URL.
    pub(super) host: String,
    pub(super) port: u16,
    /// As in [`crate::session::GatewayRecord`].
    pub(super) fingerprint: String,
}

impl Door {
    /// What stands in `Host`.
    pub(super) fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

/// Where a gateway answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Place {
    Tcp(std::net::SocketAddr),
    Unix(PathBuf),
}

/// By which the app's answer is known again, without telling what it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Mark([u8; 32]);

impl Mark {
    const LEN: usize = 64;

    /// Of an answer's body. Taken from its middle, since pages of all the world begin alike. `None` where it is too
    /// short to be known by.
    pub(super) fn of(body: &[u8]) -> Option<Self> {
        let from = body.len().checked_sub(Self::LEN)? / 2;
        Some(Self(Sha256::digest(&body[from..from + Self::LEN]).into()))
    }

    pub(super) fn is_in(&self, bytes: &[u8]) -> bool {
        bytes.windows(Self::LEN).any(|part| Sha256::digest(part)[..] == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_known_again_by_the_middle_of_its_page_wherever_it_stands() {
        let page: String = (0..40).map(|n| format!("line {n}\n")).collect();
        let mark = Mark::of(page.as_bytes()).unwrap();
        assert!(mark.is_in(format!("HTTP/1.1 200 OK\r\n\r\n{page}").as_bytes()));
        assert!(!mark.is_in(page.replace("line 2", "LINE 2").as_bytes()));
        assert!(!mark.is_in(b"") && Mark::of(b"short").is_none());
    }
}
