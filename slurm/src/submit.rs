//! Submits a job: sbatch gets the script by stdin, so that nothing of it stands in the process list or on a disk of ours.
//!
//! Whether the job exists is a fact only after sbatch has given its number. Where sbatch was ended before
//! ([`ProgramError::Silent`]), or lost the controller on the way, the job may be there all the same: look for its name or
//! its comment with [`Slurm::jobs_of_user`] before you submit anew.

use std::{
    ffi::{OsStr, OsString},
    fmt,
};

use crate::{
    Slurm,
    id::JobId,
    program::{Answer, Call, ProgramError},
    query::is_unreachable,
};

/// A job to submit.
#[derive(Clone)]
pub struct Submission {
    script: String,
    options: Vec<OsString>,
    export: Export,
}

/// What a job gets of the environment in which it is submitted, besides what Slurm adds.
///
/// There is no default: sbatch's own would carry every secret of the submitter's environment into the job, and into the
/// controller's files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Export {
    /// `HOME`, `USER`, `LOGNAME`, `SHELL`, `PATH`, `LANG`, and the user's defaults for sbatch (`SBATCH_*`).
    ///
    /// sbatch itself gets no more, and is told to pass on all it has (`--export=ALL`). Its `--export=NIL` is for that, but
    /// documented from Slurm 23.02 on only: in 22.05, it is the name of a variable, and the node runs the user's login shell for the
    /// others, which takes seconds, and holds the job for ever where it fails.
    Minimal,
    /// The minimum, and these variables by name. Values never stand here: they would in the process list.
    Only(Vec<String>),
    /// What a login shell of the user has (`--export=NONE`). The node runs one: it takes its time, and where it fails, the
    /// job is held until somebody releases it.
    Login,
    /// Everything (`--export=ALL`).
    Everything,
}

impl Export {
    fn option(&self) -> &'static str {
        match self {
            Self::Login => "--export=NONE",
            Self::Minimal | Self::Only(_) | Self::Everything => "--export=ALL",
        }
    }

    /// Whether sbatch does without a variable, and with it the job.
    pub(crate) fn omits(&self, name: &OsStr) -> bool {
        const FOR_SBATCH: [&str; 10] = [
            "SBATCH_EXPORT",
            "SBATCH_CLUSTERS",
            "SLURM_CLUSTERS",
            "SBATCH_WAIT",
            "SBATCH_ARRAY_INX",
            "SBATCH_TEST_ONLY",
            "SBATCH_CONTAINER",
            "SBATCH_CONTAINER_ID",
            "SBATCH_GET_USER_ENV",
            "SLURM_EXIT_ERROR",
        ];
        const MINIMUM: [&str; 7] = ["HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "SLURM_CONF"];
        let is = |known: &[&str]| known.iter().any(|known| name == *known);
        let minimal = || is(&MINIMUM) || name.as_encoded_bytes().starts_with(b"SBATCH_");
        is(&FOR_SBATCH)
            || match self {
                Self::Minimal => !minimal(),
                Self::Only(names) => !minimal() && !names.iter().any(|known| name == known.as_str()),
                Self::Login | Self::Everything => false,
            }
    }
}

impl Submission {
    /// A job that runs `script`, which begins with `#!`.
    pub fn new(script: impl Into<String>, export: Export) -> Self {
        Self { script: script.into(), options: Vec::new(), export }
    }

    /// One more option of sbatch, such as `--time=20`. They stand in the process list: no secrets.
    #[must_use]
    pub fn option(mut self, option: impl Into<OsString>) -> Self {
        self.options.push(option.into());
        self
    }

    /// More options.
    #[must_use]
    pub fn options(mut self, options: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.options.extend(options.into_iter().map(Into::into));
        self
    }
}

/// The script may hold a secret, though it should not.
impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { script: _, options, export } = self;
        f.debug_struct("Submission").field("options", options).field("export", export).finish_non_exhaustive()
    }
}

/// A job that the controller has taken.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Submitted {
    /// Its number.
    pub job: JobId,
    /// What the site has to say about it; mostly nothing.
    pub said: String,
}

/// Why a job was not submitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// sbatch was not there, or did not end in time. In the latter case, the job may be there.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The controller could not be reached. Where that happened on the way, the job may be there.
    #[error("sbatch cannot reach Slurm's controller: {0}")]
    Unreachable(String),
    /// The job was refused.
    #[error("sbatch refuses the job: {words}")]
    Refused {
        /// Why.
        why: Refusal,
        /// In sbatch's own words, and the site's.
        words: String,
    },
    /// The option makes a job, or an answer, that is not understood here.
    #[error("the sbatch option {} cannot be used here: {why}", .option.to_string_lossy())]
    Option {
        /// The option.
        option: OsString,
        /// Why not.
        why: &'static str,
    },
    /// sbatch succeeded without giving a job's number.
    #[error("sbatch gave no job number, but {0:?}")]
    Misshapen(String),
}

