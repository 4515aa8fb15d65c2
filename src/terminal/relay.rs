//! The task that owns one pseudoterminal: reads what the program writes, writes what people type, keeps its size.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Buf, Bytes};
use nix::sys::signal::Signal;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{Notify, mpsc, watch},
    time::Instant,
};

use super::{
    Attach, Attachment, Forget, Keep, Recording, TerminalId,
    state::{SeatId, State},
    winsize,
};
use crate::{
    activity::Activity,
    host::{Host, Started},
    sys::{descriptor::set_nonblocking, process::Exit, readiness, terminal},
    words::Size,
};

/// The most that is read in one go, before others have their turn.
const TURN: usize = 64 * 1024;
/// How long what a program wrote before its end may take, should a screen of it cost much.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Messages of input that wait; each is bounded by whoever takes it in.
const WAITING: usize = 16;

/// What somebody has typed.
#[derive(Default)]
pub(super) struct Input {
    /// Whose it is, where that is a guest: what has not reached the terminal goes when he is sent away.
    pub(super) guest: Option<SeatId>,
    pub(super) bytes: Bytes,
}

/// A terminal of a session. Cheap to clone.
#[derive(Clone)]
pub struct Terminal(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) id: TerminalId,
    state: Mutex<State>,
    /// There may be something to hear.
    pub(super) news: watch::Sender<()>,
    /// There may be something for the relay to do.
    pub(super) progress: Notify,
    pub(super) input: mpsc::Sender<Input>,
    pub(super) activity: Activity,
    host: Arc<Host>,
    program: u64,
}

impl Inner {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something has changed: for everybody to look.
    pub(super) fn stir(&self) {
        self.news.send_replace(());
        self.progress.notify_one();
    }
}

/// Our side of a pseudoterminal, on the current runtime.
///
/// # Errors
/// Where the runtime's poll cannot take it (`epoll_ctl(2)`).
pub(super) fn watched(pty: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    set_nonblocking(&pty)?;
    readiness::watch(pty, Interest::READABLE | Interest::WRITABLE)
}

/// What a terminal is made of.
pub(super) struct Parts {
    /// Its number; takes it out of the table in the end.
    pub(super) forget: Forget,
    /// Our side of it.
    pub(super) pty: AsyncFd<OwnedFd>,
    /// The program on the other.
    pub(super) started: Started,
    pub(super) host: Arc<Host>,
    pub(super) activity: Activity,
    pub(super) size: Size,
    pub(super) keep: Keep,
    pub(super) label: String,
}

impl Terminal {
    /// Begins to relay.
    pub(super) fn begin(parts: Parts) -> Self {
        let Parts { forget, pty, started, host, activity, size, keep, label } = parts;
        let (input, typed) = mpsc::channel(WAITING);
        let inner = Arc::new(Inner {
            id: forget.id,
            state: Mutex::new(State::new(size, keep, label)),
            news: watch::Sender::new(()),
            progress: Notify::new(),
            input,
            activity,
            host,
            program: started.id(),
        });
        let sizes = watch::Sender::new(size);
        let (host, program, followed) = (Arc::clone(&inner.host), inner.program, sizes.subscribe());
        tokio::spawn(async move { host.follow_size(program, followed).await });
        let relay = Relay {
            inner: Arc::clone(&inner),
            sizes,
            pty,
            typed,
            pending: Input::default(),
            written: Bytes::new(),
            size,
            silent: false,
        };
        tokio::spawn(async move {
            relay.run(started).await;
            drop(forget);
        });
        Self(inner)
    }

    /// Its number.
    pub fn id(&self) -> TerminalId {
        self.0.id
    }

    /// The title that its program gave it, else what runs on it.
    pub fn title(&self) -> String {
        self.0.state().title()
    }

    /// When its owner last looked at it or typed.
    pub fn last_used(&self) -> Instant {
        self.0.state().last_used()
    }

    /// Its size.
    pub fn size(&self) -> Size {
        self.0.state().size()
    }

    /// Gives somebody a seat. None where it has ended.
    pub fn attach(&self, attach: Attach) -> Option<Attachment> {
        Attachment::new(Arc::clone(&self.0), attach)
    }

    /// Tells the owner something, wherever she looks at this terminal.
    pub fn notify_owner(&self, text: &str) {
        self.0.state().notify_owner(text);
        self.0.stir();
    }

    /// Whether it is being recorded.
    pub fn is_recorded(&self) -> bool {
        self.0.state().is_recorded()
    }

    /// Records from now on, or no more.
    pub fn record(&self, recording: Option<Recording>) {
        self.0.state().record(recording);
    }

    /// Hangs it up: its programs get SIGHUP.
    pub fn close(&self) {
        self.0.state().close();
        self.0.stir();
    }

