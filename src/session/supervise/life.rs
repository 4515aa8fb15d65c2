//! A session from the making of its sandbox to its end: one loop that hears all news and decides.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use jiff::Timestamp;
use nix::sys::signal::Signal;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::{
    door,
    end::{End, FromLauncher, ToLauncher},
    requests,
    sharing::Sharing,
    ssh,
};
use crate::{
    gateway::Phase,
    host::{
        AppSpec, Channel, Dialer, Health, HostError, ImageError, Link, Listening, LocalHost, Running, Target,
    },
    sandbox::protocol::{Demise, Ended, Endpoint},
    session::{Record, Records, SessionSpec, State},
    share::Guests,
    ssh::{Inside, Server},
    sys::{message, process::Exit},
    terminal::Terminals,
    words::Isolation,
};

/// What a supervisor was born with: its ends of the sockets to others.
pub(super) struct Born<'a> {
    pub(super) launcher: &'a OwnedFd,
    pub(super) ssh: &'a OwnedFd,
    pub(super) listener: OwnedFd,
    pub(super) to_init: OwnedFd,
    pub(super) to_keeper: OwnedFd,
    pub(super) log_len: watch::Receiver<u64>,
}

/// A session while it lives.
pub(super) struct Session<'a> {
    spec: SessionSpec,
    record: Record,
    records: &'a Records,
    launcher: Channel,
    keeper: Channel,
    host: Arc<LocalHost>,
    door: door::Door,
    ssh: Server,
    endpoint: watch::Sender<Option<Endpoint>>,
    log_len: watch::Receiver<u64>,
    stops: mpsc::Receiver<Stop>,
    /// The launching process still decides over the session.
    attached: bool,
}

/// Somebody wants the session to end.
pub(super) struct Stop {
    pub(super) grace: Option<Duration>,
}

enum News {
    Started(Result<Running, HostError>),
    Answers(Result<Result<Endpoint, HostError>, tokio::time::error::Elapsed>),
    App(Option<Exit>),
    Broken(String),
    Keeper(Option<Demise>),
    Launcher(Option<FromLauncher>),
    Stop(Stop),
    Signal,
    Log(u64),
    OpenPort(String),
    Certificate(String),
}

impl<'a> Session<'a> {
    /// Opens gateway and control socket. The app is started by [`Self::live`].
    pub(super) fn open(
        spec: SessionSpec,
        mut record: Record,
        records: &'a Records,
        born: Born<'_>,
    ) -> Result<Self, Box<(End, Record)>> {
        let Born { launcher, ssh, listener, to_init, to_keeper, log_len } = born;
        let broken = |record: &Record, why: String| Box::new((End::Broken(why), record.clone()));
        let io = |record: &Record, error: io::Error| broken(record, error.to_string());
        let launcher = launcher.try_clone().and_then(Channel::new).map_err(|error| io(&record, error))?;
        let keeper = Channel::new(to_keeper).map_err(|error| io(&record, error))?;
        let link = Link::open(to_init, spec.sandbox.resolvers.clone()).map_err(|error| io(&record, error))?;
        let (endpoint, endpoint_seen) = watch::channel(None);
        let dialer = Dialer::new(link.clone(), endpoint_seen);
        let session_env = door::session_env(&spec, &record, &door::base_url(&spec, &record));
        let login_shell = spec.login_shell.clone().into_os_string();
        let host = Arc::new(LocalHost::new(link, &spec.sandbox, spec.app.clone(), session_env, login_shell));
        let terminals = Terminals::new(Arc::clone(&host));
        let told = terminals.clone();
        let guests = Guests::new(spec.gateway.bind_cookie_to_address, move |terminal, text| {
            if let Some(terminal) = told.get(terminal) {
                terminal.notify_owner(text);
            }
        });
        let inside =
            door::Inside { log_len: log_len.clone(), terminals: terminals.clone(), guests: guests.clone() };
        let door = door::Door::open(&spec, &mut record, listener, dialer, inside)
            .map_err(|why| broken(&record, why))?;
        let inside = Inside {
            host: Arc::clone(&host),
            terminals: terminals.clone(),
            temporary: ssh::temporary(&spec.sandbox),
            guests: guests.clone(),
        };
        let ssh = ssh::open(&spec, &mut record, ssh, inside, door.handle().spend_token())
            .map_err(|why| broken(&record, why))?;
        let (stop, stops) = mpsc::channel(4);
        let requests = requests::Requests {
            host: Arc::clone(&host),
            door: door.handle(),
            ssh: ssh.clone(),
            sharing: Sharing { terminals, guests, door: door.handle() },
            stop,
            log_len: log_len.clone(),
        };
        requests.listen(&spec.sandbox.footprint.session).map_err(|error| io(&record, error))?;
        records.write(&record).map_err(|error| broken(&record, error.to_string()))?;
        Ok(Self {
            spec,
            record,
            records,
            launcher,
            keeper,
            host,
            door,
            ssh,
            endpoint,
            log_len,
            stops,
            attached: true,
        })
    }

