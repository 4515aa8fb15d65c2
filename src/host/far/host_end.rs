//! The host's end: answers what a gateway asks over the trunk, by what [`LocalHost`] can do.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use nginx_free::trunk::{Asked, Channel};
use nix::{fcntl::OFlag, pty::Winsize, sys::signal::Signal, unistd::pipe2};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, watch},
    time::timeout,
};

use super::{
    Answer, Ask, DIAL, LISTEN, RUN, TAKE, TELL, from_request_path, listening,
    packet::{Incoming, Kind, Outgoing, Packet, packets},
    side::Side,
};
use crate::{
    host::{AppStream, HostError, LocalHost, Started},
    sandbox::protocol::Endpoint,
    sys::{process::Exit, spawn::Streams, terminal},
};

/// What is read of a terminal after its program has ended: one that goes on in the background could write for ever.
const LAST_WORDS: usize = 64;
/// How long a gateway may take to close a channel over which all was said.
const CLOSING: Duration = Duration::from_secs(30);
/// Packets of a program's that wait for the trunk.
const UNDER_WAY: usize = 2;

/// What a gateway reaches.
pub struct Reach {
    host: Arc<LocalHost>,
    running: Mutex<HashMap<u64, mpsc::Sender<Told>>>,
    /// Those who have come in, each with its place among them.
    waiting: Mutex<HashMap<u64, (AppStream, OwnedSemaphorePermit)>>,
    next: AtomicU64,
}

/// What is told of a program while it runs.
enum Told {
    Resize(Winsize),
    Deaf { errors: bool },
}

/// A program's streams: our ends.
struct Ours {
    input: Option<Side>,
    output: Option<Side>,
    errors: Option<Side>,
    /// All three are one terminal.
    terminal: bool,
}

impl Reach {
    /// What this host has.
    pub fn new(host: Arc<LocalHost>) -> Arc<Self> {
        Arc::new(Self { host, running: Mutex::default(), waiting: Mutex::default(), next: AtomicU64::new(1) })
    }

    pub(super) fn host(&self) -> &LocalHost {
        &self.host
    }

    /// Answers, for as long as it takes. What is asked for in a protocol that is not of this module is handed back.
    pub async fn answer(self: Arc<Self>, asked: Asked) -> Option<Asked> {
        let protocol = asked.protocol().map(str::to_owned);
        let path = asked.path().unwrap_or_default().to_owned();
        let served = match protocol.as_deref() {
            None => match asked.authority().parse() {
                Ok(address) => self.dial(asked, Endpoint::Tcp(address)).await,
                Err(_) => return refuse(asked, StatusCode::BAD_REQUEST),
            },
            Some(DIAL) => match from_request_path(&path) {
                Some(path) => self.dial(asked, Endpoint::Unix(path)).await,
                None => return refuse(asked, StatusCode::BAD_REQUEST),
            },
            Some(TAKE) => {
                let number = path.strip_prefix('/').and_then(|number| number.parse().ok());
                match number.and_then(|number: u64| lock(&self.waiting).remove(&number)) {
                    Some((stream, _)) => relay(asked, stream).await,
                    None => return refuse(asked, StatusCode::NOT_FOUND),
                }
            }
            Some(RUN) => match asked.accept() {
                Ok(channel) => self.run(channel).await,
                Err(error) => Err(error.into()),
            },
            Some(TELL) => match asked.accept() {
                Ok(channel) => self.hear(channel).await,
                Err(error) => Err(error.into()),
            },
            Some(LISTEN) => match asked.accept() {
                Ok(channel) => listening::serve(&self, channel).await,
                Err(error) => Err(error.into()),
            },
            Some(_) => return Some(asked),
        };
        // The gateway has gone, or does not speak our language: what it had asked for is undone already.
        if let Err(error) = served {
            tracing::debug!(%error, "a channel of the gateway's was cut off");
        }
        None
    }

    async fn dial(&self, asked: Asked, to: Endpoint) -> io::Result<()> {
        match self.host.connect(to).await {
            Ok(stream) => relay(asked, stream).await,
            Err(error) => {
                refuse(asked, status(&error));
                Ok(())
            }
        }
    }

