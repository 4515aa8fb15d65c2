//! Keeps sources that misbehave away for a while, as `PerSourcePenalties` of `sshd_config(5)` does.
//!
//! Each offence adds to the time that its source is kept away; below a least time nothing is refused, so that a mistyped
//! password costs nothing. A user of this node is a source of her own, whichever address she comes from, so that what
//! others do from here keeps nobody else away. Owns no clock.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use nginx_free::PeerKey;

/// What a source did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Offence {
    /// It tried to prove to be the owner, and could not (`authfail`).
    AuthenticationFailed,
    /// It went away without having tried (`noauth`).
    NothingTried,
    /// It did not succeed in the time there is for it (`grace-exceeded`).
    GraceExceeded,
    /// What served it broke (`crash`).
    Crash,
}

impl Offence {
    /// As `sshd_config(5)` has them by default.
    fn penalty(self) -> Duration {
        Duration::from_secs(match self {
            Self::AuthenticationFailed => 5,
            Self::NothingTried => 1,
            Self::GraceExceeded => 10,
            Self::Crash => 90,
        })
    }
}

/// The sources that are kept away, or may come to be.
#[derive(Default)]
pub(crate) struct Penalties {
    sources: HashMap<PeerKey, Penalty>,
}

#[derive(Clone, Copy)]
struct Penalty {
    until: Instant,
    /// It has once been more than [`Penalties::LEAST`]: it counts to its end.
    counts: bool,
}

impl Penalties {
    /// No source is kept away for longer (`max`).
    const MOST: Duration = Duration::from_secs(600);
    /// Before a source has gathered more than this, it is not kept away (`min`).
    const LEAST: Duration = Duration::from_secs(15);
    /// So many sources are remembered; beyond that, those are forgotten whose time is over first.
    const SOURCES: usize = 4096;

    /// Notes an offence. Whether it keeps the source away is said by [`Penalties::keep_away`].
    pub(crate) fn note(&mut self, source: PeerKey, offence: Offence, now: Instant) {
        if self.sources.len() >= Self::SOURCES && !self.sources.contains_key(&source) {
            self.make_room(now);
        }
        let fresh = Penalty { until: now, counts: false };
        let penalty = self.sources.entry(source).or_insert(fresh);
        if penalty.until < now {
            *penalty = fresh;
        }
        penalty.until = (penalty.until + offence.penalty()).min(now + Self::MOST);
        penalty.counts |= penalty.until.saturating_duration_since(now) > Self::LEAST;
    }

    /// Whether a new connection from there is to be refused.
    #[must_use]
    pub(crate) fn keep_away(&self, source: PeerKey, now: Instant) -> bool {
        self.sources.get(&source).is_some_and(|penalty| penalty.counts && penalty.until > now)
    }

    /// Forgets what is over; where that is nothing, a part of the rest, so that not every stranger costs a look at all.
    fn make_room(&mut self, now: Instant) {
        self.sources.retain(|_, penalty| penalty.until > now);
        if self.sources.len() < Self::SOURCES {
            return;
        }
        let mut ends: Vec<Instant> = self.sources.values().map(|penalty| penalty.until).collect();
        let (_, end, _) = ends.select_nth_unstable(Self::SOURCES / 8);
        let end = *end;
        self.sources.retain(|_, penalty| penalty.until > end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nginx_free::Peer;

    fn key(address: &str) -> PeerKey {
        Peer::tcp(address.parse().unwrap()).key()
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_few_mistakes_cost_nothing_and_more_of_them_time() {
        let (mut penalties, now, me) = (Penalties::default(), Instant::now(), key("10.0.0.1:1"));
        for _ in 0..3 {
            penalties.note(me, Offence::AuthenticationFailed, now);
            assert!(!penalties.keep_away(me, now), "at most 15 seconds so far");
        }
        penalties.note(me, Offence::AuthenticationFailed, now);
        assert!(penalties.keep_away(me, now) && penalties.keep_away(key("10.0.0.1:2"), now));
        assert!(penalties.keep_away(me, now + seconds(19)), "once it counts, it counts to its end");
        assert!(!penalties.keep_away(me, now + seconds(20)));
        assert!(!penalties.keep_away(key("10.0.0.2:1"), now));
    }

    #[test]
    fn what_is_over_does_not_add_up() {
        let (mut penalties, mut now, me) = (Penalties::default(), Instant::now(), key("10.0.0.1:1"));
        for _ in 0..100 {
            penalties.note(me, Offence::AuthenticationFailed, now);
            now += seconds(6);
            assert!(!penalties.keep_away(me, now));
        }
    }

    #[test]
    fn no_penalty_is_longer_than_the_longest() {
        let (mut penalties, now, me) = (Penalties::default(), Instant::now(), key("10.0.0.1:1"));
        for _ in 0..1000 {
            penalties.note(me, Offence::Crash, now);
        }
        assert!(penalties.keep_away(me, now + seconds(599)) && !penalties.keep_away(me, now + seconds(600)));
    }

    #[test]
    fn offences_weigh_as_with_sshd() {
        let (now, me) = (Instant::now(), key("10.0.0.1:1"));
        for (offence, free) in [
            (Offence::AuthenticationFailed, 3),
            (Offence::NothingTried, 15),
            (Offence::GraceExceeded, 1),
            (Offence::Crash, 0),
        ] {
            let mut penalties = Penalties::default();
            for _ in 0..free {
                penalties.note(me, offence, now);
            }
            assert!(!penalties.keep_away(me, now), "{offence:?}");
            penalties.note(me, offence, now);
            assert!(penalties.keep_away(me, now), "{offence:?}");
        }
    }

    /// Threat 30: a guesser's back-off never locks the victim out elsewhere.
    #[test]
    fn a_user_of_this_node_pays_only_for_herself() {
        let (mut penalties, now) = (Penalties::default(), Instant::now());
        let local = |uid| Peer::tcp("127.0.0.1:1".parse().unwrap()).identified(uid).key();
        for _ in 0..200 {
            penalties.note(local(1001), Offence::AuthenticationFailed, now);
        }
        assert!(penalties.keep_away(local(1001), now));
        assert!(!penalties.keep_away(local(1002), now) && !penalties.keep_away(key("127.0.0.1:1"), now));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_the_longest_penalties() {
        let (mut penalties, now) = (Penalties::default(), Instant::now());
        let worst = key("192.0.2.1:1");
        for _ in 0..50 {
            penalties.note(worst, Offence::Crash, now);
        }
        for number in 0..50_000_u32 {
            let address = std::net::Ipv4Addr::from(0x0a00_0000 + number);
            penalties.note(key(&format!("{address}:1")), Offence::NothingTried, now);
            assert!(penalties.sources.len() <= Penalties::SOURCES);
        }
        assert!(penalties.keep_away(worst, now));
    }
}
