//! How many are in: connections and requests, of all clients and of each. Who is one too many is told so by its caller.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    Limits, Metrics, Peer, PeerKey,
    log::{AccessLog, Events},
    metrics::add,
    stall,
};

/// What all connections of a proxy share, whatever it judges by.
pub(crate) struct Room {
    pub(crate) limits: Limits,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) log: Box<dyn AccessLog>,
    crowds: Mutex<HashMap<PeerKey, Arc<Crowd>>>,
    leaving: AtomicUsize,
}

/// What one client has open.
#[derive(Default)]
struct Crowd {
    connections: AtomicUsize,
    requests: AtomicUsize,
    streams: AtomicUsize,
}

/// What shares the limits of one client. Loopback has millions of addresses, any of which a local user can take: they
/// are one, for all users that are not known.
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
    /// Streams of HTTP/2 on this connection, begun or not.
    streams: AtomicUsize,
}

/// One request's place, free again when dropped.
pub(crate) struct Turn {
    seat: Arc<Seat>,
}

/// One stream of HTTP/2, begun or not.
pub(crate) struct Stream {
    seat: Arc<Seat>,
    /// How long it waits, if it is one too many.
    late: Option<Duration>,
}

/// Those that are late are told so one by one, at this distance.
const EACH_LATE: Duration = Duration::from_millis(1);

/// The place of a connection that is only told that there is none.
pub(crate) struct Exit(Arc<Room>);

impl Room {
    pub(crate) fn new(limits: Limits, metrics: Arc<Metrics>) -> Arc<Self> {
        let (crowds, leaving) = Default::default();
        Arc::new(Self { limits, metrics, log: Box::new(Events), crowds, leaving })
    }

