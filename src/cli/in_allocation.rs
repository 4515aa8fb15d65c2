//! `start` in a job that is there already: on one of its nodes, or beside it, as in the shell of `salloc` on the login node.
//! Refuses to start on a node that is not the job's what its person believes in the job.

use std::{path::PathBuf, time::Duration};

use jiff::Timestamp;
use slurm::{Allocation, JobId, Slurm};

use super::{Failure, in_job};
use crate::{
    config::{self, Config, node_name},
    session::{BatchSpec, JobRecord, Lent, LentHost},
};

/// How long Slurm may take to say how the job is, and which nodes it has.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is to be done.
pub(super) enum Course {
    /// There is no job: a session on this node.
    Ordinary,
    /// All of it on this node, within the job.
    Within(JobRecord),
    /// The host in the job, the gateway on a login node.
    Lent(Lent),
}

/// Where a command is typed, as seen from the job.
#[derive(PartialEq, Eq, Debug)]
enum Place {
    /// On this node of the job's.
    On(String),
    /// Beside it; the first of the job's nodes.
    Beside(String),
    /// Nobody can tell.
    Unknown,
}

/// What to do where this very command runs.
pub(super) fn course(config: &Config) -> Result<Course, Failure> {
    // Variables that say something else are somebody's own affair: no job is known then.
    let Some(allocation) = Allocation::of(std::env::vars_os()).ok().flatten() else {
        return Ok(Course::Ordinary);
    };
    // Older versions tell a job of its end only when asked; one that does not answer must not keep a session from starting.
    let slurm = Slurm::find(config.slurm.programs.path()).ok().map(|slurm| slurm.with_deadline(PATIENCE));
    let job = slurm.as_ref().and_then(|slurm| slurm.job(allocation.job).ok());
    let nodes = allocation.nodes.clone().or_else(|| job.as_ref().and_then(|job| job.nodes.clone()));
    let names = nodes.zip(slurm).and_then(|(nodes, slurm)| slurm.names_of_nodes(&nodes).ok());
    let place = place(allocation.node.as_deref(), names.as_deref(), node_name().as_str());

    let mut record = JobRecord {
        partition: allocation.partition,
        restarts: allocation.restarts,
        ..JobRecord::new(allocation.job)
    };
    if let Some(job) = &job {
        record.update(job);
    }
    if record.state.is_ended() && !matches!(place, Place::On(_)) {
        return Err(Failure::Usage(format!(
            "job {} is {}: SLURM_JOB_ID is left over from it",
            record.id, record.state
        )));
    }
    record.state = slurm::State::Running;
    record.ends_at = record.ends_at.or_else(|| Timestamp::from_second(allocation.ends_at?).ok());
    match (config.slurm.allocation, place) {
        (_, Place::Unknown) => Err(unknown(record.id)),
        (config::Allocation::Listen, Place::On(_)) => {
            record.node = Some(node_name().as_str().to_owned());
            Ok(Course::Within(record))
        }
        (config::Allocation::Listen, Place::Beside(first)) => Err(beside(record.id, &first)),
        (config::Allocation::Dial, Place::On(node)) => lent(record, node, LentHost::ByStart),
        (config::Allocation::Dial, Place::Beside(first)) => lent(record, first, LentHost::ByStep),
    }
}

fn lent(record: JobRecord, node: String, host: LentHost) -> Result<Course, Failure> {
    let program = std::env::current_exe().map_err(Failure::io("cannot tell where this program is"))?;
    let job = JobRecord { lent: true, node: Some(node), ..record };
    Ok(Course::Lent(Lent { job, program, host }))
}

fn unknown(job: JobId) -> Failure {
    Failure::Session(format!(
        "SLURM_JOB_ID says job {job}, and neither SLURMD_NODENAME nor Slurm says whether this is one of its nodes"
    ))
}

