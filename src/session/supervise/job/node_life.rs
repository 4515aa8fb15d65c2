//! A host from its first call to its app's end: one loop that hears all news, and decides; and what its gate's channels get at.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nginx_free::{
    lasting::Lasting,
    trunk::{self, Asked, Channel, TrunkLimits},
};
use tokio::{
    io::AsyncWriteExt,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::AbortHandle,
    time::timeout,
};

use super::{
    here::FromHostHere,
    manner::Manner,
    node::{Done, HostFailure},
    output::Output,
    own_end::{OwnEnd, Wish},
    prepare::{self, NotHere},
    wire::{Begin, Cause, FromHost, LIFE, LOG, LONGEST, LogFrom, ToHost},
};
use crate::{
    host::{Channel as Socket, Link, LocalHost, Reach},
    link::{
        DialError, Dialler,
        message::{hear, say},
    },
    sandbox::protocol,
    session::{
        End,
        supervise::app_life::{AppLife, Step, Stop},
    },
    sys::{
        message, rights,
        spawn::{self, Leash, role},
    },
};

/// How long what an app said last may take to come through its pipe.
const CLOSING: Duration = Duration::from_secs(2);
/// How long a gate that is away may take to come back and hear how it ended.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How long an app has that Slurm wants to end. Slurm itself kills after `KillWait`, 30 s where nobody has changed it.
const SLURMS_GRACE: Duration = Duration::from_secs(20);

/// What the gate's channels get at.
struct Shared {
    reach: OnceLock<Arc<Reach>>,
    output: Arc<Output>,
    phase: watch::Sender<FromHost>,
    orders: mpsc::Sender<ToHost>,
    /// How many gates have heard how it ended.
    heard: watch::Sender<u32>,
}

pub(super) struct Node<'a> {
    shared: Arc<Shared>,
    done: &'a mut Done,
    to_app: Option<std::fs::File>,
    steps: Option<mpsc::Receiver<Step>>,
    stop: Option<mpsc::Sender<Stop>>,
    stop_grace: Duration,
    cause: Cause,
    serving: Option<AbortHandle>,
    manner: Manner,
}

enum News {
    Wish(Wish),
    Stream(Lasting),
    Dialled(Result<(), DialError>),
    Order(ToHost),
    Step(Option<Step>),
    Signal(Cause),
}

