//! A gate from the submission of its job to the session's end: one loop that hears all news, and decides.

mod ending;
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
    watch::{Interest, Watch},
    wire::{Begin, Cause, FromHost},
};
use crate::{
    config::paths::PrivateFolder,
    gateway::{Phase, Restart},
    host::{Channel, Dialer, FarHost, Host},
    link::{Expected, Linked, Links, Rendezvous, RunId},
    sandbox::protocol::Endpoint,
    session::{
        BatchSpec, JobRecord, Record, Records, SessionSpec, State,
        supervise::{
            End, FromLauncher, ToLauncher, door,
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
pub(super) use ending::forget_secrets;
use interruption::Interruption;

/// What was opened before the session.
pub(super) struct Opened {
    pub(super) slurm: Slurm,
    pub(super) links: Links,
    pub(super) expected: watch::Sender<Expected>,
    /// What hosts read, and where.
    pub(super) meet: Rendezvous,
    pub(super) folder: PrivateFolder,
}

/// A session whose app is elsewhere.
pub(super) struct Gate<'a> {
    spec: SessionSpec,
    batch: BatchSpec,
    record: Record,
    records: &'a Records,
    launcher: Channel,
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

impl<'a> Gate<'a> {
    /// Opens gateway, ssh and control socket. The job is submitted by [`Self::live`].
    pub(super) fn open(
        spec: SessionSpec,
        mut record: Record,
        records: &'a Records,
        opened: Opened,
        (launcher, ssh, listener): (&OwnedFd, &OwnedFd, OwnedFd),
        output: File,
        log_len: watch::Receiver<u64>,
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
        // From here on hosts find this gateway, and one that had the session before gives it up.
        opened.meet.write(&opened.folder).map_err(|error| error.to_string())?;
        records.write(&record).map_err(|error| error.to_string())?;
        Ok(Self {
            log: LogSink::new(output).map_err(io)?,
            batch,
            spec,
            record,
            records,
            launcher,
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

    /// From the submission of the job to the session's end.
    pub(super) async fn live(mut self) -> (End, Record) {
        let there_already = self.batch.resume.take();
        match there_already.or_else(|| self.batch.lent.as_ref().map(|lent| lent.job.clone())) {
            Some(job) => self.watch(job),
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
            if end == End::TakenOver || !self.still_ours() {
                // Job, record and folder are the other's.
                let end = End::TakenOver;
                let why = end.to_string();
                tokio::join!(self.door.close(&why), self.ssh.close());
                return (end, self.record);
            }
            if self.submitting.is_some()
                && let Ok(id) = submitted(&mut self.submitting).await
            {
                // It came too late, and has to go again.
                self.watch(JobRecord::new(id));
            }
            let left = self.end_job(&end).await;
            let end = end.of_idle(self.idled.take());
            if left.is_some() || !self.stays_after(&end) {
                break (end, left);
            }
            self.interrupt(end).await;
        };
        let why = end.to_string();
        tokio::join!(self.door.close(&why), self.ssh.close());
        put_down(&mut self.record, &end);
        if let (Some(reason), Some(left)) = (&mut self.record.reason, left) {
            *reason += "; ";
            *reason += &left;
        }
        // A disk that is full must not keep the session from ending; then that is what is said of it.
        let _ = self.records.write(&self.record);
        if let Err(error) = forget_secrets(&self.opened.folder) {
            tracing::warn!(%error, "what the link needed is still in the session's folder");
        }
        (end, self.record)
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
                    self.submitted(id);
                    // It was told to end meanwhile.
                    self.ending.map(|_| End::Stopped(None))
                }
                News::Submitted(Err(why)) => Some(End::NotSubmitted(why)),
                News::Job(job) => self.hear_slurm(&job).await,
                News::Linked(Some(linked)) => {
                    self.link(linked);
                    None
                }
                News::Linked(None) => {
                    self.unlink();
                    None
                }
                News::Carried(carried) => {
                    self.carried(carried);
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
                    self.tell(&ToLauncher::Detached).await;
                    None
                }
                News::Launcher(said) if self.resumed => {
                    self.attached = false;
                    if said.is_some() {
                        self.tell(&ToLauncher::Detached).await;
                    }
                    None
                }
                News::Launcher(Some(FromLauncher::Stop)) => self.stop(self.spec.work.stop_grace),
                News::Launcher(Some(FromLauncher::Kill)) => self.stop(Duration::ZERO),
                News::Launcher(None) => {
                    self.attached = false;
                    self.stop(Duration::ZERO)
                }
                News::Stop(grace) => self.stop(grace),
                News::Restart(restart) => {
                    self.restart(restart);
                    None
                }
                News::Idle(after) => {
                    self.idled = Some(after);
                    self.stop(self.spec.work.stop_grace)
                }
                News::Log(len) => {
                    // One that does not read (Ctrl-Z) must not hold the session up; the next length tells as much.
                    let _ = self.launcher.try_send(&ToLauncher::Log(len));
                    None
                }
                News::Certificate(fingerprint) => {
                    renewed = Box::pin(self.door.renewed());
                    self.record.gateway.fingerprint = fingerprint;
                    self.write();
                    None
                }
                News::Impatient => self.lose_patience(),
                News::Tick => {
                    if let Some(job) = &self.record.job {
                        self.time_left.look(job, &self.terminals);
                    }
                    self.look_at_its_time();
                    (!self.still_ours()).then_some(End::TakenOver)
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
        let folder = self.opened.folder.path().to_owned();
        self.submitting = Some(spawn_blocking(move || submission::submit(&slurm, batch, &folder)));
    }

    fn submitted(&mut self, id: JobId) {
        self.watch(JobRecord::new(id));
    }

    /// From here on this is its job.
    fn watch(&mut self, job: JobRecord) {
        self.opened.expected.send_replace(Expected { job: Some(job.id.number()), restarts: job.restarts });
        self.job = Some(Watch::begin(self.opened.slurm.clone(), job.id));
        self.record.job = Some(job);
        self.write();
        self.show_where_it_stands();
    }

    /// Slurm has said how the job is.
    async fn hear_slurm(&mut self, job: &Job) -> Option<End> {
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
            self.write();
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
    fn link(&mut self, linked: Linked) {
        let Linked { run, trunk } = linked;
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
        self.write();
        self.show_where_it_stands();
    }

    /// The host has gone, for good. What becomes of the job, Slurm says.
    fn unlink(&mut self) {
        self.trunk.send_replace(None);
        self.endpoint.send_replace(None);
        self.far = None;
        if let Some(watch) = &self.job {
            watch.interest(Interest::Keen);
        }
    }

    fn carried(&mut self, carried: bool) {
        if let Some(job) = &mut self.record.job {
            job.linked = carried;
        }
        if !carried && let Some(watch) = &self.job {
            watch.interest(Interest::Waiting);
        }
        self.write();
    }

    async fn hear_host(&mut self, news: FromHost) -> Option<End> {
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

    async fn answers(&mut self, endpoint: Endpoint) -> Result<(), End> {
        self.record.state = State::Running;
        self.record.ready_at.get_or_insert_with(Timestamp::now);
        self.record.app_port = match &endpoint {
            Endpoint::Tcp(address) => Some(address.port()),
            Endpoint::Unix(_) => None,
        };
        self.endpoint.send_replace(Some(endpoint));
        self.door.phase(Phase::Running);
        self.write();
        if self.attached && !self.answered {
            let url =
                self.door.handle().url().map_err(|error| End::Broken(format!("making a token: {error}")))?;
            self.answered = true;
            self.tell(&ToLauncher::Ready { record: Box::new(self.record.clone()), url }).await;
        }
        Ok(())
    }

    /// It has no node, or none any more.
    fn waits(&mut self) {
        self.record.state = State::Waiting;
        self.record.app_port = None;
        self.endpoint.send_replace(None);
        self.show_where_it_stands();
    }

    fn show_where_it_stands(&mut self) {
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

    /// Whether hosts still find this gateway, and not one that has taken over.
    fn still_ours(&self) -> bool {
        // What cannot be read at the moment says nothing.
        Rendezvous::read(&self.opened.folder).map_or(true, |meet| meet == self.opened.meet)
    }

    async fn tell(&self, news: &ToLauncher) {
        // One that does not listen any more has gone, which is noticed where it is heard from.
        let _ = self.launcher.send(news, &[]).await;
    }

    fn write(&self) {
        if !self.still_ours() {
            // Another's by now; the next look ends this one.
            return;
        }
        // It serves all the same; what others read of it is older.
        if let Err(error) = self.records.write(&self.record) {
            tracing::warn!(%error, "the record cannot be written");
        }
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