/// Why the controller, or sbatch, refused a job.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no such partition, or it takes no jobs.
    Partition,
    /// The account is not known, or not the user's.
    Account,
    /// The quality of service (QOS) is not known, or not allowed.
    Qos,
    /// GPUs and the like that no node has.
    Gres,
    /// The time limit is missing, or beyond what is allowed.
    Time,
    /// A quota: too many jobs, or too much at once.
    Limit,
    /// No node has what it asks for.
    Nodes,
    /// The user may not.
    Permission,
    /// An option is not understood, or the script is none.
    Usage,
    /// Something else.
    Other,
}

impl Slurm {
    /// Submits a job.
    ///
    /// The user's own defaults (`SBATCH_ACCOUNT` and the like) hold, but for those that would change what the job is
    /// (`SBATCH_EXPORT`, `SBATCH_CLUSTERS`, `SBATCH_WAIT`, `SBATCH_ARRAY_INX`, `SBATCH_CONTAINER` and the like).
    ///
    /// # Errors
    /// As [`SubmitError`] has them. Before a second attempt see the note on [`SubmitError::Program`].
    pub fn submit(&self, submission: &Submission) -> Result<Submitted, SubmitError> {
        let Submission { script, options, export } = submission;
        if let Some((option, why)) = options.iter().find_map(|option| Some((option, unfit(option)?))) {
            return Err(SubmitError::Option { option: option.clone(), why });
        }
        // These stand first, for sbatch takes what follows a stray word for the script's arguments.
        let mut args = vec!["--parsable".into(), export.option().into()];
        args.extend(options.iter().cloned());
        let with = self.conf().into_iter().collect();
        let without = |name: &OsStr| export.omits(name);
        let call = Call { args, input: script.as_bytes(), without: &without, with, deadline: self.deadline };
        judge(&self.sbatch.run(call)?)
    }
}

/// Why an option cannot be used. getopt takes a long one's beginning for the whole.
fn unfit(option: &OsStr) -> Option<&'static str> {
    const ARRAY: &str = "a job array is not one job";
    const CLUSTER: &str = "jobs in other clusters cannot be watched";
    const LONG: [(&str, &str, &str); 6] = [
        ("ar", "array", ARRAY),
        ("clusters", "clusters", CLUSTER),
        ("wai", "wait", "it waits for the job's end"),
        ("tes", "test-only", "it submits nothing"),
        ("wr", "wrap", "it takes the script's place"),
        ("exp", "export", "what the job gets is a property of the submission"),
    ];
    let text = option.to_str()?;
    if let Some(long) = text.strip_prefix("--") {
        let name = long.split('=').next().unwrap_or_default();
        let is = |(least, whole, _): &&(&str, &str, &str)| name.starts_with(least) && whole.starts_with(name);
        return LONG.iter().find(is).map(|(_, _, why)| *why);
    }
    match text.as_bytes() {
        [b'-', b'a', ..] => Some(ARRAY),
        [b'-', b'M', ..] => Some(CLUSTER),
        b"-W" => Some("it waits for the job's end"),
        _ => None,
    }
}

fn judge(answer: &Answer) -> Result<Submitted, SubmitError> {
    let words = answer.words();
    if answer.status.success() {
        let out = String::from_utf8_lossy(&answer.out);
        let job = number(&out).ok_or_else(|| SubmitError::Misshapen(out.chars().take(200).collect()))?;
        return Ok(Submitted { job, said: words });
    }
    if is_unreachable(answer) {
        return Err(SubmitError::Unreachable(words));
    }
    Err(SubmitError::Refused { why: refusal(&words), words })
}

/// `id` or `id;cluster`, in the last line: a site's wrapper may print more before.
fn number(out: &str) -> Option<JobId> {
    let line = out.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    line.split(';').next()?.parse().ok()
}