impl Node<'_> {
    pub(super) async fn live(
        dialler: Dialler,
        done: &mut Done,
        manner: Manner,
        own_end: Option<&OwnEnd>,
    ) -> Result<End, HostFailure> {
        let io = |error| HostFailure::Io("beginning", error);
        let (output, to_app) = Output::begin().map_err(io)?;
        let (orders, mut ordered) = mpsc::channel(4);
        let shared = Arc::new(Shared {
            reach: OnceLock::new(),
            output,
            phase: watch::Sender::new(FromHost::Starting),
            orders,
            heard: watch::Sender::new(0),
        });
        let node = dialler.run.node.clone();
        let (streams, mut streamed) = mpsc::channel(1);
        let mut dialling = tokio::spawn(dialler.keep(streams));
        let mut signals = signals().map_err(io)?;
        let mut wishes = own_end.map(OwnEnd::wishes).transpose().map_err(io)?;
        let mut this = Node {
            shared,
            done,
            to_app: Some(to_app),
            steps: None,
            stop: None,
            stop_grace: SLURMS_GRACE,
            cause: Cause::Own,
            serving: None,
            manner,
        };
        let (end, keeper) = loop {
            let news = tokio::select! {
                Some(stream) = streamed.recv() => News::Stream(stream),
                dialled = &mut dialling => News::Dialled(dialled.unwrap_or(Ok(()))),
                Some(order) = ordered.recv() => News::Order(order),
                step = next(&mut this.steps) => News::Step(step),
                Some(cause) = signals.recv() => News::Signal(cause),
                Some(wish) = next_wish(&mut wishes) => News::Wish(wish),
            };
            match news {
                News::Stream(stream) => this.serve(stream),
                // Nobody will ever hear of it any more: another run has the session, or it is no more.
                News::Dialled(Err(error)) if this.stop.is_none() => return Err(error.into()),
                News::Dialled(ended) => {
                    if let Err(error) = ended {
                        tracing::error!("{error}");
                    }
                    dialling = tokio::spawn(std::future::pending());
                    // Nor will anybody hear how it ends.
                    this.serving = None;
                    this.ask_to_stop(Duration::ZERO);
                }
                News::Order(ToHost::Begin(begin)) if this.stop.is_none() => {
                    let id = begin.id;
                    if let Err(end) = this.begin(*begin, &node) {
                        tracing::error!(%id, "{end}");
                        break (end, None);
                    }
                }
                News::Order(ToHost::Begin(_)) => {}
                News::Order(ToHost::Stop { grace }) => {
                    if this.stop.is_none() {
                        break (End::Stopped(None), None);
                    }
                    this.ask_to_stop(Duration::from_millis(grace));
                }
                News::Order(ToHost::TimeIsOver) => {
                    this.cause = Cause::Limit;
                    this.ask_to_stop(this.stop_grace);
                }
                News::Wish(Wish::Detach) => {
                    own_end.into_iter().for_each(|own| own.tell(&FromHostHere::Detached))
                }
                News::Wish(Wish::Over) if this.stop.is_some() => {
                    this.serving = None;
                    this.ask_to_stop(this.stop_grace);
                }
                News::Wish(_) if this.stop.is_none() => break (End::Stopped(None), None),
                News::Wish(Wish::Stop | Wish::Over) => this.ask_to_stop(this.stop_grace),
                News::Wish(Wish::Kill) => this.ask_to_stop(Duration::ZERO),
                News::Step(Some(Step::Answers(endpoint))) => {
                    own_end.into_iter().for_each(|own| own.tell(&FromHostHere::Answers));
                    this.shared.phase.send_replace(FromHost::Answers(endpoint));
                }
                News::Step(Some(Step::Ended { end, keeper })) => break (end, Some(keeper)),
                News::Step(None) => break (End::Broken("nobody watches over its app".to_owned()), None),
                News::Signal(cause) => {
                    this.cause = cause;
                    if this.stop.is_none() {
                        break (End::Stopped(None), None);
                    }
                    this.ask_to_stop(if cause == Cause::Limit { this.stop_grace } else { SLURMS_GRACE });
                }
            }
        };
        // The log's last words come before the end.
        drop(keeper);
        this.to_app = None;
        this.tell_the_end(&end, &mut streamed).await;
        dialling.abort();
        Ok(end)
    }

    fn serve(&mut self, stream: Lasting) {
        if let Some(old) = self.serving.take() {
            old.abort();
        }
        let shared = Arc::clone(&self.shared);
        let serving = tokio::spawn(async move {
            let limits = TrunkLimits { ping: NEVER, pong: NEVER, ..TrunkLimits::default() };
            let why = trunk::serve(stream, limits, move |asked| Arc::clone(&shared).answer(asked)).await;
            tracing::info!("the link to the gateway has ended: {why}");
        });
        self.serving = Some(serving.abort_handle());
    }

    fn ask_to_stop(&self, grace: Duration) {
        if let Some(stop) = &self.stop {
            // Full means that it is ending already.
            let _ = stop.try_send(Stop { grace });
        }
    }

    /// Makes the sandbox and begins the app's life.
    fn begin(&mut self, begin: Begin, node: &str) -> Result<(), End> {
        let broken = |what: &'static str| move |error: io::Error| End::Broken(format!("{what}: {error}"));
        let Begin { id, name, base_url, mut work, outbound, scratch } = begin;
        if self.manner == Manner::Start {
            // It has the environment of whoever typed `start`: her gateway's is that of whoever typed `attach`.
            work.app.env.clear();
        }
        let lock = prepare::prepare(&mut work, id, outbound, &scratch, node).map_err(|why| match why {
            NotHere::Image(why) => End::Image(why),
            NotHere::Network(why) => End::Forbidden(why),
            NotHere::Other(why) => End::Broken(why),
        })?;
        let footprint = work.sandbox.footprint.clone();
        let held = lock.share().map_err(broken("sharing its lock"))?;
        self.done.kept = Some((footprint, lock));
        let (to_keeper, keepers) = message::pair().map_err(broken("socketpair"))?;
        let (to_init, inits) = message::pair().map_err(broken("socketpair"))?;
        let file = protocol::to_file(&work.sandbox).map_err(broken("describing the sandbox"))?;
        let fds = vec![keepers, inits, file, held];
        let stderr: Option<OwnedFd> = io::stderr().as_fd().try_clone_to_owned().ok();
        let keeper = spawn::role(role::KEEPER, name.as_str(), fds, stderr, Leash::NoticesItself)
            .map_err(broken("starting the keeper"))?;
        self.done.keeper = Some(keeper);
        // What strangers' bytes come to has no rights but its user's.
        rights::drop_capabilities().map_err(broken("dropping capabilities"))?;
        let link =
            Link::open(to_init, work.sandbox.resolvers.clone()).map_err(broken("hearing from init"))?;
        let keeper = Socket::new(to_keeper).map_err(broken("hearing from the keeper"))?;
        let host: Arc<LocalHost> = Arc::new(work.host(link, id, &name, &base_url));
        // Set once: a second beginning is not heard.
        let _ = self.shared.reach.set(Reach::new(Arc::clone(&host)));
        let Some(output) = self.to_app.take() else { return Ok(()) };
        self.stop_grace = work.stop_grace;
        let (steps, stop) = AppLife { host, keeper, work }.begin(output);
        (self.steps, self.stop) = (Some(steps), Some(stop));
        tracing::info!("session {name} begins on {node}");
        Ok(())
    }

    /// Waits until a gate has heard how it ended, but not for long: Slurm tells it, too.
    async fn tell_the_end(&mut self, end: &End, streams: &mut mpsc::Receiver<Lasting>) {
        // What it said last is on its way through the pipe, whose other ends are gone or about to be.
        let _ = timeout(CLOSING, self.shared.output.over()).await;
        let mut heard = self.shared.heard.subscribe();
        let before = *heard.borrow_and_update();
        self.shared.phase.send_replace(FromHost::Ended {
            end: end.clone(),
            cause: self.cause,
            said: self.shared.output.said(),
        });
        let patience = if self.serving.is_some() { LAST_WORDS } else { Duration::ZERO };
        let _ = timeout(patience, async {
            loop {
                tokio::select! {
                    _ = heard.wait_for(|heard| *heard > before) => {
                        self.done.heard = true;
                        return;
                    }
                    // A gate that comes back at this moment is told as well.
                    Some(stream) = streams.recv() => self.serve(stream),
                }
            }
        })
        .await;
    }
}

