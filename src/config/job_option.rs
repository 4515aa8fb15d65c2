//! One option of sbatch's, as somebody wrote it in a file or on the command line: a single word, passed on unchanged.
//!
//! Refuses what would break a session, or show it to others, and says why. The short form and what `getopt_long(3)` takes
//! for an abbreviation count as the option itself. All others go through, those of a site's plugins included.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// An option of sbatch's that a session can do with: `--time=4:00:00`, `--exclusive`, `-t4:00:00`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobOption(String);

/// Why a word can't be among sbatch's options.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JobOptionError {
    /// It is no option, or more than one word.
    #[error(
        "{0:?} is no option of sbatch in one word: write --name, --name=value, or -x with its value behind it"
    )]
    Form(String),
    /// It would take the next option for its value.
    #[error("--{0} has no value here: write --{0}=value")]
    NoValue(&'static str),
    /// Sessions can't do with it.
    #[error("--{} is not possible: {}", .0.name, .0.why)]
    Refused(&'static RefusedOption),
}

/// An option of sbatch's that sessions can't do with.
#[derive(PartialEq, Eq, Debug)]
pub struct RefusedOption {
    /// Its long name, without dashes.
    pub name: &'static str,
    /// Its short one.
    pub short: Option<char>,
    /// A sentence's second half.
    pub why: &'static str,
}

const OUTPUT: &str = "what the job's script prints goes to a private file in the session's folder";
const INPUT: &str = "nothing in the job reads its standard input";
const ENVIRONMENT: &str = "the app's environment is that of this command and comes over the session's own link, not \
                           through Slurm's spool; --env sets a variable";
const NOTHING_STARTS: &str = "sbatch would submit nothing, and no session would start";
const ONE_CLUSTER: &str = "so far a session can only be followed on the cluster that this node belongs to";
const CONTAINER: &str =
    "the job's script would run in a container that has no shlogin in it; the image is named by itself";

/// All that is refused. No allowed option's name is the beginning of one of these, so that every beginning of one is
/// meant to be it, or is ambiguous.
pub const REFUSED: &[RefusedOption] = &[
    refused("array", Some('a'), "a session is one job, not an array of jobs"),
    refused("chdir", Some('D'), "where the app starts is said by --pwd, or is this folder"),
    refused("clusters", Some('M'), ONE_CLUSTER),
    refused("container", None, CONTAINER),
    refused("container-id", None, CONTAINER),
    refused("error", Some('e'), OUTPUT),
    refused("export", None, ENVIRONMENT),
    refused("export-file", None, ENVIRONMENT),
    refused("get-user-env", None, ENVIRONMENT),
    refused("help", Some('h'), NOTHING_STARTS),
    refused("input", Some('i'), INPUT),
    refused("job-name", Some('J'), "the job is called as the session is: use --name"),
    refused("open-mode", None, OUTPUT),
    refused("output", Some('o'), OUTPUT),
    refused("parsable", None, "how sbatch answers is between it and shlogin"),
    refused("signal", None, "the signal before the time limit is how the session learns that it has to end"),
    refused("test-only", None, NOTHING_STARTS),
    refused("usage", Some('u'), NOTHING_STARTS),
    refused("version", Some('V'), NOTHING_STARTS),
    refused("wait", Some('W'), "sbatch would stay until the session has ended; --foreground does that"),
    refused("wrap", None, "the job runs the session's own script; what the app is stands after the options"),
];

/// What `getopt_long(3)` would give the next word to. Not all there are: those that have flags of their own.
const NEED_A_VALUE: &[&str] = &[
    "account",
    "begin",
    "comment",
    "constraint",
    "cpus-per-gpu",
    "cpus-per-task",
    "dependency",
    "exclude",
    "gpus",
    "gpus-per-node",
    "gres",
    "licenses",
    "mail-type",
    "mail-user",
    "mem",
    "mem-per-cpu",
    "mem-per-gpu",
    "nodelist",
    "nodes",
    "ntasks",
    "ntasks-per-node",
    "partition",
    "qos",
    "reservation",
    "time",
    "time-min",
];

/// The short options without a value.
const SHORT_FLAGS: &str = "HOQsv";

/// The short option that may have one.
const SHORT_EITHER: char = 'k';

/// Short forms whose meaning for a job we look at.
const SHORT_NAMES: &[(char, &str)] = &[('p', "partition")];

const fn refused(name: &'static str, short: Option<char>, why: &'static str) -> RefusedOption {
    RefusedOption { name, short, why }
}

impl JobOption {
    /// The option `--name=value`, for a flag of the same name: `value` is sbatch's business.
    pub fn with_value(name: &'static str, value: &str) -> Self {
        Self(format!("--{name}={value}"))
    }

    /// The option `--name`, for a flag of the same name.
    pub fn flag(name: &'static str) -> Self {
        Self(format!("--{name}"))
    }

    /// The word that sbatch gets.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its value, if it is the option of this long name, in full or short, and has one.
    pub fn value_of(&self, name: &str) -> Option<&str> {
        match self.0.strip_prefix("--") {
            Some(long) => long.strip_prefix(name)?.strip_prefix('='),
            None => {
                let (short, _) = SHORT_NAMES.iter().find(|(_, long)| *long == name)?;
                self.0.strip_prefix('-')?.strip_prefix(*short)
            }
        }
    }
}

/// Why sessions can't do with `word`, if it is such an option, in whatever form.
pub fn refusal(word: &str) -> Option<&'static RefusedOption> {
    if let Some(long) = word.strip_prefix("--") {
        let name = long.split('=').next().unwrap_or_default();
        return REFUSED
            .iter()
            .find(|refused| refused.name == name)
            .or_else(|| REFUSED.iter().find(|refused| !name.is_empty() && refused.name.starts_with(name)));
    }
    // Flags may stand together, and before an option with a value: `-Ha1-3`.
    let letter = word.strip_prefix('-')?.chars().find(|c| !SHORT_FLAGS.contains(*c))?;
    REFUSED.iter().find(|refused| refused.short == Some(letter))
}

