//! A process of ours that goes on when the one that began it is gone. Until then the two talk over a socket.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::Child,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::de::DeserializeOwned;

use super::supervise::FromLauncher;
use crate::sandbox::protocol;

/// What such a process says.
pub trait Says: DeserializeOwned {
    /// Whether it has let go with this: it goes on by itself, or has ended.
    fn lets_go(&self) -> bool;
}

/// The end of whoever follows it.
pub struct Followed<S> {
    channel: OwnedFd,
    /// None where another process began it.
    process: Option<Child>,
    says: PhantomData<fn() -> S>,
}

impl<S: Says> Followed<S> {
    pub(super) fn begun(channel: OwnedFd, process: Child) -> Self {
        Self { channel, process: Some(process), says: PhantomData }
    }

    /// One that lives already, and has the other end of this socket.
    pub fn joined(channel: OwnedFd) -> Self {
        Self { channel, process: None, says: PhantomData }
    }

    /// Waits for the next thing it says. `None` where it is gone without a word.
    ///
    /// # Errors
    /// As `recvmsg(2)`; `InvalidData` where it says something else.
    pub fn hear(&self) -> io::Result<Option<S>> {
        match protocol::receive(self.channel.as_fd()) {
            Ok(received) => Ok(received.map(|(said, _)| said)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Tells it something. One that has ended is no error: it has said so, or is about to.
    pub fn tell(&self, what: &FromLauncher) {
        let _ = protocol::send(self.channel.as_fd(), what, &[]);
    }

    /// Hands on what Slurm has sent to us: SIGTERM.
    pub fn terminate(&self) {
        // It is our child, and not waited for: the number is its own.
        let number = self.process.as_ref().and_then(|process| i32::try_from(process.id()).ok());
        if let Some(number) = number {
            let _ = kill(Pid::from_raw(number), Signal::SIGTERM);
        }
    }

    /// Lets it go on by itself. Returns when it has heard so, or has ended.
    ///
    /// # Errors
    /// As [`Followed::hear`].
    pub fn detach(self) -> io::Result<()> {
        self.tell(&FromLauncher::Detach);
        while self.hear()?.is_some_and(|said| !said.lets_go()) {}
        Ok(())
    }

    /// Waits for its process to end, after it said that it has. One that another process began is not waited for.
    pub fn wait(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.wait();
        }
    }
}

impl<S> AsFd for Followed<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}
