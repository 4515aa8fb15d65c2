//! The cookie that a token is exchanged for.
//!
//! A browser keeps cookies by host name, and **ignores the port**: what this gateway sets on `node:3011` the browser also
//! sends to `node:3021`, which is somebody else's gateway, run by somebody else's process. `__Host-`, `Secure`,
//! `HttpOnly` and `SameSite` change nothing about it: both ports are the same host and the same site. So the value
//! alone is no proof of who presents it. Each cookie is therefore bound to the client that fetched it: to its address (an
//! IPv4 address, an IPv6 /64, or "over the unix socket"), and where that is this node's own, also to the user at the other
//! end, whom the kernel tells. So whoever was sent it by the way cannot use it from the node, not even where it was fetched
//! over `ssh -L`, whose connections come from loopback, and from a process of the user who runs it. Where the kernel does
//! not tell, because the client is in another network namespace, the address is all there is: there a unix socket in a
//! folder of one's own is the way (`--listen unix`).
//!
//! The other direction is why every cookie of this name's family is cut out of what the app is sent, not only this
//! session's:
//! the same user's other gateways on this host have theirs in the same browser.

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

use http::HeaderMap;
use nginx_free::Peer;

use crate::{
    share::{Place, Visit},
    words::{Secret, SecretHash, SessionId},
};

/// What the names of all our cookies begin with.
pub(crate) const PREFIX: &str = "__Host-shlogin-";

/// Whether a cookie is good only from the address that fetched it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Binding {
    /// Only from there.
    Address,
    /// From anywhere: for clients whose address changes all the time. See the module's text for what that gives away.
    Anywhere,
}

impl From<bool> for Binding {
    fn from(bound: bool) -> Self {
        if bound { Self::Address } else { Self::Anywhere }
    }
}

/// Whose browser has a cookie.
#[derive(Clone)]
pub(crate) enum Holder {
    /// The session's owner's.
    Owner,
    /// That of somebody who is let in to a terminal, and to nothing else.
    Guest(Visit),
}

impl Holder {
    fn is_over(&self) -> bool {
        matches!(self, Self::Guest(visit) if visit.is_over())
    }
}

/// The cookies that are good.
pub(crate) struct Cookies {
    name: String,
    ttl: Duration,
    binding: Binding,
    good: VecDeque<Good>,
}

struct Good {
    hash: SecretHash,
    place: Place,
    until: Instant,
    holder: Holder,
}

impl Cookies {
    /// So many browsers may be signed in at a time; the one that signed in first makes room.
    const GOOD: usize = 64;

    pub(crate) fn new(session: SessionId, ttl: Duration, binding: Binding) -> Self {
        let name = format!("{PREFIX}{}", &session.simple()[..16]);
        Self { name, ttl, binding, good: VecDeque::new() }
    }

    /// A new cookie for the client at `peer`, as a `Set-Cookie` field.
    pub(crate) fn issue(&mut self, holder: Holder, peer: &Peer, now: Instant) -> io::Result<String> {
        let secret = Secret::random()?;
        self.good.retain(|one| one.until > now && !one.holder.is_over());
        if self.good.len() == Self::GOOD {
            self.good.pop_front();
        }
        let (place, until) = (Place::of(peer), now + self.ttl);
        self.good.push_back(Good { hash: secret.hash(), place, until, holder });
        let (name, value, age) = (&self.name, secret.reveal(), self.ttl.as_secs());
        Ok(format!("{name}={value}; Max-Age={age}; Path=/; Secure; HttpOnly; SameSite=Lax"))
    }

    /// Who holds a cookie that is good, of a request from `peer` with these fields.
    pub(crate) fn holder(&self, fields: &HeaderMap, peer: &Peer, now: Instant) -> Option<Holder> {
        // A browser sends one; a few more may stand there from elsewhere, and hashing is not free.
        nginx_free::cookies::values(fields, self.name.as_bytes())
            .take(4)
            .filter_map(|value| std::str::from_utf8(value).ok())
            .map(SecretHash::of)
            .find_map(|hash| self.good.iter().find(|one| self.fits(one, &hash, peer, now)))
            .map(|good| good.holder.clone())
    }

