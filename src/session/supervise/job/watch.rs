//! Watches one job: asks Slurm how far it is, often where something is about to happen, and seldom where the link says that
//! all is well. The controller answers all users of a cluster.

use std::time::Duration;

use slurm::{Job, Slurm, State};
use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::timeout,
};

use crate::{session::JobRecord, words::SessionId};

/// What somebody wants to know, and how soon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Interest {
    /// It was just submitted, or has just ended: something is about to happen.
    Keen,
    /// It waits.
    Waiting,
    /// It runs, and is linked.
    Content,
}

impl Interest {
    fn pause(self) -> Duration {
        match self {
            Self::Keen => Duration::from_millis(500),
            Self::Waiting => Duration::from_secs(5),
            Self::Content => Duration::from_secs(60),
        }
    }
}

/// A watched job.
pub(super) struct Watch {
    pub(super) news: mpsc::Receiver<Job>,
    interest: watch::Sender<Interest>,
}

impl Watch {
    /// Begins to watch a session's job.
    pub(super) fn begin(slurm: Slurm, record: JobRecord, session: SessionId) -> Self {
        let job = record.id;
        let (told, news) = mpsc::channel(1);
        let (interest, mut wanted) = watch::channel(Interest::Keen);
        tokio::spawn(async move {
            loop {
                let asked = slurm.clone();
                let found = spawn_blocking(move || asked.job(job)).await;
                let found = match found {
                    Ok(Ok(found)) => record.still(found, session),
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "Slurm does not say how the job is");
                        Job::only(job, State::Undetermined)
                    }
                    Err(_) => return,
                };
                if told.send(found).await.is_err() {
                    return;
                }
                let pause = wanted.borrow_and_update().pause();
                // Whoever wants to know sooner, does.
                if let Ok(Err(_)) = timeout(pause, wanted.changed()).await {
                    return;
                }
            }
        });
        Self { news, interest }
    }

    /// How soon to ask again. A change is heard at once.
    pub(super) fn interest(&self, interest: Interest) {
        self.interest.send_if_modified(|now| {
            let changes = *now != interest;
            *now = interest;
            changes
        });
    }
}
