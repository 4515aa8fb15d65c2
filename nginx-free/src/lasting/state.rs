//! What a stream's two halves share, behind a lock that is never held while anything else is called.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use tokio::{io::ReadBuf, task::coop};

use super::{LastingLimits, receiving::Receiving, sending::Sending};

/// One end of a stream.
pub(super) struct Shared(Mutex<State>);

pub(super) struct State {
    pub(super) sending: Sending,
    pub(super) receiving: Receiving,
    pub(super) fate: Fate,
    /// Whoever held the stream does not any more.
    pub(super) left: bool,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    pub(super) carrier: Option<Waker>,
}

/// What has become of the stream.
pub(super) enum Fate {
    /// It is carried, or waits to be.
    Lasting,
    /// The other end is gone.
    Gone,
    /// This one's carrier has given up, and why.
    GivenUp(Arc<str>),
}

impl Fate {
    fn check(&self) -> io::Result<()> {
        match self {
            Self::Lasting => Ok(()),
            Self::Gone => Err(io::Error::new(io::ErrorKind::ConnectionReset, "the other end is gone")),
            Self::GivenUp(why) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, why.to_string())),
        }
    }
}

impl Shared {
    pub(super) fn new(limits: &LastingLimits) -> Self {
        Self(Mutex::new(State {
            sending: Sending::new(limits.unacknowledged),
            receiving: Receiving::new(limits.unread),
            fate: Fate::Lasting,
            left: false,
            reader: None,
            writer: None,
            carrier: None,
        }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let turn = ready!(coop::poll_proceed(cx));
        let mut state = self.lock();
        if state.receiving.read(buf) {
            let carrier = if state.receiving.is_urgent() { state.carrier.take() } else { None };
            drop(state);
            wake(carrier);
            turn.made_progress();
            return Poll::Ready(Ok(()));
        }
        if state.receiving.has_ended() {
            return Poll::Ready(Ok(()));
        }
        state.fate.check()?;
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let turn = ready!(coop::poll_proceed(cx));
        let mut state = self.lock();
        if state.sending.has_ended() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        state.fate.check()?;
        let mut count = 0;
        for slice in slices.iter().filter(|slice| !slice.is_empty()) {
            let part = slice.len().min(state.sending.room());
            state.sending.write(&slice[..part]);
            count += part;
            if part < slice.len() {
                if count == 0 {
                    state.writer = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                break;
            }
        }
        let carrier = state.carrier.take();
        drop(state);
        wake(carrier);
        turn.made_progress();
        Poll::Ready(Ok(count))
    }

    /// Nothing will be written any more.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.sending.end();
        let carrier = state.carrier.take();
        drop(state);
        wake(carrier);
    }

    /// Nobody holds the stream any more. What was written is sent where its end was as well.
    pub(super) fn leave(&self) {
        let mut state = self.lock();
        state.left = true;
        state.receiving.forget();
        if !state.sending.has_ended() {
            state.sending.forget();
        }
        let carrier = state.carrier.take();
        drop(state);
        wake(carrier);
    }

    /// The stream has come to this, unless it has to another already. Who waits for it is told.
    pub(super) fn settle(&self, fate: Fate) {
        let mut state = self.lock();
        if matches!(state.fate, Fate::Lasting) {
            state.fate = fate;
            state.sending.forget();
        }
        let waiting = [state.reader.take(), state.writer.take()];
        drop(state);
        waiting.into_iter().for_each(wake);
    }
}

pub(super) fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
