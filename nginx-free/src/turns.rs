//! Turns at an app: of the requests that come at once, a few are sent, and the rest as those are answered.
//!
//! One connection of HTTP/2 brings a hundred requests at a time, and a client of HTTP/1.1 may have as many connections. An
//! app that answers at once is served no faster for being asked all of it together, but a hundred connections to it take a
//! hundred times the memory, and each is cold when its answer comes. One that takes its time, on purpose or not, must not
//! keep others waiting: for those who have waited for [`PATIENCE`], room is made, as much again as there is each time. Of
//! what was made so, half of what no slow request needs is taken back again and again, for the app may have been slow only
//! then.

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
/// How often half of the room that is not needed is taken back.
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
    /// When it was last looked how much of it is needed, and for how long all turns that have ended since were held since.
    looked: Instant,
    held: Duration,
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
        let room =
            Room { least, more: 0, looked: now, held: Duration::ZERO, owed: 0, growth: least, counted: now };
        Self { free: Semaphore::new(least), room: Mutex::new(room) }
    }

    /// A turn, where there is one now. It ends when it is dropped.
    pub(crate) fn try_take(&self) -> Option<Turn<'_>> {
        self.free.try_acquire().ok()?.forget();
        Some(self.turn())
    }

    /// A turn, waited for in the order of asking.
    pub(crate) async fn take(&self) -> Turn<'_> {
        let mut permit = pin!(self.free.acquire());
        loop {
            match timeout(PATIENCE, permit.as_mut()).await {
                Ok(permit) => permit.map_or((), |permit| permit.forget()),
                Err(_) if self.room().grow() => {}
                Err(_) => continue,
            }
            return self.turn();
        }
    }

    fn turn(&self) -> Turn<'_> {
        // The clock is read where somebody will want to know.
        let since = (self.room().more > 0).then(Instant::now);
        Turn { turns: self, since }
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
            (self.looked, self.held) = (now, Duration::ZERO);
        }
        self.more += 1;
        true
    }

    /// A turn ends. After a while, takes back half of the room that is not needed: for as many as ended turns have taken up on
    /// the average there was room before, and all others that are in use are slow.
    fn end(&mut self, since: Option<Instant>, free: &Semaphore) {
        if self.more == 0 {
            return;
        }
        let now = Instant::now();
        let period = now - self.looked;
        self.held += since.map_or(period, |since| period.min(now - since));
        if period < HALF_LIFE {
            return;
        }
        let in_use = (self.least + self.more + self.owed).saturating_sub(free.available_permits());
        let fast = self.held.as_micros().div_ceil(period.as_micros());
        let slow = in_use.saturating_sub(usize::try_from(fast).unwrap_or(usize::MAX));
        let half = self.more.saturating_sub(slow).div_ceil(2);
        self.more -= half;
        self.owed += half - free.forget_permits(half);
        (self.looked, self.held) = (now, Duration::ZERO);
    }
}

/// The right to have one request with the app.
pub(crate) struct Turn<'t> {
    turns: &'t Turns,
    /// When it was taken; `None` where that was before room was made.
    since: Option<Instant>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut room = self.turns.room();
        room.end(self.since, &self.turns.free);
        if room.owed > 0 {
            room.owed -= 1;
        } else {
            drop(room);
            self.turns.free.add_permits(1);
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

    /// How often a turn was waited for, of so many in turn, each held for a hundredth of a half-life.
    async fn waits_of_fast(turns: &Turns, count: usize) -> usize {
        let mut waits = 0;
        for _ in 0..count {
            let (turn, took) = waited(turns).await;
            waits += usize::from(took > Duration::ZERO);
            tokio::time::sleep(HALF_LIFE / 100).await;
            drop(turn);
        }
        waits
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_taken_back_but_for_what_slow_requests_need() {
        let turns = Turns::new(2);
        drop(taken(&turns, 64).await);
        assert_eq!(waits_of_fast(&turns, 1000).await, 0);
        assert_eq!(turns.free.available_permits(), 2);

        let (slow, _) = taken(&turns, 40).await;
        assert!(waits_of_fast(&turns, 1000).await <= 1, "for the slow ones there is room");
        drop(slow);
        waits_of_fast(&turns, 1000).await;
        let room = turns.room();
        assert_eq!((turns.free.available_permits(), room.more, room.owed), (2, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_taken_back_while_all_of_it_is_used_and_more_is_asked_for() {
        let turns = Turns::new(2);
        drop(taken(&turns, 16).await);
        // Ten ask again as soon as they are answered, within a millisecond: the app is fast, and two at a time are enough.
        let one = || async {
            for _ in 0..500 {
                let turn = turns.take().await;
                tokio::time::sleep(Duration::from_millis(1)).await;
                drop(turn);
            }
        };
        tokio::join!(one(), one(), one(), one(), one(), one(), one(), one(), one(), one());
        let room = turns.room();
        assert_eq!((turns.free.available_permits() + room.owed, room.owed), (2 + room.more, 0));
        assert!(room.more <= 2, "{}", room.more);
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
