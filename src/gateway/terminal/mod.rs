//! The terminal page and its WebSocket.

pub(crate) mod message;
