//! A proxy: its judge, its limits, and what it counts.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use crate::{Admit, Limits, Peer, peer::PeerKey};

/// A reverse proxy. It owns no listener: give it some with [`Proxy::serve`].
pub struct Proxy<A> {
    pub(crate) shared: Arc<Shared<A>>,
}

pub(crate) struct Shared<A> {
    pub(crate) admit: A,
    pub(crate) limits: Limits,
    pub(crate) counters: Counters,
    slots: Mutex<HashMap<PeerKey, usize>>,
}

/// What a proxy counts. Each is a snapshot.
#[derive(Debug)]
pub struct Counters {
    /// Client connections that are open.
    pub connections: AtomicUsize,
    /// Requests that came, ever.
    pub requests: AtomicU64,
    /// WebSockets that are open.
    pub tunnels: AtomicUsize,
    /// Connections turned away because a limit was reached, ever.
    pub shed: AtomicU64,
    last: Mutex<Instant>,
}

impl Counters {
    fn new() -> Self {
        Self {
            connections: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            tunnels: AtomicUsize::new(0),
            shed: AtomicU64::new(0),
            last: Mutex::new(Instant::now()),
        }
    }

    /// When a request last began or a WebSocket last ended.
    pub fn last_activity(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

impl<A: Admit> Proxy<A> {
    /// A proxy whose requests are judged by `admit`.
    pub fn new(admit: A, limits: Limits) -> Self {
        let shared = Shared { admit, limits, counters: Counters::new(), slots: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// The judge.
    pub fn admit(&self) -> &A {
        &self.shared.admit
    }

    /// What it counts.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }
}

/// What shares the connections of one client. Loopback has millions of addresses, any of which a local user can take:
/// they are one.
fn crowd(peer: &Peer) -> PeerKey {
    match peer.key() {
        PeerKey::Ip(IpAddr::V4(ip)) if ip.is_loopback() => PeerKey::Ip(Ipv4Addr::LOCALHOST.into()),
        key => key,
    }
}

/// One client connection's place among the allowed ones, free again when dropped.
pub(crate) struct Slot<A> {
    shared: Arc<Shared<A>>,
    key: PeerKey,
}

impl<A> Shared<A> {
    /// A place for one more connection of `peer`, unless a limit is reached.
    pub(crate) fn slot(self: &Arc<Self>, peer: &Peer) -> Option<Slot<A>> {
        let key = crowd(peer);
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let open = slots.get(&key).copied().unwrap_or(0);
        let all = self.counters.connections.load(Ordering::Relaxed);
        if all >= self.limits.connections || open >= self.limits.connections_per_peer {
            self.counters.shed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        slots.insert(key, open + 1);
        self.counters.connections.store(all + 1, Ordering::Relaxed);
        Some(Slot { shared: Arc::clone(self), key })
    }
}

impl<A> Drop for Slot<A> {
    fn drop(&mut self) {
        let mut slots = self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = slots.get_mut(&self.key) {
            *open -= 1;
            if *open == 0 {
                slots.remove(&self.key);
            }
        }
        self.shared.counters.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
