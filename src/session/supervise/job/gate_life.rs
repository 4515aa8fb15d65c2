//! A gate from the submission of its job to the session's end: one loop that hears all news, and decides.

mod ending;
mod hearing;
mod interruption;
mod lent;
mod submission;

use std::{fs::File, os::fd::OwnedFd, sync::Arc, time::Duration};

use jiff::Timestamp;
use nginx_free::trunk::Trunk;
use slurm::{Job, JobId, Slurm};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, spawn_blocking},
    time::{Instant, interval, sleep_until},
};

use super::{
    far_life::{FarLife, LogSink},
    papers::Papers,
    watch::Watch,
    wire::FromHost,
};
use crate::{
    gateway::Restart,
    host::{Channel, Dialer, FarHost, Host},
    link::{Expected, Linked, Links, RunId},
    sandbox::protocol::Endpoint,
    session::{
        BatchSpec, JobRecord, Record, SessionSpec, State, forget_secrets,
        supervise::{
            End, FromLauncher, RequestLog, ToLauncher, door,
            idle::{Idle, Watched},
            life::{Stop, put_down, signals},
            requests,
            sharing::Sharing,
            ssh,
            time_left::TimeLeft,
        },
    },
    share::Guests,
    ssh::{Inside, Server},
    sys::message,
    terminal::Terminals,
};
use interruption::Interruption;

/// What was opened before the session.
pub(super) struct Opened {
    pub(super) slurm: Slurm,
    pub(super) links: Links,
    pub(super) expected: watch::Sender<Expected>,
    pub(super) papers: Papers,
}

/// A session whose app is elsewhere.
pub(super) struct Gate {
    spec: SessionSpec,
    batch: BatchSpec,
    record: Record,
    launcher: Arc<Channel>,
    /// The other end of that, if it is not of the process that launched us: who asked for it to be started again.
    follower: Option<OwnedFd>,
    attached: bool,
    /// Another gateway had it before, or another job: whoever gave it this one may go, and the session goes on.
    resumed: bool,
    /// It has been started again.
    again: bool,
    /// Its owner has been given a URL.
    answered: bool,
    submitting: Option<JoinHandle<Result<JobId, String>>>,
    opened: Opened,
    door: door::Door,
    ssh: Server,
    terminals: Terminals,
    endpoint: watch::Sender<Option<Endpoint>>,
    trunk: watch::Sender<Option<Trunk>>,
    ends: watch::Sender<Option<Timestamp>>,
    log: Arc<LogSink>,
    log_len: watch::Receiver<u64>,
    stops: mpsc::Receiver<Stop>,
    restarts_wanted: mpsc::Receiver<Restart>,
    idle: Idle,
    /// It is to end because nobody has used it for so long.
    idled: Option<Duration>,
    /// Its owner has asked for its end, or has not come back to it in time.
    unwanted: bool,
    job: Option<Watch>,
    far: Option<FarLife>,
    run: Option<RunId>,
    /// How often its job had been started before that run.
    restarts: u32,
    /// It is to end: when to lose patience with its host.
    ending: Option<Instant>,
    /// What its host said last, when Slurm ended it; when to wait no longer for Slurm's own word.
    left: Option<(End, Instant)>,
    /// It is between two jobs.
    interruption: Option<Interruption>,
    time_left: TimeLeft,
    /// In a job that is lent: says when its host is gone.
    host_gone: Option<mpsc::Receiver<End>>,
    /// In a job that is lent: its host was told that the time is over.
    time_is_told: bool,
}

/// What is left of a gate.
pub(super) struct Over {
    pub(super) end: End,
    pub(super) record: Record,
    /// Whoever joined it last, and may still wait for a word.
    pub(super) follower: Option<OwnedFd>,
}

/// What a gate hears from the rest of its process.
struct Ears {
    signals: mpsc::Receiver<()>,
    log_len: watch::Receiver<u64>,
    linked: watch::Receiver<Option<Linked>>,
    carried: watch::Receiver<bool>,
}

