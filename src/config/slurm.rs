//! `[slurm]`: how sessions get into jobs, and which options a site or a user gives to all of them, to those in a
//! partition, and to those of an app.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    amounts::TimeSpan,
    attach_word::AttachWord,
    job_option::JobOption,
    values::{HostChoice, InvalidValue, PathChoice, through_text},
};

/// What holds of `[slurm]`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slurm {
    /// For every job.
    pub options: Vec<JobOption>,
    /// For jobs in a partition; the weaker layers' entries of other names are in it too.
    #[serde(default)]
    pub partitions: BTreeMap<PartitionName, JobOptions>,
    /// For jobs of the apps whose names fit.
    #[serde(default)]
    pub apps: BTreeMap<AppPattern, JobOptions>,
    /// The folder of sbatch and its like.
    pub programs: PathChoice,
    /// By what compute nodes reach this one.
    pub link_host: HostChoice,
    /// Whether MUNGE says who is at the other end.
    pub munge: Munge,
    /// Where `munged(8)` listens.
    pub munge_socket: PathChoice,
    /// The script that a job runs.
    pub template: PathChoice,
    /// How long a job that has started may take until it calls back.
    pub startup_timeout: TimeSpan,
    /// How long a session stays to be started again when Slurm has ended its job.
    pub linger: TimeSpan,
    /// Who calls whom inside of an allocation that is there already.
    pub allocation: Allocation,
    /// What puts a gateway on a login node, for a session that was started on a node of an allocation; nothing, where empty.
    pub attach_command: Vec<AttachWord>,
}

/// One entry of `slurm.partitions` or `slurm.apps`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobOptions {
    /// Options of sbatch.
    pub options: Vec<JobOption>,
}

/// What one layer says of an entry of `slurm.partitions` or `slurm.apps`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PartialJobOptions {
    /// Options of sbatch.
    pub options: Option<Vec<JobOption>>,
}

/// What one layer says of `[slurm]`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "default.toml documents each key")]
pub struct PartialSlurm {
    pub options: Option<Vec<JobOption>>,
    pub partitions: BTreeMap<PartitionName, PartialJobOptions>,
    pub apps: BTreeMap<AppPattern, PartialJobOptions>,
    pub programs: Option<PathChoice>,
    pub link_host: Option<HostChoice>,
    pub munge: Option<Munge>,
    pub munge_socket: Option<PathChoice>,
    pub template: Option<PathChoice>,
    pub startup_timeout: Option<TimeSpan>,
    pub linger: Option<TimeSpan>,
    pub allocation: Option<Allocation>,
    pub attach_command: Option<Vec<AttachWord>>,
}

/// Whether MUNGE says who is at the other end of a job's link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Munge {
    /// Where it works; else a file that only the user can read.
    Auto,
    /// Never: always the file.
    Off,
    /// Always: no session where it doesn't work.
    Require,
}

/// Who calls whom when a session is started inside of an allocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Allocation {
    /// The gateway is here, where the command runs.
    Listen,
    /// The gateway is on a login node, and dialled by a host in the allocation.
    Dial,
}

/// A partition's name, as a key of `slurm.partitions`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PartitionName(String);

/// What an app's name has to look like, as a key of `slurm.apps`: `*` stands for any text, `?` for any character, and all
/// else for itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AppPattern(String);

impl Slurm {
    /// The options for jobs in this partition.
    pub fn for_partition(&self, name: &str) -> &[JobOption] {
        let entry = self.partitions.iter().find(|(partition, _)| partition.0 == name);
        entry.map_or(&[], |(_, job)| &job.options)
    }

    /// The options of all entries that an app's name fits, those of the entry that says most of it last: more characters
    /// that stand for themselves, and then what comes later in the alphabet.
    pub fn for_app(&self, name: &str) -> impl Iterator<Item = &JobOption> {
        let mut fitting: Vec<_> = self.apps.iter().filter(|(pattern, _)| pattern.fits(name)).collect();
        fitting.sort_by_key(|(pattern, _)| pattern.plain());
        fitting.into_iter().flat_map(|(_, job)| &job.options)
    }
}

impl AppPattern {
    /// Whether all of `name` looks like this.
    pub fn fits(&self, name: &str) -> bool {
        let (pattern, name): (Vec<char>, Vec<char>) = (self.0.chars().collect(), name.chars().collect());
        let (mut p, mut n) = (0, 0);
        // Where the last `*` stands, and up to where it has been tried.
        let mut star = None;
        while n < name.len() {
            match pattern.get(p) {
                Some('*') => {
                    star = Some((p, n));
                    p += 1;
                }
                Some(c) if *c == '?' || *c == name[n] => {
                    p += 1;
                    n += 1;
                }
                _ => match star {
                    Some((at, tried)) => {
                        star = Some((at, tried + 1));
                        (p, n) = (at + 1, tried + 1);
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|c| *c == '*')
    }

    /// How many characters stand for themselves.
    fn plain(&self) -> usize {
        self.0.chars().filter(|c| !matches!(c, '*' | '?')).count()
    }
}

/// Whether a text can stand between quotation marks as a key.
fn is_key(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && !text.contains(|c: char| c.is_control() || matches!(c, '"' | '\'' | '\\'))
}

impl FromStr for PartitionName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if is_key(text) && !text.contains(|c: char| c.is_whitespace() || c == ',') {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidValue::new(text, "a partition's name"))
        }
    }
}

impl fmt::Display for PartitionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AppPattern {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if is_key(text) && !text.contains('/') {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidValue::new(
                text,
                "a pattern for the name of an app, without folder: write jupyter* or r?",
            ))
        }
    }
}

impl fmt::Display for AppPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

through_text!(String, parse: PartitionName, AppPattern);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_whole_names_only() {
        for (pattern, name, fits) in [
            ("jupyter", "jupyter", true),
            ("jupyter", "jupyterlab", false),
            ("jupyter*", "jupyterlab", true),
            ("*lab", "jupyterlab", true),
            ("*", "", true),
            ("?", "", false),
            ("r?", "r4", true),
            ("r?", "r42", false),
            ("*a*b*", "xaxxbx", true),
            ("*a*b", "xaxxbx", false),
            ("*aab", "aaab", true),
            ("**", "x", true),
            ("[ab]", "a", false),
            ("?é", "éé", true),
        ] {
            assert_eq!(pattern.parse::<AppPattern>().unwrap().fits(name), fits, "{pattern} {name}");
        }
        let stars = "a*".repeat(40) + "b";
        assert!(!stars.parse::<AppPattern>().unwrap().fits(&"a".repeat(200)));
    }

    #[test]
    fn a_key_can_always_be_written_down() {
        for text in ["", "a\"b", "a'b", "a\\b", "a\nb", &"a".repeat(129)] {
            assert!(
                text.parse::<AppPattern>().is_err() && text.parse::<PartitionName>().is_err(),
                "{text:?}"
            );
        }
        assert!("a,b".parse::<PartitionName>().is_err() && "a b".parse::<PartitionName>().is_err());
        assert!("images/a".parse::<AppPattern>().is_err());
        assert_eq!("gpu.a100".parse::<PartitionName>().unwrap().to_string(), "gpu.a100");
    }
}
