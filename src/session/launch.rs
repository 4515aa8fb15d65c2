//! Launching a session, from the process in front of the person: takes name, folder and pod, starts the supervisor, and
//! hears from it until it is let go.

use std::{
    ffi::{OsStr, OsString},
    io,
    net::TcpListener,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt},
    path::PathBuf,
};

pub use super::supervise::{End, FromLauncher, ToLauncher};
use super::{Followed, Listener, SessionSpec, followed::Says};
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
}

/// A launched session: its supervisor, or its gate.
pub type Launched = Followed<ToLauncher>;

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

impl Says for ToLauncher {
    fn lets_go(&self) -> bool {
        matches!(self, Self::Detached | Self::Ended { .. })
    }
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
        Ok(Self::begun(channel, supervisor))
    }
}
