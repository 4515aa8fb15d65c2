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

#[cfg(test)]
mod tests {
    use super::*;

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
