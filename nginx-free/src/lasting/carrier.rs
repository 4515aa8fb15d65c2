//! A stream's way over its connections: reads, writes and the clock.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    task::coop,
    time::{Instant, Sleep, sleep_until, timeout},
};

use super::{
    Broken, LastingLimits,
    session::{Parting, Session, Tell},
    state::{Fate, Shared},
};

/// What is read at once of a connection that has no buffer of its own.
const READ: usize = 64 * 1024;

/// Slices that are written at once.
const SLICES: usize = 16;

/// How long an acknowledgement may wait for something to go along with.
const PATIENCE: Duration = Duration::from_millis(20);

/// Gives a [`Lasting`](super::Lasting) its connections, one after the other. Where it is dropped, the stream is given up.
pub struct Carrier {
    shared: Arc<Shared>,
    limits: LastingLimits,
    /// This end's name: no secret, but no other end's.
    me: u64,
    met: Option<u64>,
}

impl Carrier {
    pub(super) fn new(shared: Arc<Shared>, limits: LastingLimits) -> Self {
        // 0 is nobody's.
        let me = RandomState::new().hash_one(0).max(1);
        Self { shared, limits, me, met: None }
    }

    /// Carries the stream over `connection`, until that breaks, or there is nothing left to be carried: the stream has
    /// ended both ways, and all has arrived; or it was dropped here, and the other end knows; or it was dropped there.
    ///
    /// A future that is dropped lets go of the connection, as if it had broken.
    ///
    /// # Errors
    /// As [`Broken`] has them. Unless that [`is_final`](Broken::is_final), the stream goes on over the next connection.
    pub async fn carry<C>(&mut self, connection: C) -> Result<(), Broken>
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        self.carry_buffered(BufReader::with_capacity(READ, connection)).await
    }

    /// The same over a connection that has what came in a buffer of its own, as TLS has: it is taken from there, which saves
    /// a copy.
    ///
    /// # Errors
    /// As [`Carrier::carry`].
    pub async fn carry_buffered<C>(&mut self, connection: C) -> Result<(), Broken>
    where
        C: AsyncBufRead + AsyncWrite + Unpin,
    {
        if matches!(self.shared.lock().fate, Fate::Gone) {
            return Ok(());
        }
        let mut talk =
            Talk::new(connection, Session::new(&self.shared, self.me, &mut self.met), &self.limits);
        let ended = std::future::poll_fn(|cx| talk.poll(cx)).await;
        if matches!(ended, Ok(Parting::Here) | Err(Broken::Unresumable(_))) {
            // The other end is to hear the last words, which would be lost where what it says is left unread.
            let _ = timeout(self.limits.heartbeat, linger(&mut talk.connection)).await;
        }
        ended.map(drop)
    }

    #[cfg(fuzzing)]
    pub(crate) fn session(&mut self) -> Session<'_> {
        Session::new(&self.shared, self.me, &mut self.met)
    }

    /// Whether the stream was dropped. The other end is still to be told, but nothing is lost where it cannot be reached.
    pub fn is_dropped(&self) -> bool {
        self.shared.lock().left
    }

    /// Gives the stream up: what is read and written from now on fails, and says `why`.
    pub fn give_up(self, why: impl fmt::Display) {
        self.shared.settle(Fate::GivenUp(why.to_string().into()));
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.shared.settle(Fate::GivenUp("nothing carries the stream any more".into()));
    }
}

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carrier").field("limits", &self.limits).finish_non_exhaustive()
    }
}

async fn linger<C: AsyncBufRead + AsyncWrite + Unpin>(connection: &mut C) -> io::Result<()> {
    connection.shutdown().await?;
    loop {
        match connection.fill_buf().await?.len() {
            0 => return Ok(()),
            count => connection.consume(count),
        }
    }
}

/// A session at work over its connection.
struct Talk<'c, C> {
    connection: C,
    session: Session<'c>,
    limits: &'c LastingLimits,
    flushed: Flushed,
    tell: Tell,
    /// When news that can wait a little are told at the latest.
    patience: Option<Instant>,
    heard: Instant,
    said: Instant,
    sleep: Pin<Box<Sleep>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flushed {
    Yes,
    No,
}

