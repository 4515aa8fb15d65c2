//! Launching a session, from the process in front of the person: takes name, folder and pod, starts the supervisor, and
//! hears from it until it is let go.

use std::{
    ffi::{OsStr, OsString},
    io,
    net::TcpListener,
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
    /// None where another process launched it.
    supervisor: Option<Child>,
}

/// A pod's sockets.
pub struct Sockets {
    /// Its ssh port.
    pub ssh: OwnedFd,
    /// Its gateway's listener.
    pub gateway: Listener,
    /// The listener for its host, where that is another machine.
    pub link: Option<TcpListener>,
}

/// What Slurm's programs need of a person's environment: who and where she is, and what she has set for them.
fn for_slurm() -> Vec<(OsString, OsString)> {
    const NAMES: [&str; 8] = ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "SLURM_CONF"];
    let wanted = |name: &OsStr| {
        NAMES.iter().any(|known| name == *known) || name.as_encoded_bytes().starts_with(b"SBATCH_")
    };
    std::env::vars_os().filter(|(name, _)| wanted(name)).collect()
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
    /// Starts the supervisor of `spec`, giving it the name's lock and the pod's sockets: with a link's listener, the gate of
    /// a session whose app runs in a job.
    ///
    /// # Errors
    /// As [`LaunchError`].
    pub fn start(spec: &SessionSpec, lock: OwnedFd, pod: Sockets) -> Result<Self, LaunchError> {
        let Sockets { ssh, gateway, link } = pod;
        let (channel, theirs) = message::pair().map_err(LaunchError::Spawn)?;
        let file = protocol::to_file(spec).map_err(LaunchError::Spawn)?;
        let gateway = match gateway {
            Listener::Tcp(listener) => OwnedFd::from(listener),
            Listener::Unix(listener) => OwnedFd::from(listener),
        };
        let label = spec.record.name.to_string();
        let mut fds = vec![theirs, file, lock, ssh, gateway];
        let supervisor = match link {
            None => spawn::role(role::SUPERVISE, &label, fds, None, Leash::NoticesItself),
            Some(link) => {
                fds.push(link.into());
                spawn::role_in(for_slurm(), role::GATE, &label, fds, None, Leash::NoticesItself)
            }
        };
        let supervisor = supervisor.map_err(LaunchError::Spawn)?;
        Ok(Self { channel, supervisor: Some(supervisor) })
    }

    /// One that lives already, whose supervisor has the other end of this socket.
    pub fn followed(channel: OwnedFd) -> Self {
        Self { channel, supervisor: None }
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

    /// Waits for its process to end, after it said that it has. One that another process launched is not waited for.
    pub fn wait(&mut self) {
        if let Some(supervisor) = &mut self.supervisor {
            let _ = supervisor.wait();
        }
    }
}

impl AsFd for Launched {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.channel.as_fd()
    }
}
