//! An app from the making of its sandbox to its end, on the machine where it runs: one task that hears all news of it, and
//! decides. Whoever begins it hears how far it is, and may ask for its end.

use std::{fs::File, sync::Arc, time::Duration};

use nix::sys::signal::Signal;
use tokio::{
    sync::{mpsc, oneshot},
    time::{error::Elapsed, timeout},
};

use super::end::End;
use crate::{
    host::{AppSpec, Channel, Health, HostError, ImageError, Listening, LocalHost, Running},
    sandbox::protocol::{Demise, Ended, Endpoint},
    session::Work,
    sys::{message, process::Exit},
    words::Isolation,
};

/// What is needed of it.
pub(super) struct AppLife {
    pub(super) host: Arc<LocalHost>,
    pub(super) keeper: Channel,
    pub(super) work: Work,
}

/// How far it is.
pub(super) enum Step {
    /// It answers, here.
    Answers(Endpoint),
    /// It is over.
    Ended {
        /// Why.
        end: End,
        /// Dropped, the keeper ends all that is left, and removes the session's folders.
        keeper: Channel,
    },
}

/// It is to end: SIGTERM, so much time, and then the sandbox with all that is in it.
pub(super) struct Stop {
    pub(super) grace: Duration,
}

enum News {
    Started(Result<Running, HostError>),
    Answers(Result<Result<Endpoint, HostError>, Elapsed>),
    App(Option<Exit>),
    Broken(String),
    Keeper(Option<Demise>),
    Stop(Stop),
    OpenPort(String),
}

impl AppLife {
    /// Begins it, with `output` for what the app says.
    pub(super) fn begin(self, output: File) -> (mpsc::Receiver<Step>, mpsc::Sender<Stop>) {
        let (steps, heard) = mpsc::channel(2);
        let (stop, stops) = mpsc::channel(4);
        tokio::spawn(async move {
            let end = self.run(output, &steps, stops).await;
            // Whoever does not hear it is gone, and with it goes the keeper.
            let _ = steps.send(Step::Ended { end, keeper: self.keeper }).await;
        });
        (heard, stop)
    }

    async fn run(&self, output: File, steps: &mpsc::Sender<Step>, mut stops: mpsc::Receiver<Stop>) -> End {
        let host = Arc::clone(&self.host);
        let target = self.work.target();
        let mut starting = Box::pin(async { host.start(&output).await });
        let mut answering = Box::pin(timeout(self.work.ready_timeout, host.answers(&target)));
        let (mut running, mut answers): (Option<u64>, bool) = (None, false);
        let (exit_sender, mut exit) = oneshot::channel::<Option<Exit>>();
        let mut exit_sender = Some(exit_sender);
        let mut buffer = vec![0; message::MAX_LEN];
        let socket_only = self.work.sandbox.isolation == Isolation::Socket;
        let mut opened = Box::pin(open_port(&host));
        loop {
            let news = tokio::select! {
                started = &mut starting, if running.is_none() => News::Started(started),
                answered = &mut answering, if running.is_some() && !answers => News::Answers(answered),
                exit = &mut exit, if running.is_some() => News::App(exit.unwrap_or_default()),
                why = host.broken() => News::Broken(why.to_string()),
                ended = self.keeper.receive::<Ended>(&mut buffer) => {
                    News::Keeper(ended.ok().flatten().map(|(ended, _)| ended.why))
                }
                Some(stop) = stops.recv() => News::Stop(stop),
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
                    answers = true;
                    // Whoever does not hear it is gone.
                    let _ = steps.send(Step::Answers(endpoint)).await;
                }
                News::Answers(Ok(Err(error))) => return self.reason(error).await,
                News::Answers(Err(_)) => return self.timed_out(running).await,
                News::App(Some(exit)) => return End::App(exit),
                News::App(None) => return self.reason(host.broken().await).await,
                News::Broken(why) => return self.reason(HostError::Sandbox(why)).await,
                News::Keeper(why) => return demise(why),
                News::Stop(stop) => return self.stop(running, &mut exit, stop, &mut stops).await,
                News::OpenPort(address) => return too_open(&address),
            }
        }
    }

    async fn timed_out(&self, running: Option<u64>) -> End {
        let listening = self.host.link().listeners().await.unwrap_or_default();
        if let Some(id) = running {
            // Killed with the sandbox in a moment; this gives it a chance to say something.
            let _ = self.host.signal(id, Signal::SIGTERM).await;
        }
        End::Timeout {
            after: self.work.ready_timeout.as_secs(),
            listening: listening.addresses.iter().map(ToString::to_string).collect(),
        }
    }

    async fn stop(
        &self,
        running: Option<u64>,
        exit: &mut oneshot::Receiver<Option<Exit>>,
        stop: Stop,
        stops: &mut mpsc::Receiver<Stop>,
    ) -> End {
        let Some(id) = running else { return End::Stopped(None) };
        let mut grace = stop.grace;
        if grace.is_zero() || self.host.signal(id, Signal::SIGTERM).await.is_err() {
            return End::Stopped(None);
        }
        // One that has stopped itself hears nothing before it goes on.
        let _ = self.host.signal(id, Signal::SIGCONT).await;
        loop {
            tokio::select! {
                ended = timeout(grace, &mut *exit) => return End::Stopped(ended.ok().and_then(Result::ok).flatten()),
                // Whoever asks again has less patience.
                Some(Stop { grace: less }) = stops.recv() => grace = grace.min(less),
            }
        }
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
        let AppSpec { args, container, .. } = &self.work.app;
        container.is_none() && args.first().is_some_and(|first| first.to_string_lossy() == program)
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
