//! Where somebody comes from: what a cookie or a code is bound to.

use std::{fmt, net::IpAddr};

use nginx_free::{Peer, PeerKey};
use serde::{Deserialize, Serialize};

/// An IPv4 address or an IPv6 /64, and on this node also the user there; or "over a unix socket", all of whose clients are
/// alike: its folder says who may connect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Place {
    address: Option<IpAddr>,
    uid: Option<u32>,
}

impl Place {
    /// Where this client is.
    pub fn of(peer: &Peer) -> Self {
        let network = |peer: Peer| match peer.key() {
            PeerKey::Ip(address) => Some(address),
            PeerKey::Local(_) | PeerKey::Unix(_) => None,
        };
        match *peer {
            Peer::Tcp(_) => Self { address: network(*peer), uid: None },
            Peer::Local { address, uid } => Self { address: network(Peer::tcp(address)), uid: Some(uid) },
            Peer::Unix { .. } => Self { address: None, uid: None },
        }
    }

    /// The user, where the client is on this node and the kernel told.
    pub fn uid(&self) -> Option<u32> {
        self.uid
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => address.fmt(f),
            None => f.write_str("a unix socket"),
        }
    }
}
