//! Submits, watches and ends Slurm jobs, and makes and reads MUNGE credentials, over the programs that a site has.
//!
//! [`Slurm`] runs sbatch, squeue, scancel, scontrol, sinfo, sacct and srun, [`Munge`](munge::Munge) munge and unmunge. All calls
//! block until the program has ended, or its deadline is over: an async caller runs them on a thread for that.
//!
//! ```no_run
//! use slurm::{Export, Slurm, State, Submission};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let slurm = Slurm::find(None)?;
//! let submission = Submission::new("#!/bin/sh\nexec sleep 600\n", Export::Minimal).option("--time=20");
//! let id = slurm.submit(&submission)?.job;
//! match slurm.job(id)? {
//!     job if job.state.is_waiting() => println!("{id} waits: {}", job.reason.unwrap()),
//!     job => println!("{id} is {}", job.state),
//! }
//! slurm.cancel(id)?;
//! # Ok(()) }
//! ```
//!
//! # What is refused
//! To take silence for an end: where the controller does not answer, the state is [`State::Undetermined`]. To work with
//! tasks of arrays, parts of heterogeneous jobs, or jobs of other clusters. To take a job's free text for anything else.
//!
//! # Whose environment
//! The programs get the caller's, but for the variables with which a user changes their output; a job gets only what
//! [`Export`] says. Questions are asked in UTC and in the C locale.

mod allocation;
mod change;
mod id;
mod job;
pub mod munge;
mod past;
mod program;
mod query;
mod reason;
mod resident;
mod site;
mod state;
mod step;
mod submit;
mod table;
mod time;

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    time::Duration,
};

pub use allocation::{Allocation, AllocationError};
pub use change::{ChangeError, SignalTarget};
pub use id::{JobId, JobIdError};
pub use job::{Exit, Job};
pub use past::Past;
pub use program::ProgramError;
pub use query::QueryError;
pub use reason::Reason;
pub use resident::Resident;
pub use site::{Config, Nodes, Partition};
pub use state::State;
pub use step::{Step, StepError};
pub use submit::{Export, Refusal, Submission, SubmitError, Submitted};
pub use time::{TimeLimit, TimeLimitError};

use program::{Answer, Call, Program};

/// Time that a program has, unless [`Slurm::with_deadline`] says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Slurm's programs of this node.
#[derive(Clone, Debug)]
pub struct Slurm {
    sbatch: Program,
    squeue: Program,
    scancel: Program,
    scontrol: Program,
    sinfo: Program,
    /// Not all sites have accounting.
    sacct: Option<Program>,
    /// Nor does every node from which jobs are submitted have this.
    srun: Option<Program>,
    conf: Option<PathBuf>,
    deadline: Duration,
}

impl Slurm {
    /// Finds the programs, in `folder` or else in PATH (of which relative folders are left out).
    ///
    /// # Errors
    /// [`ProgramError::Missing`] names the first that is not there.
    pub fn find(folder: Option<&Path>) -> Result<Self, ProgramError> {
        Ok(Self {
            sbatch: Program::find("sbatch", folder)?,
            squeue: Program::find("squeue", folder)?,
            scancel: Program::find("scancel", folder)?,
            scontrol: Program::find("scontrol", folder)?,
            sinfo: Program::find("sinfo", folder)?,
            sacct: Program::find("sacct", folder).ok(),
            srun: Program::find("srun", folder).ok(),
            conf: None,
            deadline: DEADLINE,
        })
    }

    /// Reads another configuration than `SLURM_CONF` names, or Slurm's own default.
    #[must_use]
    pub fn with_conf(mut self, conf: impl Into<PathBuf>) -> Self {
        self.conf = Some(conf.into());
        self
    }

    /// Gives each program another time than [`DEADLINE`].
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs a program that prints something for us.
    fn ask(&self, program: &Program, args: Vec<OsString>) -> Result<Answer, ProgramError> {
        let mut with = vec![("LC_ALL", "C".into()), ("TZ", "UTC0".into())];
        with.extend(self.conf());
        program.run(Call { args, input: &[], without: &changes_answers, with, deadline: self.deadline })
    }

    fn conf(&self) -> Option<(&'static str, OsString)> {
        self.conf.as_ref().map(|conf| ("SLURM_CONF", conf.clone().into()))
    }
}

/// Names of programs that put theirs before what they say.
const PROGRAMS: [&str; 9] =
    ["sbatch", "squeue", "scancel", "scontrol", "sinfo", "sacct", "srun", "munge", "unmunge"];

/// Variables by which a user changes what the programs print, or which cluster they ask.
fn changes_answers(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    const BEGINNINGS: [&str; 6] = ["SBATCH_", "SQUEUE_", "SCANCEL_", "SCONTROL_", "SINFO_", "SACCT_"];
    const NAMES: [&str; 7] = [
        "SLURM_TIME_FORMAT",
        "SLURM_CLUSTERS",
        "SLURM_BITSTR_LEN",
        "SLURM_JSON",
        "SLURM_YAML",
        "SLURM_DEBUG_FLAGS",
        "SLURM_EXIT_ERROR",
    ];
    BEGINNINGS.iter().any(|beginning| name.starts_with(beginning)) || NAMES.contains(&name)
}
