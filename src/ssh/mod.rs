//! The session's ssh server. Owns who may come in and what they may do, by OpenSSH's rules; there is one user, the
//! session's owner, and one name for guests, who see a terminal of hers and nothing else. What clients run, runs in the
//! session; what they forward goes into its network, never into the node's.

#![forbid(unsafe_code)]

mod agent;
mod algorithms;
mod auth;
mod authorized_keys;
mod certificate;
mod channels;
mod connection;
mod environment;
mod files;
mod forward;
mod guest;
mod host_key;
mod inbound;
mod listening;
mod modes;
mod options;
mod outbound;
mod owner;
mod password;
mod patterns;
mod penalties;
mod permits;
mod prompt;
mod pty;
mod server;
mod session_channel;
mod sight;
mod signals;
mod source;
mod startups;

#[cfg(fuzzing)]
pub mod fuzzing;

pub use agent::Temporary;
pub use auth::SpendToken;
pub(crate) use host_key::known_hosts_line;
pub use password::run_helper as run_password_helper;
pub use server::{Inside, Server, ServerError, Settings};
