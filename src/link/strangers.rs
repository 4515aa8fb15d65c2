//! Those who have come to the link's port and have not proven anything yet: how many there may be, who makes room for
//! whom, and how much is said of them.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use tokio::{task::AbortHandle, time::Instant};

/// The most at a time.
const MOST: usize = 256;
/// How many are complained of within [`WHILE`].
const SAID: u32 = 100;
const WHILE: Duration = Duration::from_secs(60);

/// Those who are there, the oldest first.
#[derive(Default)]
pub(super) struct Strangers(VecDeque<(IpAddr, AbortHandle)>);

impl Strangers {
    /// Takes one more. Where there are too many, the oldest makes room of those who come from where most come from: a host is
    /// the only one of its node, and whoever floods the port makes way for himself.
    pub(super) fn take(&mut self, from: IpAddr, stranger: AbortHandle) {
        self.0.retain(|(_, stranger)| !stranger.is_finished());
        if self.0.len() >= MOST
            && let Some(oldest) = self.oldest_of_most()
            && let Some((_, oldest)) = self.0.remove(oldest)
        {
            oldest.abort();
        }
        self.0.push_back((network(from), stranger));
    }

    fn oldest_of_most(&self) -> Option<usize> {
        let mut count = HashMap::new();
        for (from, _) in &self.0 {
            *count.entry(*from).or_insert(0_usize) += 1;
        }
        let most = count.values().max()?;
        self.0.iter().position(|(from, _)| count.get(from) == Some(most))
    }
}

/// All addresses that one machine may have at will are one: its loopback, and an IPv6 network of 64 bits.
fn network(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        ip if ip.is_loopback() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

/// What is said of them in the log, which has room for other things, too.
pub(super) struct Complaints {
    since: Instant,
    said: u32,
    unsaid: u64,
}

impl Default for Complaints {
    fn default() -> Self {
        Self { since: Instant::now(), said: 0, unsaid: 0 }
    }
}

impl Complaints {
    /// Whether one more may be said; then, of how many before nothing was.
    pub(super) fn may_say(&mut self, now: Instant) -> Option<u64> {
        if now.duration_since(self.since) >= WHILE {
            (self.since, self.said) = (now, 0);
        }
        if self.said >= SAID {
            self.unsaid += 1;
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting() -> AbortHandle {
        tokio::spawn(std::future::pending::<()>()).abort_handle()
    }

    #[tokio::test]
    async fn whoever_floods_makes_way_for_himself() {
        let mut strangers = Strangers::default();
        let host = waiting();
        strangers.take("10.0.0.7".parse().unwrap(), host.clone());
        for n in 0..3 * MOST {
            let from = if n % 2 == 0 { "127.0.0.9" } else { "::ffff:127.0.0.1" };
            strangers.take(from.parse().unwrap(), waiting());
        }
        for n in 0..MOST {
            strangers.take(format!("2001:db8::{n:x}").parse().unwrap(), waiting());
        }
        tokio::task::yield_now().await;
        assert!(!host.is_finished());
        assert_eq!(strangers.0.len(), MOST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_said_to_be_one() {
        let mut complaints = Complaints::default();
        let said = (0..5 * SAID).filter_map(|_| complaints.may_say(Instant::now())).count();
        assert_eq!(said, SAID as usize);
        tokio::time::advance(WHILE).await;
        assert_eq!(complaints.may_say(Instant::now()), Some(u64::from(4 * SAID)));
    }
}
