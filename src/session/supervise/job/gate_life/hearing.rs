//! What a gate hears of its job and its host, and what it makes of that.

use std::sync::Arc;

use jiff::Timestamp;
use slurm::{Job, JobId};
use tokio::time::Instant;

use super::Gate;
use crate::{
    gateway::Phase,
    link::{Expected, Linked},
    sandbox::protocol::Endpoint,
    session::{
        JobRecord, State,
        supervise::{
            End, ToLauncher, door,
            job::{
                far_life::FarLife,
                watch::{Interest, Watch},
                wire::{Begin, Cause, FromHost},
            },
        },
    },
};

impl Gate {
    pub(super) async fn submitted(&mut self, id: JobId) {
        self.watch(JobRecord::new(id)).await;
    }

    /// From here on this is its job.
    pub(super) async fn watch(&mut self, job: JobRecord) {
        self.opened.expected.send_replace(Expected { job: Some(job.id.number()), restarts: job.restarts });
        self.job = Some(Watch::begin(self.opened.slurm.clone(), job.clone(), self.record.id));
        self.record.job = Some(job);
        self.write().await;
        self.show_where_it_stands();
    }

    /// Slurm has said how the job is.
    pub(super) async fn hear_slurm(&mut self, job: &Job) -> Option<End> {
        let record = self.record.job.as_mut()?;
        let before = record.clone();
        record.update(job);
        let changed = *record != before;
        let ends = record.ends_at;
        self.ends.send_if_modified(|before| std::mem::replace(before, ends) != ends);
        let restarts = record.restarts;
        self.opened.expected.send_if_modified(|expected| {
            let more = restarts > expected.restarts;
            expected.restarts = expected.restarts.max(restarts);
            more
        });
        if job.state.is_ended() {
            return Some(self.ended_by_slurm(job));
        }
        if let Some(end) = self.ended_by_requeue(job) {
            return Some(end);
        }
        // What Slurm says may be older than what the host has said.
        let is_again = self.far.is_none() || job.restarts > self.restarts;
        if job.state.is_waiting() && self.record.state != State::Waiting && is_again {
            // It is to run again.
            self.waits();
            self.left = None;
        }
        if changed {
            self.write().await;
            self.show_where_it_stands();
        }
        let linked = self.record.job.as_ref().is_some_and(|job| job.linked);
        let interest = match () {
            () if self.ending.is_some() || self.left.is_some() => Interest::Keen,
            () if !job.state.is_determined() || job.state.is_waiting() => Interest::Waiting,
            () if self.far.is_some() && linked => Interest::Content,
            // Its host may be gone, and with it the job.
            () if self.far.is_some() => Interest::Waiting,
            () => Interest::Keen,
        };
        if let Some(watch) = &self.job {
            watch.interest(interest);
        }
        None
    }

    /// A host has come: a new one, or the same over a new stream.
    pub(super) async fn link(&mut self, linked: Linked) {
        let Linked { run, trunk } = linked;
        if self.opened.expected.borrow().job != Some(run.job) {
            // Of a job that has been given up meanwhile.
            trunk.cut();
            return;
        }
        let begin = Begin {
            id: self.record.id,
            name: self.record.name.clone(),
            base_url: door::base_url(&self.spec, &self.record),
            work: self.spec.work.clone(),
            outbound: self.batch.outbound,
            scratch: self.batch.scratch.clone(),
        };
        if self.run != Some(run.id) {
            self.run = Some(run.id);
            self.restarts = run.restarts;
            self.endpoint.send_replace(None);
            self.record.state = State::Starting;
            self.record.app_port = None;
            self.door.phase(Phase::Starting);
        }
        if let Some(job) = &mut self.record.job {
            job.node = Some(run.node);
            job.restarts = job.restarts.max(run.restarts);
        }
        self.trunk.send_replace(Some(trunk.clone()));
        let far = FarLife::begin(trunk, run.id, begin, Arc::clone(&self.log));
        if self.ending.is_some() {
            far.stop(self.spec.work.stop_grace);
        }
        self.far = Some(far);
        if let Some(watch) = &self.job {
            // Once more at once, for the node and the end of its time.
            watch.interest(Interest::Keen);
        }
        self.write().await;
        self.show_where_it_stands();
    }

    /// The host has gone, for good. What becomes of the job, Slurm says.
    pub(super) fn unlink(&mut self) {
        self.trunk.send_replace(None);
        self.endpoint.send_replace(None);
        self.far = None;
        if let Some(watch) = &self.job {
            watch.interest(Interest::Keen);
        }
    }

    pub(super) async fn carried(&mut self, carried: bool) {
        if let Some(job) = &mut self.record.job {
            job.linked = carried;
        }
        if !carried && let Some(watch) = &self.job {
            watch.interest(Interest::Waiting);
        }
        self.write().await;
    }

    pub(super) async fn hear_host(&mut self, news: FromHost) -> Option<End> {
        match news {
            FromHost::Starting => None,
            FromHost::Answers(endpoint) => self.answers(endpoint).await.err(),
            FromHost::Ended { end, cause: Cause::Own, .. } => Some(end),
            FromHost::Ended { end, cause: Cause::Limit, .. } => Some(match end {
                End::Stopped(Some(exit)) => {
                    End::Job(format!("its job's time was over; its app ended with {exit}"))
                }
                _ => End::Job("its job's time was over".to_owned()),
            }),
            FromHost::Ended { end, cause: Cause::Slurm, .. } if self.ending.is_some() => Some(end),
            FromHost::Ended { end, cause: Cause::Slurm, .. } => {
                self.left = Some((end, Instant::now() + self.verdict()));
                if let Some(watch) = &self.job {
                    watch.interest(Interest::Keen);
                }
                None
            }
        }
    }

    pub(super) async fn answers(&mut self, endpoint: Endpoint) -> Result<(), End> {
        self.record.state = State::Running;
        self.record.ready_at.get_or_insert_with(Timestamp::now);
        self.record.app_port = match &endpoint {
            Endpoint::Tcp(address) => Some(address.port()),
            Endpoint::Unix(_) => None,
        };
        self.endpoint.send_replace(Some(endpoint));
        self.door.phase(Phase::Running);
        self.write().await;
        if self.attached && !self.answered {
            let url =
                self.door.handle().url().map_err(|error| End::Broken(format!("making a token: {error}")))?;
            self.answered = true;
            self.tell(ToLauncher::Ready { record: Box::new(self.record.clone()), url });
        }
        Ok(())
    }

    /// It has no node, or none any more.
    pub(super) fn waits(&mut self) {
        self.record.state = State::Waiting;
        self.record.app_port = None;
        self.endpoint.send_replace(None);
        self.show_where_it_stands();
    }

    pub(super) fn show_where_it_stands(&mut self) {
        if self.record.state == State::Waiting {
            let summary = self.record.job.as_ref().map(|job| job.summary(Timestamp::now()));
            self.door.phase(Phase::Waiting {
                summary: summary.unwrap_or_else(|| "its job is being submitted".to_owned()),
            });
        }
        if self.attached && self.record.job.is_some() && self.record.state != State::Running {
            // One that does not read must not hold the session up.
            let _ = self.launcher.try_send(&ToLauncher::Waits(Box::new(self.record.clone())));
        }
    }
}
