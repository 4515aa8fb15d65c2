//! What the tests stand on: users, the real program run as one of them, a census of what a session leaves on the node,
//! another user's eyes, a browser, a small internet, a small cluster.

pub(crate) mod browser;
pub(crate) mod census;
pub(crate) mod cluster;
pub(crate) mod http;
pub(crate) mod in_job;
mod interfaces;
pub(crate) mod needs;
pub(crate) mod net;
pub(crate) mod page;
pub(crate) mod pair;
pub(crate) mod place;
pub(crate) mod program;
pub(crate) mod scan;
pub(crate) mod ssh;
pub(crate) mod terminal;
pub(crate) mod users;
pub(crate) mod watched_job;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

pub(crate) use census::Process;
pub(crate) use program::{Running, Session};
pub(crate) use users::{Site, User};

/// Looks again and again until `look` sees it.
///
/// # Panics
/// When it has not after `within`.
pub(crate) fn until<T>(within: Duration, what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_at(Duration::from_millis(5), within, what, look)
}

/// The same, with so much time between two looks, where each takes some from what is looked at.
///
/// # Panics
/// As [`until`].
pub(crate) fn until_at<T>(
    pace: Duration,
    within: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        thread::park_timeout(pace);
    }
}

/// `seconds(2)` reads better where a deadline is meant.
pub(crate) const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Held by a test that needs the machine to itself: many sessions, a browser.
pub(crate) fn heavy() -> MutexGuard<'static, ()> {
    static HEAVY: Mutex<()> = Mutex::new(());
    HEAVY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a program of the machine's as root and returns its output.
///
/// # Panics
/// When it fails.
pub(crate) fn sh(words: &[&str]) -> String {
    let output = std::process::Command::new(words[0])
        .args(&words[1..])
        .output()
        .unwrap_or_else(|error| panic!("{words:?}: {error}"));
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
