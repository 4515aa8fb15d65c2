//! What is known of a session's Slurm job, and what it takes to submit one.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use slurm::{Job, JobId, State, TimeLimit};

use crate::{config::OutboundHelper, words::SessionId};

/// A job to be submitted.
#[derive(Clone, Serialize, Deserialize)]
pub struct BatchSpec {
    /// Options of sbatch.
    pub options: Vec<OsString>,
    /// The script.
    pub script: String,
    /// The folder of Slurm's programs; `PATH` without.
    pub programs: Option<PathBuf>,
    /// Whether MUNGE is to prove whose job it is that comes.
    pub munge: MungeUse,
    /// The MUNGE daemon's socket; Slurm's own setting without.
    pub munge_socket: Option<PathBuf>,
    /// Names or addresses by which nodes reach this one.
    pub link_hosts: Vec<String>,
    /// How long a job that has started may take to call.
    pub startup_timeout: Duration,
    /// How long to wait for its owner to start it again, when Slurm has ended it.
    pub linger: Duration,
    /// What brings packets out, on the node.
    pub outbound: OutboundHelper,
    /// Where private folders go, on the node.
    pub scratch: PathBuf,
    /// The job that is there already: another gateway had it.
    pub resume: Option<JobRecord>,
    /// The job that is its owner's own, and not to be submitted.
    #[serde(default)]
    pub lent: Option<Lent>,
}

/// A job that was there before the session, and stays after it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Lent {
    /// What is known of it; its node is the host's.
    pub job: JobRecord,
    /// This program, by a path that leads to it on that node.
    pub program: PathBuf,
    /// How the host comes to be there.
    pub host: LentHost,
}

/// How a host comes to be in a job that is lent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum LentHost {
    /// The gate starts it there by srun.
    ByStep,
    /// The person's own `start` has, where she typed it.
    ByStart,
}

/// Whether to use MUNGE.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum MungeUse {
    /// Where it works on this node.
    Auto,
    /// Never: a key in the session's folder proves it.
    Off,
    /// Always.
    Require,
}

/// What is known of a session's job. Part of its record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JobRecord {
    /// Its number.
    pub id: JobId,
    /// How far Slurm says it is.
    pub state: State,
    /// Why it waits, or how it ended, in plain words with Slurm's own.
    pub reason: Option<String>,
    /// Where it runs, or may.
    pub partition: Option<String>,
    /// The node that runs it.
    pub node: Option<String>,
    /// When it is expected to start, while it waits.
    pub expected_start: Option<Timestamp>,
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// When its time is over, at the latest.
    pub ends_at: Option<Timestamp>,
    /// How long it may run.
    pub time_limit: Option<TimeLimit>,
    /// How often it was started anew.
    pub restarts: u32,
    /// Whether there is a connection to its host.
    #[serde(default)]
    pub linked: bool,
    /// It was there before the session, and stays after it: nothing of ours ends it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lent: bool,
}

impl JobRecord {
    /// Of a job that was just submitted.
    pub fn new(id: JobId) -> Self {
        Self {
            id,
            state: State::Pending,
            reason: None,
            partition: None,
            node: None,
            expected_start: None,
            started_at: None,
            ends_at: None,
            time_limit: None,
            restarts: 0,
            linked: false,
            lent: false,
        }
    }

    /// What Slurm says of the job with this number, for a session's own: where another job has the number by now (Slurm begins
    /// again at 1 when it has lost its state), this one is gone. Its output goes to the session's folder, and no other's does.
    pub fn still(&self, job: Job, session: SessionId) -> Job {
        let folder = job.stdout.as_deref().and_then(Path::parent).and_then(Path::file_name);
        if self.lent || folder.is_none_or(|folder| folder == session.to_string().as_str()) {
            return job;
        }
        Job::only(job.id, State::Gone)
    }

    /// Takes in what Slurm says. Where it says nothing, all stays but the state.
    pub fn update(&mut self, job: &Job) {
        self.state = job.state;
        if !job.state.is_determined() || job.state == State::Gone {
            return;
        }
        self.reason = job.reason.as_ref().filter(|reason| !reason.is_none()).map(ToString::to_string);
        self.partition.clone_from(&job.partition);
        if self.node.is_none() || !self.lent {
            // Of a job that is lent, any node may have the host.
            self.node = job.batch_host.clone().or_else(|| job.nodes.clone()).filter(|node| !node.is_empty());
        }
        self.expected_start = job.expected_start();
        self.started_at = job.started();
        self.ends_at = job.end.filter(|_| !job.state.is_waiting());
        self.time_limit = job.time_limit;
        self.restarts = job.restarts;
    }

