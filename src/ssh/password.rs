//! Checks the owner's password with PAM, in a process of its own for each.
//!
//! ```text
//! gateway                                   @password (the same user)
//!    │ ── Question (descriptor 3) ──────────────►│ limits itself, asks PAM
//!    │◄── Verdict ────────────────────────────── │ ends
//!    │ ── SIGKILL, where none came in time ─────►│ and to what its modules started
//! ```
//! PAM's modules are code of the site's, in C, that may hang, crash, and write to any memory: none of it comes near the
//! process that serves the network. What is not a clear yes is a no, for this attempt and for no other. The password is in
//! no `argv` and no environment, and its copies here are wiped.

mod helper;

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    process::Child,
    sync::Arc,
    time::Duration,
};

use nix::unistd::Pid;
use tokio::sync::Semaphore;

use super::{owner::Owner, source::Source};
use crate::{
    config::PamService,
    sandbox::protocol,
    sys::{
        message, process,
        spawn::{self, Leash, role},
    },
};
pub use helper::run as run_helper;
use helper::{Question, Verdict};

/// Longer passwords are refused without asking: nobody has one, and hashing it is not free.
const MAX_PASSWORD: usize = 1024;
/// So many are checked at a time.
const AT_A_TIME: usize = 4;
/// How long an attempt waits for its turn.
const TURN: Duration = Duration::from_secs(20);
/// How long a check may take. A wrong password takes about two seconds already, by PAM's own delay.
const LIMIT: Duration = Duration::from_secs(20);
/// How much longer the helper gives itself, should the process that watches it be stopped.
const SPARE: Duration = Duration::from_secs(10);
/// How long a helper has to end once nothing is wanted of it any more.
const END: Duration = Duration::from_secs(1);

/// Checks passwords, a few at a time.
#[derive(Clone)]
pub(crate) struct Passwords {
    service: PamService,
    turns: Arc<Semaphore>,
}

impl Passwords {
    /// Checks by the rules of `service`, a file in `/etc/pam.d`.
    pub(crate) fn new(service: PamService) -> Self {
        Self { service, turns: Arc::new(Semaphore::new(AT_A_TIME)) }
    }

    /// Whether `password` is the owner's, and PAM lets her account in, for a client from `source`.
    ///
    /// May be dropped: a check that has begun is then carried to its end, and counts among those of its time.
    ///
    /// # Errors
    /// Where it could not be asked: `TimedOut` where too many others are; otherwise as `fork(2)`. All are a no.
    pub(crate) async fn check(&self, owner: &Owner, password: &str, source: &Source) -> io::Result<bool> {
        if password.is_empty() || password.len() > MAX_PASSWORD || password.contains('\0') {
            return Ok(false);
        }
        let host = source.address().map(|address| address.to_string()).unwrap_or_default();
        let question = Question {
            limit: LIMIT + SPARE,
            service: self.service.as_str(),
            user: &owner.name,
            host: &host,
            password,
        };
        let (question, label) = (question.encoded()?, owner.name.clone());
        let turn = tokio::time::timeout(TURN, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| io::ErrorKind::TimedOut)?.map_err(io::Error::other)?;
        // On one thread from its start to its end: the helper dies with the thread that started it (prctl(2)).
        let check = move || {
            let _turn = turn;
            let (ours, theirs) = message::pair()?;
            let helper = spawn::role(role::PASSWORD, &label, vec![theirs], None, Leash::DiesWithParent)?;
            Ok(ask(helper, &ours, &question, LIMIT))
        };
        tokio::task::spawn_blocking(check).await.map_err(io::Error::other)?
    }
}

/// Asks a helper and sees to its end. `false` where it does not say yes within `limit`.
fn ask(mut helper: Child, socket: &OwnedFd, question: &[u8], limit: Duration) -> bool {
    let verdict = message::send(socket.as_fd(), question, &[])
        .and_then(|()| protocol::wait_readable(socket, limit))
        .and_then(|()| protocol::receive::<Verdict>(socket.as_fd()));
    let is_yes = match verdict {
        Ok(Some((Verdict::Yes, _))) => true,
        Ok(Some((Verdict::No(why), _))) => {
            tracing::info!(%why, "PAM refuses a password");
            false
        }
        Ok(None) => {
            tracing::warn!("PAM ended without an answer about a password");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "PAM gives no answer about a password");
            false
        }
    };
    end(&mut helper);
    is_yes
}

/// Lets a helper end, or ends it. What its modules started goes first, while it is still known whose it is.
fn end(helper: &mut Child) {
    if process::ends_within(helper, END) {
        return;
    }
    if let Ok(pid) = i32::try_from(helper.id()) {
        process::kill_descendants_of(Pid::from_raw(pid));
    }
    // It may have ended by that.
    let _ = helper.kill();
    let _ = helper.wait();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{process::Command, time::Instant};

    fn owner() -> Owner {
        Owner { name: "ada".to_owned(), uid: 1, home: "/".into() }
    }

    /// A helper that says `answer`, if anything, and runs `line`.
    fn asked(line: &str, answer: Option<Verdict>, limit: Duration) -> (bool, Duration) {
        let (ours, theirs) = message::pair().unwrap();
        if let Some(answer) = answer {
            protocol::send(theirs.as_fd(), &answer, &[]).unwrap();
        }
        let begun = Instant::now();
        let helper = Command::new("sh").args(["-c", line]).stdin(theirs).spawn().unwrap();
        (ask(helper, &ours, b"question", limit), begun.elapsed())
    }

    #[test]
    fn only_a_clear_yes_is_one() {
        let limit = Duration::from_secs(10);
        assert!(asked("exit 0", Some(Verdict::Yes), limit).0);
        assert!(!asked("exit 0", Some(Verdict::No("wrong".to_owned())), limit).0);
        assert!(!asked("exit 0", None, limit).0, "it ended without a word");
        assert!(!asked("kill -SEGV $$", None, limit).0, "it crashed");
    }

    #[test]
    fn a_helper_that_hangs_is_a_no_and_is_ended_with_all_it_started() {
        let mark = uuid::Uuid::new_v4().simple().to_string();
        let line = format!("trap '' TERM; setsid sh -c 'while :; do sleep 100; done' {mark} & wait; wait");
        let (answer, took) = asked(&line, None, Duration::from_millis(300));
        assert!(!answer && took < Duration::from_secs(5), "{took:?}");
        let left = std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            words.windows(mark.len() + 2).any(|part| part == [b"\0", mark.as_bytes(), b"\0"].concat())
        });
        assert!(!left, "what it started still runs");
    }

    #[tokio::test]
    async fn passwords_that_nobody_has_are_refused_without_asking() {
        let passwords = Passwords::new("sshd".parse().unwrap());
        // Nobody is asked: there is no turn.
        passwords.turns.close();
        for password in ["", "a\0b", &"a".repeat(MAX_PASSWORD + 1)] {
            assert!(!passwords.check(&owner(), password, &Source::new(None)).await.unwrap());
        }
        assert!(passwords.check(&owner(), "secret", &Source::new(None)).await.is_err());
    }
}
