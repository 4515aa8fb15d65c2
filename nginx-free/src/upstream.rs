//! One app: connections to it, made by its [`Dial`] and kept while they are beyond doubt.
//!
//! A connection is driven by whoever carries a request over it, within that task: no other task has to be woken for
//! each piece. While it idles, nobody looks at it; before a request goes out on it, it is read once, which shows whether the
//! app has closed it or sent a byte too many: then the request is given back. Only a request with a body gets a task for its
//! connection: the body must go on also while the client is slow to take the answer.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{self, SendRequest},
    },
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::{AbortHandle, coop},
    time::Instant,
};

use crate::{
    Dial, Failure, Limits,
    body::RequestBody,
    metered::{Meter, Metered},
    patience::Deadline,
    turns::{Turn, Turns},
    woken::Woken,
};

/// One app, and the idle connections to it. The one used last is used next, so that the others grow old and go.
pub struct Upstream<D: Dial> {
    dial: D,
    name: Arc<str>,
    limits: Limits,
    pool: Mutex<Pool<D>>,
    open: Arc<AtomicUsize>,
    turns: Turns,
}

struct Pool<D: Dial> {
    idle: Vec<Idle<D>>,
    /// Closes those that grow old, while there are any.
    sweeper: Option<AbortHandle>,
}

struct Idle<D: Dial> {
    connection: Box<Connection<D>>,
    since: Instant,
}

/// Where a connection came from: only one from the pool may have died unnoticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    Fresh,
    Pool,
}

impl<D: Dial> Upstream<D> {
    /// An app reached by `dial`. No connection is made yet.
    pub fn new(dial: D, limits: Limits) -> Arc<Self> {
        Self::named("", dial, limits)
    }

    /// The same, with a name for the access log.
    pub fn named(name: &str, dial: D, limits: Limits) -> Arc<Self> {
        let turns = Turns::new(limits.at_once);
        let pool = Mutex::new(Pool { idle: Vec::new(), sweeper: None });
        Arc::new(Self { dial, name: name.into(), limits, pool, open: Arc::default(), turns })
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Connections to the app that are open, idle ones included.
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// The right to ask the app, unless it is asked much.
    pub(crate) fn try_turn(&self) -> Option<Turn<'_>> {
        self.turns.try_take()
    }

    /// The same, waited for.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        self.turns.take().await
    }

    /// The idle connection that was used last, else a new one. An idle one may be dead. From here on the app has
    /// [`Limits::answer`] to answer on it.
    pub(crate) async fn connection(self: &Arc<Self>) -> Result<(Box<Connection<D>>, Source), Failure> {
        match self.take_idle() {
            Some(connection) => Ok((connection, Source::Pool)),
            None => Ok((Box::pin(self.fresh()).await?, Source::Fresh)),
        }
    }

    /// A new connection, as [`Self::connection`] gives it.
    pub(crate) async fn fresh(self: &Arc<Self>) -> Result<Box<Connection<D>>, Failure> {
        let place = self.place().ok_or(Failure::Overloaded)?;
        let stream = match tokio::time::timeout(self.limits.dial, self.dial.dial()).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%error, "no connection to the app");
                let full = error.kind() == io::ErrorKind::QuotaExceeded;
                return Err(if full { Failure::Overloaded } else { Failure::Unreachable });
            }
            Err(_) => {
                tracing::debug!("no connection to the app in time");
                return Err(Failure::Unreachable);
            }
        };
        let meter = Meter::new(self.limits.head_bytes + 2 * self.limits.buffer);
        let metered = Metered { stream, meter: Arc::clone(&meter), _kept: place };
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(self.limits.buffer.max(8192))
            .max_header_size(self.limits.head_bytes)
            .max_headers(self.limits.fields)
            .handshake(TokioIo::new(metered))
            .await
            .map_err(|_| Failure::Unreachable)?;
        Ok(Box::new(Connection {
            sender,
            meter,
            driver: Driver::Here(driver),
            woken: Woken::new(),
            deadline: Deadline::at(Instant::now() + self.limits.answer),
            home: Arc::downgrade(self),
        }))
    }

    /// A place for one more connection, unless the app has too many. An idle one gives way.
    fn place(&self) -> Option<Place> {
        if self.open.fetch_add(1, Ordering::Relaxed) < self.limits.connections_per_app {
            return Some(Place(Arc::clone(&self.open)));
        }
        let place = Place(Arc::clone(&self.open));
        let idle = &mut self.pool().idle;
        if idle.is_empty() {
            return None;
        }
        drop(idle.remove(0));
        Some(place)
    }

    fn pool(&self) -> MutexGuard<'_, Pool<D>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_idle(&self) -> Option<Box<Connection<D>>> {
        let now = Instant::now();
        let mut pool = self.pool();
        while let Some(Idle { mut connection, since }) = pool.idle.pop() {
            if now - since < self.limits.pool_idle && connection.sender.is_ready() {
                connection.deadline.set(now + self.limits.answer);
                return Some(connection);
            }
        }
        None
    }

    fn keep(self: &Arc<Self>, connection: Box<Connection<D>>) {
        connection.woken.leave_task();
        let mut pool = self.pool();
        if pool.idle.len() >= self.limits.pool {
            drop(pool.idle.remove(0));
        }
        pool.idle.push(Idle { connection, since: Instant::now() });
        if pool.sweeper.as_ref().is_none_or(AbortHandle::is_finished) {
            let sweeper = tokio::spawn(sweep(Arc::downgrade(self), self.limits.pool_idle));
            pool.sweeper = Some(sweeper.abort_handle());
        }
    }
}

