//! A session from the making of its sandbox to its end: one loop that hears all news and decides.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::{mpsc, watch},
    time::interval,
};

use super::{
    RequestLog,
    app_life::{self, AppLife, Step},
    door,
    end::{End, FromLauncher, ToLauncher},
    idle::{Idle, Watched},
    requests,
    sharing::Sharing,
    ssh,
    time_left::TimeLeft,
};
use crate::{
    gateway::Phase,
    host::{Channel, Dialer, Host, Link},
    sandbox::protocol::Endpoint,
    session::{Record, Records, SessionSpec, State},
    share::Guests,
    ssh::{Inside, Server},
    sys::message,
    terminal::Terminals,
};

/// What a supervisor was born with: its ends of the sockets to others.
pub(super) struct Born<'a> {
    pub(super) launcher: &'a OwnedFd,
    pub(super) ssh: &'a OwnedFd,
    pub(super) listener: OwnedFd,
    pub(super) to_init: OwnedFd,
    pub(super) to_keeper: OwnedFd,
    pub(super) log_len: watch::Receiver<u64>,
    pub(super) request_log: RequestLog,
}

/// A session while it lives.
pub(super) struct Session<'a> {
    record: Record,
    records: &'a Records,
    launcher: Arc<Channel>,
    stop_grace: Duration,
    terminals: Terminals,
    door: door::Door,
    ssh: Server,
    endpoint: watch::Sender<Option<Endpoint>>,
    log_len: watch::Receiver<u64>,
    stops: mpsc::Receiver<Stop>,
    idle: Idle,
    /// The launching process still decides over the session.
    attached: bool,
}

/// Somebody wants the session to end.
pub(super) struct Stop {
    pub(super) grace: Option<Duration>,
}

enum News {
    Step(Option<Step>),
    Launcher(Option<FromLauncher>),
    Stop(Duration),
    Log(u64),
    Certificate(String),
    Idle(Duration),
    Tick,
}

/// How often to look how much of a job's time is left.
const LOOK: Duration = Duration::from_secs(5);

impl<'a> Session<'a> {
    /// Opens gateway and control socket. The app is started by [`Self::live`].
    pub(super) fn open(
        spec: SessionSpec,
        mut record: Record,
        records: &'a Records,
        born: Born<'_>,
    ) -> Result<(Self, AppLife), Box<(End, Record)>> {
        let Born { launcher, ssh, listener, to_init, to_keeper, log_len, request_log } = born;
        let broken = |record: &Record, why: String| Box::new((End::Broken(why), record.clone()));
        let io = |record: &Record, error: io::Error| broken(record, error.to_string());
        let launcher = launcher.try_clone().and_then(Channel::new).map_err(|error| io(&record, error))?;
        let keeper = Channel::new(to_keeper).map_err(|error| io(&record, error))?;
        let link =
            Link::open(to_init, spec.work.sandbox.resolvers.clone()).map_err(|error| io(&record, error))?;
        let (endpoint, endpoint_seen) = watch::channel(None);
        let base_url = door::base_url(&spec, &record);
        let host = Arc::new(spec.work.host(link, record.id, &record.name, &base_url));
        let anywhere = Arc::new(Host::Local(Arc::clone(&host)));
        let dialer = Dialer::new(Arc::clone(&anywhere), endpoint_seen.clone());
        let activity = record.activity();
        let terminals = Terminals::new(Arc::clone(&anywhere), activity.clone());
        let told = terminals.clone();
        let guests = Guests::new(spec.gateway.bind_cookie_to_address, move |terminal, text| {
            if let Some(terminal) = told.get(terminal) {
                terminal.notify_owner(text);
            }
        });
        // It ends with its app: there is nothing to be started again.
        let (restart, _) = mpsc::channel(1);
        let inside = door::Inside {
            request_log,
            log_len: log_len.clone(),
            terminals: terminals.clone(),
            guests: guests.clone(),
            ends: watch::channel(record.within.as_ref().and_then(|job| job.ends_at)).1,
            restart: restart.clone(),
            activity: activity.clone(),
        };
        let door = door::Door::open(&spec, &mut record, listener, dialer, inside)
            .map_err(|why| broken(&record, why))?;
        let inside = Inside {
            host: Arc::clone(&anywhere),
            terminals: terminals.clone(),
            temporary: Some(ssh::temporary(&spec.work.sandbox)),
            guests: guests.clone(),
            activity: activity.clone(),
        };
        let ssh = ssh::open(&spec, &mut record, ssh, inside, door.handle().spend_token())
            .map_err(|why| broken(&record, why))?;
        let watched = Watched {
            activity: activity.clone(),
            host: Arc::clone(&anywhere),
            terminals: terminals.clone(),
            endpoint: endpoint_seen,
            carried: None,
        };
        let idle = Idle::begin(record.idle_after(), watched);
        let (stop, stops) = mpsc::channel(4);
        let requests = requests::Requests {
            host: anywhere,
            door: door.handle(),
            ssh: ssh.clone(),
            sharing: Sharing { terminals: terminals.clone(), guests, door: door.handle() },
            stop,
            restart,
            log_len: log_len.clone(),
            idle: idle.report(),
            activity,
        };
        requests.listen(&spec.work.sandbox.footprint.session).map_err(|error| io(&record, error))?;
        records.write(&record).map_err(|error| broken(&record, error.to_string()))?;
        let session = Self {
            record,
            records,
            launcher: Arc::new(launcher),
            stop_grace: spec.work.stop_grace,
            terminals,
            door,
            ssh,
            endpoint,
            log_len,
            stops,
            idle,
            attached: true,
        };
        Ok((session, AppLife { host, keeper, work: spec.work }))
    }