enum News {
    HostGone(End),
    Submitted(Result<JobId, String>),
    Job(Box<Job>),
    Linked(Option<Linked>),
    Carried(bool),
    Far(Option<FromHost>),
    Launcher(Option<FromLauncher>),
    Stop(Duration),
    Restart(Restart),
    Log(u64),
    Certificate(String),
    Idle(Duration),
    Impatient,
    Tick,
}

impl Gate {
    /// Opens gateway, ssh and control socket. The job is submitted by [`Self::live`].
    pub(super) fn open(
        spec: SessionSpec,
        mut record: Record,
        opened: Opened,
        (launcher, ssh, listener): (&OwnedFd, &OwnedFd, OwnedFd),
        output: File,
        log_len: watch::Receiver<u64>,
        request_log: RequestLog,
    ) -> Result<Self, String> {
        let io = |error: std::io::Error| error.to_string();
        let batch = spec.batch.clone().ok_or("there is no job to submit")?;
        let resumed = batch.resume.is_some();
        let launcher = launcher.try_clone().and_then(Channel::new).map_err(io)?;
        let (trunk, trunk_seen) = watch::channel(None);
        let (endpoint, endpoint_seen) = watch::channel(None);
        let host = Arc::new(Host::Far(FarHost::new(trunk_seen, spec.work.sandbox.isolation)));
        let dialer = Dialer::new(Arc::clone(&host), endpoint_seen.clone());
        let activity = record.activity();
        let terminals = Terminals::new(Arc::clone(&host), activity.clone());
        let told = terminals.clone();
        let guests = Guests::new(spec.gateway.bind_cookie_to_address, move |terminal, text| {
            if let Some(terminal) = told.get(terminal) {
                terminal.notify_owner(text);
            }
        });
        let (ends, ends_seen) = watch::channel(None);
        let (restart, restarts_wanted) = mpsc::channel(4);
        let inside = door::Inside {
            request_log,
            log_len: log_len.clone(),
            terminals: terminals.clone(),
            guests: guests.clone(),
            ends: ends_seen,
            restart: restart.clone(),
            activity: activity.clone(),
        };
        let door = door::Door::open(&spec, &mut record, listener, dialer, inside)?;
        let inside = Inside {
            host: Arc::clone(&host),
            terminals: terminals.clone(),
            temporary: None,
            guests: guests.clone(),
            activity: activity.clone(),
        };
        let ssh = ssh::open(&spec, &mut record, ssh, inside, door.handle().spend_token())?;
        let watched = Watched {
            activity: activity.clone(),
            host: Arc::clone(&host),
            terminals: terminals.clone(),
            endpoint: endpoint_seen,
            carried: Some(opened.links.carried()),
        };
        let idle = Idle::begin(record.idle_after(), watched);
        let (stop, stops) = mpsc::channel(4);
        let requests = requests::Requests {
            host,
            door: door.handle(),
            ssh: ssh.clone(),
            sharing: Sharing { terminals: terminals.clone(), guests, door: door.handle() },
            stop,
            restart,
            log_len: log_len.clone(),
            idle: idle.report(),
            activity,
        };
        requests.listen(&spec.work.sandbox.footprint.session).map_err(io)?;
        record.state = State::Waiting;
        opened.papers.take_over(&record)?;
        Ok(Self {
            log: LogSink::new(output).map_err(io)?,
            batch,
            spec,
            record,
            launcher: Arc::new(launcher),
            follower: None,
            attached: true,
            resumed,
            again: false,
            answered: false,
            submitting: None,
            opened,
            door,
            ssh,
            terminals,
            endpoint,
            trunk,
            ends,
            log_len,
            stops,
            restarts_wanted,
            idle,
            idled: None,
            unwanted: false,
            job: None,
            far: None,
            run: None,
            restarts: 0,
            ending: None,
            left: None,
            interruption: None,
            time_left: TimeLeft::default(),
            host_gone: None,
            time_is_told: false,
        })
    }

