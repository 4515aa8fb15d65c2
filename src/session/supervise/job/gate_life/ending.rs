//! How a gate ends: who wants it to, what became of the job, and that none is left behind.

use std::time::Duration;

use slurm::{Job, State as JobState};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep_until},
};

use super::Gate;
use crate::session::{
    State,
    supervise::{End, job::watch::Interest},
};

/// What a host may take longer than its app, to end.
const MARGIN: Duration = Duration::from_secs(5);
/// How long Slurm may take to say what became of a job whose host it has ended.
pub(super) const VERDICT: Duration = Duration::from_secs(60);
/// How long a job may take to go when its host has.
const GOING: Duration = Duration::from_secs(10);
/// How long Slurm may take to end a job before that is left to its owner: less than `stop` waits.
const PARTING: Duration = Duration::from_secs(20);

impl Gate {
    /// Slurm has ended its job: why, as far as Slurm, the host and we know.
    pub(super) fn ended_by_slurm(&self, job: &Job) -> End {
        if self.ending.is_some() {
            return End::Stopped(None);
        }
        let id = job.id;
        let node = self
            .record
            .job
            .as_ref()
            .and_then(|job| job.node.clone())
            .unwrap_or_else(|| "its node".to_owned());
        let what = match job.state {
            JobState::Cancelled => format!("its job {id} was cancelled"),
            JobState::Timeout => format!("its job {id} reached its time limit"),
            JobState::NodeFail => format!("{node} failed, and with it its job {id}"),
            JobState::Preempted => format!("its job {id} had to make room for another"),
            JobState::OutOfMemory => format!("its job {id} used more memory than it had"),
            JobState::BootFail => format!("{node} did not boot for its job {id}"),
            JobState::Deadline => format!("its job {id} could not end before its deadline"),
            JobState::Gone => format!("Slurm does not know its job {id} any more"),
            state => {
                let how = job.exit.map(|exit| match exit.signal {
                    0 => format!(" with exit code {}", exit.code),
                    signal => format!(" by signal {signal}"),
                });
                // A script that never came so far as to call has said why to nobody else.
                let said = self.run.is_none().then(|| {
                    let folder = self.opened.papers.path().display();
                    format!(" before it called; what it said is in {folder}/slurm-{id}.out")
                });
                let state = match state {
                    JobState::Failed => "failed".to_owned(),
                    JobState::Completed => "has ended".to_owned(),
                    other => format!("is {other}"),
                };
                format!("its job {id} {state}{}{}", how.unwrap_or_default(), said.unwrap_or_default())
            }
        };
        match &self.left {
            Some((End::Stopped(Some(exit)), _)) => End::Job(format!("{what}; its app ended with {exit}")),
            _ => End::Job(what),
        }
    }

    /// Somebody who may wants it to end, whatever it was about to do.
    pub(super) fn told_to_stop(&mut self, grace: Duration) -> Option<End> {
        (self.unwanted, self.idled) = (true, None);
        self.stop(grace)
    }

    /// Nobody has used it for so long. That may be said late: of one that ends already, or is between two jobs, it is old news.
    pub(super) fn is_idle(&mut self, after: Duration) -> Option<End> {
        if self.ending.is_some() || self.record.state != State::Running {
            return None;
        }
        self.idled = Some(after);
        self.stop(self.spec.work.stop_grace)
    }

    /// It is to end: its host is asked, and where there is none, Slurm is told.
    pub(super) fn stop(&mut self, grace: Duration) -> Option<End> {
        if let Some(end) = self.give_up() {
            return Some(end);
        }
        let until = Instant::now() + grace + MARGIN;
        self.ending = Some(self.ending.map_or(until, |before| before.min(until)));
        match (&self.far, &self.record.job) {
            (Some(far), _) => far.stop(grace),
            // Its job is cancelled when the session has ended.
            (None, Some(_)) => return Some(End::Stopped(None)),
            // It is being submitted: what becomes of it is heard in a moment.
            (None, None) => {}
        }
        None
    }

    pub(super) fn lose_patience(&mut self) -> Option<End> {
        let now = Instant::now();
        if self.interruption.as_ref().is_some_and(|interruption| interruption.until <= now) {
            return self.give_up();
        }
        if self.ending.is_some_and(|until| until <= now) {
            return Some(End::Stopped(None));
        }
        if self
            .record
            .job
            .as_ref()
            .is_some_and(|job| matches!(job.state, JobState::Completing | JobState::Undetermined))
            && let Some((_, until)) = &mut self.left
        {
            // It has not come to a verdict yet.
            *until = (*until).max(now + VERDICT);
            return None;
        }
        let (end, _) = self.left.take_if(|(_, until)| *until <= now)?;
        let what =
            if self.is_lent() { "it was ended in its job, which goes on" } else { "Slurm ended its job" };
        Some(End::Job(format!("{what}: {end}")))
    }

    /// Leaves no job behind. One whose host has ended goes by itself, as a rule. Says what could not be done: where Slurm
    /// does not answer, a session ends all the same.
    pub(super) async fn end_job(&mut self, end: &End) -> Option<String> {
        if self.is_lent() {
            // It is its owner's. A host that has not heard of the end reads it in the record.
            return None;
        }
        let (Some(watch), Some(id)) = (&mut self.job, self.record.job.as_ref().map(|job| job.id)) else {
            return None;
        };
        let host_ended = self.far.is_some() && !matches!(end, End::Stopped(None));
        watch.interest(Interest::Waiting);
        watch.interest(Interest::Keen);
        let begun = Instant::now();
        let cancel_at = begun + if host_ended { GOING } else { Duration::ZERO };
        let mut cancelling = None;
        loop {
            tokio::select! {
                job = watch.news.recv() => {
                    let job = job?;
                    if let Some(record) = &mut self.record.job {
                        record.update(&job);
                    }
                    // One that is to run again completes, too: it has to be cancelled then.
                    let goes = job.state == JobState::Completing && (host_ended || cancelling.is_some());
                    if job.state.is_ended() || goes {
                        return None;
                    }
                }
                () = sleep_until(cancel_at), if cancelling.is_none() => {
                    let slurm = self.opened.slurm.clone();
                    // It is not waited for: a program that hangs with its controller is Slurm's own.
                    cancelling = Some(spawn_blocking(move || {
                        if let Err(error) = slurm.cancel(id) {
                            tracing::warn!(%error, "the job could not be cancelled");
                        }
                    }));
                }
                () = sleep_until(begun + PARTING) => {
                    return Some(format!("Slurm does not say that its job {id} has ended: see squeue, and scancel {id}"));
                }
            }
        }
    }
}
