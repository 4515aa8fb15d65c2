//! The proxy from outside: real sockets on port 0, raw bytes where a library would be too polite, no sleeps.

mod support;

mod hostile_app;
mod http1;
mod http2;
mod limits;
mod pool;
mod strict;
mod websocket;