    fn fits(&self, good: &Good, hash: &SecretHash, peer: &Peer, now: Instant) -> bool {
        let from_there = self.binding == Binding::Anywhere || good.place == Place::of(peer);
        good.hash.matches(hash) && good.until > now && from_there && !good.holder.is_over()
    }
}

/// Whether a cookie's name, or what may be taken for one, is of our family.
pub(crate) fn is_ours(name: &[u8]) -> bool {
    let prefix = PREFIX.as_bytes();
    name.windows(prefix.len()).any(|part| part.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::COOKIE;

    const TTL: Duration = Duration::from_secs(3600);

    fn tcp(address: &str) -> Peer {
        Peer::tcp(address.parse().unwrap())
    }

    fn request(set: &str) -> HeaderMap {
        let pair = set.split(';').next().unwrap();
        HeaderMap::from_iter([(COOKIE, format!("a=1; {pair}; b=2").parse().unwrap())])
    }

    fn good(cookies: &Cookies, fields: &HeaderMap, peer: &Peer, now: Instant) -> bool {
        matches!(cookies.holder(fields, peer, now), Some(Holder::Owner))
    }

    #[test]
    fn a_cookie_is_good_for_its_time_and_from_its_place() {
        let (mut cookies, now) = (Cookies::new(SessionId::random(), TTL, Binding::Address), Instant::now());
        let set = cookies.issue(Holder::Owner, &tcp("10.0.0.1:1"), now).unwrap();
        assert!(set.ends_with("; Max-Age=3600; Path=/; Secure; HttpOnly; SameSite=Lax"), "{set}");
        let fields = request(&set);
        assert!(good(&cookies, &fields, &tcp("10.0.0.1:2"), now));
        assert!(!good(&cookies, &fields, &tcp("10.0.0.2:1"), now));
        assert!(!good(&cookies, &fields, &tcp("127.0.0.1:1"), now));
        assert!(!good(&cookies, &fields, &Peer::Unix { uid: Some(0) }, now));
        assert!(!good(&cookies, &fields, &tcp("10.0.0.1:2"), now + TTL));
        assert!(!good(&cookies, &HeaderMap::new(), &tcp("10.0.0.1:1"), now));
        let local = |uid| tcp("127.0.0.1:1").identified(uid);
        let fields_of_7 = request(&cookies.issue(Holder::Owner, &local(7), now).unwrap());
        assert!(good(&cookies, &fields_of_7, &local(7), now));
        assert!(!good(&cookies, &fields_of_7, &local(8), now));
        assert!(!good(&cookies, &fields_of_7, &tcp("127.0.0.1:1"), now), "whoever is not known is not she");
        assert!(!good(&cookies, &fields_of_7, &tcp("127.0.0.9:1").identified(7), now));
        let other = Cookies::new(SessionId::random(), TTL, Binding::Address);
        assert!(!good(&other, &fields, &tcp("10.0.0.1:1"), now));
    }

    #[test]
    fn ipv6_clients_may_change_their_privacy_address() {
        let (mut cookies, now) = (Cookies::new(SessionId::random(), TTL, Binding::Address), Instant::now());
        let fields = request(&cookies.issue(Holder::Owner, &tcp("[2001:db8::1]:1"), now).unwrap());
        assert!(good(&cookies, &fields, &tcp("[2001:db8::abcd]:1"), now));
        assert!(!good(&cookies, &fields, &tcp("[2001:db8:0:1::1]:1"), now));
    }

    #[test]
    fn unbound_cookies_are_good_from_anywhere() {
        let (mut cookies, now) = (Cookies::new(SessionId::random(), TTL, Binding::Anywhere), Instant::now());
        let fields = request(&cookies.issue(Holder::Owner, &tcp("10.0.0.1:1"), now).unwrap());
        assert!(good(&cookies, &fields, &tcp("10.9.9.9:1"), now));
    }

    #[test]
    fn our_family_is_told_by_its_prefix_however_it_is_written() {
        assert!(is_ours(b"__Host-shlogin-0123456789abcdef"));
        assert!(is_ours(b"__host-SHLOGIN-x") && is_ours(b"=__Host-shlogin-x"));
        assert!(!is_ours(b"__Host-other") && !is_ours(b"shlogin") && !is_ours(b""));
    }
}
