//! The channels of one connection that are open or about to be, and their bounds. The connection's loop puts them in and
//! takes them out; each channel's task hears of its end here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use russh::ChannelId;
use tokio::sync::watch;

use super::inbound::{Backlog, Inbound};
use crate::activity::Activity;

/// The most sessions of one connection: `ControlMaster` and editors open many.
const SESSIONS: usize = 100;
/// The most forwarded connections of one connection, whoever began them.
const FORWARDS: usize = 512;

/// What a channel is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A shell, a command, a subsystem.
    Session,
    /// A forwarded connection.
    Forward,
}

/// The channels of one connection.
pub(super) struct Channels {
    open: Mutex<HashMap<ChannelId, Open>>,
    backlog: Arc<Backlog>,
    activity: Activity,
}

struct Open {
    kind: Kind,
    inbound: Arc<Inbound>,
    /// Dropped with the channel.
    here: watch::Sender<()>,
}

/// A channel, as its task holds it.
pub(super) struct Lane {
    pub(super) id: ChannelId,
    pub(super) inbound: Arc<Inbound>,
    pub(super) gone: Gone,
    pub(super) activity: Activity,
}

/// Knows when a channel is no more.
#[derive(Clone)]
pub(super) struct Gone(watch::Receiver<()>);

impl Gone {
    /// Of whatever `here` is dropped with.
    pub(super) fn of(here: &watch::Sender<()>) -> Self {
        Self(here.subscribe())
    }

    /// Waits until the channel is closed, or its connection is.
    pub(super) async fn wait(&mut self) {
        while self.0.changed().await.is_ok() {}
    }
}

impl Channels {
    /// None yet. `activity` counts what they carry.
    pub(super) fn new(activity: Activity) -> Self {
        Self { open: Mutex::default(), backlog: Arc::default(), activity }
    }

    /// Takes one in. `None` where there are as many of its kind as there may be.
    pub(super) fn admit(&self, id: ChannelId, kind: Kind) -> Option<Lane> {
        let mut open = self.lock();
        let most = match kind {
            Kind::Session => SESSIONS,
            Kind::Forward => FORWARDS,
        };
        if open.values().filter(|its| its.kind == kind).count() >= most {
            return None;
        }
        let inbound = Inbound::new(Arc::clone(&self.backlog), self.activity.clone());
        let one = Open { kind, inbound, here: watch::Sender::new(()) };
        let lane = one.lane(id, &self.activity);
        open.insert(id, one);
        Some(lane)
    }

    /// One that was taken in.
    pub(super) fn lane(&self, id: ChannelId) -> Option<Lane> {
        self.lock().get(&id).map(|one| one.lane(id, &self.activity))
    }

    /// The way in of one.
    pub(super) fn inbound(&self, id: ChannelId) -> Option<Arc<Inbound>> {
        self.lock().get(&id).map(|one| Arc::clone(&one.inbound))
    }

    /// Takes one out.
    pub(super) fn remove(&self, id: ChannelId) {
        // Dropped after the lock is.
        let _gone = self.lock().remove(&id);
    }

    /// Takes all out: the connection is no more.
    pub(super) fn clear(&self) {
        let _gone = std::mem::take(&mut *self.lock());
    }

    pub(super) fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ChannelId, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn lane(&self, id: ChannelId, activity: &Activity) -> Lane {
        let (inbound, gone) = (Arc::clone(&self.inbound), Gone::of(&self.here));
        Lane { id, inbound, gone, activity: activity.clone() }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.inbound.close();
    }
}
