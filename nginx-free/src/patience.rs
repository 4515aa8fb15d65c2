//! How long one side may keep us waiting. Standing still uses patience up, and what arrives earns some of it back: so a
//! peer that moves a byte now and then ends as surely as one that moves none, while a slow line does not.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

/// Bytes that earn a second. Apache's `mod_reqtimeout` asks the same of a body.
const BYTES_PER_SECOND: u64 = 500;

pub(crate) struct Patience {
    most: Duration,
    left: Duration,
    waiting: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    pub(crate) fn new(most: Duration) -> Self {
        Self { most, left: most, waiting: None, timer: None }
    }

    /// So many bytes moved.
    pub(crate) fn moved(&mut self, bytes: usize) {
        let Some(since) = self.waiting.take() else { return };
        let earned = Duration::from_micros(bytes as u64 * (1_000_000 / BYTES_PER_SECOND));
        self.left = self.left.saturating_sub(since.elapsed()).saturating_add(earned).min(self.most);
    }

    /// Nothing moves. `Ready` when that has gone on for too long.
    pub(crate) fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waiting.is_none() {
            let now = Instant::now();
            self.waiting = Some(now);
            let end = now + self.left;
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(end),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(end))),
            }
        }
        if let Some(timer) = &mut self.timer {
            ready!(timer.as_mut().poll(cx));
        }
        Poll::Ready(())
    }
}

/// A time limit that is set anew again and again, seldom to be reached: its timer is left as it is while it runs out too
/// early, for to set one takes longer than to look at the clock.
pub(crate) struct Deadline {
    due: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    pub(crate) fn at(due: Instant) -> Self {
        Self { due, timer: None }
    }

    /// There is time until then, now.
    pub(crate) fn set(&mut self, due: Instant) {
        self.due = due;
    }

    /// `Ready` when the time is up.
    pub(crate) fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let due = self.due;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if timer.deadline() > due {
            timer.as_mut().reset(due);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_ends_when_it_was_last_said_to() {
        let after = |secs| Instant::now() + Duration::from_secs(secs);
        let mut deadline = Deadline::at(after(10));
        let passed = async |deadline: &mut Deadline| {
            let begun = Instant::now();
            let out = std::future::poll_fn(|cx| deadline.poll_passed(cx));
            tokio::time::timeout(Duration::from_secs(1000), out).await.map(|()| begun.elapsed().as_secs())
        };
        let out = std::future::poll_fn(|cx| deadline.poll_passed(cx));
        assert!(tokio::time::timeout(Duration::from_secs(4), out).await.is_err());
        deadline.set(after(30));
        assert_eq!(passed(&mut deadline).await, Ok(30), "later than its timer");
        deadline.set(after(60));
        let out = std::future::poll_fn(|cx| deadline.poll_passed(cx));
        assert!(tokio::time::timeout(Duration::from_secs(5), out).await.is_err());
        deadline.set(after(3));
        assert_eq!(passed(&mut deadline).await, Ok(3), "sooner than its timer");
    }

    /// How long a peer is borne with that moves `bytes` every `pause`.
    async fn borne(bytes: usize, pause: Duration) -> Duration {
        let mut patience = Patience::new(Duration::from_secs(30));
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(3600) {
            let out = std::future::poll_fn(|cx| patience.poll_out(cx));
            if tokio::time::timeout(pause, out).await.is_ok() {
                break;
            }
            patience.moved(bytes);
        }
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_ends_and_a_slow_line_does_not() {
        let seconds = Duration::from_secs;
        assert_eq!(borne(0, seconds(100)).await.as_secs(), 30, "silence");
        assert!((30..33).contains(&borne(10, seconds(1)).await.as_secs()), "a trickle");
        assert!((30..40).contains(&borne(10, seconds(10)).await.as_secs()), "a drop now and then");
        assert!(borne(501, seconds(1)).await >= seconds(3600), "a slow line");
        assert!(borne(64 * 1024, seconds(20)).await >= seconds(3600), "a line with pauses");
    }
}
