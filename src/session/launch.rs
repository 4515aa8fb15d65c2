//! Launching a session, from the process in front of the person: takes name, folder and pod, starts the supervisor, and
//! hears from it until it is let go.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::PathBuf,
    process::Child,
};

pub use super::supervise::{End, FromLauncher, ToLauncher};
use super::{Listener, SessionSpec};
use crate::{
    sandbox::protocol,
    sys::{
        message,
        spawn::{self, Leash, role},
    },
};

/// Why a supervisor could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A folder could not be made.
    #[error("cannot make {path}: {source}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The process could not be started.
    #[error("cannot start the session's supervisor: {0}")]
    Spawn(#[source] io::Error),
    /// It does not answer.
    #[error("cannot hear from the session's supervisor: {0}")]
    Lost(#[source] io::Error),
}

/// A launched session.
pub struct Launched {
    channel: OwnedFd,
    supervisor: Child,
}

/// Makes a session's folder, which the kernel keeps from other users.
///
/// # Errors
/// As `mkdir(2)`.
pub fn make_folder(path: &std::path::Path) -> Result<(), LaunchError> {
    let failed = |source| LaunchError::Folder { path: path.to_owned(), source };
    // One that is left over is of a session whose name we now hold the lock of: it is no more.
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    std::fs::DirBuilder::new().mode(0o700).create(path).map_err(failed)
}

impl Launched {
    /// Starts the supervisor of `spec`, giving it the name's lock and the pod's sockets.
    ///
    /// # Errors
    /// As [`LaunchError`].
    pub fn start(
        spec: &SessionSpec,
        lock: OwnedFd,
        ssh: OwnedFd,
        gateway: Listener,
    ) -> Result<Self, LaunchError> {
        let (channel, theirs) = message::pair().map_err(LaunchError::Spawn)?;
        let file = protocol::to_file(spec).map_err(LaunchError::Spawn)?;
        let gateway = match gateway {
            Listener::Tcp(listener) => OwnedFd::from(listener),
            Listener::Unix(listener) => OwnedFd::from(listener),
        };
        let label = spec.record.name.to_string();
        let fds = vec![theirs, file, lock, ssh, gateway];
        let supervisor = spawn::role(role::SUPERVISE, &label, fds, None, Leash::NoticesItself)
            .map_err(LaunchError::Spawn)?;
        Ok(Self { channel, supervisor })
    }

    /// Waits for the next thing it says. `None` where it is gone without a word.
    ///
    /// # Errors
    /// As [`LaunchError`].
    pub fn hear(&self) -> Result<Option<ToLauncher>, LaunchError> {
        match protocol::receive(self.channel.as_fd()) {
            Ok(received) => Ok(received.map(|(said, _)| said)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(LaunchError::Lost(error)),
        }
    }

    /// Tells it something. One that has ended is no error: it has said so, or is about to.
    pub fn tell(&self, what: &FromLauncher) {
        let _ = protocol::send(self.channel.as_fd(), what, &[]);
    }

    /// Lets it go on by itself. Returns when it has heard so, or has ended.
    ///
    /// # Errors
    /// As [`LaunchError`].
    pub fn detach(self) -> Result<(), LaunchError> {
        self.tell(&FromLauncher::Detach);
        while let Some(said) = self.hear()? {
            if matches!(said, ToLauncher::Detached | ToLauncher::Ended { .. }) {
                break;
            }
        }
        Ok(())
    }

    /// Waits for its process to end, after it said that it has.
    pub fn wait(&mut self) {
        let _ = self.supervisor.wait();
    }
}

impl AsFd for Launched {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.channel.as_fd()
    }
}
