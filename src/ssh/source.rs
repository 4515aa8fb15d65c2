//! Where a connection comes from, and the lists of addresses that a key or a certificate is bound to.
//!
//! Only addresses are compared, as sshd does with its default `UseDNS no`: a name in a list stands for nobody, since
//! whoever has an address also says what its name is.

use std::{fmt, net::IpAddr};

use nginx_free::Peer;

use super::patterns;

/// Where a connection comes from. A unix socket's clients have no address, and no list names them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Source(Option<IpAddr>);

/// The addresses that a `from=` or a `source-address` names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Addresses(Vec<Entry>);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    negated: bool,
    what: What,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum What {
    Network { address: IpAddr, bits: u32 },
    Pattern(String),
}

/// Why a text is no list of addresses. A list with a mistake in it matches nobody: what it was meant to keep out is not
/// known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum BadAddresses {
    #[error("an entry of a list of addresses is empty")]
    Empty,
    #[error("an entry of a list of addresses is no address and no network")]
    NoAddress,
    #[error("a network's mask is too long for it, or its address has bits that the mask leaves out")]
    Mask,
}

impl Source {
    /// An address, or none. IPv4-mapped IPv6 addresses are the IPv4 addresses they are.
    pub(crate) fn new(address: Option<IpAddr>) -> Self {
        Self(address.map(|address| address.to_canonical()))
    }

    /// The address.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.0
    }
}

impl From<&Peer> for Source {
    fn from(peer: &Peer) -> Self {
        Self::new(peer.ip())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("a unix socket"),
        }
    }
}

impl Addresses {
    /// A `from=` of `authorized_keys`: addresses, networks (`10.0.0.0/8`) and patterns, each maybe negated by `!`.
    pub(super) fn patterns(text: &str) -> Result<Self, BadAddresses> {
        let entry = |text: &str| {
            let (negated, text) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
            let what = match network(text) {
                Ok(network) => network,
                Err(BadAddresses::NoAddress) if !is_meant_as_address(text) => What::Pattern(text.to_owned()),
                Err(error) => return Err(error),
            };
            Ok(Entry { negated, what })
        };
        text.split(',').map(entry).collect::<Result<_, _>>().map(Self)
    }

    /// A `source-address` of a certificate: addresses and networks only.
    pub(super) fn networks(text: &str) -> Result<Self, BadAddresses> {
        let entry = |text| Ok(Entry { negated: false, what: network(text)? });
        text.split(',').map(entry).collect::<Result<_, _>>().map(Self)
    }

    /// Whether one of the entries names `source`, and none of the negated ones does.
    pub(super) fn have(&self, source: &Source) -> bool {
        let Some(address) = source.address() else { return false };
        let mut named = self.0.iter().filter(|entry| entry.what.has(address)).peekable();
        named.peek().is_some() && named.all(|entry| !entry.negated)
    }
}

impl What {
    fn has(&self, address: IpAddr) -> bool {
        match self {
            Self::Network { address: network, bits } => {
                network.is_ipv4() == address.is_ipv4() && prefix(*network, *bits) == prefix(address, *bits)
            }
            Self::Pattern(pattern) => patterns::fits(address.to_string().as_bytes(), pattern.as_bytes()),
        }
    }
}

/// The first `bits` of an address, as a number.
fn prefix(address: IpAddr, bits: u32) -> u128 {
    let (all, width) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    all.checked_shr(width - bits.min(width)).unwrap_or(0)
}

fn network(text: &str) -> Result<What, BadAddresses> {
    if text.is_empty() {
        return Err(BadAddresses::Empty);
    }
    let (address, mask) = text.split_once('/').map_or((text, None), |(address, mask)| (address, Some(mask)));
    let address: IpAddr = address.parse().map_err(|_| BadAddresses::NoAddress)?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let bits = match mask {
        None => width,
        Some(mask) if mask.bytes().all(|b| b.is_ascii_digit()) => {
            mask.parse().ok().filter(|bits| *bits <= width).ok_or(BadAddresses::Mask)?
        }
        Some(_) => return Err(BadAddresses::NoAddress),
    };
    let left_out = width - bits;
    if prefix(address, bits).checked_shl(left_out).unwrap_or(0) != prefix(address, width) {
        return Err(BadAddresses::Mask);
    }
    Ok(What::Network { address, bits })
}

/// `10.1` is an address to some, and would as a pattern match nothing: negated, it would let in whom it names.
fn is_meant_as_address(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str) -> Source {
        Source::new(Some(address.parse().unwrap()))
    }

    fn have(list: &str, address: &str) -> bool {
        Addresses::patterns(list).unwrap().have(&from(address))
    }

    #[test]
    fn addresses_networks_and_patterns_name_a_source() {
        assert!(have("10.0.0.1", "10.0.0.1") && !have("10.0.0.1", "10.0.0.2"));
        assert!(have("10.0.0.0/8", "10.255.0.1") && !have("10.0.0.0/8", "11.0.0.1"));
        assert!(have("0.0.0.0/0", "1.2.3.4") && !have("0.0.0.0/0", "::1"));
        assert!(have("2001:db8::/32", "2001:db8:1::1") && !have("2001:db8::/32", "2001:db9::1"));
        assert!(have("::/0", "2001:db8::1") && !have("::/0", "1.2.3.4"));
        assert!(have("192.168.0.?", "192.168.0.7") && !have("192.168.0.?", "192.168.0.70"));
        assert!(have("*", "192.168.0.7") && have("2001:db8:*", "2001:db8::1"));
        assert!(have("10.0.0.1", "::ffff:10.0.0.1"), "a mapped address is what it maps");
    }

    /// PATTERNS: "a negated match will never produce a positive result by itself".
    #[test]
    fn a_negated_entry_keeps_out_and_never_lets_in() {
        assert!(!have("!10.0.0.1", "10.0.0.2") && !have("!10.0.0.1", "10.0.0.1"));
        assert!(have("!10.0.0.1,*", "10.0.0.2"));
        for list in ["!10.0.0.1,*", "*,!10.0.0.1", "*,!10.0.0.0/24", "10.0.0.1,!10.0.0.*"] {
            assert!(!have(list, "10.0.0.1"), "{list}");
        }
    }

    #[test]
    fn names_stand_for_nobody() {
        assert!(!have("node.example,*.example", "10.0.0.1"));
        assert!(have("!evil.example,10.*", "10.0.0.1"));
    }

    #[test]
    fn a_source_without_address_is_in_no_list() {
        assert!(!Addresses::patterns("*,0.0.0.0/0,::/0").unwrap().have(&Source::new(None)));
        assert_eq!(Source::from(&Peer::Unix { uid: Some(1) }).address(), None);
    }

    #[test]
    fn a_list_with_a_mistake_is_none() {
        for list in
            ["", "10.0.0.1,", ",10.0.0.1", "!", "10.0.0.1/8", "10.0.0.0/33", "::1/64", "*,!10.1", "*,!10"]
        {
            assert!(Addresses::patterns(list).is_err(), "{list:?}");
        }
        for list in ["10.0.0.*", "!10.0.0.1", "node", "10.0.0.0/x", "10.0.0.0/", "10.0.0.1 ", ""] {
            assert!(Addresses::networks(list).is_err(), "{list:?}");
        }
        assert!(Addresses::networks("10.0.0.0/8,::1").unwrap().have(&from("::1")));
    }
}