    /// From the submission of the job to the session's end, of which `follower` is to be told, too.
    pub(super) async fn live(mut self) -> Over {
        let there_already = self.batch.resume.take();
        match there_already.or_else(|| self.batch.lent.as_ref().map(|lent| lent.job.clone())) {
            Some(job) => self.watch(job).await,
            None => self.submit(),
        }
        self.see_to_the_host();
        self.waits();
        let mut ears = Ears {
            signals: signals(),
            log_len: self.log_len.clone(),
            linked: self.opened.links.linked(),
            carried: self.opened.links.carried(),
        };
        let (end, left) = loop {
            let end = self.until_its_end(&mut ears).await;
            if end == End::TakenOver || !self.opened.papers.are_ours().await {
                // Job, record and folder are the other's.
                let end = End::TakenOver;
                let why = end.to_string();
                tokio::join!(self.door.close(&why), self.ssh.close());
                return Over { end, record: self.record, follower: self.follower };
            }
            if self.submitting.is_some()
                && let Ok(id) = submitted(&mut self.submitting).await
            {
                // It came too late, and has to go again.
                self.watch(JobRecord::new(id)).await;
            }
            let left = self.end_job(&end).await;
            let end = end.of_idle(self.idled.take());
            if left.is_some() || !self.stays_after(&end) {
                break (end, left);
            }
            self.interrupt(end).await;
        };
        let (why, lent) = (end.to_string(), self.is_lent());
        tokio::join!(self.door.close(&why), self.ssh.close());
        put_down(&mut self.record, &end);
        if let (Some(reason), Some(left)) = (&mut self.record.reason, left) {
            *reason += "; ";
            *reason += &left;
        }
        // A disk that is full must not keep the session from ending; then that is what is said of it.
        let written = self.opened.papers.write(&self.record).await;
        // The host of a job that is lent may have no other word of the end than the record's; without it, another gate can still
        // be given to it.
        if (written || !lent)
            && let Err(error) = forget_secrets(self.opened.papers.folder())
        {
            tracing::warn!(%error, "what the link needed is still in the session's folder");
        }
        Over { end, record: self.record, follower: self.follower }
    }