impl<'c, C: AsyncBufRead + AsyncWrite + Unpin> Talk<'c, C> {
    fn new(connection: C, session: Session<'c>, limits: &'c LastingLimits) -> Self {
        let now = Instant::now();
        Self {
            connection,
            session,
            limits,
            flushed: Flushed::Yes,
            tell: Tell::Urgent,
            patience: None,
            heard: now,
            said: now,
            sleep: Box::pin(sleep_until(after(now, limits.silence.min(limits.heartbeat)))),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Parting, Broken>> {
        loop {
            let turn = ready!(coop::poll_proceed(cx));
            // First what is to be said, so that the other end gets this one's hello in any case.
            let sent = self.poll_send(cx)?;
            if self.session.parting() == Parting::Here
                && self.session.out().is_empty()
                && self.flushed == Flushed::Yes
            {
                return Poll::Ready(Ok(Parting::Here));
            }
            let received = self.poll_receive(cx)?;
            if self.session.parting() == Parting::There {
                return Poll::Ready(Ok(Parting::There));
            }
            if sent.is_pending() && received.is_pending() && self.poll_clock(cx)?.is_pending() {
                return Poll::Pending;
            }
            turn.made_progress();
        }
    }

    /// Sends what there is; `Ready` where anything was.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Broken> {
        self.session.fill(self.tell, cx.waker());
        let out = self.session.out();
        if out.is_empty() {
            if self.flushed == Flushed::No && Pin::new(&mut self.connection).poll_flush(cx)?.is_ready() {
                self.flushed = Flushed::Yes;
            }
            return Ok(Poll::Pending);
        }
        self.tell = Tell::Urgent;
        let mut slices = [io::IoSlice::new(&[]); SLICES];
        let count = out.slices(&mut slices);
        match Pin::new(&mut self.connection).poll_write_vectored(cx, &slices[..count])? {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(0) => Err(io::Error::from(io::ErrorKind::WriteZero).into()),
            Poll::Ready(written) => {
                out.sent(written);
                self.flushed = Flushed::No;
                self.said = Instant::now();
                Ok(Poll::Ready(()))
            }
        }
    }

    /// Takes in what has come; `Ready` where anything has.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Broken> {
        let Poll::Ready(bytes) = Pin::new(&mut self.connection).poll_fill_buf(cx)? else {
            return Ok(Poll::Pending);
        };
        let count = bytes.len();
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        self.heard = Instant::now();
        self.session.receive(bytes)?;
        Pin::new(&mut self.connection).consume(count);
        if self.patience.is_none() && self.session.is_untold() {
            self.patience = Some(after(self.heard, PATIENCE));
        }
        Ok(Poll::Ready(()))
    }

    /// Waits for the next thing to be due; `Ready` where something has become so.
    fn poll_clock(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Broken> {
        loop {
            let now = Instant::now();
            let silence = after(self.heard, self.limits.silence);
            if silence <= now {
                return Err(Broken::Silent);
            }
            if self.patience.is_some_and(|due| due <= now) {
                self.patience = None;
                if self.session.is_untold() {
                    self.tell = Tell::Now;
                    return Ok(Poll::Ready(()));
                }
            }
            // Whoever cannot get rid of what it has to say need not say more.
            let waits = self.tell == Tell::Now || !self.session.out().is_empty();
            let heartbeat = after(self.said, self.limits.heartbeat);
            if !waits && heartbeat <= now {
                self.tell = Tell::Now;
                // Before the hello of the other end nothing is said.
                self.said = now;
                return Ok(Poll::Ready(()));
            }
            let mut next = self.patience.map_or(silence, |due| due.min(silence));
            if !waits {
                next = next.min(heartbeat);
            }
            if next < self.sleep.deadline() || self.sleep.is_elapsed() {
                self.sleep.as_mut().reset(next);
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Ok(Poll::Pending);
            }
        }
    }
}

/// Far in the future where there is no such time.
fn after(instant: Instant, time: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365);
    instant.checked_add(time).unwrap_or_else(|| instant + FAR)
}