/// Closes idle connections that grew old, until none is left.
async fn sweep<D: Dial>(upstream: Weak<Upstream<D>>, age: Duration) {
    loop {
        tokio::time::sleep(age).await;
        let Some(upstream) = upstream.upgrade() else { return };
        let mut pool = upstream.pool();
        pool.idle.retain(|one| one.since.elapsed() < age && !one.connection.sender.is_closed());
        if pool.idle.is_empty() {
            pool.idle = Vec::new();
            pool.sweeper = None;
            return;
        }
    }
}

/// One of the connections that an app may have.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection to the app.
pub(crate) struct Connection<D: Dial> {
    sender: SendRequest<RequestBody>,
    driver: Driver<D::Stream>,
    /// Whether the driver is worth a poll, where it is here.
    woken: Woken,
    meter: Arc<Meter>,
    /// Until when the app has to answer.
    deadline: Deadline,
    home: Weak<Upstream<D>>,
}

/// Why there is no answer.
pub(crate) enum Unanswered {
    /// It did not come in time.
    TimedOut,
    /// The connection broke. The request is given back where none of it was sent.
    Broken(Box<TrySendError<Request<RequestBody>>>),
}

type Http<S> = http1::Connection<TokioIo<Metered<S, Place>>, RequestBody>;

/// Who moves a connection's bytes.
enum Driver<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> {
    /// Whoever holds it.
    Here(Http<S>),
    /// A task of its own.
    Elsewhere,
    /// Nobody: it has ended.
    Ended,
    /// Nobody: the app agreed to a WebSocket, or the connection ended without an error.
    Done(Http<S>),
}

