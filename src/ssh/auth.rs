//! Who comes in, and as what. There is one user, the session's owner; every other name is refused as a wrong key is, after
//! the same time and in the same words.

use std::{fmt, net::SocketAddr, sync::Arc};

use russh::{
    keys::{Algorithm, Certificate, PublicKey},
    server::Auth,
};
use tokio::sync::watch;

use super::{owner::Owner, permits::Permits};

/// How a connection reached us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// From one of the owner's own processes: the kernel has said so, and nothing more need be proved.
    Control,
    /// Over the network.
    Network,
}

/// Who is at the other end, as far as the kernel knows.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Peer {
    /// Its address.
    pub(super) from: Option<SocketAddr>,
    /// The one it came to.
    pub(super) to: Option<SocketAddr>,
    /// Its user, where it comes from this node.
    pub(super) uid: Option<u32>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.from, self.uid) {
            (None, _) => f.write_str("the owner's own process"),
            (Some(from), None) => write!(f, "{} port {}", from.ip().to_canonical(), from.port()),
            (Some(from), Some(uid)) => write!(f, "{} port {} (user {uid})", from.ip().to_canonical(), from.port()),
        }
    }
}

/// How far a client has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// It has not proved who it is.
    Unknown,
    /// It has.
    Known,
}

/// What all connections share.
pub(super) struct Door {
    owner: Owner,
}

impl Door {
    pub(super) fn new(owner: Owner) -> Self {
        Self { owner }
    }
}

/// One client's way through the door.
pub(super) struct Authentication {
    door: Arc<Door>,
    way: Way,
    peer: Peer,
    permits: Option<Permits>,
    progress: watch::Sender<Progress>,
}

impl Authentication {
    pub(super) fn new(door: Arc<Door>, way: Way, peer: Peer) -> (Self, watch::Receiver<Progress>) {
        let (progress, seen) = watch::channel(Progress::Unknown);
        (Self { door, way, peer, permits: None, progress }, seen)
    }

    /// What the client may do, once it has proved who it is.
    pub(super) fn permits(&self) -> Option<&Permits> {
        self.permits.as_ref().filter(|_| *self.progress.borrow() == Progress::Known)
    }

    pub(super) fn none(&mut self, user: &str) -> Auth {
        if self.way == Way::Control && user == self.door.owner.name {
            return self.accept(Permits::all());
        }
        self.refuse()
    }

    pub(super) async fn password(&mut self, user: &str, password: &str) -> Auth {
        let _ = (user, password);
        self.refuse()
    }

    pub(super) fn offered(&self, user: &str, key: &PublicKey, algorithm: &Algorithm) -> Auth {
        let _ = (user, key, algorithm);
        self.refuse()
    }

    pub(super) fn key(&mut self, user: &str, key: &PublicKey, algorithm: &Algorithm) -> Auth {
        let _ = (user, key, algorithm);
        self.refuse()
    }

    pub(super) fn certificate(&mut self, user: &str, certificate: &Certificate) -> Auth {
        let _ = (user, certificate);
        self.refuse()
    }

    /// The client has been told that it may come in.
    pub(super) fn succeeded(&self) {
        self.progress.send_replace(Progress::Known);
    }

    fn accept(&mut self, permits: Permits) -> Auth {
        self.permits = Some(permits);
        Auth::Accept
    }

    fn refuse(&self) -> Auth {
        Auth::reject()
    }
}
