//! What a client sends on one channel, on its way to a program or to a connection: written at once where there is room,
//! kept in order where there is none.
//!
//! The client is told to send more when its data arrives, not when somebody has read it: russh offers nothing else. What
//! nobody reads is therefore counted for the whole connection ([`Backlog`]), and when it is too much, clients are given
//! two bytes at a time instead of a window. So the connection's loop never waits for a reader: it could wait for ever for
//! one that itself waits to be read.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{tcp, unix, unix::pipe},
    sync::Notify,
};

use crate::activity::{Activity, Pulse};

/// The window of a channel, in bytes; OpenSSH's.
pub(super) const WINDOW: u32 = 2 * 1024 * 1024;

/// The window while too much is unread. russh sends a new one when less than half of it is left, which is when the client
/// has used it up, and asks each time: so this is what keeps the question coming.
const TRICKLE: u32 = 2;

/// From here on clients are held back.
const ENOUGH: usize = 4 * 1024 * 1024;

/// No client that keeps to its windows comes this far.
const TOO_MUCH: usize = 128 * 1024 * 1024;

/// How long a client that is held back waits for its next two bytes.
const PAUSE: Duration = Duration::from_millis(10);

/// So much is kept in one piece.
const PIECE: usize = 64 * 1024;

/// The bytes that a connection's clients have sent and nobody has read.
#[derive(Default)]
pub(super) struct Backlog(AtomicUsize);

impl Backlog {
    /// The window that channels get at this moment.
    pub(super) fn window(&self) -> u32 {
        if self.0.load(Ordering::Relaxed) > ENOUGH { TRICKLE } else { WINDOW }
    }

    /// How long to wait after a packet of this length. Only those of a client that is held back are so short, or a
    /// person's keys, for which this is nothing.
    pub(super) fn pause_after(&self, len: usize) -> Option<Duration> {
        (len <= TRICKLE as usize && self.window() == TRICKLE).then_some(PAUSE)
    }

    /// A client has not kept to its windows.
    pub(super) fn is_too_much(&self) -> bool {
        self.0.load(Ordering::Relaxed) > TOO_MUCH
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    fn subtract(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Where it goes.
pub(super) enum Sink {
    /// A program's standard input.
    Pipe(pipe::Sender),
    /// A TCP connection.
    Tcp(tcp::OwnedWriteHalf),
    /// A connection over a unix socket.
    Unix(unix::OwnedWriteHalf),
}

impl Sink {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Pipe(pipe) => pipe.try_write(bytes),
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }

    async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Pipe(pipe) => pipe.writable().await,
            Self::Tcp(stream) => stream.writable().await,
            Self::Unix(stream) => stream.writable().await,
        }
    }
}

/// The way in of one channel. One task pours ([`Inbound::pour`]); the connection's loop only takes in.
pub(super) struct Inbound {
    state: Mutex<State>,
    news: Notify,
    backlog: Arc<Backlog>,
    activity: Activity,
}

struct State {
    sink: Option<Arc<Sink>>,
    waiting: VecDeque<Vec<u8>>,
    /// So much of the first piece is written.
    written: usize,
    end: End,
    pulse: Pulse,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// More may come.
    Open,
    /// Nothing more comes; what waits is still to be written.
    Eof,
    /// Whoever read is gone: the rest is lost.
    Closed,
}

enum Next {
    Write(Arc<Sink>),
    Wait,
    Done,
}

impl Inbound {
    pub(super) fn new(backlog: Arc<Backlog>, activity: Activity) -> Arc<Self> {
        let pulse = Pulse::new(&activity);
        let state = State { sink: None, waiting: VecDeque::new(), written: 0, end: End::Open, pulse };
        Arc::new(Self { state: Mutex::new(state), news: Notify::new(), backlog, activity })
    }

    /// Takes what the client sent.
    pub(super) fn take(&self, mut bytes: &[u8]) {
        let mut state = self.lock();
        if state.end != End::Open {
            return;
        }
        state.pulse.sent(&self.activity, bytes.len());
        if state.waiting.is_empty()
            && let Some(sink) = state.sink.clone()
        {
            match write_all(&sink, &mut bytes) {
                Ok(()) => {}
                Err(_) => return self.shut(&mut state, End::Closed),
            }
        }
        if !bytes.is_empty() {
            self.backlog.add(bytes.len());
            match state.waiting.back_mut() {
                Some(last) if last.len() + bytes.len() <= PIECE => last.extend_from_slice(bytes),
                _ => state.waiting.push_back(bytes.to_vec()),
            }
            drop(state);
            self.news.notify_one();
        }
    }