    /// From the sandbox's making to the session's end.
    pub(super) async fn live(mut self, life: AppLife, output: std::fs::File) -> (End, Record) {
        let (end, keeper) = self.until_the_end(life, output).await;
        let why = end.to_string();
        tokio::join!(self.door.close(&why), self.ssh.close());
        put_down(&mut self.record, &end);
        // Before the keeper is let go: it removes the lock, and a session without one is taken for one that was cut off.
        // A disk that is full must not keep the session from ending; then that is what is said of it.
        let _ = self.records.write(&self.record);
        drop(keeper);
        (end, self.record)
    }

    async fn until_the_end(&mut self, life: AppLife, output: std::fs::File) -> (End, Option<Channel>) {
        let (mut steps, stop) = life.begin(output);
        let mut buffer = vec![0; message::MAX_LEN];
        let mut signals = signals();
        let mut log_len = self.log_len.clone();
        let mut renewed = Box::pin(self.door.renewed());
        let (mut ticks, mut time_left) = (interval(LOOK), TimeLeft::default());
        // Somebody has asked for its end; nobody has used it.
        let (mut asked, mut idle) = (false, None);
        loop {
            let news = tokio::select! {
                step = steps.recv() => News::Step(step),
                said = self.launcher.receive::<FromLauncher>(&mut buffer), if self.attached => {
                    News::Launcher(said.ok().flatten().map(|(said, _)| said))
                }
                Some(Stop { grace }) = self.stops.recv() => News::Stop(grace.unwrap_or(self.stop_grace)),
                Some(()) = signals.recv() => News::Stop(self.stop_grace),
                Ok(()) = log_len.changed(), if self.attached => News::Log(*log_len.borrow_and_update()),
                fingerprint = &mut renewed => News::Certificate(fingerprint),
                after = self.idle.over() => News::Idle(after),
                _ = ticks.tick(), if self.record.within.is_some() => News::Tick,
            };
            match news {
                News::Step(Some(Step::Answers(endpoint))) => {
                    if let Err(end) = self.ready(endpoint).await {
                        return (end, None);
                    }
                }
                News::Step(Some(Step::Ended { end, keeper })) => return (end.of_idle(idle), Some(keeper)),
                News::Step(None) => return (End::Broken("nobody watches over its app".to_owned()), None),
                News::Launcher(Some(FromLauncher::Detach)) => {
                    self.attached = false;
                    self.tell(ToLauncher::Detached);
                }
                News::Launcher(Some(FromLauncher::Stop)) => {
                    (asked, idle) = (true, None);
                    // Full means that it is ending already.
                    let _ = stop.try_send(app_life::Stop { grace: self.stop_grace });
                }
                News::Launcher(Some(FromLauncher::Kill)) => {
                    (asked, idle) = (true, None);
                    let _ = stop.try_send(app_life::Stop { grace: Duration::ZERO });
                }
                News::Launcher(None) => {
                    (self.attached, asked, idle) = (false, true, None);
                    let _ = stop.try_send(app_life::Stop { grace: Duration::ZERO });
                }
                // It ends already, for a better reason.
                News::Idle(_) if asked => {}
                News::Idle(after) => {
                    idle = Some(after);
                    let _ = stop.try_send(app_life::Stop { grace: self.stop_grace });
                }
                News::Stop(grace) => {
                    (asked, idle) = (true, None);
                    let _ = stop.try_send(app_life::Stop { grace });
                }
                // One that does not read (Ctrl-Z) must not hold the session up; the next length tells as much.
                News::Log(len) => drop(self.launcher.try_send(&ToLauncher::Log(len))),
                News::Tick => {
                    if let Some(job) = &self.record.within {
                        time_left.look(job, &self.terminals);
                    }
                }
                News::Certificate(fingerprint) => {
                    renewed = Box::pin(self.door.renewed());
                    self.record.gateway.fingerprint = fingerprint;
                    // It serves all the same; only `verify` would miss it.
                    if let Err(error) = self.records.write(&self.record) {
                        tracing::warn!(%error, "the record has the fingerprint of the old certificate");
                    }
                }
            }
        }
    }