    /// From the sandbox's making to the session's end.
    pub(super) async fn live(mut self, output: std::fs::File) -> (End, Record) {
        let end = self.until_the_end(output).await;
        let why = end.to_string();
        tokio::join!(self.door.close(&why), self.ssh.close());
        put_down(&mut self.record, &end);
        // Before the keeper is let go: it removes the lock, and a session without one is taken for one that was cut off.
        // A disk that is full must not keep the session from ending; then that is what is said of it.
        let _ = self.records.write(&self.record);
        (end, self.record)
    }

    async fn until_the_end(&mut self, output: std::fs::File) -> End {
        let host = Arc::clone(&self.host);
        let target = self.target();
        let ready_timeout = self.spec.ready_timeout;
        let mut starting = Box::pin(async { host.start(&output).await });
        let mut answering = Box::pin(timeout(ready_timeout, host.answers(&target)));
        let mut running: Option<u64> = None;
        let (exit_sender, mut exit) = oneshot::channel::<Option<Exit>>();
        let mut exit_sender = Some(exit_sender);
        let mut buffer = vec![0; message::MAX_LEN];
        let mut keeper_buffer = vec![0; message::MAX_LEN];
        let mut signals = signals();
        let socket_only = self.spec.sandbox.isolation == Isolation::Socket;
        let mut log_len = self.log_len.clone();
        let mut opened = Box::pin(open_port(&host));
        let mut renewed = Box::pin(self.door.renewed());
        loop {
            let news = tokio::select! {
                started = &mut starting, if running.is_none() => News::Started(started),
                answers = &mut answering, if running.is_some() && self.record.state == State::Starting => News::Answers(answers),
                exit = &mut exit, if running.is_some() => News::App(exit.unwrap_or_default()),
                why = host.broken() => News::Broken(why.to_string()),
                ended = self.keeper.receive::<Ended>(&mut keeper_buffer) => {
                    News::Keeper(ended.ok().flatten().map(|(ended, _)| ended.why))
                }
                said = self.launcher.receive::<FromLauncher>(&mut buffer), if self.attached => {
                    News::Launcher(said.ok().flatten().map(|(said, _)| said))
                }
                Some(stop) = self.stops.recv() => News::Stop(stop),
                Some(()) = signals.recv() => News::Signal,
                Ok(()) = log_len.changed(), if self.attached => News::Log(*log_len.borrow_and_update()),
                fingerprint = &mut renewed => News::Certificate(fingerprint),
                open = &mut opened, if socket_only && running.is_some() => News::OpenPort(open),
            };
            match news {
                News::Started(Ok(app)) => {
                    running = Some(app.id());
                    if let Some(sender) = exit_sender.take() {
                        tokio::spawn(async move { sender.send(app.exit().await.ok()) });
                    }
                }
                News::Started(Err(error)) => return self.reason(error).await,
                News::Answers(Ok(Ok(endpoint))) => {
                    if let (true, Some(open)) = (socket_only, open_ports(&host).await) {
                        return too_open(&open);
                    }
                    if let Err(end) = self.ready(endpoint).await {
                        return end;
                    }
                }
                News::Answers(Ok(Err(error))) => return self.reason(error).await,
                News::Answers(Err(_)) => return self.timed_out(running).await,
                News::App(Some(exit)) => return End::App(exit),
                News::App(None) => return self.reason(host.broken().await).await,
                News::Broken(why) => return self.reason(HostError::Sandbox(why)).await,
                News::Keeper(why) => return demise(why),
                News::Launcher(Some(FromLauncher::Detach)) => {
                    self.attached = false;
                    self.tell(&ToLauncher::Detached).await;
                }
                News::Launcher(Some(FromLauncher::Stop)) | News::Signal => {
                    return self.stop(running, &mut exit, self.spec.stop_grace).await;
                }
                News::Launcher(Some(FromLauncher::Kill) | None) => {
                    return self.stop(running, &mut exit, Duration::ZERO).await;
                }
                News::Stop(Stop { grace }) => {
                    let grace = grace.unwrap_or(self.spec.stop_grace);
                    return self.stop(running, &mut exit, grace).await;
                }
                // One that does not read (Ctrl-Z) must not hold the session up; the next length tells as much.
                News::Log(len) => drop(self.launcher.try_send(&ToLauncher::Log(len))),
                News::OpenPort(address) => return too_open(&address),
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

    fn target(&self) -> Target {
        match (self.spec.sandbox.isolation, self.spec.port) {
            (Isolation::Socket, _) => Target::Socket(door::app_socket(&self.spec)),
            (_, Some(port)) => Target::Port(port),
            (_, None) => Target::Found,
        }
    }

    async fn tell(&self, news: &ToLauncher) {
        // One that does not listen any more has gone, which is noticed where it is heard from.
        let _ = self.launcher.send(news, &[]).await;
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
        self.tell(&ToLauncher::Ready { record: Box::new(self.record.clone()), url }).await;
        Ok(())
    }

    async fn timed_out(&self, running: Option<u64>) -> End {
        let listening = self.host.link().listeners().await.unwrap_or_default();
        if let Some(id) = running {
            // Killed with the sandbox in a moment; this gives it a chance to say something.
            let _ = self.host.signal(id, Signal::SIGTERM).await;
        }
        End::Timeout {
            after: self.spec.ready_timeout.as_secs(),
            listening: listening.addresses.iter().map(ToString::to_string).collect(),
        }
    }

    /// SIGTERM, time to end, and then the sandbox with all that is in it.
    async fn stop(
        &self,
        running: Option<u64>,
        exit: &mut oneshot::Receiver<Option<Exit>>,
        grace: Duration,
    ) -> End {
        let Some(id) = running else { return End::Stopped(None) };
        if grace.is_zero() || self.host.signal(id, Signal::SIGTERM).await.is_err() {
            return End::Stopped(None);
        }
        // One that has stopped itself hears nothing before it goes on.
        let _ = self.host.signal(id, Signal::SIGCONT).await;
        let ended = timeout(grace, exit).await;
        End::Stopped(ended.ok().and_then(Result::ok).flatten())
    }

    /// The best reason there is: the keeper knows more of a sandbox's end than the link to it does.
    async fn reason(&self, error: HostError) -> End {
        let unexplained = matches!(*self.host.link().health().borrow(), Health::Closed(_) | Health::Starting);
        if unexplained && matches!(error, HostError::Sandbox(_)) {
            let mut buffer = vec![0; message::MAX_LEN];
            let told = timeout(Duration::from_secs(1), self.keeper.receive::<Ended>(&mut buffer)).await;
            if let Ok(Ok(Some((Ended { why }, _)))) = told {
                return demise(Some(why));
            }
        }
        match error {
            HostError::Image(error @ ImageError::Runtime { .. }) => End::Broken(error.to_string()),
            HostError::Image(error) => End::Image(error.to_string()),
            error @ HostError::Room { .. } => End::Image(error.to_string()),
            HostError::Spawn { program, source } if self.is_the_app(&program) => {
                End::NotRun(format!("cannot run {program}: {source}"))
            }
            error => End::Broken(error.to_string()),
        }
    }

    fn is_the_app(&self, program: &str) -> bool {
        let AppSpec { args, container, .. } = &self.spec.app;
        container.is_none() && args.first().is_some_and(|first| first.to_string_lossy() == program)
    }
}

/// Puts a session's end into its record.
pub(super) fn put_down(record: &mut Record, end: &End) {
    record.state = State::Ended;
    record.ended_at = Some(Timestamp::now());
    record.reason = Some(end.to_string());
    if let End::App(exit) | End::Stopped(Some(exit)) = end {
        record.exit = Some(*exit);
        record.status = Some(exit.code());
    }
}

fn demise(why: Option<Demise>) -> End {
    match why {
        Some(why @ (Demise::Forbidden { .. } | Demise::NoNetwork { .. })) => End::Forbidden(why.to_string()),
        Some(why) => End::Broken(why.to_string()),
        None => End::Broken("the keeper of its sandbox has ended".to_owned()),
    }
}

fn too_open(address: &str) -> End {
    End::OpenPort(format!(
        "its app listens on {address}, where everybody on this node can reach it: without namespaces it must listen on the \
         unix socket $SHLOGIN_SOCKET and on no port"
    ))
}

/// Waits until the app holds a TCP port open that it should not.
async fn open_port(host: &LocalHost) -> String {
    let mut looks = tokio::time::interval(Duration::from_millis(250));
    loop {
        looks.tick().await;
        if let Some(address) = open_ports(host).await {
            return address;
        }
    }
}

/// What the app holds open, without namespaces, for everybody.
async fn open_ports(host: &LocalHost) -> Option<String> {
    match host.link().listeners().await {
        Ok(Listening { addresses, names }) => {
            let port = addresses.first().map(ToString::to_string);
            port.or_else(|| names.first().cloned())
        }
        // The sandbox is gone, which others tell better.
        Err(_) => std::future::pending().await,
    }
}

/// SIGTERM, SIGINT and SIGHUP to the supervisor mean what `stop` means.
fn signals() -> mpsc::Receiver<()> {
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
