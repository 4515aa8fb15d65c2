//! Turns at an app: of the requests that come at once, a few are sent, and the rest as those are answered.
//!
//! One connection of HTTP/2 brings a hundred requests at a time. An app that answers at once is served no faster for being
//! asked them all together, but a hundred connections to it take a hundred times the memory, and each is cold when its
//! answer comes. One that takes its time, on purpose or not, must not keep others waiting: for those who have waited for
//! [`PATIENCE`], room is made, as much again as there is each time. What was made so is taken back by half again and again,
//! for the app may have been slow only then.

use std::{
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

/// How long a request waits for its turn before room is made, and how often as much again is made.
const PATIENCE: Duration = Duration::from_millis(20);
/// How often half of the room that was made is taken back.
const HALF_LIFE: Duration = Duration::from_millis(100);

/// The turns at one app.
pub(crate) struct Turns {
    free: Semaphore,
    room: Mutex<Room>,
}

/// How many may be with the app at once.
struct Room {
    least: usize,
    /// The room that was made for requests that had waited.
    more: usize,
    halved: Instant,
    /// Of what is taken back, what is still in use.
    owed: usize,
    /// How much may be made until it is `PATIENCE` since it was last counted.
    growth: usize,
    counted: Instant,
}

impl Turns {
    /// So many at once.
    pub(crate) fn new(at_once: usize) -> Self {
        let least = at_once.clamp(1, Semaphore::MAX_PERMITS);
        let now = Instant::now();
        let room = Room { least, more: 0, halved: now, owed: 0, growth: least, counted: now };
        Self { free: Semaphore::new(least), room: Mutex::new(room) }
    }

    /// A turn, in the order of asking. It ends when it is dropped.
    pub(crate) async fn take(&self) -> Turn<'_> {
        match self.free.try_acquire() {
            Ok(permit) => permit.forget(),
            Err(_) => Box::pin(self.wait()).await,
        }
        Turn(self)
    }

    async fn wait(&self) {
        let mut permit = pin!(self.free.acquire());
        loop {
            match timeout(PATIENCE, permit.as_mut()).await {
                Ok(permit) => return permit.map_or((), |permit| permit.forget()),
                Err(_) if self.room().grow() => return,
                Err(_) => {}
            }
        }
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    /// Makes room for one more, unless as much was made a moment ago as there was.
    fn grow(&mut self) -> bool {
        let now = Instant::now();
        if now - self.counted >= PATIENCE {
            self.counted = now;
            self.growth = self.least + self.more;
        }
        if self.growth == 0 {
            return false;
        }
        self.growth -= 1;
        if self.more == 0 {
            self.halved = now;
        }
        self.more += 1;
        true
    }

    /// Takes back half of what was made, after a while.
    fn shrink(&mut self, free: &Semaphore) {
        if self.more > 0 && self.halved.elapsed() >= HALF_LIFE {
            let half = self.more.div_ceil(2);
            self.more -= half;
            self.owed += half - free.forget_permits(half);
            self.halved = Instant::now();
        }
    }
}

/// The right to have one request with the app.
pub(crate) struct Turn<'t>(&'t Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut room = self.0.room();
        room.shrink(&self.0.free);
        if room.owed > 0 {
            room.owed -= 1;
        } else {
            drop(room);
            self.0.free.add_permits(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn waited(turns: &Turns) -> (Turn<'_>, Duration) {
        let begun = Instant::now();
        let turn = turns.take().await;
        (turn, begun.elapsed())
    }

    /// So many turns, and how long the last of them took, where all are asked for at once and none ends.
    async fn taken(turns: &Turns, count: usize) -> (Vec<Turn<'_>>, Duration) {
        let mut asked: Vec<_> = (0..count).map(|_| Box::pin(waited(turns))).collect();
        let mut got: Vec<Option<(Turn<'_>, Duration)>> = (0..count).map(|_| None).collect();
        std::future::poll_fn(|cx| {
            for (asked, got) in asked.iter_mut().zip(&mut got).filter(|(_, got)| got.is_none()) {
                if let std::task::Poll::Ready(turn) = asked.as_mut().poll(cx) {
                    *got = Some(turn);
                }
            }
            if got.iter().all(Option::is_some) {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
        let last = got.iter().flatten().map(|(_, took)| *took).max().unwrap_or_default();
        (got.into_iter().flatten().map(|(turn, _)| turn).collect(), last)
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_too_many_waits_for_an_answer_or_a_moment() {
        let turns = Turns::new(2);
        let (first, took) = waited(&turns).await;
        let _second = turns.take().await;
        assert_eq!(took, Duration::ZERO);
        let third = waited(&turns);
        let answered = async {
            tokio::time::sleep(PATIENCE / 2).await;
            drop(first);
        };
        let ((_third, took), ()) = tokio::join!(third, answered);
        assert!((PATIENCE / 2..PATIENCE).contains(&took), "{took:?}");
        let (_fourth, took) = waited(&turns).await;
        assert!((PATIENCE..PATIENCE * 3 / 2).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_made_twice_as_fast_each_time_and_stays_for_a_while() {
        let turns = Turns::new(2);
        let (all, took) = taken(&turns, 64).await;
        assert!((5 * PATIENCE..6 * PATIENCE).contains(&took), "2, 4, 8, 16, 32, 64: {took:?}");
        drop(all);
        let (_all, took) = taken(&turns, 32).await;
        assert_eq!(took, Duration::ZERO, "no more than half is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn room_that_was_made_is_taken_back() {
        let turns = Turns::new(2);
        drop(taken(&turns, 64).await);
        for _ in 0..8 {
            tokio::time::sleep(HALF_LIFE).await;
            drop(taken(&turns, 1).await);
        }
        assert_eq!(turns.free.available_permits(), 2);
        // And while all of it is in use:
        let (all, _) = taken(&turns, 64).await;
        for turn in all {
            tokio::time::sleep(HALF_LIFE).await;
            drop(turn);
        }
        let room = turns.room();
        assert_eq!((turns.free.available_permits(), room.more, room.owed), (2, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_while_waiting_takes_no_turn() {
        let turns = Turns::new(1);
        let first = turns.take().await;
        let mut gone = Box::pin(turns.take());
        assert!(timeout(PATIENCE / 2, gone.as_mut()).await.is_err());
        drop(first);
        drop(gone);
        assert_eq!(waited(&turns).await.1, Duration::ZERO);
    }
}
