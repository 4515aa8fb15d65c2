//! Watches whether a session is used: looks at the evidence now and then, warns those at terminals, and says when it is over.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};

use crate::{
    activity::{Activity, Evidence, Gpu, Judge, Look, Reading, Verdict},
    host::Host,
    sandbox::protocol::Endpoint,
    session::idle::{IdleReport, IdleState, LastUse, exact, words},
    terminal::Terminals,
};

/// How long what an app uses may take to be read: over a link, and by a GPU's driver.
const PATIENCE: Duration = Duration::from_secs(15);
/// When those at terminals are told, at the earliest.
const WARNING: Duration = Duration::from_secs(5 * 60);

/// A handle on the watch.
pub(super) struct Idle {
    over: mpsc::Receiver<Duration>,
    report: watch::Receiver<Option<IdleReport>>,
}

/// What is watched.
pub(super) struct Watched {
    pub(super) activity: Activity,
    pub(super) host: Arc<Host>,
    pub(super) terminals: Terminals,
    /// Where the app answers, while it does.
    pub(super) endpoint: watch::Receiver<Option<Endpoint>>,
    /// Whether there is a connection to its host; of a host on this machine, nobody asks.
    pub(super) carried: Option<watch::Receiver<bool>>,
}

impl Idle {
    /// Watches, on the current runtime, if a session is to end when it is idle for so long.
    pub(super) fn begin(after: Option<Duration>, watched: Watched) -> Self {
        let (say, report) = watch::channel(None);
        let (tell, over) = mpsc::channel(1);
        if let Some(after) = after {
            tokio::spawn(async move { watched.watch(after, &say, &tell).await });
        }
        Self { over, report }
    }

    /// Waits until it has been idle for all its time, and says how long that was. It is said once for each run of its app.
    pub(super) async fn over(&mut self) -> Duration {
        match self.over.recv().await {
            Some(after) => after,
            None => std::future::pending().await,
        }
    }

    /// How it was judged last.
    pub(super) fn report(&self) -> watch::Receiver<Option<IdleReport>> {
        self.report.clone()
    }
}

impl Watched {
    async fn watch(
        &self,
        after: Duration,
        say: &watch::Sender<Option<IdleReport>>,
        tell: &mpsc::Sender<Duration>,
    ) {
        let mut judge = Judge::new(after);
        let (mut looked, mut last, mut warned) = (Instant::now(), None, false);
        loop {
            let (look, why) = self.look().await;
            let now = Instant::now();
            let verdict = judge.look(now - std::mem::replace(&mut looked, now), &look);
            let report = self.report(&judge, verdict, &look, why, after, &mut last);
            say.send_replace(Some(report));
            if verdict == Verdict::Over {
                if tell.send(after).await.is_err() {
                    return;
                }
                // It ends now; what comes after it, if anything does, is another run.
                if !self.has_gone().await {
                    return;
                }
                continue;
            }
            let near = judge.left() <= WARNING.min(after / 5);
            if near && !warned {
                self.warn(judge.left());
            }
            warned = near;
            // An app that goes is seen at once: the next one has all its time, however soon it comes.
            tokio::select! {
                () = sleep(judge.interval()) => {}
                gone = self.has_gone(), if look != Look::Absent => {
                    if !gone {
                        return;
                    }
                }
            }
        }
    }

    /// Waits until no app answers any more. `false` where the session has ended.
    async fn has_gone(&self) -> bool {
        self.endpoint.clone().wait_for(Option::is_none).await.is_ok()
    }

    async fn look(&self) -> (Look, Option<&'static str>) {
        if self.endpoint.borrow().is_none() {
            return (Look::Absent, None);
        }
        if self.carried.as_ref().is_some_and(|carried| !*carried.borrow()) {
            return (Look::Unknown, Some("the link to its node is down"));
        }
        match timeout(PATIENCE, self.host.usage()).await {
            Ok(Ok(usage)) => {
                // Counted last: what somebody does now is not missed.
                let counted = self.activity.look();
                let why = usage.cpu.is_none().then_some("what its processes use cannot be read");
                (Look::Read(Reading { counted, cpu: usage.cpu, gpu: usage.gpu }), why)
            }
            _ => (Look::Unknown, Some("its host does not say what it uses")),
        }
    }

    fn report(
        &self,
        judge: &Judge,
        verdict: Verdict,
        look: &Look,
        why: Option<&'static str>,
        after: Duration,
        last: &mut Option<LastUse>,
    ) -> IdleReport {
        let now = Timestamp::now();
        let gpu = if let Look::Read(reading) = look { reading.gpu } else { Gpu::None };
        let cpu = judge.cpu_share().map(|share| share * 100.0);
        let (state, why) = match verdict {
            Verdict::Absent => {
                *last = None;
                (IdleState::Absent, None)
            }
            // Between two looks there is nothing yet.
            Verdict::Unknown => (IdleState::Unknown, Some(why.unwrap_or("it is being looked at").to_owned())),
            Verdict::Used(evidence) => {
                let act = if evidence == Evidence::Acts { self.activity.last_act() } else { String::new() };
                let what = words(evidence, act, cpu, gpu);
                *last = Some(LastUse { evidence, what: what.clone(), at: now });
                (IdleState::Used, Some(what))
            }
            Verdict::Idle | Verdict::Over => (IdleState::Idle, None),
        };
        let left = SignedDuration::try_from(judge.left()).ok().filter(|left| !left.is_zero());
        let ends_at = left.filter(|_| state == IdleState::Idle).and_then(|left| now.checked_add(left).ok());
        let (idle, after) = (judge.idle().as_secs(), after.as_secs());
        IdleReport { state, why, idle, after, ends_at, last: last.clone(), cpu, gpu }
    }

    fn warn(&self, left: Duration) {
        let text = format!("nobody uses this session: it ends in {}, unless somebody does", exact(left));
        for terminal in self.terminals.list() {
            terminal.notify_owner(&text);
        }
    }
}
