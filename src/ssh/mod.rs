//! The session's ssh server.
#![forbid(unsafe_code)]
mod agent;
mod algorithms;
mod auth;
mod channels;
mod connection;
mod environment;
mod forward;
mod inbound;
mod listening;
mod modes;
mod outbound;
mod owner;
mod patterns;
mod permits;
mod pty;
mod server;
mod session_channel;
mod signals;

pub use agent::Temporary;
pub use server::{Inside, Server, Settings};