fn beside(job: JobId, first: &str) -> Failure {
    let here = node_name();
    Failure::Usage(format!(
        "{here} is no node of job {job}, which has {first}: type it there (srun --jobid={job} --overlap --pty bash); or set \
         SHLOGIN_SLURM_ALLOCATION=dial, and the session runs in the job while its URL stays here; or unset SLURM_JOB_ID for a \
         session on {here}"
    ))
}

/// `slurmd` is this node's name as its own daemon has it, in what that has started (and in what came from there).
fn place(slurmd: Option<&str>, names: Option<&[String]>, host: &str) -> Place {
    let Some(names) = names.filter(|names| !names.is_empty()) else {
        return slurmd.map_or(Place::Unknown, |node| Place::On(node.to_owned()));
    };
    let short = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    let named = |known: &str| names.iter().find(|name| *name == known);
    // A node may be called otherwise than its machine: then its daemon's word is all there is.
    let found = slurmd.and_then(named).or_else(|| named(host));
    let found = found.or_else(|| names.iter().find(|name| short(name) == short(host)));
    match (found, names.first()) {
        (Some(node), _) => Place::On(node.clone()),
        (None, Some(first)) => Place::Beside(first.clone()),
        (None, None) => Place::Unknown,
    }
}

/// What a gateway needs of a job that nobody submits.
pub(super) fn batch_spec(config: &Config, lent: Lent) -> BatchSpec {
    BatchSpec { lent: Some(lent), ..in_job::without_job(config) }
}

/// Where the job was asked for, as far as its environment says so.
pub(super) fn submit_host() -> Option<String> {
    let host = std::env::var("SLURM_SUBMIT_HOST").ok()?;
    host.parse::<config::HostName>().ok().map(|host| host.as_str().to_owned())
}

/// Whether this is the node on which a session's host runs, or another of this shell's job.
pub(super) fn is_node_of(job: &JobRecord) -> bool {
    let slurmd = std::env::var("SLURMD_NODENAME").ok();
    let names: Vec<_> = job.node.iter().cloned().collect();
    matches!(place(slurmd.as_deref(), Some(&names), node_name().as_str()), Place::On(_))
}

/// The folder of records of a session that is described.
pub(super) fn folder_of(record: &crate::session::Record) -> PathBuf {
    record.log.parent().map(PathBuf::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(slurmd: Option<&str>, names: &[&str], host: &str) -> Place {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        place(slurmd, Some(&names), host)
    }

    #[test]
    fn on_a_node_of_the_job_is_where_its_daemon_or_its_name_says_so() {
        let on = |node: &str| Place::On(node.to_owned());
        // srun --pty, a job's script.
        assert_eq!(at(Some("c1"), &["c1", "c2"], "c1"), on("c1"));
        assert_eq!(at(Some("c2"), &["c1", "c2"], "c2"), on("c2"));
        // By ssh, with the job's variables.
        assert_eq!(at(None, &["c1", "c2"], "c2"), on("c2"));
        assert_eq!(at(None, &["c1"], "c1.cluster.example"), on("c1"));
        assert_eq!(at(None, &["c1.cluster.example"], "c1"), on("c1.cluster.example"));
        // A node whose name is not its machine's.
        assert_eq!(at(Some("gpu-a"), &["gpu-a"], "rack7u3"), on("gpu-a"));
        // Where Slurm says nothing, its daemon's word is enough.
        assert_eq!(place(Some("c1"), None, "c1"), on("c1"));
    }

    #[test]
    fn elsewhere_is_beside_the_job() {
        let beside = |node: &str| Place::Beside(node.to_owned());
        assert_eq!(at(None, &["c1", "c2"], "login1"), beside("c1"));
        // salloc typed in another job: the daemon's word is the outer one's.
        assert_eq!(at(Some("c3"), &["c1"], "c3"), beside("c1"));
        assert_eq!(at(None, &["c10"], "c1"), beside("c10"));
        assert_eq!(place(None, None, "login1"), Place::Unknown);
        assert_eq!(at(None, &[], "login1"), Place::Unknown);
    }
}