    /// Keeps a connection until it is taken, or for so long; returns its number.
    pub(super) fn keep(
        self: &Arc<Self>,
        stream: AppStream,
        place: OwnedSemaphorePermit,
        patience: Duration,
    ) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.waiting).insert(number, (stream, place));
        let reach = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(patience).await;
            if let Some(reach) = reach.upgrade() {
                lock(&reach.waiting).remove(&number);
            }
        });
        number
    }

    async fn hear(&self, channel: Channel) -> io::Result<()> {
        let (mut incoming, mut outgoing) = packets(channel);
        let told = match incoming.message().await? {
            Ask::Signal { id, signal } => {
                let signal = Signal::try_from(signal)?;
                // One that has ended needs none.
                let _ = self.host.signal(id, signal).await;
                None
            }
            Ask::Resize { id, rows, cols } => {
                Some((id, Told::Resize(Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 })))
            }
            Ask::Deaf { id, errors } => Some((id, Told::Deaf { errors })),
            Ask::Usage => {
                let usage = self.host.usage().await.ok();
                outgoing.say(&Answer::Usage(usage)).await?;
                return outgoing.close().await;
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        if let Some((id, told)) = told {
            let program = lock(&self.running).get(&id).cloned();
            if let Some(program) = program {
                let _ = program.send(told).await;
            }
        }
        outgoing.say(&Answer::Done).await?;
        outgoing.close().await
    }

    /// A program, from its start to its end, or to that of the channel.
    async fn run(&self, channel: Channel) -> io::Result<()> {
        let (mut incoming, mut outgoing) = packets(channel);
        let begun = self.start(incoming.message().await?).await;
        let (started, ours) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                outgoing.say(&Answer::NotRun(error.into())).await?;
                return outgoing.close().await;
            }
        };
        let id = started.id();
        let (tell, told) = mpsc::channel(4);
        lock(&self.running).insert(id, tell);
        let known = Known { reach: self, id };
        let told_so = outgoing.say(&Answer::Started { id }).await;
        let (ended, exit) = watch::channel(None);
        tokio::spawn(async move { ended.send(Some(started.exit().await.ok())) });
        // Whoever has gone meanwhile leaves a program that has to be hung up.
        let whole = match told_so {
            Ok(()) => attend(&mut incoming, outgoing, ours, told, exit.clone()).await,
            Err(_) => false,
        };
        drop(known);
        if whole {
            // The gateway closes first: a channel that is dropped here could overtake what was said last.
            let _ = timeout(CLOSING, async { while let Ok(Some(_)) = incoming.next().await {} }).await;
        }
        if !whole && exit.borrow().is_none() {
            // Where the sandbox has ended, so has the program.
            let _ = self.host.hang_up(id, exited(exit)).await;
        }
        Ok(())
    }

    async fn start(&self, ask: Ask) -> Result<(Started, Ours), HostError> {
        let failed = |source| HostError::Spawn { program: "its streams".to_owned(), source };
        match ask {
            Ask::Run { what, env, terminal: Some(tty) } => {
                let modes = terminal::usual_modes().map(|usual| tty.modes(usual)).map_err(failed)?;
                let (ours, theirs) = terminal::pair(&tty.size(), Some(&modes)).map_err(failed)?;
                let ours = Ours::terminal(ours).map_err(failed)?;
                Ok((self.host.exec(what, &env, Streams::Terminal(theirs)).await?, ours))
            }
            Ask::Run { what, env, terminal: None } => {
                let (ours, theirs) = Ours::pipes().map_err(failed)?;
                Ok((self.host.exec(what, &env, Streams::Separate(theirs)).await?, ours))
            }
            Ask::Sftp => {
                let (ours, theirs) = Ours::pipes().map_err(failed)?;
                Ok((self.host.sftp(theirs).await?, ours))
            }
            _ => Err(HostError::Sandbox("this is no program".to_owned())),
        }
    }
}

/// A program that can be told something, for as long as this lives.
struct Known<'a> {
    reach: &'a Reach,
    id: u64,
}

impl Drop for Known<'_> {
    fn drop(&mut self) {
        lock(&self.reach.running).remove(&self.id);
    }
}

impl Ours {
    fn pipes() -> io::Result<(Self, [OwnedFd; 3])> {
        let (stdin, input) = pipe2(OFlag::O_CLOEXEC)?;
        let (output, stdout) = pipe2(OFlag::O_CLOEXEC)?;
        let (errors, stderr) = pipe2(OFlag::O_CLOEXEC)?;
        let ours = Self {
            input: Some(Side::new(input)?),
            output: Some(Side::new(output)?),
            errors: Some(Side::new(errors)?),
            terminal: false,
        };
        Ok((ours, [stdin, stdout, stderr]))
    }

    fn terminal(pty: OwnedFd) -> io::Result<Self> {
        let output = Some(Side::new(pty.try_clone()?)?);
        Ok(Self { input: Some(Side::new(pty)?), output, errors: None, terminal: true })
    }
}

