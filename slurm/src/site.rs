//! What a site offers: its partitions, and a few lines of its configuration.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    Slurm,
    query::{QueryError, misshapen},
    table::Mark,
    time::{TimeLimit, limit},
};

/// A partition, as sinfo shows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Partition {
    /// Its name.
    pub name: String,
    /// It takes the jobs that name none.
    pub is_default: bool,
    /// `up`, or in which way it is not: `down`, `drain`, `inact`.
    pub state: String,
    /// How long a job may run there.
    pub time_limit: Option<TimeLimit>,
    /// How long one may that does not say.
    pub default_time: Option<TimeLimit>,
    /// How many nodes it has, and how they are.
    pub nodes: Nodes,
    /// GPUs and the like of its nodes (`gpu:a100:4`), one for each kind of node.
    pub gres: Vec<String>,
}

/// Numbers of nodes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Nodes {
    /// Jobs run on them.
    pub allocated: u32,
    /// They are free.
    pub idle: u32,
    /// They are down, drained or the like.
    pub other: u32,
    /// All of them.
    pub total: u32,
}

/// What of a site's configuration matters to those who submit jobs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Config {
    /// The cluster's name.
    pub cluster: Option<String>,
    /// Slurm's version.
    pub version: Option<String>,
    /// The socket of the MUNGE daemon, where it is not MUNGE's own default.
    pub munge_socket: Option<PathBuf>,
    /// For how long the controller knows a job after its end.
    pub min_job_age: Option<Duration>,
    /// Time between SIGTERM and SIGKILL.
    pub kill_wait: Option<Duration>,
    /// Whether the controller hides jobs of others (`PrivateData` has `jobs`).
    pub hides_jobs: bool,
}

const FIELDS: [&str; 7] =
    ["PartitionName", "Partition", "Available", "Time", "DefaultTime", "NodeAIOT", "Gres"];

impl Slurm {
    /// The partitions, in the site's order; those too that the user may not use.
    ///
    /// # Errors
    /// Where the controller did not tell.
    pub fn partitions(&self) -> Result<Vec<Partition>, QueryError> {
        self.partitions_with(&["--noheader", "--all"])
    }

    /// Those that the controller shows to the user who asks: neither hidden ones, nor those for other groups. Whether her
    /// account may use them all is not said (`AllowAccounts`, `AllowQos`).
    ///
    /// # Errors
    /// Where the controller did not tell.
    pub fn shown_partitions(&self) -> Result<Vec<Partition>, QueryError> {
        self.partitions_with(&["--noheader"])
    }

    fn partitions_with(&self, options: &[&str]) -> Result<Vec<Partition>, QueryError> {
        let mark = Mark::new();
        let format = format!("--Format={}", mark.format(&FIELDS));
        let text = self.text(&self.sinfo, &[options, &[&format]].concat())?;
        let records = mark.records(&text).map_err(|_| misshapen(&self.sinfo, &text))?;
        Ok(partitions(&records))
    }

    /// Some of the site's configuration.
    ///
    /// # Errors
    /// Where the controller did not tell.
    pub fn config(&self) -> Result<Config, QueryError> {
        Ok(config(&self.text(&self.scontrol, &["show", "config"])?))
    }
}

/// sinfo prints a line for each kind of node in a partition.
fn partitions(records: &[[&str; FIELDS.len()]]) -> Vec<Partition> {
    let mut all = Vec::<Partition>::new();
    let mut seen = BTreeSet::new();
    for &[name, starred, state, time, default_time, nodes, gres] in records {
        if seen.insert(name) {
            all.push(Partition {
                name: name.to_owned(),
                is_default: starred != name && starred.strip_suffix('*') == Some(name),
                state: state.to_owned(),
                time_limit: limit(time),
                default_time: limit(default_time),
                nodes: Nodes::default(),
                gres: Vec::new(),
            });
        }
        let Some(partition) = all.iter_mut().find(|partition| partition.name == name) else { continue };
        partition.nodes.add(nodes);
        if !matches!(gres, "" | "(null)") && !partition.gres.iter().any(|known| known == gres) {
            partition.gres.push(gres.to_owned());
        }
    }
    all
}

