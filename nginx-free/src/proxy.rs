//! A proxy: its judge, its limits, and what it counts.

use std::sync::Arc;

use crate::{Admit, Limits, Metrics, log::AccessLog, room::Room};

/// A reverse proxy. It owns no listener: give it some with [`Proxy::serve`].
pub struct Proxy<A> {
    pub(crate) shared: Arc<Shared<A>>,
}

pub(crate) struct Shared<A> {
    pub(crate) admit: A,
    pub(crate) room: Arc<Room>,
    pub(crate) server_timing: bool,
}

impl<A: Admit> Proxy<A> {
    /// A proxy whose requests are judged by `admit`.
    pub fn new(admit: A, limits: Limits) -> Self {
        Self::counting(admit, limits, Arc::default())
    }

    /// The same, counting into `metrics`, which others may hold as well.
    pub fn counting(admit: A, limits: Limits, metrics: Arc<Metrics>) -> Self {
        let shared = Shared { admit, room: Room::new(limits, metrics), server_timing: false };
        Self { shared: Arc::new(shared) }
    }

    /// The same, telling each client in a `Server-Timing` field how long the app took to answer. Off by default: the
    /// time that an app takes may be nobody's business.
    #[must_use]
    pub fn with_server_timing(mut self) -> Self {
        // Nobody else holds it before it is served.
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.server_timing = true;
        }
        self
    }

    /// The same, telling `log` of each request instead of making an event of `tracing` of it.
    #[must_use]
    pub fn with_access_log(mut self, log: impl AccessLog) -> Self {
        // Nor does anybody hold its room before.
        if let Some(room) = Arc::get_mut(&mut self.shared).and_then(|shared| Arc::get_mut(&mut shared.room)) {
            room.log = Box::new(log);
        }
        self
    }

    /// The judge.
    pub fn admit(&self) -> &A {
        &self.shared.admit
    }

    /// What it counts.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.room.metrics
    }
}