/// Relays a program's streams until it has ended and has said all, or until the channel breaks. Whether it did not.
async fn attend(
    incoming: &mut Incoming,
    mut outgoing: Outgoing,
    ours: Ours,
    mut told: mpsc::Receiver<Told>,
    exit: watch::Receiver<Option<Option<Exit>>>,
) -> bool {
    let Ours { mut input, output, errors, terminal } = ours;
    let (packets, mut said) = mpsc::channel::<Packet>(UNDER_WAY);
    let (hear_output, output_heard) = watch::channel(true);
    let (hear_errors, errors_heard) = watch::channel(true);
    let output = say(output, Kind::Output, packets.clone(), output_heard, terminal.then(|| exit.clone()));
    let errors = say(errors, Kind::Errors, packets.clone(), errors_heard, None);
    let end = async {
        let exit = exited(exit).await;
        if !terminal {
            let _ = packets.send(message(&Answer::Exited { exit })).await;
        }
        exit
    };
    let all = async {
        let exit = tokio::join!(end, output, errors).0;
        if terminal {
            // After all that was on its screen.
            let _ = packets.send(message(&Answer::Exited { exit })).await;
        }
    };
    let sending = async {
        tokio::pin!(all);
        loop {
            tokio::select! {
                Some(packet) = said.recv() => outgoing.send(packet.kind, packet.bytes).await?,
                () = &mut all => break,
            }
        }
        while let Ok(packet) = said.try_recv() {
            outgoing.send(packet.kind, packet.bytes).await?;
        }
        outgoing.close().await
    };
    let size_of = input.as_ref().and_then(Side::fd).filter(|_| terminal).and_then(|fd| fd.try_clone().ok());
    let mut size_of = size_of;
    let hearing = async {
        let mut pending = Bytes::new();
        loop {
            tokio::select! {
                packet = incoming.next(), if pending.is_empty() => match packet {
                    Ok(Some(Packet { kind: Kind::Input, bytes })) if !bytes.is_empty() => pending = bytes,
                    Ok(Some(Packet { kind: Kind::Input, .. })) => input = None,
                    _ => return,
                },
                // What a program does not read must not keep it from hearing the rest.
                wrote = write_some(&mut input, &mut pending), if !pending.is_empty() => {
                    if wrote.is_err() {
                        (input, pending) = (None, Bytes::new());
                    }
                }
                Some(told) = told.recv() => match told {
                    Told::Resize(size) => {
                        if let Some(fd) = &size_of {
                            // One that has closed has no size any more.
                            let _ = terminal::resize(fd.as_fd(), &size);
                        }
                    }
                    Told::Deaf { errors } => {
                        let which = if errors { &hear_errors } else { &hear_output };
                        which.send_replace(false);
                    }
                },
            }
            if terminal && input.is_none() && size_of.take().is_some() {
                // Nobody is at the terminal any more: the kernel tells all who are on it.
                hear_output.send_replace(false);
            }
        }
    };
    tokio::select! {
        sent = sending => sent.is_ok(),
        () = hearing => false,
    }
}

/// Sends what comes out of one stream, to its end, or until nobody hears it. A terminal has no end of its own while
/// anybody has it open: its ends with the program, after what was written by then.
async fn say(
    side: Option<Side>,
    kind: Kind,
    packets: mpsc::Sender<Packet>,
    mut heard: watch::Receiver<bool>,
    exit: Option<watch::Receiver<Option<Option<Exit>>>>,
) {
    let Some(mut side) = side else { return };
    let mut over = Box::pin(async {
        match exit {
            Some(exit) => drop(exited(exit).await),
            None => std::future::pending().await,
        }
    });
    loop {
        let bytes = tokio::select! {
            biased;
            // A wait that fails has lost its sender, which lives as long as this is asked.
            () = unheard(&mut heard) => return,
            bytes = side.read() => bytes.unwrap_or_default(),
            () = &mut over => {
                for _ in 0..LAST_WORDS {
                    let Some(bytes) = side.read_now() else { break };
                    let _ = packets.send(Packet { kind, bytes }).await;
                }
                Bytes::new()
            }
        };
        let ended = bytes.is_empty();
        if packets.send(Packet { kind, bytes }).await.is_err() || ended {
            return;
        }
    }
}

/// Writes some of what waits; where nobody reads it any more, it is gone.
async fn write_some(side: &mut Option<Side>, pending: &mut Bytes) -> io::Result<()> {
    match side {
        Some(side) => side.write_some(pending).await,
        None => {
            pending.clear();
            Ok(())
        }
    }
}

async fn unheard(heard: &mut watch::Receiver<bool>) {
    let _ = heard.wait_for(|heard| !heard).await;
}

async fn exited(mut exit: watch::Receiver<Option<Option<Exit>>>) -> Option<Exit> {
    exit.wait_for(Option::is_some).await.ok().and_then(|exit| (*exit).flatten())
}

fn message(answer: &Answer) -> Packet {
    // It is made of numbers: there is nothing that could not be written.
    Packet { kind: Kind::Message, bytes: serde_json::to_vec(answer).unwrap_or_default().into() }
}

/// Joins a channel with a connection inside. What breaks one breaks the other, and is no end.
async fn relay(asked: Asked, stream: AppStream) -> io::Result<()> {
    asked.accept()?.join(stream).await
}

fn refuse(asked: Asked, status: StatusCode) -> Option<Asked> {
    asked.refuse(status);
    None
}

/// Why a connection inside could not be made, as a status.
fn status(error: &io::Error) -> StatusCode {
    match error.raw_os_error() {
        Some(libc::ETIMEDOUT) => StatusCode::GATEWAY_TIMEOUT,
        Some(libc::ENOENT) => StatusCode::NOT_FOUND,
        Some(libc::EACCES | libc::EPERM) => StatusCode::FORBIDDEN,
        Some(libc::EMFILE | libc::ENFILE) => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::BAD_GATEWAY,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
