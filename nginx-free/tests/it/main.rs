//! The proxy from outside: real sockets on port 0, raw bytes where a library would be too polite, no sleeps.

mod support;

mod http1;
mod websocket;
