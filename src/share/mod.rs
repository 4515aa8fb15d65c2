//! Who else is let in to a terminal: one person per code, for a time, to watch or to type. Owns the grants and ends them;
//! whoever carries a guest's bytes holds a [`Visit`], hears from it when it is over, and hangs up.

mod code;
mod place;
#[cfg(test)]
mod tests;
mod visit;

use std::{
    fmt, io,
    str::FromStr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use nginx_free::Peer;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};

use crate::{
    terminal::TerminalId,
    words::{Access, Secret, SecretHash},
};

pub use place::Place;
pub use visit::{Connected, News, Over, Presence, Visit, Visiting};

/// The most people who may be let in at a time.
const MOST: usize = 32;
/// The most connections of one person at a time: each costs a picture of the screen whenever it changes.
pub const CONNECTIONS: usize = 8;
/// How long before its end a visit's people are warned.
pub const WARNING: Duration = Duration::from_secs(5 * 60);
/// The key by which an owner on a terminal of her own ends all visits to it: Ctrl-^. Hers again when nobody is let in.
pub const END_KEY: u8 = 0x1e;
/// The longest visit: one that is meant to last for longer is no visit.
pub const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// The name of a guest's grant: `g1`, `g2`, …; never given twice in a session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct GuestId(u32);

impl fmt::Display for GuestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}", self.0)
    }
}

impl FromStr for GuestId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix('g').unwrap_or("?").parse().map(Self)
    }
}

/// What a guest is let in to.
pub struct Terms {
    /// What he may do; never [`Access::Owner`].
    pub access: Access,
    /// For how long, at most [`LONGEST`].
    pub lasts: Duration,
    /// What the owner calls him.
    pub label: Option<String>,
    /// The one terminal.
    pub terminal: TerminalId,
}

/// A person who is let in, as his host sees him.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Guest {
    /// By which he is revoked.
    pub id: String,
    /// What the owner calls him.
    pub label: Option<String>,
    /// What he may do.
    pub access: Access,
    /// The terminal's number.
    pub terminal: u32,
    /// Where he came from, once he has used his code.
    pub from: Option<Place>,
    /// How many connections he has open.
    pub connections: usize,
    /// How long he may stay, in seconds.
    pub seconds_left: u64,
}

/// Why nobody is let in.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// There are [`MOST`] already.
    #[error("{MOST} people are let in already: revoke one first")]
    TooMany,
    /// The kernel has no random numbers.
    #[error("making a code: {0}")]
    Random(#[from] io::Error),
}

/// All grants of a session. Cheap to clone.
#[derive(Clone)]
pub struct Guests(Arc<Inner>);

/// Tells the owner something, wherever she looks at a terminal.
type TellOwner = dyn Fn(TerminalId, &str) + Send + Sync;

struct Inner {
    /// Whether a code is good only from where it was first used.
    bind: bool,
    tell: Box<TellOwner>,
    table: Mutex<Table>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Table {
    last: u32,
    grants: Vec<Grant>,
}

struct Grant {
    id: GuestId,
    hash: SecretHash,
    label: Option<String>,
    access: Access,
    terminal: TerminalId,
    /// Where it was first used.
    place: Option<Place>,
    stay: watch::Sender<visit::Stay>,
    /// How many connections its person has.
    here: Arc<AtomicUsize>,
    /// And how many by ssh, whether he is shown something there or not.
    connected: Arc<AtomicUsize>,
}

impl Grant {
    /// What its person is called.
    fn name(&self) -> String {
        name(self.id, self.label.as_deref())
    }

    fn visit(&self, guests: &Guests) -> Visit {
        Visit {
            guests: guests.clone(),
            id: self.id,
            name: self.name(),
            access: self.access,
            terminal: self.terminal,
            stay: self.stay.subscribe(),
            here: Arc::clone(&self.here),
            connected: Arc::clone(&self.connected),
        }
    }

    fn answers_to(&self, who: &str) -> bool {
        self.id.to_string() == who || self.label.as_deref() == Some(who)
    }
}

fn name(id: GuestId, label: Option<&str>) -> String {
    label.map_or_else(|| id.to_string(), |label| format!("{label} ({id})"))
}

impl Guests {
    /// None yet. With `bind`, a code is good only for the place that it is first used from. `tell` tells the owner what
    /// happens, where she looks at the terminal that it is about.
    pub fn new(bind: bool, tell: impl Fn(TerminalId, &str) + Send + Sync + 'static) -> Self {
        let (table, changed) = (Mutex::default(), watch::Sender::new(()));
        Self(Arc::new(Inner { bind, tell: Box::new(tell), table, changed }))
    }