    /// How long it still has, while it runs.
    pub fn time_left(&self, now: Timestamp) -> Option<Duration> {
        let runs = self.state.is_running() || !self.state.is_determined();
        let left = self.ends_at.filter(|_| runs)?.duration_since(now);
        Some(Duration::try_from(left).unwrap_or_default())
    }

    /// Where it stands, in a few words for its owner.
    pub fn summary(&self, now: Timestamp) -> String {
        let id = self.id;
        if self.state.is_waiting() {
            let why = self.reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
            let when = self.expected_start.filter(|start| *start > now);
            let when = when.map(|start| format!("; Slurm expects it to start at {}", local(start)));
            return format!("job {id} waits for a node{why}{}", when.unwrap_or_default());
        }
        if !self.state.is_determined() {
            return format!("job {id}: Slurm does not answer at the moment");
        }
        let node = self.node.as_deref().map(|node| format!(" on {node}")).unwrap_or_default();
        let left = self.time_left(now).map(|left| format!(", {} left", span(left))).unwrap_or_default();
        let why = self.reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        format!("job {id} is {}{node}{left}{why}", self.state)
    }
}

/// A time as its owner's clock shows it.
pub(super) fn local(at: Timestamp) -> String {
    let zoned = at.to_zoned(jiff::tz::TimeZone::system());
    let today = Timestamp::now().to_zoned(jiff::tz::TimeZone::system());
    let form = if zoned.date() == today.date() { "%H:%M" } else { "%Y-%m-%d %H:%M" };
    zoned.strftime(form).to_string()
}

/// A time span in its two largest units.
pub fn span(span: Duration) -> String {
    let minutes = span.as_secs() / 60;
    match (minutes / (24 * 60), minutes / 60 % 24, minutes % 60) {
        (0, 0, 0) => format!("{} s", span.as_secs()),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_said_in_two_units() {
        let said = [5, 65, 3600 + 120, 90_000].map(|secs| span(Duration::from_secs(secs)));
        assert_eq!(said, ["5 s", "1 min", "1 h 2 min", "1 d 1 h"]);
    }

    #[test]
    fn a_scheduler_that_does_not_answer_changes_nothing_but_the_state() {
        let mut record = JobRecord::new("7".parse().unwrap());
        record.node = Some("c1".to_owned());
        record.ends_at = Some("2026-01-01T01:00:00Z".parse().unwrap());
        record.state = State::Running;
        let now = "2026-01-01T00:30:00Z".parse().unwrap();
        assert_eq!(record.summary(now), "job 7 is running on c1, 30 min left");
        let silent = Job::only(record.id, State::Undetermined);
        record.update(&silent);
        assert_eq!(record.node.as_deref(), Some("c1"));
        assert_eq!(record.time_left(now), Some(Duration::from_secs(1800)));
        assert_eq!(record.summary(now), "job 7: Slurm does not answer at the moment");
    }

    #[test]
    fn a_number_that_another_job_has_by_now_is_no_job_of_the_session() {
        let (session, other) = (SessionId::random(), SessionId::random());
        let mut record = JobRecord::new("7".parse().unwrap());
        let state = |record: &JobRecord, stdout: Option<String>| {
            let mut job = Job::only(record.id, State::Running);
            job.stdout = stdout.map(Into::into);
            record.still(job, session).state
        };
        assert_eq!(state(&record, Some(format!("/h/{session}/slurm-%j.out"))), State::Running);
        assert_eq!(state(&record, None), State::Running, "a controller that says little");
        assert_eq!(state(&record, Some(format!("/h/{other}/slurm-%j.out"))), State::Gone);
        assert_eq!(state(&record, Some("/h/ada/slurm-7.out".to_owned())), State::Gone);
        record.lent = true;
        assert_eq!(state(&record, Some("/h/ada/slurm-7.out".to_owned())), State::Running);
    }

    #[test]
    fn a_host_in_a_job_that_is_lent_stays_on_the_node_where_it_is() {
        let mut record = JobRecord { lent: true, ..JobRecord::new("7".parse().unwrap()) };
        let mut job = Job::only(record.id, State::Running);
        job.batch_host = Some("c1".to_owned());
        record.update(&job);
        assert_eq!(record.node.as_deref(), Some("c1"));
        record.node = Some("c2".to_owned());
        record.update(&job);
        assert_eq!(record.node.as_deref(), Some("c2"));
        record.lent = false;
        record.update(&job);
        assert_eq!(record.node.as_deref(), Some("c1"));
    }
}