    /// Until it, or its job, has ended.
    async fn until_its_end(&mut self, ears: &mut Ears) -> End {
        let mut buffer = vec![0; message::MAX_LEN];
        let mut renewed = Box::pin(self.door.renewed());
        let mut ticks = interval(Duration::from_secs(5));
        loop {
            let impatient = [
                self.ending,
                self.left.as_ref().map(|(_, until)| *until),
                self.interruption.as_ref().map(|interruption| interruption.until),
            ];
            let impatient = impatient.into_iter().flatten().min();
            let news = tokio::select! {
                submitted = submitted(&mut self.submitting) => News::Submitted(submitted),
                Some(job) = next_job(&mut self.job) => News::Job(Box::new(job)),
                Ok(()) = ears.linked.changed() => News::Linked(ears.linked.borrow_and_update().clone()),
                Ok(()) = ears.carried.changed() => News::Carried(*ears.carried.borrow_and_update()),
                news = next_far(&mut self.far) => News::Far(news),
                Some(end) = host_gone(&mut self.host_gone) => News::HostGone(end),
                said = self.launcher.receive::<FromLauncher>(&mut buffer), if self.attached => {
                    News::Launcher(said.ok().flatten().map(|(said, _)| said))
                }
                Some(Stop { grace }) = self.stops.recv() => News::Stop(grace.unwrap_or(self.spec.work.stop_grace)),
                Some(()) = ears.signals.recv() => News::Stop(self.spec.work.stop_grace),
                Some(restart) = self.restarts_wanted.recv() => News::Restart(restart),
                Ok(()) = ears.log_len.changed(), if self.attached => {
                    News::Log(*ears.log_len.borrow_and_update())
                }
                fingerprint = &mut renewed => News::Certificate(fingerprint),
                after = self.idle.over() => News::Idle(after),
                () = sleep_until(impatient.unwrap_or_else(Instant::now)), if impatient.is_some() => News::Impatient,
                _ = ticks.tick() => News::Tick,
            };
            let end = match news {
                News::HostGone(end) => Some(self.host_is_gone(end)),
                News::Submitted(Ok(id)) => {
                    self.submitted(id).await;
                    // It was told to end meanwhile.
                    self.ending.map(|_| End::Stopped(None))
                }
                News::Submitted(Err(why)) => Some(End::NotSubmitted(why)),
                News::Job(job) => self.hear_slurm(&job).await,
                News::Linked(Some(linked)) => {
                    self.link(linked).await;
                    None
                }
                News::Linked(None) => {
                    self.unlink();
                    None
                }
                News::Carried(carried) => {
                    self.carried(carried).await;
                    None
                }
                News::Far(Some(news)) => self.hear_host(news).await,
                News::Far(None) => {
                    self.far = None;
                    // One that is there and says nothing more is to come anew.
                    if let Some(trunk) = &*self.trunk.borrow() {
                        trunk.cut();
                    }
                    None
                }
                News::Launcher(Some(FromLauncher::Detach)) => {
                    self.attached = false;
                    self.tell(ToLauncher::Detached);
                    None
                }
                News::Launcher(said) if self.resumed => {
                    self.attached = false;
                    if said.is_some() {
                        self.tell(ToLauncher::Detached);
                    }
                    None
                }
                News::Launcher(Some(FromLauncher::Stop)) => self.told_to_stop(self.spec.work.stop_grace),
                News::Launcher(Some(FromLauncher::Kill)) => self.told_to_stop(Duration::ZERO),
                News::Launcher(None) => {
                    self.attached = false;
                    self.told_to_stop(Duration::ZERO)
                }
                News::Stop(grace) => self.told_to_stop(grace),
                News::Restart(restart) => {
                    self.restart(restart).await;
                    None
                }
                News::Idle(after) => self.is_idle(after),
                News::Log(len) => {
                    // One that does not read (Ctrl-Z) must not hold the session up; the next length tells as much.
                    let _ = self.launcher.try_send(&ToLauncher::Log(len));
                    None
                }
                News::Certificate(fingerprint) => {
                    renewed = Box::pin(self.door.renewed());
                    self.record.gateway.fingerprint = fingerprint;
                    self.write().await;
                    None
                }
                News::Impatient => self.lose_patience(),
                News::Tick => {
                    if let Some(job) = &self.record.job {
                        self.time_left.look(job, &self.terminals);
                    }
                    self.look_at_its_time();
                    (!self.opened.papers.are_ours().await).then_some(End::TakenOver)
                }
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// Submits its job.
    fn submit(&mut self) {
        let (slurm, batch) = (self.opened.slurm.clone(), self.batch.clone());
        let folder = self.opened.papers.path().to_owned();
        self.submitting = Some(spawn_blocking(move || submission::submit(&slurm, batch, &folder)));
    }

    /// Tells whoever launched or follows it, when there is room for that: one that does not read (Ctrl-Z) must not hold the session
    /// up, and is to find this when it goes on.
    fn tell(&self, news: ToLauncher) {
        let launcher = Arc::clone(&self.launcher);
        tokio::spawn(async move {
            // One that does not listen any more has gone, which is noticed where it is heard from.
            let _ = launcher.send(&news, &[]).await;
        });
    }

    async fn write(&self) {
        self.opened.papers.write(&self.record).await;
    }
}

async fn submitted(submitting: &mut Option<JoinHandle<Result<JobId, String>>>) -> Result<JobId, String> {
    let Some(task) = submitting else { return std::future::pending().await };
    let done = task.await;
    *submitting = None;
    done.unwrap_or_else(|error| Err(error.to_string()))
}

async fn next_job(watch: &mut Option<Watch>) -> Option<Job> {
    match watch {
        Some(watch) => watch.news.recv().await,
        None => std::future::pending().await,
    }
}

async fn host_gone(gone: &mut Option<mpsc::Receiver<End>>) -> Option<End> {
    match gone {
        Some(gone) => gone.recv().await,
        None => std::future::pending().await,
    }
}

async fn next_far(far: &mut Option<FarLife>) -> Option<FromHost> {
    match far {
        Some(far) => far.news.recv().await,
        None => std::future::pending().await,
    }
}
