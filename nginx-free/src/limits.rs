//! What one proxy spends at most: connections, bytes, time.

use std::time::Duration;

use crate::{
    PeerKey,
    tls::{AT_ONCE, FRAME_HEADS},
};

/// The limits of a [`Proxy`](crate::Proxy). [`Limits::default`] suits a gateway for a few people on a shared machine.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Client connections open at a time, over all listeners. No client has more than are left for the others: it takes a
    /// dozen that take all they can to keep another one out.
    pub connections: usize,
    /// Client connections open at a time from one client: an IPv4 address (all of 127.0.0.0/8 together), an IPv6 /64, one
    /// user of a unix socket, or, where [`Listener::identified_by`](crate::Listener::identified_by) tells them, one user of
    /// this machine. Where this is as much as all may have, one client may have all.
    pub connections_per_peer: usize,
    /// Connections beyond these limits that are told so (503), within [`Limits::leave`] each. Any more are cut at once.
    pub connections_leaving: usize,
    /// Time for a connection too many to be told so, its TLS handshake included.
    pub leave: Duration,
    /// Requests open at a time, WebSockets included, shared as connections are. One more gets 503.
    pub requests: usize,
    /// Requests open at a time from one client, counted as for connections. One more gets 503; over HTTP/2, where one client
    /// can ask for thousands at a moment, those are told one by one, a thousand in a second.
    pub requests_per_peer: usize,
    /// A client for which as many connections and requests are kept as one client may have: all others together cannot
    /// keep it out.
    pub reserved: Option<PeerKey>,
    /// HTTP/2 streams open at a time on one connection.
    pub streams: u32,
    /// Bytes of a request's head, and of the list of its fields in HTTP/2.
    pub head_bytes: usize,
    /// Fields in a head, of requests and of responses.
    pub fields: usize,
    /// Bytes that one direction of one connection may hold in memory. By default so many that they leave
    /// [at once](crate::tls::AT_ONCE), with the heads of four frames of HTTP/2.
    pub buffer: usize,
    /// Time for a TLS handshake.
    pub handshake: Duration,
    /// Time from when a connection is ready for a request until its head is complete. In HTTP/1.1 it bounds the idle
    /// time as well: hyper starts this one timer when the last answer has ended.
    pub head: Duration,
    /// Time an HTTP/2 connection without a request stays open.
    pub idle: Duration,
    /// Time a request's body may stand still while the app waits for it. Each second is earned back by 500 bytes, so
    /// that a trickle ends as silence does.
    pub body_stall: Duration,
    /// Time a client may leave what is sent to it unread, earned back in the same way.
    pub send_stall: Duration,
    /// Time to reach the app.
    pub dial: Duration,
    /// Time from a request's head until the app's response head. Long, for some apps answer when something happens.
    pub answer: Duration,
    /// Connections to one app open at a time, WebSockets included. A request beyond that gets 503.
    pub connections_per_app: usize,
    /// Requests that an app is asked at once, as long as it answers fast. One more waits for an answer to one of them, for
    /// 20 ms; then room is made for twice as many, and so on.
    pub at_once: usize,
    /// Idle connections to the app that are kept.
    pub pool: usize,
    /// How long an idle connection to the app is kept. Shorter than the five seconds after which Node closes its side, so
    /// that a request seldom meets a connection that is about to end.
    pub pool_idle: Duration,
    /// Time for open requests to end once a shutdown began.
    pub drain: Duration,
    /// The first segments of the path by which requests are told apart (see [`path`](crate::path)).
    pub routed_segments: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_peer: 256,
            connections_leaving: 64,
            leave: Duration::from_secs(3),
            requests: 4096,
            requests_per_peer: 512,
            reserved: None,
            streams: 100,
            head_bytes: 32 * 1024,
            fields: 100,
            buffer: AT_ONCE - FRAME_HEADS,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            body_stall: Duration::from_secs(30),
            send_stall: Duration::from_secs(30),
            dial: Duration::from_secs(10),
            answer: Duration::from_secs(3600),
            connections_per_app: 1024,
            at_once: 32,
            pool: 16,
            pool_idle: Duration::from_secs(4),
            drain: Duration::from_secs(5),
            routed_segments: 1,
        }
    }
}
