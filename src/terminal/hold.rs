//! When a program is held back: while somebody who is to see all of its output has not.
//!
//! Each hold has its measure and its time. Somebody who is there holds the program to within a quarter of a mebibyte, so
//! that an interrupt is seen soon after it is typed, but not for long if he shows nothing at all: a browser's forgotten
//! tab must not stop a night's work. Somebody whose connection broke holds it to what is kept, for a minute: if he
//! is back by then, he has missed nothing.

use std::time::Duration;

use tokio::time::Instant;

use super::history::KEPT;

/// How far a program may be ahead of somebody who is there, in bytes.
const AHEAD: u64 = 256 * 1024;
/// How long a page may show nothing of what it was sent, and still hold the program.
const PATIENCE: Duration = Duration::from_secs(10);
/// As long as it takes.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);
/// How long somebody may be away.
const ABSENCE: Duration = Duration::from_secs(60);

/// One person's hold on the program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    shown: u64,
    ahead: u64,
    patience: Duration,
    until: Instant,
}

impl Hold {
    /// Of somebody who is there and has seen the output up to `shown`.
    pub(super) fn present(shown: u64, now: Instant) -> Self {
        Self { shown, ahead: AHEAD, patience: PATIENCE, until: now + PATIENCE }
    }

    /// The same, of somebody who never comes back when he has gone.
    pub(super) fn unforgiving(shown: u64, now: Instant) -> Self {
        Self { shown, ahead: AHEAD, patience: FOR_EVER, until: now + FOR_EVER }
    }

    /// Of somebody who was, and is not any more.
    pub(super) fn absent(self, now: Instant) -> Self {
        // Less than all that is kept, lest what comes in one go pushes out what he has not seen.
        Self { ahead: KEPT / 2, patience: ABSENCE, until: now + ABSENCE, ..self }
    }

    /// He has seen more. Not less: what was shown was shown.
    pub(super) fn advance(&mut self, shown: u64, now: Instant) {
        if shown > self.shown {
            (self.shown, self.until) = (shown, now + self.patience);
        }
    }

    /// Until when a program whose output ends at `end` is held, if it is.
    pub(super) fn holds(&self, end: u64, now: Instant) -> Option<Instant> {
        (end.saturating_sub(self.shown) >= self.ahead && now < self.until).then_some(self.until)
    }

    /// Whether it counts no more.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.until
    }

    /// Keeps patience with somebody who has nothing to show: who has seen everything was not slow.
    pub(super) fn rest(&mut self, end: u64, now: Instant) {
        if self.shown >= end {
            self.until = now + self.patience;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_waits_for_who_is_slow_and_not_for_who_is_asleep() {
        let now = Instant::now();
        let mut hold = Hold::present(0, now);
        assert_eq!(hold.holds(AHEAD - 1, now), None);
        assert_eq!(hold.holds(AHEAD, now), Some(now + PATIENCE));
        assert_eq!(hold.holds(AHEAD, now + PATIENCE), None);
        let later = now + PATIENCE / 2;
        hold.advance(10, later);
        assert_eq!(hold.holds(AHEAD + 10, later), Some(later + PATIENCE));
        hold.advance(5, later + PATIENCE);
        assert_eq!(hold.shown, 10);
    }

    #[test]
    fn an_ssh_client_misses_nothing_however_long_it_takes() {
        let now = Instant::now();
        assert!(Hold::unforgiving(0, now).holds(AHEAD, now + PATIENCE * 1000).is_some());
    }

    #[test]
    fn who_has_seen_everything_has_all_his_patience_when_more_comes() {
        let now = Instant::now();
        let mut hold = Hold::present(0, now);
        let much_later = now + PATIENCE * 100;
        hold.rest(0, much_later);
        assert!(hold.holds(AHEAD, much_later).is_some());
    }

    #[test]
    fn a_broken_connection_holds_less_tightly_and_for_a_minute() {
        let now = Instant::now();
        let hold = Hold::present(100, now).absent(now);
        assert_eq!(hold.holds(100 + AHEAD, now), None);
        assert_eq!(hold.holds(100 + KEPT / 2, now), Some(now + ABSENCE));
        assert!(hold.is_over(now + ABSENCE));
    }
}
