//! A reverse proxy.
#![forbid(unsafe_code)]

mod admit;
mod body;
mod check;
mod connection;
pub mod cookies;
mod dial;
mod fields;
mod forward;
mod host;
mod io;
mod limits;
pub mod log;
pub mod path;
mod peer;
mod proxy;
mod serve;
mod service;
mod upstream;
mod websocket;
mod wire;

pub use admit::{Admission, Admit, FailedRequest, Failure, Gate, Head, Hooks, Kind, Verdict};
pub use body::{Body, BodyError};
pub use dial::Dial;
pub use host::Host;
pub use limits::Limits;
pub use peer::{Peer, PeerKey};
pub use proxy::{Counters, Proxy};
pub use serve::Listener;
pub use upstream::Upstream;