impl FromStr for JobOption {
    type Err = JobOptionError;

    fn from_str(word: &str) -> Result<Self, JobOptionError> {
        let form = || JobOptionError::Form(word.chars().take(80).collect());
        if word.chars().any(char::is_control) {
            return Err(form());
        }
        if let Some(refused) = refusal(word) {
            return Err(JobOptionError::Refused(refused));
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if let Some(long) = word.strip_prefix("--") {
            let name = long.split('=').next().unwrap_or_default();
            if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(is_name) {
                return Err(form());
            }
            if let Some(name) = NEED_A_VALUE.iter().find(|name| **name == long) {
                return Err(JobOptionError::NoValue(name));
            }
            return Ok(Self(word.to_owned()));
        }
        // Exactly one option: a flag alone, or a letter that has its value with it.
        let mut rest = word.strip_prefix('-').ok_or_else(form)?.chars();
        let letter = rest.next().filter(char::is_ascii_alphabetic).ok_or_else(form)?;
        let value = rest.as_str();
        let is_whole = match letter {
            SHORT_EITHER => true,
            flag if SHORT_FLAGS.contains(flag) => value.is_empty(),
            _ => !value.is_empty() && !value.starts_with(char::is_whitespace),
        };
        if is_whole { Ok(Self(word.to_owned())) } else { Err(form()) }
    }
}

impl fmt::Display for JobOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for JobOption {
    type Error = JobOptionError;

    fn try_from(word: String) -> Result<Self, JobOptionError> {
        word.parse()
    }
}

impl From<JobOption> for String {
    fn from(option: JobOption) -> Self {
        option.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(word: &str) -> String {
        word.parse::<JobOption>().unwrap_err().to_string()
    }

    #[test]
    fn one_word_goes_through_unchanged_whatever_its_value_is() {
        for word in [
            "--time=4:00:00",
            "--exclusive",
            "--exclusive=user",
            "--comment=a b, 'c'",
            "--mem=",
            "--container_of_a_plugin=x",
            "--wait-all-nodes=1",
            "--nice=-5",
            "--mem-bind=local",
            "-t4:00:00",
            "-pgpu",
            "-H",
            "-k",
            "-koff",
            "-N2",
        ] {
            assert_eq!(word.parse::<JobOption>().unwrap().as_str(), word);
        }
    }

    #[test]
    fn what_is_no_option_or_more_than_one_word_is_refused() {
        for word in [
            "",
            "-",
            "--",
            "---time=1",
            "gpu",
            ":",
            "--time 4:00",
            "--time\n=4",
            "--a=b\nc",
            "-t",
            "-p gpu",
            "-HN2",
            "-HH",
            "--=x",
            "-1",
            "--é=1",
        ] {
            assert!(error(word).contains("in one word"), "{word:?}: {}", error(word));
        }
        assert_eq!(error("--partition"), "--partition has no value here: write --partition=value");
    }

    #[test]
    fn what_would_break_a_session_is_refused_in_every_form_that_sbatch_takes() {
        for refused in REFUSED {
            let mut words = vec![format!("--{}", refused.name), format!("--{}=x", refused.name)];
            words.extend(refused.short.iter().flat_map(|c| {
                [format!("-{c}"), format!("-{c}x"), format!("-{c} x"), format!("-H{c}1"), format!("-HsQ{c}")]
            }));
            for word in words {
                assert_eq!(error(&word), format!("--{} is not possible: {}", refused.name, refused.why));
            }
            // An abbreviation is this option, or one as bad.
            for end in 1..refused.name.len() {
                assert!(error(&format!("--{}=x", &refused.name[..end])).contains("is not possible"));
            }
        }
        assert_eq!(
            error("--array=1-3"),
            "--array is not possible: a session is one job, not an array of jobs"
        );
    }

    #[test]
    fn a_partition_is_known_in_both_forms() {
        let value = |word: &str| word.parse::<JobOption>().unwrap().value_of("partition").map(str::to_owned);
        assert_eq!(value("--partition=a,b"), Some("a,b".to_owned()));
        assert_eq!(value("-pgpu"), Some("gpu".to_owned()));
        assert_eq!(value("--time=1"), None);
        assert_eq!(value("-t1"), None);
        assert_eq!(JobOption::with_value("partition", "-x y").value_of("partition"), Some("-x y"));
    }
}