    /// The client sends no more.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        if state.end == End::Open {
            state.end = End::Eof;
            drop(state);
            self.news.notify_one();
        }
    }

    /// Nobody reads any more.
    pub(super) fn close(&self) {
        self.shut(&mut self.lock(), End::Closed);
    }

    /// Writes to `sink` all that came and comes, until the client ends it or nobody reads; the sink is closed then.
    pub(super) async fn pour(&self, sink: Sink) {
        let sink = Arc::new(sink);
        self.lock().sink = Some(Arc::clone(&sink));
        drop(sink);
        loop {
            match self.next() {
                Next::Done => break,
                Next::Wait => self.news.notified().await,
                Next::Write(sink) => {
                    let writable = tokio::select! {
                        writable = sink.writable() => writable,
                        () = self.news.notified() => Ok(()),
                    };
                    if writable.and_then(|()| self.write(&sink)).is_err() {
                        self.close();
                    }
                }
            }
        }
        self.lock().sink = None;
    }

    fn next(&self) -> Next {
        let state = self.lock();
        match (&state.sink, state.end) {
            (None, _) | (_, End::Closed) => Next::Done,
            (Some(sink), _) if !state.waiting.is_empty() => Next::Write(Arc::clone(sink)),
            (_, End::Eof) => Next::Done,
            (_, End::Open) => Next::Wait,
        }
    }

    /// Writes as much of what waits as there is room for.
    fn write(&self, sink: &Sink) -> io::Result<()> {
        let mut state = self.lock();
        let state = &mut *state;
        while let Some(first) = state.waiting.front() {
            let mut rest = first.get(state.written..).unwrap_or_default();
            let before = rest.len();
            let result = write_all(sink, &mut rest);
            let (wrote, left) = (before - rest.len(), rest.len());
            self.backlog.subtract(wrote);
            state.written += wrote;
            result?;
            if left > 0 {
                break;
            }
            state.waiting.pop_front();
            state.written = 0;
        }
        Ok(())
    }

    fn shut(&self, state: &mut State, end: End) {
        let lost: usize = state.waiting.iter().map(Vec::len).sum();
        self.backlog.subtract(lost - state.written);
        (state.waiting, state.written, state.sink, state.end) = (VecDeque::new(), 0, None, end);
        self.news.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        self.close();
    }
}

/// Writes until all is written or there is no room.
fn write_all(sink: &Sink, bytes: &mut &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match sink.try_write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(wrote) => *bytes = bytes.get(wrote..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    fn way() -> (Arc<Inbound>, Arc<Backlog>, pipe::Sender, pipe::Receiver) {
        let backlog = Arc::new(Backlog::default());
        let (sender, receiver) = pipe::pipe().unwrap();
        (Inbound::new(Arc::clone(&backlog), Activity::default()), backlog, sender, receiver)
    }

    #[tokio::test]
    async fn everything_arrives_in_order_and_is_counted_while_it_waits() {
        let (inbound, backlog, sender, mut receiver) = way();
        let sent: Vec<u8> = (0..=250).cycle().take(ENOUGH + 100_000).collect();
        for piece in sent.chunks(1000) {
            inbound.take(piece);
        }
        inbound.end();
        assert_eq!((backlog.window(), backlog.pause_after(2)), (TRICKLE, Some(PAUSE)));
        let mut got = Vec::new();
        tokio::join!(inbound.pour(Sink::Pipe(sender)), async {
            receiver.read_to_end(&mut got).await.unwrap()
        });
        assert!(got == sent);
        assert_eq!((backlog.0.load(Ordering::Relaxed), backlog.window()), (0, WINDOW));
    }

    #[tokio::test]
    async fn what_nobody_reads_is_forgotten() {
        let (inbound, backlog, sender, receiver) = way();
        inbound.take(&[7; 100_000]);
        drop(receiver);
        inbound.pour(Sink::Pipe(sender)).await;
        inbound.take(&[7; 100_000]);
        assert_eq!(backlog.0.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn the_end_of_one_s_channel_is_the_end_of_its_backlog() {
        let (inbound, backlog, ..) = way();
        inbound.take(&[7; 100_000]);
        assert_eq!(backlog.0.load(Ordering::Relaxed), 100_000);
        drop(inbound);
        assert_eq!(backlog.0.load(Ordering::Relaxed), 0);
    }
}