impl Nodes {
    /// `allocated/idle/other/total`.
    fn add(&mut self, field: &str) {
        let counts = field.split('/').map(|count| count.parse().ok()).collect::<Option<Vec<u32>>>();
        let Some(&[allocated, idle, other, total]) = counts.as_deref() else { return };
        for (sum, count) in [
            (&mut self.allocated, allocated),
            (&mut self.idle, idle),
            (&mut self.other, other),
            (&mut self.total, total),
        ] {
            *sum = sum.saturating_add(count);
        }
    }
}

fn config(text: &str) -> Config {
    let value = |key: &str| {
        let line = text.lines().filter_map(|line| line.split_once('=')).find(|(name, _)| name.trim() == key);
        line.map(|(_, value)| value.trim()).filter(|value| !matches!(*value, "" | "(null)"))
    };
    // "300 sec"
    let seconds = |key| value(key)?.split(' ').next()?.parse().ok().map(Duration::from_secs);
    let socket = value("AuthInfo")
        .and_then(|info| info.split(',').find_map(|part| part.trim().strip_prefix("socket=")))
        .filter(|_| value("AuthType").is_none_or(|kind| kind == "auth/munge"));
    Config {
        cluster: value("ClusterName").map(str::to_owned),
        version: value("SLURM_VERSION").map(str::to_owned),
        munge_socket: socket.map(PathBuf::from),
        min_job_age: seconds("MinJobAge"),
        kill_wait: seconds("KillWait"),
        hides_jobs: value("PrivateData").is_some_and(|data| data.split(',').any(|hidden| hidden == "jobs")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_of_one_partition_are_summed() {
        let all = partitions(&[
            ["debug", "debug*", "up", "infinite", "1:00:00", "1/0/0/1", "(null)"],
            ["gpu", "gpu", "drain", "1-00:00:00", "n/a", "2/1/1/4", "gpu:a100:4"],
            ["debug", "debug*", "up", "infinite", "1:00:00", "0/1/0/1", "(null)"],
            ["gpu", "gpu", "drain", "1-00:00:00", "n/a", "1/0/0/1", "gpu:v100:2"],
        ]);
        assert_eq!(all.len(), 2);
        assert!(all[0].is_default && !all[1].is_default);
        assert_eq!(all[0].nodes, Nodes { allocated: 1, idle: 1, other: 0, total: 2 });
        assert_eq!(
            (all[0].time_limit, all[0].default_time),
            (Some(TimeLimit::Unlimited), Some(TimeLimit::Minutes(60)))
        );
        assert_eq!((all[1].nodes.total, all[1].state.as_str()), (5, "drain"));
        assert_eq!(all[1].gres, ["gpu:a100:4", "gpu:v100:2"]);
    }

    /// Lines of `scontrol show config`, Slurm 22.05.
    const CONFIG: &str = "\
Configuration data as of 2026-11-28T22:07:12
AccountingStorageTRES   = cpu,mem,energy,node,billing,fs/disk,vmem,pages
AuthAltParameters       = (null)
AuthInfo                = ttl=60,socket=/run/ci/munge.socket.2
AuthType                = auth/munge
ClusterName             = ci
KillWait                = 5 sec
MinJobAge               = 300 sec
PrivateData             = accounts,jobs
SLURM_VERSION           = 22.05.8

Slurmctld(primary) at vm is UP
";

    #[test]
    fn the_sites_configuration_is_read() {
        let config = config(CONFIG);
        assert_eq!(config.cluster.as_deref(), Some("ci"));
        assert_eq!(config.version.as_deref(), Some("22.05.8"));
        assert_eq!(config.munge_socket, Some("/run/ci/munge.socket.2".into()));
        assert_eq!(config.min_job_age, Some(Duration::from_secs(300)));
        assert_eq!(config.kill_wait, Some(Duration::from_secs(5)));
        assert!(config.hides_jobs);
        assert_eq!(super::config("AuthInfo = (null)\n").munge_socket, None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            config(&text);
            partitions(&[[&text, &text, &text, &text, &text, &text, &text]]);
        }
    }
}
