//! The proxy from outside: real sockets on port 0, raw bytes where a library would be too polite, and no sleep
//! but where the time itself is what is tested.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that panics has failed, and says where"
)]

mod certified;
mod frames;
mod support;

mod floods;
mod hooks;
mod hostile_app;
mod http1;
mod http2;
mod lasting;
mod limits;
mod listeners;
mod pauses;
mod pool;
mod prefixes;
mod straight;
mod strict;
mod tls;
mod trunk;
mod tunnels;
mod websocket;
