//! A guest's visit, as those see it who carry his bytes.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::{CONNECTIONS, GuestId, Guests, WARNING};
use crate::{terminal::TerminalId, words::Access};

/// How long a visit goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stay {
    pub(super) until: Instant,
    pub(super) revoked: bool,
}

impl Stay {
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.revoked || now >= self.until
    }
}

/// What a code opened. Worth nothing once it is over: whoever holds one asks, or listens by [`Visit::enter`].
#[derive(Clone)]
pub struct Visit {
    pub(super) guests: Guests,
    pub(super) id: GuestId,
    pub(super) name: String,
    pub(super) access: Access,
    pub(super) terminal: TerminalId,
    pub(super) stay: watch::Receiver<Stay>,
    /// How often this person is here.
    pub(super) here: Arc<AtomicUsize>,
    /// How many connections he has by ssh.
    pub(super) connected: Arc<AtomicUsize>,
}

impl Visit {
    /// The grant's name.
    pub fn id(&self) -> GuestId {
        self.id
    }

    /// What the person is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What he may do.
    pub fn access(&self) -> Access {
        self.access
    }

    /// The one terminal.
    pub fn terminal(&self) -> TerminalId {
        self.terminal
    }

    /// Whether it has ended, in whatever way.
    pub fn is_over(&self) -> bool {
        // Without a grant there is no sender; such a visit was ended before.
        self.stay.has_changed().is_err() || self.stay.borrow().is_over(Instant::now())
    }

    /// How much of it is left.
    pub fn left(&self) -> Duration {
        self.stay.borrow().until.saturating_duration_since(Instant::now())
    }

    /// Waits until it is over.
    pub async fn over(&self) -> Over {
        let mut visiting = Visiting::new(self.stay.clone());
        loop {
            if let News::Over(why) = visiting.next().await {
                return why;
            }
        }
    }

    /// One more connection by ssh, whatever it is for: counted while what this returns is there. None where he has
    /// [`CONNECTIONS`] already.
    pub fn connect(&self) -> Option<Connected> {
        let room = |open: usize| (open < CONNECTIONS).then_some(open + 1);
        self.connected.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        Some(Connected(Arc::clone(&self.connected)))
    }

    /// One more connection of this person's: counted until it is dropped, and told when to end. None where he has
    /// [`CONNECTIONS`] already. The owner hears of the first.
    pub fn enter(&self) -> Option<Presence> {
        let room = |here: usize| (here < CONNECTIONS).then_some(here + 1);
        let before = self.here.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        let presence = Presence { visiting: Visiting::new(self.stay.clone()), visit: self.clone() };
        if before == 0 {
            let verb = if self.access == Access::Type { "types with you" } else { "watches" };
            self.guests.tell(self.terminal, &format!("{} is here and {verb}", self.name));
        }
        self.guests.stir();
        Some(presence)
    }
}

/// A guest's connection by ssh.
pub struct Connected(Arc<AtomicUsize>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A guest who is here.
pub struct Presence {
    visiting: Visiting,
    visit: Visit,
}

impl Presence {
    /// Waits for what the guest is to be told, as [`Visiting::next`].
    pub async fn next(&mut self) -> News {
        self.visiting.next().await
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let Visit { guests, name, terminal, here, .. } = &self.visit;
        // No longer counted when the others look.
        if here.fetch_sub(1, Ordering::Relaxed) == 1 {
            guests.tell(*terminal, &format!("{name} has gone"));
        }
        guests.stir();
    }
}

/// What happens to a visit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// It ends in so many minutes, rounded up.
    EndsSoon {
        /// At least 1.
        minutes: u64,
    },
    /// It is over: hang up. The last news.
    Over(Over),
}

/// Why a visit is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Over {
    /// Its time is up.
    Expired,
    /// The owner has ended it.
    Revoked,
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "its time is up",
            Self::Revoked => "the owner has ended it",
        })
    }
}

/// Listens to what happens to a visit.
pub struct Visiting {
    stay: watch::Receiver<Stay>,
    /// The end of which has been warned.
    warned: Option<Instant>,
}

impl Visiting {
    pub(super) fn new(stay: watch::Receiver<Stay>) -> Self {
        let until = stay.borrow().until;
        // A visit that is short from the beginning needs no warning of what was just said.
        let short = until.saturating_duration_since(Instant::now()) <= WARNING;
        Self { stay, warned: short.then_some(until) }
    }

    /// Waits for the next news. May be dropped while it waits without losing anything.
    pub async fn next(&mut self) -> News {
        loop {
            let Stay { until, revoked } = *self.stay.borrow_and_update();
            let now = Instant::now();
            if revoked {
                return News::Over(Over::Revoked);
            }
            let left = until.saturating_duration_since(now);
            if left.is_zero() {
                return News::Over(Over::Expired);
            }
            let warn_at = until.checked_sub(WARNING).filter(|_| self.warned != Some(until));
            if warn_at.is_some_and(|at| at <= now) {
                self.warned = Some(until);
                return News::EndsSoon { minutes: left.as_secs().div_ceil(60).max(1) };
            }
            tokio::select! {
                () = tokio::time::sleep_until(warn_at.unwrap_or(until)) => {}
                changed = self.stay.changed() => if changed.is_err() {
                    // The grant has gone without a word: with the session, or by its end a moment ago.
                    return News::Over(if self.stay.borrow().revoked { Over::Revoked } else { Over::Expired });
                },
            }
        }
    }
}
