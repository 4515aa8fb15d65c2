//! Asks programs for a few lines and does not wait long for them.

use std::{
    io::Read,
    os::fd::AsFd,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long a program has, from its start.
pub(super) const PATIENCE: Duration = Duration::from_millis(800);

/// No program that is asked says more.
const MAX_OUTPUT: usize = 64 * 1024;

/// A program that was started and not yet listened to. Killed when dropped.
pub(super) struct Asked {
    child: Child,
    deadline: Instant,
}

/// What it said.
pub(super) struct Answer {
    /// On standard output, then on standard error where that is empty.
    pub(super) text: String,
    /// How it ended; `None` where it did not in time.
    pub(super) status: Option<ExitStatus>,
}

impl Asked {
    /// Starts `program`; `None` where it can't be.
    pub(super) fn start(program: &Path, args: &[&str]) -> Option<Self> {
        let mut command = Command::new(program);
        command
            .args(args)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Some(Self { child: command.spawn().ok()?, deadline: Instant::now() + PATIENCE })
    }

    /// Waits until it has ended or its time is over.
    pub(super) fn answer(mut self) -> Answer {
        let mut text = self.child.stdout.take().map(|pipe| read(pipe, self.deadline)).unwrap_or_default();
        if text.trim().is_empty() {
            text = self.child.stderr.take().map(|pipe| read(pipe, self.deadline)).unwrap_or_default();
        }
        Answer { text, status: self.wait() }
    }

    /// The end of output and the end of the process are close, and are two things.
    fn wait(&mut self) -> Option<ExitStatus> {
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < self.deadline => std::thread::sleep(Duration::from_millis(1)),
                _ => return None,
            }
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Answer {
    /// The first word of the text that begins with a digit: a version.
    pub(super) fn version(&self) -> Option<&str> {
        let word = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
        self.text.split([' ', '\n', '\t', ',']).find(word)
    }

    pub(super) fn succeeded(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }
}

fn read(mut pipe: impl Read + AsFd, deadline: Instant) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let is_ready = poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout);
        let length = match is_ready {
            Ok(1..) => pipe.read(&mut buffer).unwrap_or(0),
            _ => 0,
        };
        text.extend(&buffer[..length]);
        if length == 0 || text.len() >= MAX_OUTPUT {
            return String::from_utf8_lossy(&text).into_owned();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_is_not_waited_for_and_one_that_answers_is_heard() {
        let shell = Path::new("/bin/sh");
        let hangs = Asked::start(shell, &["-c", "echo here; sleep 60"]).unwrap();
        let answers = Asked::start(shell, &["-c", "echo tool version 1.2.3-el9 >&2"]).unwrap();
        let before = Instant::now();
        let answer = answers.answer();
        assert_eq!((answer.version(), answer.succeeded()), (Some("1.2.3-el9"), true));
        let answer = hangs.answer();
        assert_eq!((answer.text.as_str(), answer.status.is_none()), ("here\n", true));
        assert!(before.elapsed() < PATIENCE * 2);
        assert!(Asked::start(Path::new("/nonexistent"), &[]).is_none());
    }
}
