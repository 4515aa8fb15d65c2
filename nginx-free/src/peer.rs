//! Who is at the other end of a client's connection.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

/// The client of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// A TCP client. IPv4-mapped IPv6 addresses are shown as the IPv4 addresses they are.
    Tcp(SocketAddr),
    /// A TCP client on this machine whose user is known: see [`Listener::identified_by`](crate::Listener::identified_by).
    Local {
        /// Its address.
        address: SocketAddr,
        /// The user id.
        uid: u32,
    },
    /// A client of a unix socket, with the user id the kernel told (`SO_PEERCRED`).
    Unix {
        /// The user id, where the kernel told it.
        uid: Option<u32>,
    },
}

/// What counts as one and the same client: an IPv4 address, an IPv6 /64, a user of this machine, or one of a unix socket.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PeerKey {
    /// An IPv4 address, or the first 64 bits of an IPv6 one.
    Ip(IpAddr),
    /// A user of this machine, whichever of its addresses they come from.
    Local(u32),
    /// A user of a unix socket.
    Unix(Option<u32>),
}

impl Peer {
    /// A TCP client at `address`.
    pub fn tcp(address: SocketAddr) -> Self {
        Self::Tcp(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }

    /// The same client, once it is known which user of this machine it is.
    #[must_use]
    pub fn identified(self, uid: u32) -> Self {
        match self {
            Self::Tcp(address) | Self::Local { address, .. } => Self::Local { address, uid },
            Self::Unix { .. } => Self::Unix { uid: Some(uid) },
        }
    }

    /// The address, of a TCP client.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) | Self::Local { address, .. } => Some(address.ip()),
            Self::Unix { .. } => None,
        }
    }

    /// What counts as one and the same client.
    pub fn key(&self) -> PeerKey {
        match self {
            Self::Tcp(address) => PeerKey::Ip(match address.ip() {
                IpAddr::V4(ip) => IpAddr::V4(ip),
                IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
            }),
            Self::Local { uid, .. } => PeerKey::Local(*uid),
            Self::Unix { uid } => PeerKey::Unix(*uid),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) | Self::Local { address, .. } => address.fmt(f),
            Self::Unix { uid: Some(uid) } => write!(f, "unix:{uid}"),
            Self::Unix { uid: None } => f.write_str("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str) -> PeerKey {
        Peer::tcp(address.parse().unwrap()).key()
    }

    #[test]
    fn one_machine_is_one_peer_whatever_its_port_or_privacy_address() {
        assert_eq!(key("10.0.0.1:1"), key("10.0.0.1:2"));
        assert_ne!(key("10.0.0.1:1"), key("10.0.0.2:1"));
        assert_eq!(key("[2001:db8::1]:1"), key("[2001:db8::ffff:1]:2"));
        assert_ne!(key("[2001:db8::1]:1"), key("[2001:db8:0:1::1]:1"));
        assert_eq!(key("[::ffff:10.0.0.1]:1"), key("10.0.0.1:1"));
    }

    #[test]
    fn a_user_of_this_machine_is_one_peer_at_all_of_its_addresses() {
        let local = |address: &str, uid| Peer::tcp(address.parse().unwrap()).identified(uid);
        assert_eq!(local("127.0.0.1:1", 7).key(), local("[::1]:2", 7).key());
        assert_ne!(local("127.0.0.1:1", 7).key(), local("127.0.0.1:1", 8).key());
        assert_ne!(local("127.0.0.1:1", 7).key(), key("127.0.0.1:1"), "nor is it the crowd of the unknown");
        assert_eq!(local("127.0.0.1:1", 7).ip(), Some([127, 0, 0, 1].into()));
    }
}