    /// Tells whoever launched it, when there is room for that: one that does not read (Ctrl-Z) must not hold the session up, and is
    /// to find this when it goes on.
    fn tell(&self, news: ToLauncher) {
        let launcher = Arc::clone(&self.launcher);
        tokio::spawn(async move {
            // One that does not listen any more has gone, which is noticed where it is heard from.
            let _ = launcher.send(&news, &[]).await;
        });
    }

    async fn ready(&mut self, endpoint: Endpoint) -> Result<(), End> {
        self.record.state = State::Running;
        self.record.ready_at = Some(Timestamp::now());
        self.record.app_port = match &endpoint {
            Endpoint::Tcp(address) => Some(address.port()),
            Endpoint::Unix(_) => None,
        };
        self.endpoint.send_replace(Some(endpoint));
        self.door.phase(Phase::Running);
        self.records.write(&self.record).map_err(|error| End::Broken(error.to_string()))?;
        let url =
            self.door.handle().url().map_err(|error| End::Broken(format!("making a token: {error}")))?;
        self.tell(ToLauncher::Ready { record: Box::new(self.record.clone()), url });
        Ok(())
    }
}

/// Puts a session's end into its record.
pub(super) fn put_down(record: &mut Record, end: &End) {
    record.state = State::Ended;
    record.ended_at = Some(Timestamp::now());
    record.reason = Some(end.to_string());
    if let End::App(exit) | End::Stopped(Some(exit)) | End::Idle { exit: Some(exit), .. } = end {
        record.exit = Some(*exit);
        record.status = Some(exit.code());
    }
}

/// SIGTERM, SIGINT and SIGHUP to the supervisor mean what `stop` means.
pub(super) fn signals() -> mpsc::Receiver<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (sender, receiver) = mpsc::channel(1);
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        let sender = sender.clone();
        if let Ok(mut stream) = signal(kind) {
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    // One is enough: the channel holds it until it is heard.
                    let _ = sender.try_send(());
                }
            });
        }
    }
    receiver
}
