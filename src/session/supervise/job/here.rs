//! A host that the person's own `start` begins, where she typed it in her job, before the session has any gateway.
//!
//! ```text
//! start, on a node of the job                 host, on the same node
//!   │ writes record, session.json, link.json      │
//!   │ ── folder in argv, its own environment ────►│
//!   │◄─ Waits ────────────────────────────────────│ the record has its process number
//!   │      … attach, on a login node: from here on the host is told all else over the link …
//!   │◄─ Answers ──────────────────────────────────│
//!   │ ── Detach, Stop or Kill ───────────────────►│
//!   │◄─ Detached, or Ended { end } ───────────────│
//! ```

use std::{fs::OpenOptions, io, os::unix::fs::OpenOptionsExt, path::Path};

use serde::{Deserialize, Serialize};
use slurm::{JobId, Slurm};

use super::{manner::Manner, proof::settle};
use crate::{
    config::paths::{Durability, PrivateFolder},
    link::{self, Rendezvous, RunId},
    session::{Followed, Records, SessionSpec, followed::Says, supervise::End},
    sys::{
        message,
        spawn::{self, Leash, role},
    },
};

/// What such a host tells who began it.
#[derive(Serialize, Deserialize)]
pub enum FromHostHere {
    /// It dials, for as long as it takes.
    Waits,
    /// The app answers: there is a gateway.
    Answers,
    /// It goes on by itself.
    Detached,
    /// It is over, and nothing of it is left here.
    Ended {
        /// Why.
        end: End,
    },
}

/// Such a host.
pub type HostHere = Followed<FromHostHere>;

impl Says for FromHostHere {
    fn lets_go(&self) -> bool {
        matches!(self, Self::Detached | Self::Ended { .. })
    }
}

/// Writes down all that a gateway and the host will read: the record, what the session was started with, how the host
/// proves itself, and that there is no gateway yet.
///
/// # Errors
/// What could not be written, or settled.
pub fn wait_for_a_gateway(spec: &SessionSpec) -> Result<(), String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let batch = spec.batch.as_ref().ok_or("there is no job")?;
    let state = PrivateFolder::open_or_make(&spec.state).map_err(|error| said(&error))?;
    let folder = state.folder(spec.record.id.to_string()).map_err(|error| said(&error))?;
    // Not every node has Slurm's programs.
    let slurm = Slurm::find(batch.programs.as_deref()).ok();
    let (_, munge_socket) = settle(batch, &folder, slurm.as_ref())?;
    let meet = Rendezvous {
        session: spec.record.id,
        hosts: Vec::new(),
        port: 0,
        gateway: link::gateway_key(&folder).map_err(|error| said(&error))?.fingerprint(),
        gate: RunId::random(),
        munge_socket,
        patience: batch.startup_timeout.as_secs(),
    };
    meet.write(&folder).map_err(|error| said(&error))?;
    if let Some(log) = spec.record.log.file_name() {
        folder.write(log, b"", Durability::Passing).map_err(|error| said(&error))?;
    }
    spec.save_in(&folder).map_err(|error| said(&error))?;
    Records::open(state).write(&spec.record).map_err(|error| said(&error))
}

impl HostHere {
    /// Begins it, for the session with this folder, in this process's own environment.
    ///
    /// # Errors
    /// As `fork(2)` and `execve(2)`.
    pub fn start(folder: &Path, job: JobId) -> io::Result<Self> {
        let (channel, theirs) = message::pair()?;
        let said = folder.join(format!("slurm-{job}.0.out"));
        let said = OpenOptions::new().create(true).append(true).mode(0o600).open(said)?;
        let words = [folder.as_os_str(), Manner::Start.word().as_ref()];
        let env = std::env::vars_os().collect();
        let host =
            spawn::role_with(env, role::HOST, &words, vec![theirs], Some(said.into()), Leash::NoticesItself)?;
        Ok(Self::begun(channel, host))
    }
}
