//! An in-process reverse proxy: HTTP/1.1, HTTP/2 and WebSockets in, HTTP/1.1 to the app, strict in between.
//!
//! ```no_run
//! use std::{io, sync::Arc};
//!
//! use nginx_free::{Admit, Dial, Gate, Head, Limits, Listener, Proxy, Upstream, Verdict};
//! use tokio::{net::{TcpListener, TcpStream}, sync::watch};
//!
//! struct App;
//!
//! impl Dial for App {
//!     type Stream = TcpStream;
//!     async fn dial(&self) -> io::Result<TcpStream> {
//!         TcpStream::connect("127.0.0.1:8888").await
//!     }
//! }
//!
//! struct Everybody(Arc<Upstream<App>>);
//!
//! impl Admit for Everybody {
//!     type Dial = App;
//!     async fn admit<'r>(&self, _head: &Head<'_>, gate: Gate<'r>) -> Verdict<'r, App> {
//!         Verdict::Forward(gate.open(&self.0))
//!     }
//! }
//!
//! # async fn run() -> io::Result<()> {
//! let proxy = Proxy::new(Everybody(Upstream::new(App, Limits::default())), Limits::default());
//! let (_running, closing) = watch::channel(false);
//! proxy.serve(Listener::tcp(TcpListener::bind("127.0.0.1:8080").await?), closing).await;
//! # Ok(())
//! # }
//! ```
//!
//! # How a request goes
//! 1. The raw head is looked at before hyper repairs it, then hyper parses it, then the rules that hyper does not keep
//!    are applied: one valid `Host`, one framing, a path that everybody reads alike ([`path`]), no tunnel and no upgrade
//!    but to a WebSocket. What breaks a rule gets 400, 417, 426, 431 or 501, and is the last on its connection.
//! 2. [`Admit::admit`] judges it, once, before HTTP and WebSocket part ways. To forward it takes an [`Admission`],
//!    which only the [`Gate`] of this very request yields.
//! 3. Hop-by-hop fields are taken out (RFC 9110 §7.6.1), and what a client says of forwarding is replaced by what is
//!    so; hidden cookies are cut out.
//! 4. A kept connection to the app is used, or a new one is made by [`Dial`]. Bodies stream both ways, at the pace of
//!    the slower side.
//! 5. The app's answer is held to the rules as well, edited by [`Hooks::edit_answer`], and logged ([`log`]) when it
//!    has ended.
//!
//! # Apps on other hosts
//! A host that can be dialled by nobody dials in, and its apps are reached over what it dialled: a [`trunk`] of HTTP/2,
//! whose channels a [`Dial`] opens like any connection.
//!
//! # What differs from a straight connection
//! Interim answers (1xx) of the app reach clients of HTTP/1.1 alone, and of their fields only `Link`: h2's server cannot
//! send them. `Expect: 100-continue` is answered when the app's side wants the body. A client's trailers are dropped, and
//! reason phrases are the standard ones. Requests with chunks over HTTP/1.1 are the last on their connection.
#![forbid(unsafe_code)]

mod admit;
mod body;
mod check;
mod connection;
pub mod cookies;
mod cork;
mod dial;
mod fields;
mod forward;
#[cfg(fuzzing)]
pub mod fuzzing;
mod host;
mod io;
pub mod lasting;
mod limits;
pub mod log;
mod metered;
mod metrics;
pub mod path;
mod patience;
mod peer;
mod prefix;
mod proxy;
mod rewrite;
mod room;
mod scan;
mod serve;
mod service;
mod stall;
mod ticket;
pub mod tls;
mod transport;
pub mod trunk;
mod tunnel;
mod turns;
mod upstream;
mod websocket;
mod wire;
mod woken;

pub use admit::{
    Admission, Admit, EditAnswer, FailedRequest, Failure, Gate, Head, HidesCookie, Hooks, Kind, OnFailure,
    Verdict,
};
pub use body::{Body, BodyError};
pub use dial::Dial;
pub use host::Host;
pub use limits::Limits;
pub use metrics::Metrics;
pub use peer::{Peer, PeerKey};
pub use prefix::{Prefix, PrefixError, Routes};
pub use proxy::Proxy;
pub use serve::Listener;
pub use upstream::Upstream;