/// As good as never: the lasting stream has a heartbeat of its own.
const NEVER: Duration = Duration::from_secs(365 * 86_400);

async fn next_wish(wishes: &mut Option<mpsc::Receiver<Wish>>) -> Option<Wish> {
    match wishes {
        Some(wishes) => wishes.recv().await,
        None => std::future::pending().await,
    }
}

async fn next(steps: &mut Option<mpsc::Receiver<Step>>) -> Option<Step> {
    match steps {
        Some(steps) => steps.recv().await,
        None => std::future::pending().await,
    }
}

impl Shared {
    async fn answer(self: Arc<Self>, asked: Asked) {
        let path = asked.path().unwrap_or_default().to_owned();
        let served = match asked.protocol() {
            Some(LIFE) => match asked.accept() {
                Ok(channel) => self.tell(channel).await,
                Err(error) => Err(error.into()),
            },
            Some(LOG) => match (LogFrom::from_path(&path), asked.accept()) {
                (Some(from), Ok(mut channel)) => self.output.send(from, &mut channel).await,
                (_, Err(error)) => Err(error.into()),
                (None, _) => return,
            },
            _ => {
                match self.reach.get() {
                    // Dropped, it is refused.
                    Some(reach) => drop(Arc::clone(reach).answer(asked).await),
                    None => asked.refuse(http::StatusCode::SERVICE_UNAVAILABLE),
                }
                return;
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a channel of the gate's has ended");
        }
    }

    /// Tells the gate how far the app is, and hears what it wants.
    async fn tell(&self, channel: Channel) -> io::Result<()> {
        let (mut from, mut to) = tokio::io::split(channel);
        let mut phase = self.phase.subscribe();
        let told = AtomicBool::new(false);
        let telling = async {
            loop {
                let now = phase.borrow_and_update().clone();
                let ended = matches!(now, FromHost::Ended { .. });
                say(&mut to, &now).await?;
                if ended {
                    told.store(true, Ordering::Relaxed);
                    to.shutdown().await?;
                    return std::future::pending::<io::Result<()>>().await;
                }
                phase.changed().await.map_err(io::Error::other)?;
            }
        };
        let hearing = async {
            loop {
                let order = hear(&mut from, LONGEST).await?;
                self.orders.send(order).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
            }
        };
        let done: io::Result<()> = tokio::select! {
            told = telling => told,
            heard = hearing => heard,
        };
        // It closes when it has heard.
        if told.load(Ordering::Relaxed) {
            self.heard.send_modify(|heard| *heard += 1);
        }
        done
    }
}

/// What Slurm has to say: SIGTERM that the job is to end, SIGUSR1 (by our own `--signal`) that its time is almost over.
fn signals() -> io::Result<mpsc::Receiver<Cause>> {
    let (sender, receiver) = mpsc::channel(2);
    let kinds = [
        (SignalKind::terminate(), Cause::Slurm),
        (SignalKind::interrupt(), Cause::Slurm),
        (SignalKind::hangup(), Cause::Slurm),
        (SignalKind::user_defined1(), Cause::Limit),
    ];
    for (kind, cause) in kinds {
        let (mut stream, sender) = (signal(kind)?, sender.clone());
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                // Two are enough: the channel holds them until they are heard.
                let _ = sender.try_send(cause);
            }
        });
    }
    Ok(receiver)
}
