//! What shows that a session is used, counted where it passes, and the judgement on it. Owns the rule of what counts as use
//! and its reasons; ends nothing, warns nobody, and reads no clock.
//!
//! # The rule
//! | evidence | counts | does not |
//! |---|---|---|
//! | keystrokes, of the owner and of guests | each | what a page answers to a terminal's questions; output, however much: `top` in a forgotten terminal is no use |
//! | requests to the app | one that was not made before, and each that opens a page | one that was made before, with this method, path (without its query) and length of body; our own paths |
//! | bytes of WebSockets, of forwarded connections, of programs over ssh | what people send, as [`Pulse`] tells; both ways together, beyond [`judge::MOVED`] a minute | pings, heartbeats, what a status line needs |
//! | bytes of a request or its answer | while it lasts longer than from one look to the next, beyond [`judge::MOVED`] a minute | the answers to polls |
//! | processors, of all processes of the sandbox | beyond [`judge::CPU`] | shlogin's own |
//! | GPUs | any use | a program that only holds one |
//!
//! A page that nobody looks at is not silent. JupyterLab, left open with a notebook, was seen to make six requests each ten
//! seconds, one of them a PUT, to the same six paths and with bodies of the same length, and to hold two WebSockets that
//! bring 8 KiB a minute and take 0.1 KiB; its server and kernel need 0.3 to 0.8 % of a processor. So a request that was made
//! before shows nothing; the query must not count, for pages put the time into it. POST and PATCH are no repetition of
//! anything (RFC 9110 §9.2.2): pages of some apps send all that their person does as POSTs to one path, so these count
//! each time.
//!
//! What cannot be read is no evidence of idleness: [`Look::Unknown`].

#![forbid(unsafe_code)]

pub mod judge;
mod made;
mod pulse;
mod stream;

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use http::Method;

pub use judge::{Evidence, Gpu, Judge, Look, Reading, Verdict};
use made::Made;
pub use pulse::Pulse;
pub use stream::{Carries, Counted};

/// A handle for those who see something of it. Cheap to clone; where nobody judges, it counts nothing and costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Activity(Option<Arc<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    keys: AtomicU64,
    acts: AtomicU64,
    sent: AtomicU64,
    moved: AtomicU64,
    /// How often somebody has looked.
    looks: AtomicU64,
    made: Mutex<Made>,
    last: Mutex<String>,
    watched: AtomicU64,
    terminals: Mutex<Vec<Borrowed>>,
}

/// Somebody else's terminal, on which a program of the session runs: its bytes do not pass here, but the kernel notes when it
/// was last read.
#[derive(Debug)]
struct Borrowed {
    number: u64,
    terminal: OwnedFd,
    read: i64,
}

/// All that was counted from the beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Keys.
    pub keys: u64,
    /// Requests and commands that count.
    pub acts: u64,
    /// How often people sent something over what stays open.
    pub sent: u64,
    /// Bytes both ways, over what stays open or takes long.
    pub moved: u64,
}

/// A request to the app.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// Its method.
    pub method: &'r Method,
    /// Its path, without the query.
    pub path: &'r str,
    /// The length of its body, where it says one.
    pub length: Option<u64>,
    /// It opens a page: a person has typed, clicked or reloaded.
    pub opens_page: bool,
}

/// So much of a path is shown.
const SHOWN: usize = 60;

impl Activity {
    /// One that counts.
    pub fn counting() -> Self {
        Self(Some(Arc::default()))
    }

    /// Whether it counts.
    pub fn counts(&self) -> bool {
        self.0.is_some()
    }

