//! Asks the controller for jobs, by squeue.
//!
//! One call asks for all of them. It prints a table (see the module `table`) rather than JSON: squeue 22.05 ignores every filter for
//! JSON, the forms of JSON differ from version to version, and the table holds all that is asked here. The controller
//! filters by user, and for a single job; for several it sends all jobs of the cluster, and squeue filters: for the jobs of
//! one user, [`Slurm::jobs_of_user`] is the cheaper question.

use std::collections::BTreeMap;

use crate::{
    Slurm,
    id::JobId,
    job::{self, FIELDS, Job},
    program::{Answer, Program, ProgramError, args},
    state::State,
    table::Mark,
};

/// Why the controller did not tell.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The program was not there, or did not end in time.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// It could not speak to the controller, or not as somebody that the controller believes.
    #[error("{program} cannot reach Slurm's controller: {words}")]
    Unreachable {
        /// The program that was asked.
        program: &'static str,
        /// Its own words.
        words: String,
    },
    /// The program failed for another reason.
    #[error("{program} failed: {words}")]
    Failed {
        /// The program that was asked.
        program: &'static str,
        /// Its own words.
        words: String,
    },
    /// The answer has another form than is understood here.
    #[error("the answer of {program} is not understood: {words:?}")]
    Misshapen {
        /// The program that was asked.
        program: &'static str,
        /// The answer's beginning.
        words: String,
    },
}

impl Slurm {
    /// What the controller knows of a job. One that it does not know has [`State::Gone`]; so has one of somebody else that
    /// it hides ([`Config::hides_jobs`](crate::Config::hides_jobs)).
    ///
    /// # Errors
    /// Where it did not tell. The job may well run then: its state is [`State::Undetermined`].
    pub fn job(&self, id: JobId) -> Result<Job, QueryError> {
        Ok(self.jobs(&[id])?.pop().unwrap_or_else(|| Job::only(id, State::Undetermined)))
    }

    /// What the controller knows of these jobs, each named once, in their order and by one call. Those that it does not know have
    /// [`State::Gone`], or [`State::Undetermined`] where squeue spoke of an error besides. It sends squeue all jobs of the cluster where more than one is asked for.
    ///
    /// # Errors
    /// Where it did not tell. Any of them may well run then.
    pub fn jobs(&self, ids: &[JobId]) -> Result<Vec<Job>, QueryError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let list = ids.iter().map(JobId::to_string).collect::<Vec<_>>().join(",");
        let Listed { jobs, missing } = match self.squeue(&format!("--jobs={list}")) {
            // It says so for a single one only; of several, it leaves those out.
            Err(QueryError::Failed { words, .. }) if words.contains(UNKNOWN) => {
                Listed { jobs: Vec::new(), missing: State::Gone }
            }
            answer => answer?,
        };
        let mut known = jobs.into_iter().map(|job| (job.id, job)).collect::<BTreeMap<_, _>>();
        let take = |id: &JobId| known.remove(id).unwrap_or_else(|| Job::only(*id, missing));
        Ok(ids.iter().map(take).collect())
    }

    /// All jobs of a user that the controller knows, the ended ones included. Waiting tasks of an array are one
    /// ([`Job::array`]).
    ///
    /// # Errors
    /// Where it did not tell.
    pub fn jobs_of_user(&self, uid: u32) -> Result<Vec<Job>, QueryError> {
        let mut jobs = self.squeue(&format!("--user={uid}"))?.jobs;
        // An option that squeue does not understand would otherwise show those of others.
        jobs.retain(|job| job.uid == Some(uid));
        Ok(jobs)
    }

    /// How far a job is; [`State::Undetermined`] where the controller did not tell.
    pub fn state(&self, id: JobId) -> State {
        self.job(id).map_or(State::Undetermined, |job| job.state)
    }

    /// All that Slurm keeps of a job and shows to its owner: how it is, and its script, if it has one. Much of it is to be seen by everybody.
    ///
    /// # Errors
    /// Where the controller did not tell.
    pub fn shown(&self, id: JobId) -> Result<String, QueryError> {
        let id = id.to_string();
        let shown = self.text(&self.scontrol, &["show", "--details", "job", &id])?;
        // That of salloc or srun.
        if shown.split_ascii_whitespace().any(|word| word == "BatchFlag=0") {
            return Ok(shown);
        }
        Ok(shown + &self.text(&self.scontrol, &["write", "batch_script", &id, "-"])?)
    }

    fn squeue(&self, which: &str) -> Result<Listed, QueryError> {
        let mark = Mark::new();
        let format = format!("--Format={}", mark.format(&FIELDS));
        let answer = self.told(&self.squeue, &["--noheader", "--all", "--states=all", which, &format])?;
        let text = String::from_utf8_lossy(&answer.out);
        let jobs = job::read(&mark, &text).map_err(|_| misshapen(&self.squeue, &text))?;
        // An error that did not make it fail may have kept a job from us.
        let whole = !String::from_utf8_lossy(&answer.err).contains("error");
        Ok(Listed { jobs, missing: if whole { State::Gone } else { State::Undetermined } })
    }

    /// What a program prints that asks the controller and changes nothing.
    pub(crate) fn text(&self, program: &Program, arguments: &[&str]) -> Result<String, QueryError> {
        Ok(String::from_utf8_lossy(&self.told(program, arguments)?.out).into_owned())
    }

    fn told(&self, program: &Program, arguments: &[&str]) -> Result<Answer, QueryError> {
        let answer = self.ask(program, args(arguments))?;
        let program = program.name;
        let words = answer.words();
        match answer.status.success() {
            true => Ok(answer),
            false if is_unreachable(&answer) => Err(QueryError::Unreachable { program, words }),
            false => Err(QueryError::Failed { program, words }),
        }
    }
}

/// What squeue has listed.
struct Listed {
    jobs: Vec<Job>,
    /// How far one is that it has not.
    missing: State,
}

pub(crate) fn misshapen(program: &Program, text: &str) -> QueryError {
    QueryError::Misshapen { program: program.name, words: text.chars().take(200).collect() }
}

/// Slurm's ESLURM_INVALID_JOB_ID.
pub(crate) const UNKNOWN: &str = "Invalid job id specified";

/// The errors of Slurm that say nothing of what was asked for: the controller is not there, is not in charge, does not
/// answer, or the two do not believe each other (slurm_errno.c).
pub(crate) fn is_unreachable(answer: &Answer) -> bool {
    const WORDS: [&str; 21] = [
        "Unable to contact slurm controller",
        "Unable to establish controller machine",
        "Unable to establish configuration source",
        "Could not establish a configuration source",
        "cannot stat file",
        "Communication connection failure",
        "Communication shutdown failure",
        "Message send failure",
        "Message receive failure",
        // What scontrol makes of one that is not there.
        "Unexpected message received",
        "Socket timed out",
        "Zero Bytes were transmitted or received",
        "Insane message length",
        "Connection refused",
        "Connection timed out",
        "No route to host",
        "Slurm backup controller in standby mode",
        "Protocol authentication error",
        "Munge encode failed",
        "Incompatible versions of client and server code",
        "Slurmctld is currently",
    ];
    let said = String::from_utf8_lossy(&answer.err);
    WORDS.iter().any(|words| said.contains(words))
}