/// Slurm gives an exit status of 1 for all of them, so its words (slurm_errno.c) have to do.
fn refusal(words: &str) -> Refusal {
    const WORDS: [(&str, Refusal); 32] = [
        ("Invalid account or account/partition combination", Refusal::Account),
        ("nvalid account", Refusal::Account),
        ("account combination", Refusal::Account),
        ("nvalid qos", Refusal::Qos),
        ("QOS not permitted", Refusal::Qos),
        ("Requested partition configuration not available now", Refusal::Partition),
        ("Required partition not available", Refusal::Partition),
        ("nvalid partition", Refusal::Partition),
        ("No partition specified", Refusal::Partition),
        ("generic resource", Refusal::Gres),
        ("gres", Refusal::Gres),
        ("Requested time limit is invalid", Refusal::Time),
        ("Time limit specification required", Refusal::Time),
        ("Job violates accounting/QOS policy", Refusal::Limit),
        ("Job violates accounting policy", Refusal::Limit),
        ("Slurm temporarily unable to accept job", Refusal::Limit),
        ("maximum job count", Refusal::Limit),
        ("limit", Refusal::Limit),
        ("node configuration is not available", Refusal::Nodes),
        ("Node count specification invalid", Refusal::Nodes),
        ("Memory specification can not be satisfied", Refusal::Nodes),
        ("CPU count", Refusal::Nodes),
        ("More processors requested", Refusal::Nodes),
        ("Invalid node name", Refusal::Nodes),
        ("Invalid feature", Refusal::Nodes),
        ("Requested reservation", Refusal::Nodes),
        ("Access/permission denied", Refusal::Permission),
        ("group not permitted", Refusal::Permission),
        ("nvalid user id", Refusal::Permission),
        ("not look like a batch script", Refusal::Usage),
        ("Batch script is empty", Refusal::Usage),
        ("option", Refusal::Usage),
    ];
    let known = WORDS.iter().find(|(some, _)| words.contains(some)).map(|(_, why)| *why);
    // "Invalid --time specification": before anything was asked.
    known.unwrap_or(if words.contains("Invalid --") { Refusal::Usage } else { Refusal::Other })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn answer(code: i32, out: &str, err: &str) -> Answer {
        Answer { status: std::process::ExitStatus::from_raw(code << 8), out: out.into(), err: err.into() }
    }

    #[test]
    fn the_number_may_come_with_a_cluster() {
        for out in ["4711\n", "4711;ci\n", "your quota: 3 of 10\n4711\n\n"] {
            assert_eq!(judge(&answer(0, out, "")).unwrap().job.number(), 4711, "{out:?}");
        }
        for out in ["", "\n", "Submitted batch job 4711\n", "0\n"] {
            assert!(matches!(judge(&answer(0, out, "")), Err(SubmitError::Misshapen(_))), "{out:?}");
        }
    }

    #[test]
    fn a_refusal_is_told_apart_by_sbatchs_words() {
        for (err, expected) in [
            (
                "sbatch: error: invalid partition specified: nope\nsbatch: error: Batch job submission failed: Invalid partition name specified\n",
                Refusal::Partition,
            ),
            (
                "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified\n",
                Refusal::Account,
            ),
            ("sbatch: error: Batch job submission failed: Invalid qos specification\n", Refusal::Qos),
            ("sbatch: error: Invalid generic resource (gres) specification\n", Refusal::Gres),
            (
                "sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)\n",
                Refusal::Time,
            ),
            (
                "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)\n",
                Refusal::Limit,
            ),
            (
                "sbatch: error: Memory specification can not be satisfied\nsbatch: error: Batch job submission failed: Requested node configuration is not available\n",
                Refusal::Nodes,
            ),
            ("sbatch: error: Batch job submission failed: Invalid node name specified\n", Refusal::Nodes),
            (
                "sbatch: error: Batch job submission failed: User's group not permitted to use this partition\n",
                Refusal::Permission,
            ),
            (
                "sbatch: unrecognized option '--nonsense'\nTry \"sbatch --help\" for more information\n",
                Refusal::Usage,
            ),
            ("sbatch: error: Invalid --time specification\n", Refusal::Usage),
            ("sbatch: error: Batch script is empty!\n", Refusal::Usage),
            ("sbatch: error: the site says no\n", Refusal::Other),
        ] {
            let error = judge(&answer(1, "", err)).unwrap_err();
            assert!(matches!(error, SubmitError::Refused { why, .. } if why == expected), "{err}: {error:?}");
        }
    }

    #[test]
    fn a_controller_that_is_away_refuses_nothing() {
        for err in [
            "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n",
            "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)\n",
            "sbatch: error: Munge encode failed: Failed to access \"/x\": No such file or directory\nsbatch: error: Batch job submission failed: Protocol authentication error\n",
        ] {
            assert!(matches!(judge(&answer(1, "", err)), Err(SubmitError::Unreachable(_))), "{err}");
        }
    }

    #[test]
    fn options_that_make_something_else_are_refused() {
        for bad in [
            "--array=1-3",
            "--arr=1",
            "-a1",
            "--clusters=x",
            "-M",
            "-Mx",
            "--wait",
            "-W",
            "--test-only",
            "--wrap=x",
            "--export=ALL",
        ] {
            assert!(unfit(bad.as_ref()).is_some(), "{bad}");
        }
        for good in [
            "--account=x",
            "-A",
            "--wait-all-nodes=1",
            "--clusters-constraint",
            "--export-file=x",
            "--time=1",
            "-w",
            "c1",
        ] {
            assert!(unfit(good.as_ref()).is_none(), "{good}");
        }
    }

    #[test]
    fn sbatch_itself_gets_only_what_the_job_may_have() {
        let only = Export::Only(vec!["MINE".into()]);
        for (name, minimal, with_mine, everything) in [
            ("HOME", false, false, false),
            ("SBATCH_ACCOUNT", false, false, false),
            ("MINE", true, false, false),
            ("AWS_SECRET_ACCESS_KEY", true, true, false),
            ("SLURM_JOB_ID", true, true, false),
            ("SBATCH_EXPORT", true, true, true),
            ("SBATCH_WAIT", true, true, true),
            ("SBATCH_CONTAINER", true, true, true),
            ("SBATCH_CONTAINER_ID", true, true, true),
            ("SBATCH_GET_USER_ENV", true, true, true),
        ] {
            let omits = |export: &Export| export.omits(name.as_ref());
            let all = (omits(&Export::Minimal), omits(&only), omits(&Export::Everything));
            assert_eq!(all, (minimal, with_mine, everything), "{name}");
        }
    }
}