    /// A place for one more connection of `peer`, unless a limit is reached.
    pub(crate) fn seat(self: &Arc<Self>, peer: &Peer) -> Option<Arc<Seat>> {
        let metrics = &self.metrics;
        add(&metrics.connections, 1);
        let key = crowd(peer);
        let mut crowds = self.crowds.lock().unwrap_or_else(PoisonError::into_inner);
        let all = usize::try_from(metrics.connections_open.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        let own = crowds.get(&key).map_or(0, |crowd| crowd.connections.load(Ordering::Relaxed));
        let (each, most) = (self.limits.connections_per_peer, self.limits.connections);
        if !self.fits(&key, own, each, all, most) {
            add(&metrics.shed_connections, 1);
            return None;
        }
        let crowd = Arc::clone(crowds.entry(key).or_default());
        crowd.connections.store(own + 1, Ordering::Relaxed);
        add(&metrics.connections_open, 1);
        let (begun, open, streams) = Default::default();
        let peer = peer.to_string().into();
        Some(Arc::new(Seat { room: Arc::clone(self), key, peer, crowd, begun, open, streams }))
    }

    /// Whether a client that has `own` of `all` may have one more, where one may have `each` and all may have `most`.
    ///
    /// It may have no more than are left: so whoever takes all it can leaves as much as it has (Choudhury and Hahne,
    /// "Dynamic queue length thresholds for shared-memory packet switches", 1998), and a newcomer finds room until a dozen
    /// have done so. Of what is kept for the one client that others are not to keep out, they have nothing.
    fn fits(&self, key: &PeerKey, own: usize, each: usize, all: usize, most: usize) -> bool {
        if each >= most {
            return all < most;
        }
        match self.limits.reserved {
            Some(reserved) if reserved == *key => own < each && all < most,
            Some(_) => own < each.min((most - each).saturating_sub(all)),
            None => own < each.min(most.saturating_sub(all)),
        }
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
        let all = usize::try_from(all).unwrap_or(usize::MAX);
        let fits = self.room.fits(&self.key, own, limits.requests_per_peer, all, limits.requests);
        if stall::is_late() || !fits {
            add(&self.metrics().shed_requests, 1);
            return Err(turn);
        }
        Ok(turn)
    }

    /// A place for one more stream of HTTP/2, begun or not. `None` where this connection has twice as many as may be open:
    /// so it has taken most of them back, and that is no reason to hold them.
    ///
    /// Those beyond the requests that its client may have open are late: they wait for their turn, to be told then that
    /// they are too many. One client's connections may bring 25,000 at a moment, and were all told at once, over and over,
    /// others would wait for all of that at each of their own steps.
    pub(crate) fn stream(self: &Arc<Self>) -> Option<Stream> {
        let of_connection = self.streams.fetch_add(1, Ordering::Relaxed);
        let of_client = self.crowd.streams.fetch_add(1, Ordering::Relaxed);
        let mut stream = Stream { seat: Arc::clone(self), late: None };
        let limits = &self.room.limits;
        let Some(beyond) = of_client.checked_sub(limits.requests_per_peer) else { return Some(stream) };
        if of_connection >= 2 * limits.streams as usize {
            add(&self.metrics().shed_requests, 1);
            return None;
        }
        stream.late = Some(EACH_LATE.saturating_mul(u32::try_from(beyond).unwrap_or(u32::MAX)));
        Some(stream)
    }

    /// Requests that came over this connection, and those that are open.
    pub(crate) fn turns(&self) -> (usize, usize) {
        (self.begun.load(Ordering::Relaxed), self.open.load(Ordering::Relaxed))
    }
}

impl Stream {
    pub(crate) fn late(&self) -> Option<Duration> {
        self.late
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

    /// Where it is to be logged.
    pub(crate) fn log(&self) -> &dyn AccessLog {
        &*self.seat.room.log
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.seat.open.fetch_sub(1, Ordering::Relaxed);
        self.seat.crowd.requests.fetch_sub(1, Ordering::Relaxed);
        self.metrics().requests_open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.seat.streams.fetch_sub(1, Ordering::Relaxed);
        self.seat.crowd.streams.fetch_sub(1, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn user(uid: u32) -> Peer {
        Peer::tcp(([127, 0, 0, 1], 1).into()).identified(uid)
    }

    /// As many seats as this client gets.
    fn greedy(room: &Arc<Room>, peer: &Peer) -> Vec<Arc<Seat>> {
        std::iter::from_fn(|| room.seat(peer)).collect()
    }

    #[test]
    fn those_who_take_all_they_can_leave_room() {
        for (users, left) in [(1, 256), (3, 128), (4, 64), (8, 4)] {
            let room = Room::new(Limits::default(), Arc::default());
            let taken: Vec<_> = (1..=users).flat_map(|uid| greedy(&room, &user(uid))).collect();
            let own = greedy(&room, &user(0));
            assert_eq!(own.len(), left, "{users} users have taken {}", taken.len());
        }
    }

    #[test]
    fn what_is_kept_for_one_is_there_whoever_takes_all_the_rest() {
        let limits = Limits { reserved: Some(PeerKey::Local(0)), ..Limits::default() };
        let room = Room::new(limits, Arc::default());
        let taken: Vec<_> = (1..=100).flat_map(|uid| greedy(&room, &user(uid))).collect();
        assert_eq!(taken.len(), 768);
        let own = greedy(&room, &user(0));
        assert_eq!(own.len(), 256);
        let turns = |seat: &Arc<Seat>| std::iter::from_fn(|| seat.turn().ok()).collect::<Vec<_>>();
        let _others: Vec<_> = taken.iter().flat_map(turns).collect();
        assert_eq!(turns(&own[0]).len(), 512, "and the same for requests");
    }

    #[test]
    fn who_is_not_known_shares_one_client_s_part_and_no_more() {
        let room = Room::new(Limits::default(), Arc::default());
        let unknown = |address: &str| Peer::tcp(address.parse().unwrap());
        let taken = greedy(&room, &unknown("127.0.0.1:1"));
        assert_eq!(taken.len(), 256);
        assert!(room.seat(&unknown("127.8.8.8:1")).is_none());
        assert_eq!(greedy(&room, &user(7)).len(), 256);
    }

    #[test]
    fn one_that_may_have_all_gets_all() {
        let limits = Limits { connections: 100, connections_per_peer: 100, ..Limits::default() };
        assert_eq!(greedy(&Room::new(limits, Arc::default()), &user(7)).len(), 100);
    }

    #[test]
    fn streams_beyond_what_a_client_may_have_wait_in_line_and_too_many_of_them_are_not_held() {
        let limits = Limits { requests_per_peer: 2, streams: 5, ..Limits::default() };
        let room = Room::new(limits, Arc::default());
        let peer = Peer::Unix { uid: Some(1) };
        let (one, other) = (room.seat(&peer).unwrap(), room.seat(&peer).unwrap());
        let mut streams: Vec<_> = (0..10).map(|_| one.stream().unwrap()).collect();
        let late: Vec<_> = streams.iter().map(|stream| stream.late().map(|wait| wait.as_millis())).collect();
        assert_eq!(late[..4], [None, None, Some(0), Some(1)]);
        assert_eq!(late[9], Some(7));
        assert!(one.stream().is_none());
        assert_eq!(one.metrics().shed_requests.load(Ordering::Relaxed), 1);
        // It is one client, whichever connection they come by, and nobody else.
        assert_eq!(other.stream().unwrap().late(), Some(Duration::from_millis(8)));
        assert_eq!(room.seat(&Peer::Unix { uid: Some(2) }).unwrap().stream().unwrap().late(), None);
        streams.truncate(1);
        assert_eq!(one.stream().unwrap().late(), None);
    }
}
