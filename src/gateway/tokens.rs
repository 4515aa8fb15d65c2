//! The tokens in URLs: each opens the gateway once, for a short time. Only their hashes are kept.

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

use crate::words::{Secret, SecretHash};

/// The tokens that may still be presented, and those that were.
pub(crate) struct Tokens {
    ttl: Duration,
    outstanding: VecDeque<Outstanding>,
    spent: VecDeque<SecretHash>,
}

struct Outstanding {
    hash: SecretHash,
    until: Instant,
}

/// What a text in a URL is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Presented {
    /// A token that opens the gateway.
    Valid,
    /// A token that once did.
    Spent,
    /// None of ours.
    Unknown,
}

impl Tokens {
    /// So many may be outstanding; the oldest makes room.
    const OUTSTANDING: usize = 32;
    /// So many are remembered after their time, to tell them from an app's own `token=`.
    const SPENT: usize = 256;

    pub(crate) fn new(ttl: Duration) -> Self {
        Self { ttl, outstanding: VecDeque::new(), spent: VecDeque::new() }
    }

    /// A new token, good from `now` on for the time they all live.
    pub(crate) fn issue(&mut self, now: Instant) -> io::Result<Secret> {
        let secret = Secret::random()?;
        self.expire(now);
        if self.outstanding.len() == Self::OUTSTANDING
            && let Some(oldest) = self.outstanding.pop_front()
        {
            self.remember(oldest.hash);
        }
        self.outstanding.push_back(Outstanding { hash: secret.hash(), until: now + self.ttl });
        Ok(secret)
    }

    /// What `text` is. Nothing is spent.
    pub(crate) fn look(&mut self, text: &str, now: Instant) -> Presented {
        self.expire(now);
        let hash = SecretHash::of(text);
        if self.outstanding.iter().any(|one| one.hash.matches(&hash)) {
            Presented::Valid
        } else if self.spent.iter().any(|spent| spent.matches(&hash)) {
            Presented::Spent
        } else {
            Presented::Unknown
        }
    }

    /// Spends `text`, if it is valid.
    pub(crate) fn spend(&mut self, text: &str, now: Instant) -> Presented {
        let found = self.look(text, now);
        if found == Presented::Valid {
            let hash = SecretHash::of(text);
            self.outstanding.retain(|one| !one.hash.matches(&hash));
            self.remember(hash);
        }
        found
    }

    fn expire(&mut self, now: Instant) {
        while self.outstanding.front().is_some_and(|oldest| oldest.until <= now) {
            if let Some(oldest) = self.outstanding.pop_front() {
                self.remember(oldest.hash);
            }
        }
    }

    fn remember(&mut self, hash: SecretHash) {
        if self.spent.len() == Self::SPENT {
            self.spent.pop_front();
        }
        self.spent.push_back(hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(600);

    #[test]
    fn a_token_opens_once() {
        let (mut tokens, now) = (Tokens::new(TTL), Instant::now());
        let token = tokens.issue(now).unwrap();
        assert_eq!(tokens.look(token.reveal(), now), Presented::Valid);
        assert_eq!(tokens.spend(token.reveal(), now), Presented::Valid);
        assert_eq!(tokens.spend(token.reveal(), now), Presented::Spent);
        assert_eq!(tokens.spend("anything", now), Presented::Unknown);
        assert_eq!(tokens.spend("", now), Presented::Unknown);
    }

    #[test]
    fn a_token_has_its_time() {
        let (mut tokens, now) = (Tokens::new(TTL), Instant::now());
        let (early, late) = (tokens.issue(now).unwrap(), tokens.issue(now + TTL / 2).unwrap());
        assert_eq!(tokens.look(early.reveal(), now + TTL - Duration::from_nanos(1)), Presented::Valid);
        assert_eq!(tokens.spend(early.reveal(), now + TTL), Presented::Spent);
        assert_eq!(tokens.spend(late.reveal(), now + TTL), Presented::Valid);
    }

    #[test]
    fn there_is_a_bound_to_them() {
        let (mut tokens, now) = (Tokens::new(TTL), Instant::now());
        let first = tokens.issue(now).unwrap();
        for _ in 0..1000 {
            drop(tokens.issue(now).unwrap());
        }
        assert_ne!(tokens.look(first.reveal(), now), Presented::Valid);
        assert!(tokens.outstanding.len() <= Tokens::OUTSTANDING && tokens.spent.len() <= Tokens::SPENT);
    }
}