impl<D: Dial> Connection<D> {
    /// Moves bytes, where that is ours to do.
    fn drive(&mut self, cx: &mut Context<'_>) {
        let Driver::Here(http) = &mut self.driver else { return };
        match self.woken.poll(cx, |cx| Pin::new(http).poll(cx)) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => {
                if let Driver::Here(http) = std::mem::replace(&mut self.driver, Driver::Ended) {
                    self.driver = Driver::Done(http);
                }
            }
            Poll::Ready(Err(error)) => {
                tracing::debug!(%error, "the connection to the app broke");
                self.driver = Driver::Ended;
            }
        }
    }

    /// What waits for this connection is woken by its bytes where it drives the connection itself. To be woken by what it
    /// has just driven would only make it look twice.
    fn context<'c>(&self, cx: &mut Context<'c>) -> Context<'c> {
        match self.driver {
            Driver::Elsewhere => Context::from_waker(cx.waker()),
            _ => Context::from_waker(Waker::noop()),
        }
    }

    /// Whether it can take a request now: both bodies ended, and not one byte too many came.
    fn is_ready(&mut self, cx: &mut Context<'_>) -> bool {
        self.drive(cx);
        matches!(self.driver, Driver::Here(_) | Driver::Elsewhere) && self.sender.is_ready()
    }

    /// Sends a request and waits for the head of its answer. With `copies`, the head that is sent is kept until the next
    /// request.
    pub(crate) async fn exchange(
        &mut self,
        request: Box<Request<RequestBody>>,
        copies: bool,
    ) -> Result<Response<Incoming>, Unanswered> {
        self.meter.begin(copies);
        let has_body = !request.body().is_empty();
        // Where the task's budget is used up, a future of tokio's is not ready and wakes whoever waits: nobody would here.
        let mut answer = std::pin::pin!(coop::unconstrained(self.sender.try_send_request(*request)));
        self.woken.again();
        if has_body && matches!(self.driver, Driver::Here(_)) {
            let driver = std::mem::replace(&mut self.driver, Driver::Elsewhere);
            if let Driver::Here(http) = driver {
                tokio::spawn(async move {
                    if let Err(error) = http.await {
                        tracing::debug!(%error, "the connection to the app broke");
                    }
                });
            }
        }
        std::future::poll_fn(|cx| {
            self.drive(cx);
            let mut polled = answer.as_mut().poll(&mut self.context(cx));
            if polled.is_pending() && matches!(self.driver, Driver::Done(_)) {
                // The app had closed it. What was not sent is given back by hyper's connection as it is dropped.
                self.driver = Driver::Ended;
                polled = answer.as_mut().poll(&mut self.context(cx));
            }
            if let Poll::Ready(answer) = polled {
                return Poll::Ready(answer.map_err(|error| Unanswered::Broken(Box::new(error))));
            }
            self.deadline.poll_passed(cx).map(|()| Err(Unanswered::TimedOut))
        })
        .await
    }

    /// Whether the app has sent anything since the last request.
    pub(crate) fn has_answered(&self) -> bool {
        self.meter.has_read()
    }

    /// The head of the last request as it was to be sent, where it was copied.
    pub(crate) fn copy(&self) -> Vec<u8> {
        self.meter.copy()
    }

    /// Called when the answer's head has come: from here on the app may send as much as the client takes.
    pub(crate) fn head_came(&self) {
        self.meter.unlimited();
    }

    /// After a 101: the stream, and what the app has sent on it already.
    pub(crate) fn into_stream(self) -> Option<(D::Stream, Bytes)> {
        match self.driver {
            Driver::Done(http) => {
                let parts = http.into_parts();
                let metered = parts.io.into_inner();
                Some((metered.stream, parts.read_buf))
            }
            _ => None,
        }
    }
}

/// A connection on which an answer is under way, whatever it was dialled by.
pub(crate) trait Carrier: Send {
    /// Moves bytes, and polls what they make up.
    fn poll_frame(
        &mut self,
        incoming: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>>;

    /// The answer has ended: the connection is kept if it is ready for another request.
    fn give_back(self: Box<Self>, cx: &mut Context<'_>);
}

impl<D: Dial> Carrier for Connection<D> {
    fn poll_frame(
        &mut self,
        incoming: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let mut own = self.context(cx);
        // hyper's driver is told that there is room for more.
        let waiting = self.woken.quietly(|| Pin::new(&mut *incoming).poll_frame(&mut own));
        if waiting.is_ready() {
            return waiting;
        }
        self.drive(cx);
        Pin::new(incoming).poll_frame(&mut own)
    }

    fn give_back(mut self: Box<Self>, cx: &mut Context<'_>) {
        let Some(home) = self.home.upgrade() else { return };
        // Where the end came together with the rest, it has been seen already. It is looked at again before it is used.
        if self.sender.is_ready() || self.is_ready(cx) {
            home.keep(self);
        } else if matches!(self.driver, Driver::Elsewhere) {
            // Its own task has to see the end of the answer first.
            tokio::spawn(async move {
                if self.sender.ready().await.is_ok() {
                    home.keep(self);
                }
            });
        }
    }
}
