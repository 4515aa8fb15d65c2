//! The access log: one entry per request, when its answer has ended. No query: it may hold a secret.
//!
//! A proxy tells an [`AccessLog`] of each ([`Proxy::with_access_log`](crate::Proxy::with_access_log)). By default they are
//! events of `tracing`, which any subscriber can have ([`Events`]); [`Lines`] writes them as lines of text or JSON, at a
//! fraction of the cost. An event and a line have these fields, in this order:
//!
//! | field | |
//! |---|---|
//! | `request` | [`Access::request`] |
//! | `app` | [`Access::app`], where it went to one |
//! | `peer`, `method`, `path`, `status`, `received`, `sent` | of the same names |
//! | `micros` | [`Access::took`] in microseconds |
//! | `app_micros` | [`Access::app_took`] likewise; 0 where no app was asked |
//! | `end` | `done`, or `broken` where the answer broke off |

mod lines;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Method, StatusCode};

use crate::{metrics::add, room::Turn};

pub use lines::{Format, Lines};

/// The target of the events of [`Events`], for filters.
pub const TARGET: &str = "nginx_free::access";

/// One request, as it went.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Access<'a> {
    /// The request's number in its proxy, from 0.
    pub request: u64,
    /// The name of the app that it went to ([`Upstream::named`](crate::Upstream::named)), where it went to one.
    pub app: Option<&'a str>,
    /// The client: address and port, or `unix:UID`.
    pub peer: &'a str,
    /// As it came.
    pub method: &'a str,
    /// As it came, which may be any visible ASCII and more, without the query.
    pub path: &'a str,
    /// The answer's.
    pub status: StatusCode,
    /// Bytes of the request's body, or that the client sent over its WebSocket.
    pub received: u64,
    /// Bytes of the answer's body, or that the client was sent over its WebSocket.
    pub sent: u64,
    /// When the answer ended.
    pub ended: Instant,
    /// From the request's head to the end of the answer.
    pub took: Duration,
    /// From the request's head to the head of the app's answer, or until it was clear that there would be none; where an app
    /// was asked, and not for a WebSocket.
    pub app_took: Option<Duration>,
    /// Whether the answer broke off.
    pub is_broken: bool,
}

impl Access<'_> {
    fn micros(&self) -> u64 {
        micros(self.took)
    }

    fn app_micros(&self) -> u64 {
        micros(self.app_took.unwrap_or_default())
    }

    fn end(&self) -> &'static str {
        if self.is_broken { "broken" } else { "done" }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What keeps the entries.
pub trait AccessLog: Send + Sync + 'static {
    /// A request has ended. Called on the runtime's thread, and must not block.
    fn record(&self, access: &Access<'_>);
}

/// Every entry is an event of `tracing`, at the level `INFO` and with the target [`TARGET`].
#[derive(Clone, Copy, Default, Debug)]
pub struct Events;

impl AccessLog for Events {
    fn record(&self, access: &Access<'_>) {
        tracing::info!(
            target: TARGET,
            request = access.request,
            app = access.app,
            peer = access.peer,
            method = access.method,
            path = access.path,
            status = access.status.as_u16(),
            received = access.received,
            sent = access.sent,
            micros = access.micros(),
            app_micros = access.app_micros(),
            end = access.end(),
        );
    }
}

/// `None` keeps nothing.
impl<L: AccessLog> AccessLog for Option<L> {
    fn record(&self, access: &Access<'_>) {
        if let Some(log) = self {
            log.record(access);
        }
    }
}

/// One request, until it is counted and logged by being dropped.
pub(crate) struct Entry {
    turn: Turn,
    id: u64,
    app: Option<Arc<str>>,
    method: Method,
    /// A text of its own: a part of the request would keep the memory that it was read into until the answer's end.
    path: Box<str>,
    pub(crate) status: StatusCode,
    begun: Instant,
    answered: Option<Duration>,
    sent: u64,
    received: Option<Arc<AtomicU64>>,
    is_broken: bool,
}

impl Entry {
    pub(crate) fn new(turn: Turn, method: &Method, path: &str) -> Self {
        let metrics = turn.metrics();
        let begun = Instant::now();
        metrics.touch(begun);
        let id = metrics.requests.fetch_add(1, Ordering::Relaxed);
        Self {
            turn,
            id,
            app: None,
            method: method.clone(),
            path: path.into(),
            status: StatusCode::OK,
            begun,
            answered: None,
            sent: 0,
            received: None,
            is_broken: false,
        }
    }

    /// The app that it goes to.
    pub(crate) fn goes_to(&mut self, app: &Arc<str>) {
        self.app = Some(Arc::clone(app));
    }

    /// The head of the app's answer has come; returns how long that took.
    pub(crate) fn answered(&mut self) -> Duration {
        *self.answered.insert(self.begun.elapsed())
    }

    /// Where the bytes of the request's body are counted.
    pub(crate) fn received(&mut self) -> Arc<AtomicU64> {
        Arc::clone(self.received.get_or_insert_default())
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// The bytes of a tunnel, at its end.
    pub(crate) fn tunnelled(&mut self, received: u64, sent: u64) {
        self.received().store(received, Ordering::Relaxed);
        self.sent = sent;
    }

    pub(crate) fn broken(&mut self) {
        self.is_broken = true;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let (metrics, ended) = (self.turn.metrics(), Instant::now());
        let took = ended - self.begun;
        let received = self.received.as_ref().map_or(0, |received| received.load(Ordering::Relaxed));
        metrics.answered(self.status, took, self.sent);
        add(&metrics.received, received);
        self.turn.log().record(&Access {
            request: self.id,
            app: self.app.as_deref(),
            peer: self.turn.peer(),
            method: self.method.as_str(),
            path: &self.path,
            status: self.status,
            received,
            sent: self.sent,
            ended,
            took,
            app_took: self.answered,
            is_broken: self.is_broken,
        });
    }
}
