//! Between two jobs: a session whose job Slurm has ended keeps its name and its URL, until its owner starts it again, stops it,
//! or does neither for long enough.

use std::{io, os::fd::OwnedFd, sync::Arc};

use jiff::Timestamp;
use tokio::time::Instant;

use super::Gate;
use crate::{
    gateway::{Phase, Restart},
    host::Channel,
    link::Expected,
    session::{
        State, log,
        supervise::{End, ToLauncher, time_left::TimeLeft},
    },
};

/// Slurm has ended its job.
pub(super) struct Interruption {
    /// How it ends, if nobody starts it again.
    end: End,
    /// When nobody will.
    pub(super) until: Instant,
}

impl Gate {
    /// Whether it may go on after such an end: its owner has not asked for it, and nobody waits for its first URL, who would take
    /// the end for an answer. One that nobody uses gives its node back, and has another when somebody does.
    pub(super) fn stays_after(&self, end: &End) -> bool {
        let unasked = match end {
            End::Job(_) => self.ending.is_none(),
            End::NotSubmitted(_) => self.again && self.ending.is_none(),
            End::Idle { .. } => true,
            _ => false,
        };
        // A job that is lent is its owner's to replace.
        unasked
            && !self.unwanted
            && !self.is_lent()
            && (self.resumed || !self.attached)
            && !self.batch.linger.is_zero()
    }

    /// Its job is over and gone. It keeps nothing of it but its number.
    pub(super) async fn interrupt(&mut self, end: End) {
        let why = end.to_string();
        self.opened.expected.send_replace(Expected::default());
        if let Some(trunk) = self.trunk.send_replace(None) {
            trunk.cut();
        }
        self.endpoint.send_replace(None);
        self.ends.send_replace(None);
        (self.job, self.far, self.run, self.left) = (None, None, None, None);
        (self.restarts, self.time_left, self.ending) = (0, TimeLeft::default(), None);
        self.record.state = State::Interrupted;
        self.record.reason = Some(why.clone());
        self.record.interrupted_until = Timestamp::now().checked_add(self.batch.linger).ok();
        self.record.app_port = None;
        if let Some(job) = &mut self.record.job {
            job.linked = false;
        }
        self.write().await;
        self.door.phase(Phase::Interrupted { summary: why });
        if std::mem::take(&mut self.attached) {
            let record = Some(Box::new(self.record.clone()));
            let tail = log::tail(&self.record.log, 20);
            self.tell(ToLauncher::Ended { end: end.clone(), record, tail });
        }
        self.interruption = Some(Interruption { end, until: Instant::now() + self.batch.linger });
    }

    /// Its owner wants another job for it, and may follow that.
    pub(super) async fn restart(&mut self, restart: Restart) {
        let Restart { follower, answer } = restart;
        let joined = |socket: OwnedFd| Ok((socket.try_clone()?, Channel::new(socket)?));
        let follower: io::Result<_> = follower.map(joined).transpose();
        let follower = match follower {
            Ok(follower) => follower,
            Err(error) => {
                let _ = answer.send(Err(error.to_string()));
                return;
            }
        };
        if self.interruption.take().is_none() {
            let _ = answer.send(Err("its job is not over".to_owned()));
            return;
        }
        if let Some((socket, follower)) = follower {
            // It may go, as one who attaches: the session has its owner's word already.
            (self.launcher, self.attached, self.answered) = (Arc::new(follower), true, false);
            self.follower = Some(socket);
        }
        (self.resumed, self.again) = (true, true);
        (self.record.job, self.record.reason, self.record.ready_at) = (None, None, None);
        self.record.interrupted_until = None;
        self.submit();
        self.waits();
        self.write().await;
        // Whoever asked may have gone.
        let _ = answer.send(Ok(()));
    }

    /// Nobody starts it again: its end, where it is between two jobs.
    pub(super) fn give_up(&mut self) -> Option<End> {
        let interruption = self.interruption.take()?;
        (self.ending, self.unwanted) = (Some(Instant::now()), true);
        Some(interruption.end)
    }
}
