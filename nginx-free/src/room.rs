//! How many are in: connections and requests, of all clients and of each. Who is one too many is told so by its caller.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{Limits, Metrics, Peer, PeerKey, metrics::add};

/// What all connections of a proxy share, whatever it judges by.
pub(crate) struct Room {
    pub(crate) limits: Limits,
    pub(crate) metrics: Arc<Metrics>,
    crowds: Mutex<HashMap<PeerKey, Arc<Crowd>>>,
    leaving: AtomicUsize,
}

/// What one client has open.
#[derive(Default)]
struct Crowd {
    connections: AtomicUsize,
    requests: AtomicUsize,
}

/// What shares the limits of one client. Loopback has millions of addresses, any of which a local user can take: they
/// are one.
fn crowd(peer: &Peer) -> PeerKey {
    match peer.key() {
        PeerKey::Ip(IpAddr::V4(ip)) if ip.is_loopback() => PeerKey::Ip(Ipv4Addr::LOCALHOST.into()),
        key => key,
    }
}

/// One client connection's place, free again when dropped.
pub(crate) struct Seat {
    room: Arc<Room>,
    key: PeerKey,
    /// The client, for the log.
    peer: Box<str>,
    crowd: Arc<Crowd>,
    /// Requests that came over this connection.
    begun: AtomicUsize,
    /// Those of them whose answer has not ended.
    open: AtomicUsize,
}

/// One request's place, free again when dropped.
pub(crate) struct Turn {
    seat: Arc<Seat>,
}

/// The place of a connection that is only told that there is none.
pub(crate) struct Exit(Arc<Room>);

impl Room {
    pub(crate) fn new(limits: Limits, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { limits, metrics, crowds: Mutex::default(), leaving: AtomicUsize::new(0) })
    }

    /// A place for one more connection of `peer`, unless a limit is reached.
    pub(crate) fn seat(self: &Arc<Self>, peer: &Peer) -> Option<Arc<Seat>> {
        let metrics = &self.metrics;
        add(&metrics.connections, 1);
        let key = crowd(peer);
        let mut crowds = self.crowds.lock().unwrap_or_else(PoisonError::into_inner);
        let all = metrics.connections_open.load(Ordering::Relaxed);
        let own = crowds.get(&key).map_or(0, |crowd| crowd.connections.load(Ordering::Relaxed));
        if all >= self.limits.connections as u64 || own >= self.limits.connections_per_peer {
            add(&metrics.shed_connections, 1);
            return None;
        }
        let crowd = Arc::clone(crowds.entry(key).or_default());
        crowd.connections.store(own + 1, Ordering::Relaxed);
        add(&metrics.connections_open, 1);
        let (begun, open) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let peer = peer.to_string().into();
        Some(Arc::new(Seat { room: Arc::clone(self), key, peer, crowd, begun, open }))
    }

    /// A way out for a connection too many. Where even those are too many, it is cut.
    pub(crate) fn exit(self: &Arc<Self>) -> Option<Exit> {
        let exit = Exit(Arc::clone(self));
        let before = self.leaving.fetch_add(1, Ordering::Relaxed);
        (before < self.limits.connections_leaving).then_some(exit)
    }
}

impl Drop for Exit {
    fn drop(&mut self) {
        self.0.leaving.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Seat {
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.room.metrics
    }

    /// A place for one more request. `Err` holds one, too, for the answer that there is none.
    pub(crate) fn turn(self: &Arc<Self>) -> Result<Turn, Turn> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        let own = self.crowd.requests.fetch_add(1, Ordering::Relaxed);
        let all = self.metrics().requests_open.fetch_add(1, Ordering::Relaxed);
        let turn = Turn { seat: Arc::clone(self) };
        let limits = &self.room.limits;
        if own >= limits.requests_per_peer || all >= limits.requests as u64 {
            add(&self.metrics().shed_requests, 1);
            return Err(turn);
        }
        Ok(turn)
    }

    /// Requests that came over this connection, and those that are open.
    pub(crate) fn turns(&self) -> (usize, usize) {
        (self.begun.load(Ordering::Relaxed), self.open.load(Ordering::Relaxed))
    }
}

impl Turn {
    /// The client, for the log.
    pub(crate) fn peer(&self) -> &str {
        &self.seat.peer
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        self.seat.metrics()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.seat.open.fetch_sub(1, Ordering::Relaxed);
        self.seat.crowd.requests.fetch_sub(1, Ordering::Relaxed);
        self.metrics().requests_open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut crowds = self.room.crowds.lock().unwrap_or_else(PoisonError::into_inner);
        if self.crowd.connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            crowds.remove(&self.key);
        }
        self.metrics().connections_open.fetch_sub(1, Ordering::Relaxed);
    }
}