    /// Somebody has typed.
    pub fn typed(&self) {
        if let Some(counts) = &self.0 {
            counts.keys.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The owner has done something by a command of hers.
    pub fn did(&self, what: &'static str) {
        if let Some(counts) = &self.0 {
            counts.act(|last| what.clone_into(last));
        }
    }

    /// A request is let through to the app.
    pub fn requested(&self, request: Request<'_>) {
        let Some(counts) = &self.0 else { return };
        let again = request.method.is_idempotent()
            && !lock(&counts.made).is_new(request.method, request.path, request.length);
        if again && !request.opens_page {
            return;
        }
        counts.act(|last| {
            last.clear();
            last.push_str("a request (");
            // An extension of HTTP's may have a method of any length.
            last.extend(request.method.as_str().chars().take(16));
            last.push(' ');
            let shown = |c: char| if c.is_ascii_graphic() { c } else { '?' };
            last.extend(request.path.chars().take(SHOWN).map(shown));
            last.push_str(if request.path.chars().nth(SHOWN).is_some() { "…)" } else { ")" });
        });
    }

    /// Somebody sends something over a connection that stays open: so [`Pulse`] has judged.
    fn sent(&self) {
        if let Some(counts) = &self.0 {
            counts.sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// So many bytes go either way over a connection that stays open, or with a request that takes long.
    pub fn moved(&self, bytes: usize) {
        if let Some(counts) = &self.0 {
            counts.moved.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// Watches what is typed on somebody else's terminal, until that is dropped. A copy that cannot be had is not watched.
    pub fn watch(&self, terminal: &OwnedFd) -> Option<Watched> {
        let counts = self.0.as_ref()?;
        let terminal = terminal.try_clone().ok()?;
        let number = counts.watched.fetch_add(1, Ordering::Relaxed);
        let read = last_read(&terminal);
        lock(&counts.terminals).push(Borrowed { number, terminal, read });
        Some(Watched { counts: Arc::clone(counts), number })
    }

    /// All that was counted; from here on, what goes on was begun before this look.
    pub fn look(&self) -> Counters {
        let Some(counts) = &self.0 else { return Counters::default() };
        counts.looks.fetch_add(1, Ordering::Relaxed);
        for borrowed in lock(&counts.terminals).iter_mut() {
            let read = last_read(&borrowed.terminal);
            if std::mem::replace(&mut borrowed.read, read) != read {
                counts.keys.fetch_add(1, Ordering::Relaxed);
            }
        }
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counters {
            keys: load(&counts.keys),
            acts: load(&counts.acts),
            sent: load(&counts.sent),
            moved: load(&counts.moved),
        }
    }

    /// The last request or command that counted, in words for the owner.
    pub fn last_act(&self) -> String {
        self.0.as_ref().map(|counts| lock(&counts.last).clone()).unwrap_or_default()
    }

    fn looks(&self) -> u64 {
        self.0.as_ref().map_or(0, |counts| counts.looks.load(Ordering::Relaxed))
    }
}

impl Counts {
    fn act(&self, say: impl FnOnce(&mut String)) {
        say(&mut lock(&self.last));
        self.acts.fetch_add(1, Ordering::Relaxed);
    }
}

/// A terminal that is watched, until this is dropped.
#[derive(Debug)]
pub struct Watched {
    counts: Arc<Counts>,
    number: u64,
}

impl Drop for Watched {
    fn drop(&mut self) {
        lock(&self.counts.terminals).retain(|borrowed| borrowed.number != self.number);
    }
}

/// When a program last read from a terminal, to within eight seconds: so the kernel notes it, and so `w(1)` knows who is idle.
fn last_read(terminal: &OwnedFd) -> i64 {
    nix::sys::stat::fstat(terminal).map_or(0, |stat| stat.st_atime)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request<'r>(method: &'r Method, path: &'r str, length: Option<u64>) -> Request<'r> {
        Request { method, path, length, opens_page: false }
    }

    #[test]
    fn what_a_forgotten_tab_does_again_and_again_counts_once() {
        let activity = Activity::counting();
        let tab = [
            request(&Method::GET, "/api/contents", None),
            request(&Method::GET, "/api/sessions", None),
            request(&Method::PUT, "/lab/api/workspaces/default", Some(1524)),
        ];
        for _ in 0..1000 {
            tab.iter().for_each(|polled| activity.requested(*polled));
        }
        assert_eq!(activity.look().acts, 3);
        assert_eq!(activity.last_act(), "a request (PUT /lab/api/workspaces/default)");
    }

    #[test]
    fn what_a_person_does_counts_each_time() {
        let activity = Activity::counting();
        let page = Request { opens_page: true, ..request(&Method::GET, "/lab", None) };
        for length in 0..3 {
            // A file that is saved is another length each time, as a rule.
            activity.requested(request(&Method::PUT, "/api/contents/a.ipynb", Some(length)));
            activity.requested(request(&Method::POST, "/_dash-update-component", Some(7)));
            activity.requested(page);
        }
        assert_eq!(activity.look().acts, 9);
    }

    #[test]
    fn what_is_shown_of_a_request_is_short_and_harmless() {
        let activity = Activity::counting();
        let path = format!("/\u{1b}]0;x\u{7}{}", "é".repeat(500));
        activity.requested(request(&Method::GET, &path, None));
        let shown = activity.last_act();
        assert!(shown.chars().count() < 90 && !shown.chars().any(char::is_control), "{shown}");
        assert!(shown.starts_with("a request (GET /?]0;x??"), "{shown}");
    }

    #[test]
    fn where_nobody_judges_nothing_is_counted() {
        let activity = Activity::default();
        activity.typed();
        activity.moved(1 << 20);
        activity.requested(request(&Method::POST, "/", None));
        assert_eq!((activity.look(), activity.last_act()), (Counters::default(), String::new()));
    }

    #[test]
    fn somebody_else_s_terminal_is_watched_for_as_long_as_that_is_wanted() {
        let activity = Activity::counting();
        let (pty, tty) = crate::sys::terminal::pair(
            &nix::pty::Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 },
            None,
        )
        .unwrap();
        let watched = activity.watch(&tty).unwrap();
        assert_eq!(activity.look().keys, 0);
        // As if a key had been read eight seconds later.
        let past = nix::sys::time::TimeSpec::new(1_000_000_000, 0);
        nix::sys::stat::futimens(&tty, &past, &past).unwrap();
        assert_eq!((activity.look().keys, activity.look().keys), (1, 1));
        drop(watched);
        let later = nix::sys::time::TimeSpec::new(1_000_000_100, 0);
        nix::sys::stat::futimens(&tty, &later, &later).unwrap();
        assert_eq!(activity.look().keys, 1);
        drop(pty);
    }
}
