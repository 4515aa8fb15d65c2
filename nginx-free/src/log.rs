//! The access log: one event per request, when its answer has ended. No query (it may hold a secret), nothing unescaped.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use http::{Method, StatusCode};

use crate::Peer;

/// The target of access events, for filters.
pub const TARGET: &str = "nginx_free::access";

/// One request, until it is logged by being dropped.
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) peer: Peer,
    pub(crate) method: Method,
    pub(crate) uri: http::Uri,
    pub(crate) status: StatusCode,
    begun: Instant,
    sent: u64,
    received: u64,
    end: &'static str,
    _open: Open,
}

/// Counts a request as open until it is dropped.
pub(crate) struct Open(Arc<AtomicUsize>);

impl Open {
    pub(crate) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Entry {
    pub(crate) fn new(id: u64, peer: Peer, method: Method, uri: http::Uri, open: Open) -> Self {
        let (begun, status) = (Instant::now(), StatusCode::OK);
        Self { id, peer, method, uri, status, begun, sent: 0, received: 0, end: "done", _open: open }
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// The bytes of a tunnel, at its end.
    pub(crate) fn tunnelled(&mut self, received: u64, sent: u64) {
        (self.received, self.sent) = (received, sent);
    }

    pub(crate) fn broken(&mut self) {
        self.end = "broken";
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !tracing::enabled!(target: TARGET, tracing::Level::INFO) {
            return;
        }
        tracing::info!(
            target: TARGET,
            request = self.id,
            peer = %self.peer,
            method = %self.method.as_str().escape_default(),
            path = %self.uri.path().escape_default(),
            status = self.status.as_u16(),
            received = self.received,
            sent = self.sent,
            micros = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX),
            end = self.end,
        );
    }
}
