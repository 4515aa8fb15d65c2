//! What a process in a job learns from its environment.
//!
//! It is a claim and no proof: anybody can set these variables. Who needs to be sure asks the controller.

use std::ffi::{OsStr, OsString};

use crate::{
    Slurm,
    id::{JobId, JobIdError},
    query::QueryError,
};

/// The job in which a process runs, as its environment has it (sbatch(1), "OUTPUT ENVIRONMENT VARIABLES").
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Allocation {
    /// The job (`SLURM_JOB_ID`). A task of an array has a number of its own here.
    pub job: JobId,
    /// This node (`SLURMD_NODENAME`).
    pub node: Option<String>,
    /// All nodes, in Slurm's short form (`SLURM_JOB_NODELIST`).
    pub nodes: Option<String>,
    /// How often the job has been started anew (`SLURM_RESTART_COUNT`).
    pub restarts: u32,
    /// Its partition (`SLURM_JOB_PARTITION`).
    pub partition: Option<String>,
    /// The cluster (`SLURM_CLUSTER_NAME`).
    pub cluster: Option<String>,
    /// Processors on this node (`SLURM_CPUS_ON_NODE`).
    pub cpus: Option<u32>,
    /// The GPUs on this node, by number (`SLURM_JOB_GPUS`, `SLURM_STEP_GPUS`), with commas.
    pub gpus: Option<String>,
    /// When the job ends at the latest, in seconds since 1970 (`SLURM_JOB_END_TIME`, from Slurm 23.02 on).
    pub ends_at: Option<i64>,
}

/// The environment's claim is broken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("SLURM_JOB_ID is set, but {0}")]
pub struct AllocationError(#[from] JobIdError);

impl Allocation {
    /// From an environment, such as [`std::env::vars_os`]; nothing outside of a job.
    ///
    /// # Errors
    /// Where `SLURM_JOB_ID` is set, and not a job's number.
    pub fn of(
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Option<Self>, AllocationError> {
        let ours = |name: &OsStr| name.as_encoded_bytes().starts_with(b"SLURM");
        let all = environment.into_iter().filter(|(name, _)| ours(name)).collect::<Vec<_>>();
        let text = |wanted: &str| {
            let found = all.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.to_string_lossy().into_owned()).filter(|value| !value.is_empty())
        };
        let Some(job) = text("SLURM_JOB_ID") else { return Ok(None) };
        Ok(Some(Self {
            job: job.parse()?,
            node: text("SLURMD_NODENAME"),
            nodes: text("SLURM_JOB_NODELIST"),
            restarts: text("SLURM_RESTART_COUNT").and_then(|count| count.parse().ok()).unwrap_or(0),
            partition: text("SLURM_JOB_PARTITION"),
            cluster: text("SLURM_CLUSTER_NAME"),
            cpus: text("SLURM_CPUS_ON_NODE").and_then(|count| count.parse().ok()),
            gpus: text("SLURM_JOB_GPUS").or_else(|| text("SLURM_STEP_GPUS")),
            ends_at: text("SLURM_JOB_END_TIME").and_then(|time| time.parse().ok()),
        }))
    }
}

impl Slurm {
    /// The names in a list in Slurm's short form: `c1` and `c2` in `c[1-2]`. Asks no controller.
    ///
    /// # Errors
    /// Where scontrol does not understand it.
    pub fn names_of_nodes(&self, list: &str) -> Result<Vec<String>, QueryError> {
        let names = self.text(&self.scontrol, &["show", "hostnames", list])?;
        Ok(names.split_ascii_whitespace().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<Option<Allocation>, AllocationError> {
        Allocation::of(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())))
    }

    #[test]
    fn a_job_is_known_by_its_number() {
        let here = of(&[
            ("HOME", "/home/alice"),
            ("SLURM_JOB_ID", "12"),
            ("SLURMD_NODENAME", "c1"),
            ("SLURM_RESTART_COUNT", "2"),
            ("SLURM_CPUS_ON_NODE", "4"),
            ("SLURM_JOB_GPUS", "0,1"),
        ]);
        let here = here.unwrap().unwrap();
        assert_eq!((here.job.number(), here.node.as_deref(), here.restarts), (12, Some("c1"), 2));
        assert_eq!((here.cpus, here.gpus.as_deref(), here.partition), (Some(4), Some("0,1"), None));
    }

    #[test]
    fn outside_of_a_job_there_is_none() {
        assert_eq!(of(&[("SLURM_CONF", "/etc/slurm/slurm.conf"), ("SLURM_JOB_ID", "")]), Ok(None));
        assert!(of(&[("SLURM_JOB_ID", "12_3")]).is_err());
        assert!(of(&[("SLURM_JOB_ID", "x")]).is_err());
    }
}
