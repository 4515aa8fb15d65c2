//! Terminals of a session: each a pseudoterminal with a program of the session on it, and a relay that owns it. People come
//! and go: what the program writes is kept for a while and numbered, so that whoever comes back goes on where he was.
//!
//! The relay enforces who may do what: a viewer's bytes end here, and only the owner's window decides on the size. It knows
//! no network and no protocol; who somebody is has been judged before he is given a seat.

mod answers;
mod emulator;
#[cfg(fuzzing)]
pub mod fuzzing;
mod history;
mod hold;
mod recording;
mod relay;
mod seat;
mod state;
#[cfg(test)]
mod tests;
mod typed;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use nix::{pty::Winsize, sys::termios::Termios};
use tokio::sync::watch;

use crate::{
    activity::Activity,
    host::{Host, HostError, Invocation},
    sys::{spawn::Streams, terminal},
    words::Size,
};

pub use recording::{Recording, RecordingError};
use relay::Parts;
pub use relay::Terminal;
pub use seat::{Attach, Attachment, Began, Controls, Event, Sight};
pub use typed::{ClientId, InvalidClient};

/// The most terminals of a session: each is a program, and keeps up to [`history::KEPT`] bytes.
const MOST: usize = 64;

/// The number of a terminal in its session, from 1; never given twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TerminalId(u32);

impl TerminalId {
    /// The number.
    pub fn value(self) -> u32 {
        self.0
    }
}

impl From<u32> for TerminalId {
    fn from(number: u32) -> Self {
        Self(number)
    }
}

/// What is to run on a new terminal.
pub struct New {
    /// The program.
    pub what: Invocation,
    /// What it gets besides the app's environment: `TERM` and the like.
    pub env: Vec<(OsString, OsString)>,
    /// The size to begin with.
    pub size: Size,
    /// The modes to begin with; the kernel's own without.
    pub modes: Option<Termios>,
    /// For how long.
    pub keep: Keep,
}

/// How long a terminal stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// Until its program ends: one can come back to it.
    UntilItEnds,
    /// Until its owner has gone, as with ssh: then it is hung up.
    WhileAttached,
}

/// Why there is no new terminal.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There are [`MOST`] already.
    #[error("there are {MOST} terminals already: end one first")]
    TooMany,
    /// The kernel gives none.
    #[error("cannot open a terminal: {0}")]
    Kernel(#[from] io::Error),
    /// The program cannot be run.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// All terminals of one session. Cheap to clone.
#[derive(Clone)]
pub struct Terminals(Arc<Table>);

struct Table {
    host: Arc<Host>,
    activity: Activity,
    open: Mutex<Open>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Open {
    last: u32,
    /// Those being opened.
    coming: usize,
    terminals: BTreeMap<TerminalId, Terminal>,
}

impl Terminals {
    /// Those of the session on this host: none yet. What is typed there is `activity`.
    pub fn new(host: Arc<Host>, activity: Activity) -> Self {
        let changed = watch::Sender::new(());
        Self(Arc::new(Table { host, activity, open: Mutex::default(), changed }))
    }

    /// Opens another one.
    ///
    /// # Errors
    /// As [`OpenError`].
    pub async fn open(&self, new: New) -> Result<Terminal, OpenError> {
        let _coming = Coming::begin(&self.0)?;
        let size = winsize(new.size);
        let (ours, theirs) = terminal::pair(&size, new.modes.as_ref())?;
        let label = label(&new.what);
        // What can fail comes first: who fails with the table in hand takes the terminal out of it, and waits for himself.
        let ours = relay::watched(ours)?;
        let started = self.0.host.exec(new.what, &new.env, Streams::Terminal(theirs)).await?;
        let mut open = self.0.open();
        open.last += 1;
        let id = TerminalId(open.last);
        let terminal = Terminal::begin(Parts {
            forget: Forget { id, table: Arc::downgrade(&self.0) },
            pty: ours,
            started,
            host: Arc::clone(&self.0.host),
            activity: self.0.activity.clone(),
            size: new.size,
            keep: new.keep,
            label,
        });
        open.terminals.insert(id, terminal.clone());
        drop(open);
        self.0.changed.send_replace(());
        Ok(terminal)
    }

    /// One of them.
    pub fn get(&self, id: TerminalId) -> Option<Terminal> {
        self.0.open().terminals.get(&id).cloned()
    }

    /// All of them, in the order in which they were opened.
    pub fn list(&self) -> Vec<Terminal> {
        self.0.open().terminals.values().cloned().collect()
    }

    /// The one that its owner last looked at or typed into.
    pub fn last_used(&self) -> Option<Terminal> {
        self.list().into_iter().max_by_key(Terminal::last_used)
    }

    /// Changes when one is opened or ends.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }
}

impl Table {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the [`MOST`], for a terminal that is being opened.
struct Coming<'a>(&'a Table);

impl<'a> Coming<'a> {
    fn begin(table: &'a Table) -> Result<Self, OpenError> {
        let mut open = table.open();
        if open.terminals.len() + open.coming >= MOST {
            return Err(OpenError::TooMany);
        }
        open.coming += 1;
        Ok(Self(table))
    }
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        self.0.open().coming -= 1;
    }
}

/// Takes a terminal that has ended out of the table, when dropped.
struct Forget {
    id: TerminalId,
    table: Weak<Table>,
}

impl Drop for Forget {
    fn drop(&mut self) {
        if let Some(table) = self.table.upgrade() {
            table.open().terminals.remove(&self.id);
            table.changed.send_replace(());
        }
    }
}

fn winsize(size: Size) -> Winsize {
    Winsize { ws_row: size.rows(), ws_col: size.cols(), ws_xpixel: 0, ws_ypixel: 0 }
}

/// What a terminal is called until its program gives it a title.
fn label(what: &Invocation) -> String {
    match what {
        Invocation::Words(words) => {
            words.first().map_or_else(String::new, |w| w.to_string_lossy().into_owned())
        }
        Invocation::Line(line) => line.to_string_lossy().chars().take(80).collect(),
        Invocation::Shell | Invocation::Login => "shell".to_owned(),
    }
}
