//! Runs a program in a job that is there already, beside what runs in it, and hears what it says.

use std::{
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
};

use crate::{
    Slurm,
    id::JobId,
    program::{Call, ProgramError},
};

/// Seconds that Slurm has to begin, and minutes that the program has then, whatever becomes of who asked.
const BEGIN: &str = "--immediate=10";
const LIMIT: &str = "--time=5";

/// A program to run in a job.
#[derive(Clone, Copy)]
pub struct Step<'a> {
    /// The job.
    pub job: JobId,
    /// Which of its nodes.
    pub node: &'a str,
    /// The program, as that node has it.
    pub program: &'a Path,
    /// Its arguments. They are to be seen by everybody on either node.
    pub args: &'a [&'a str],
    /// What it reads on its standard input. It goes over the cluster's network as it is.
    pub input: &'a [u8],
}

/// Why a program did not run in a job, or did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The site does not have srun, or not here.
    #[error("there is no srun on this node")]
    NoSrun,
    /// It did not end in time. The program may run on.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// What it says has no place.
    #[error("cannot write what the step says: {0}")]
    Output(#[source] io::Error),
    /// The folder's name would be something else to Slurm.
    #[error("{0:?} cannot be named to Slurm: it takes the backslashes away")]
    Folder(PathBuf),
    /// Slurm did not let it run, or it failed itself.
    #[error("nothing can be run beside job {job}: {words}")]
    Failed {
        /// The job.
        job: JobId,
        /// What srun said, and the program.
        words: String,
    },
}

impl Slurm {
    /// Runs one program once in a job, on what the job has already (`--overlap`), and gives what it printed. It gets an
    /// environment of Slurm's alone.
    ///
    /// # Errors
    /// As [`StepError`] has them.
    pub fn run_in_job(&self, step: Step<'_>) -> Result<Vec<u8>, StepError> {
        let srun = self.srun.as_ref().ok_or(StepError::NoSrun)?;
        let mut args: Vec<OsString> =
            vec![format!("--jobid={}", step.job).into(), format!("--nodelist={}", step.node).into()];
        let fixed = ["--overlap", "--nodes=1", "--ntasks=1", "--export=NONE", "--chdir=/", "--mpi=none"];
        args.extend(fixed.into_iter().chain(["--quiet", BEGIN, LIMIT]).map(OsString::from));
        args.push(step.program.into());
        args.extend(step.args.iter().map(OsString::from));
        let with = self.conf().into_iter().collect();
        let call = Call { args, input: step.input, without: &changes_steps, with, deadline: self.deadline };
        let answer = srun.run(call)?;
        if answer.status.success() {
            return Ok(answer.out);
        }
        let words = match answer.words() {
            words if words.is_empty() => answer.status.to_string(),
            words => words,
        };
        Err(StepError::Failed { job: step.job, words })
    }
}

/// Variables that srun takes for options, or for the job that it is in.
fn changes_steps(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let of_slurm = ["SLURM", "SRUN_", "PMI"].iter().any(|beginning| name.starts_with(beginning));
    of_slurm && !matches!(name, "SLURM_CONF" | "SLURM_CONF_SERVER")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_does_not_hear_of_the_job_that_its_caller_is_in() {
        for name in ["SLURM_JOB_ID", "SLURM_NTASKS", "SLURMD_NODENAME", "SRUN_DEBUG", "PMI_RANK"] {
            assert!(changes_steps(name.as_ref()), "{name}");
        }
        for name in ["SLURM_CONF", "PATH", "HOME", "MY_SLURM"] {
            assert!(!changes_steps(name.as_ref()), "{name}");
        }
    }
}