    /// Signals the program and all that runs in its group.
    pub async fn signal(&self, signal: Signal) {
        // A sandbox that has ended has no program left to signal.
        let _ = self.0.host.signal(self.0.program, signal).await;
    }
}

struct Relay {
    inner: Arc<Inner>,
    /// The size, for whoever else has to know.
    sizes: watch::Sender<Size>,
    pty: AsyncFd<OwnedFd>,
    typed: mpsc::Receiver<Input>,
    /// What was typed and is still to be written.
    pending: Input,
    /// What the program has written and the screen is still to show.
    written: Bytes,
    /// The size that the kernel knows.
    size: Size,
    /// No program has it open any more.
    silent: bool,
}

enum Turn {
    Read(io::Result<usize>),
    Wrote(io::Result<usize>),
    Typed(Input),
    Show,
    Exited(Option<Exit>),
    LookAgain,
}

impl Relay {
    async fn run(mut self, started: Started) {
        let mut buffer = vec![0; TURN];
        let mut exit = std::pin::pin!(async { started.exit().await.ok() });
        let ended = loop {
            self.apply_size();
            let (held, abandoned) = {
                let mut state = self.inner.state();
                if self.pending.guest.is_some_and(|guest| state.is_expelled(guest)) {
                    self.pending = Input::default();
                }
                (state.held(Instant::now()), state.is_abandoned())
            };
            if abandoned {
                // The pty closes, and the kernel tells all who are on it (SIGHUP, setsid(2)).
                break None;
            }
            let shows = !self.written.is_empty();
            let reads = held.is_none() && !self.silent && !shows;
            let writes = !self.pending.bytes.is_empty() && !self.silent;
            let turn = tokio::select! {
                biased;
                // What is typed comes first: an interrupt is to overtake what it interrupts.
                Some(input) = self.typed.recv(), if self.pending.bytes.is_empty() => Turn::Typed(input),
                wrote = self.pty.async_io(Interest::WRITABLE, |pty| write(pty, &self.pending.bytes)), if writes => Turn::Wrote(wrote),
                read = self.pty.async_io(Interest::READABLE, |pty| read(pty, &mut buffer)), if reads => Turn::Read(read),
                // The others first: it may cost much.
                () = tokio::task::yield_now(), if shows => Turn::Show,
                ended = &mut exit => Turn::Exited(ended),
                () = self.inner.progress.notified() => Turn::LookAgain,
                () = tokio::time::sleep_until(held.unwrap_or_else(Instant::now)), if held.is_some() => Turn::LookAgain,
            };
            match turn {
                Turn::Typed(input) => self.pending = input,
                Turn::Wrote(Ok(count)) => self.pending.bytes.advance(count),
                // Nobody reads it any more.
                Turn::Wrote(Err(_)) => self.pending = Input::default(),
                Turn::Read(Ok(count @ 1..)) => {
                    self.written = Bytes::copy_from_slice(&buffer[..count]);
                    self.show();
                    // A program that only writes must not keep the others from their turn.
                    tokio::task::yield_now().await;
                }
                Turn::Show => self.show(),
                // No program has it open: the end that is to be told is that of the first one.
                Turn::Read(_) => self.silent = true,
                Turn::Exited(exit) => {
                    let _ = tokio::time::timeout(LAST_WORDS, self.drain(&mut buffer)).await;
                    break exit;
                }
                Turn::LookAgain => {}
            }
        };
        self.inner.state().end(ended);
        self.inner.stir();
    }

    /// Shows of what was written as much as there is time for.
    fn show(&mut self) {
        self.inner.state().output(&mut self.written, Instant::now());
        self.inner.news.send_replace(());
    }

    /// What was written before the program ended.
    async fn drain(&mut self, buffer: &mut [u8]) {
        // One that goes on in the background could write for ever.
        let mut reads = 0..64;
        loop {
            while !self.written.is_empty() {
                self.show();
                tokio::task::yield_now().await;
            }
            match read(&self.pty.get_ref(), buffer) {
                Ok(count @ 1..) if reads.next().is_some() => {
                    self.written = Bytes::copy_from_slice(&buffer[..count]);
                }
                _ => break,
            }
        }
    }

    fn apply_size(&mut self) {
        let size = self.inner.state().size();
        if size != self.size {
            self.size = size;
            // One that has closed has no size any more.
            let _ = terminal::resize(self.pty.get_ref().as_fd(), &winsize(size));
            self.sizes.send_replace(size);
        }
    }
}

/// Reads until there is no more or `buffer` is full: a pty gives some 4 KiB at a time.
fn read(pty: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match nix::unistd::read(pty, &mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(nix::errno::Errno::EINTR) => {}
            Err(_) if filled > 0 => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(filled)
}

fn write(pty: &impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(nix::unistd::write(pty, bytes)?)
}
