//! A session's host, wherever it is: what gateway, terminals and ssh ask of it.

use std::{ffi::OsString, io, os::fd::OwnedFd, sync::Arc, time::Duration};

use nix::sys::signal::Signal;
use tokio::{sync::watch, time::timeout};

use super::{
    AppStream, FarHost, HostError, InsideListener, Invocation, LinkError, LocalHost, Started, Usage,
};
use crate::{
    sandbox::protocol::Endpoint,
    sys::spawn::Streams,
    words::{Isolation, Size},
};

/// How long a program whose client has gone has after SIGHUP.
const HANGUP_GRACE: Duration = Duration::from_secs(2);

/// Who holds a session's sandbox.
pub enum Host {
    /// This machine.
    Local(Arc<LocalHost>),
    /// Another, which has dialled us.
    Far(FarHost),
}

impl Host {
    /// Runs any command in the room, as the app would run, with `env` besides the app's environment.
    ///
    /// # Errors
    /// As [`HostError`].
    pub async fn exec(
        &self,
        what: Invocation,
        env: &[(OsString, OsString)],
        streams: Streams,
    ) -> Result<Started, HostError> {
        match self {
            Self::Local(host) => host.exec(what, env, streams).await,
            Self::Far(host) => host.exec(what, env, streams).await,
        }
    }

    /// Serves the session's files over SFTP on these stdin, stdout and stderr.
    ///
    /// # Errors
    /// As [`HostError`].
    pub async fn sftp(&self, streams: [OwnedFd; 3]) -> Result<Started, HostError> {
        match self {
            Self::Local(host) => host.sftp(streams).await,
            Self::Far(host) => host.sftp(streams).await,
        }
    }

    /// Connects to `to`, inside: what listens there sees a client in the session.
    ///
    /// # Errors
    /// As `connect(2)`; `NotConnected` where the sandbox has ended, or no node holds it.
    pub async fn connect(&self, to: Endpoint) -> io::Result<AppStream> {
        match self {
            Self::Local(host) => host.connect(to).await,
            Self::Far(host) => host.connect(to).await,
        }
    }

    /// Listens at `at`, inside: for programs of the session.
    ///
    /// # Errors
    /// As `bind(2)`; `NotConnected` where the sandbox has ended, or no node holds it.
    pub async fn listen(&self, at: Endpoint) -> io::Result<InsideListener> {
        match self {
            Self::Local(host) => host.listen(at).await,
            Self::Far(host) => host.listen(at).await,
        }
    }

    /// How the session is fenced: without namespaces, its network is the node's.
    pub fn isolation(&self) -> Isolation {
        match self {
            Self::Local(host) => host.isolation(),
            Self::Far(host) => host.isolation(),
        }
    }

    /// What its processes have used.
    ///
    /// # Errors
    /// Where the sandbox has ended, or no node holds it.
    pub async fn usage(&self) -> Result<Usage, LinkError> {
        match self {
            Self::Local(host) => host.usage().await,
            Self::Far(host) => host.usage().await,
        }
    }

    /// Signals the process group of a started program.
    ///
    /// # Errors
    /// Where the sandbox has ended.
    pub async fn signal(&self, id: u64, signal: Signal) -> Result<(), LinkError> {
        match self {
            Self::Local(host) => host.signal(id, signal).await,
            Self::Far(host) => host.signal(id, signal).await,
        }
    }

    /// Gives the terminal that a program was started on each new size, until nobody changes it any more. On this machine the
    /// kernel has done that already.
    pub async fn follow_size(&self, id: u64, mut size: watch::Receiver<Size>) {
        let Self::Far(host) = self else { return };
        while size.changed().await.is_ok() {
            let now = *size.borrow_and_update();
            if host.resize(id, now).await.is_err() {
                return;
            }
        }
    }

    /// Hangs a program up whose client has gone: SIGHUP, and SIGKILL for what does not heed it. `exit` is its end. What it
    /// has left behind when it ended is not touched.
    ///
    /// # Errors
    /// Where the sandbox has ended, and the program with it.
    pub async fn hang_up(&self, id: u64, exit: impl Future) -> Result<(), LinkError> {
        self.signal(id, Signal::SIGHUP).await?;
        if timeout(HANGUP_GRACE, exit).await.is_err() {
            self.signal(id, Signal::SIGKILL).await?;
        }
        Ok(())
    }
}
