//! Changes a job: ends it, signals it, holds, releases and requeues it, and sets its time limit.
//!
//! Slurm lets the owner and its administrators do so. What it refuses comes back by name.

use crate::{
    Slurm,
    id::JobId,
    program::{Program, ProgramError, args},
    query::{QueryError, UNKNOWN, is_unreachable},
    time::TimeLimit,
};

/// Whom a signal reaches, in a batch job.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SignalTarget {
    /// The processes of its steps, which `srun` started, but not the script. It reaches nothing where there is no step.
    Steps,
    /// The script's shell, or what the script has `exec`ed; not its children.
    Script,
    /// The script, its children and all steps.
    All,
}

/// Why a job was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The program was not there, or did not end in time. In the latter case, the job may be changed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The controller could not be reached. Where that happened on the way, the job may be changed.
    #[error("{program} cannot reach Slurm's controller: {words}")]
    Unreachable {
        /// The program that was asked.
        program: &'static str,
        /// Its own words.
        words: String,
    },
    /// The controller does not know the job (any more).
    #[error("job {0} is not known to Slurm's controller (any more)")]
    Unknown(JobId),
    /// The job is over.
    #[error("job {0} has ended")]
    Ended(JobId),
    /// There is nothing to signal: it has not begun.
    #[error("job {0} has not begun")]
    Waiting(JobId),
    /// The user may not: it is another's job, or the time limit is to be longer, which only an administrator may do.
    #[error("job {job} may not be changed so: {words}")]
    Denied {
        /// The job.
        job: JobId,
        /// The program's own words.
        words: String,
    },
    /// It was refused for another reason.
    #[error("job {job} cannot be changed so: {words}")]
    Refused {
        /// The job.
        job: JobId,
        /// The program's own words.
        words: String,
    },
}

impl From<QueryError> for ChangeError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Program(error) => Self::Program(error),
            QueryError::Unreachable { program, words }
            | QueryError::Failed { program, words }
            | QueryError::Misshapen { program, words } => Self::Unreachable { program, words },
        }
    }
}

impl Slurm {
    /// Ends a job: SIGTERM to its script and steps (not to the script's children), SIGKILL to all after the site's
    /// `KillWait`. One that has ended, or is not known any more, is a success.
    ///
    /// # Errors
    /// As [`ChangeError`] has them, but for [`ChangeError::Unknown`] and [`ChangeError::Ended`].
    pub fn cancel(&self, job: JobId) -> Result<(), ChangeError> {
        match self.change(&self.scancel, job, &[&job.to_string()]) {
            Err(ChangeError::Unknown(_) | ChangeError::Ended(_)) => Ok(()),
            done => done,
        }
    }

    /// Sends a signal, by name (`USR1`) or number, to a job that runs.
    ///
    /// # Errors
    /// As [`ChangeError`] has them. scancel tries for half a minute and longer to signal a job that waits, and says
    /// nothing of one that has ended; so its state is asked for first.
    pub fn signal(&self, job: JobId, signal: &str, target: SignalTarget) -> Result<(), ChangeError> {
        let state = self.job(job)?.state;
        match state {
            crate::State::Gone => return Err(ChangeError::Unknown(job)),
            _ if state.is_ended() => return Err(ChangeError::Ended(job)),
            _ if state.is_waiting() => return Err(ChangeError::Waiting(job)),
            _ => {}
        }
        let signal = format!("--signal={signal}");
        let id = job.to_string();
        match target {
            SignalTarget::Steps => self.change(&self.scancel, job, &[&signal, &id]),
            SignalTarget::Script => self.change(&self.scancel, job, &[&signal, "--batch", &id]),
            SignalTarget::All => self.change(&self.scancel, job, &[&signal, "--full", &id]),
        }
    }

    /// Keeps a waiting job from starting.
    ///
    /// # Errors
    /// As [`ChangeError`] has them. To hold a job that runs is a success without effect, in Slurm.
    pub fn hold(&self, job: JobId) -> Result<(), ChangeError> {
        self.change(&self.scontrol, job, &["hold", &job.to_string()])
    }

    /// Lets a held job start.
    ///
    /// # Errors
    /// As [`ChangeError`] has them.
    pub fn release(&self, job: JobId) -> Result<(), ChangeError> {
        self.change(&self.scontrol, job, &["release", &job.to_string()])
    }

    /// Ends a job, if it runs, and has it run anew: also one that has ended, as long as the controller knows it. It waits
    /// for about two minutes first.
    ///
    /// # Errors
    /// As [`ChangeError`] has them.
    pub fn requeue(&self, job: JobId) -> Result<(), ChangeError> {
        self.change(&self.scontrol, job, &["requeue", &job.to_string()])
    }

    /// Sets how long a job may run, from its start on. The owner may make it shorter; longer only while it waits, and
    /// within the partition's limit, unless the site lets her.
    ///
    /// # Errors
    /// As [`ChangeError`] has them; [`ChangeError::Denied`] where the user may not.
    pub fn set_time_limit(&self, job: JobId, limit: TimeLimit) -> Result<(), ChangeError> {
        self.change(&self.scontrol, job, &["update", &format!("JobId={job}"), &format!("TimeLimit={limit}")])
    }

    fn change(&self, program: &Program, job: JobId, arguments: &[&str]) -> Result<(), ChangeError> {
        let answer = self.ask(program, args(arguments))?;
        if answer.status.success() {
            return Ok(());
        }
        let words = answer.words();
        let program = program.name;
        let one_of = |some: &[&str]| some.iter().any(|some| words.contains(some));
        Err(match () {
            () if is_unreachable(&answer) => ChangeError::Unreachable { program, words },
            () if one_of(&[UNKNOWN]) => ChangeError::Unknown(job),
            () if one_of(&["already completing or completed", "already finished"]) => ChangeError::Ended(job),
            () if one_of(&["Job is pending execution"]) => ChangeError::Waiting(job),
            () if one_of(&["Access/permission denied", "Invalid user id"]) => {
                ChangeError::Denied { job, words }
            }
            () => ChangeError::Refused { job, words },
        })
    }
}
