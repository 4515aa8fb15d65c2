//! The host: the machine and process that hold a sandbox, as the supervisor uses it. Starts the room and the app in it,
//! finds the app's port, dials it. Owns the link to init; knows no HTTP beyond asking whether something answers.

mod app;
mod channel;
mod either;
mod far;
mod gpu;
mod image;
mod invocation;
mod link;
mod local;
mod names;
mod port;
mod runtime;
mod scripts;

pub use app::{AppSpec, Container, ImageSpec};
pub use channel::Channel;
pub use either::Host;
pub use far::{FarHost, Reach};
pub use image::{ImageError, Scripts, inspect, pull, resolve};
pub use invocation::Invocation;
pub use link::{Health, Link, LinkError, Listening, Started};
pub use local::{HostError, LocalHost, Running, Usage};
pub use port::{AppStream, Dialer, InsideListener, Target};
pub use runtime::{Runtime, RuntimeError};
