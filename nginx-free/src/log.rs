//! The access log: one event per request, when its answer has ended. No query: it may hold a secret.
//!
//! The events are `tracing`'s: any subscriber can have them. [`Lines`] writes them as lines of text or JSON, at a quarter
//! of the cost of a general formatter. The fields:
//!
//! | field | |
//! |---|---|
//! | `request` | the request's number, from 0 |
//! | `app` | the name of the app that it went to ([`Upstream::named`](crate::Upstream::named)), where it went to one |
//! | `peer` | the client: address and port, or `unix:UID` |
//! | `method`, `path` | as they came; the path without the query |
//! | `status` | of the answer |
//! | `received`, `sent` | bytes of the bodies, or of the WebSocket |
//! | `micros` | from the request's head to the end of the answer |
//! | `app_micros` | from there to the head of the app's answer; 0 where it gave none |
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

/// The target of access events, for filters.
pub const TARGET: &str = "nginx_free::access";

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
    end: &'static str,
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
            end: "done",
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
        self.end = "broken";
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let (metrics, took) = (self.turn.metrics(), self.begun.elapsed());
        let received = self.received.as_ref().map_or(0, |received| received.load(Ordering::Relaxed));
        metrics.answered(self.status, took, self.sent);
        add(&metrics.received, received);
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        tracing::info!(
            target: TARGET,
            request = self.id,
            app = self.app.as_deref(),
            peer = self.turn.peer(),
            method = self.method.as_str(),
            path = &*self.path,
            status = self.status.as_u16(),
            received,
            sent = self.sent,
            micros = micros(took),
            app_micros = micros(self.answered.unwrap_or_default()),
            end = self.end,
        );
    }
}