    /// Lets one person in, who has the code that this returns.
    ///
    /// # Errors
    /// As [`GrantError`].
    pub fn grant(&self, terms: Terms) -> Result<(GuestId, Secret), GrantError> {
        let code = code::new()?;
        let mut table = self.table();
        if table.grants.len() >= MOST {
            return Err(GrantError::TooMany);
        }
        table.last += 1;
        let id = GuestId(table.last);
        let until = Instant::now() + terms.lasts.min(LONGEST);
        let access = terms.access.min(Access::Type);
        let stay = watch::Sender::new(visit::Stay { until, revoked: false });
        let visiting = Visiting::new(stay.subscribe());
        let grant = Grant {
            id,
            hash: code::hash(code.reveal()),
            label: terms.label,
            access,
            terminal: terms.terminal,
            place: None,
            stay,
            here: Arc::default(),
            connected: Arc::default(),
        };
        tokio::spawn(watch_over(self.clone(), id, grant.name(), grant.terminal, visiting));
        table.grants.push(grant);
        drop(table);
        self.stir();
        Ok((id, code))
    }

    /// Takes a code from somebody. It is good again and again, but only for the one who used it first.
    pub fn claim(&self, code: &str, peer: &Peer) -> Option<Visit> {
        let hash = code::hash(code);
        let place = Place::of(peer);
        let mut table = self.table();
        let grant = table.grants.iter_mut().find(|grant| grant.hash.matches(&hash))?;
        if self.0.bind && grant.place.is_some_and(|first| first != place) {
            return None;
        }
        if grant.stay.borrow().is_over(Instant::now()) {
            return None;
        }
        grant.place.get_or_insert(place);
        let visit = grant.visit(self);
        drop(table);
        self.stir();
        Some(visit)
    }

    /// All people who are let in.
    pub fn list(&self) -> Vec<Guest> {
        let now = Instant::now();
        let table = self.table();
        table
            .grants
            .iter()
            .map(|grant| Guest {
                id: grant.id.to_string(),
                label: grant.label.clone(),
                access: grant.access,
                terminal: grant.terminal.value(),
                from: grant.place,
                connections: grant.here.load(Ordering::Relaxed),
                seconds_left: grant.stay.borrow().until.saturating_duration_since(now).as_secs(),
            })
            .collect()
    }

    /// Whether anybody is let in to this terminal.
    pub fn shares(&self, terminal: TerminalId) -> bool {
        self.table().grants.iter().any(|grant| grant.terminal == terminal)
    }

    /// Ends the visit of `who`, by the grant's name or the owner's word for him. Says how many it was.
    pub fn revoke(&self, who: &str) -> usize {
        self.end(|grant| grant.answers_to(who))
    }

    /// Ends all visits. Says how many there were.
    pub fn revoke_all(&self) -> usize {
        self.end(|_| true)
    }

    /// Ends the visits to one terminal.
    pub fn revoke_at(&self, terminal: TerminalId) -> usize {
        self.end(|grant| grant.terminal == terminal)
    }

    /// Takes [`END_KEY`] out of what the owner types at a terminal, where somebody is let in, and ends the visits there.
    pub fn heed_end_key(&self, terminal: TerminalId, typed: &mut BytesMut) {
        if typed.contains(&END_KEY) && self.revoke_at(terminal) > 0 {
            *typed = typed.iter().copied().filter(|key| *key != END_KEY).collect();
        }
    }

    fn end(&self, whose: impl Fn(&Grant) -> bool) -> usize {
        let now = Instant::now();
        let mut table = self.table();
        let before = table.grants.len();
        table.grants.retain(|grant| {
            let ends = whose(grant);
            // One whose time is up has ended by itself.
            if ends && !grant.stay.borrow().is_over(now) {
                grant.stay.send_modify(|stay| stay.revoked = true);
            }
            !ends
        });
        let ended = before - table.grants.len();
        drop(table);
        self.stir();
        ended
    }

    /// Lets `who` stay for so long from now on. Says how many it was.
    pub fn extend(&self, who: &str, lasts: Duration) -> usize {
        let until = Instant::now() + lasts.min(LONGEST);
        let table = self.table();
        let found: Vec<_> = table.grants.iter().filter(|grant| grant.answers_to(who)).collect();
        for grant in &found {
            grant.stay.send_modify(|stay| stay.until = until);
        }
        let extended = found.len();
        drop(table);
        self.stir();
        extended
    }

    /// Changes with the people, and with their coming and going.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, terminal: TerminalId, text: &str) {
        (self.0.tell)(terminal, text);
    }

    fn stir(&self) {
        self.0.changed.send_replace(());
    }
}

/// Warns the owner before a visit's end, and takes it out of the table after it.
async fn watch_over(guests: Guests, id: GuestId, name: String, terminal: TerminalId, mut visiting: Visiting) {
    loop {
        match visiting.next().await {
            News::EndsSoon { minutes } => guests.tell(
                terminal,
                &format!(
                    "{name} may stay for {minutes} more minutes; `shlogin share NAME --extend {id}` makes it longer"
                ),
            ),
            News::Over(why) => {
                guests.end(|grant| grant.id == id);
                return guests.tell(terminal, &format!("the visit of {name} is over: {why}"));
            }
        }
    }
}
