//! The sandbox: its namespaces, PID 1 in them, and the keeper beside them. Owns processes and mounts; knows no images,
//! no HTTP and no configuration. Refuses to give less isolation than it was asked for.
//!
//! Both roles are single-threaded and never run an async runtime. What they say to each other stands in [`protocol`].

mod footprint;
mod init;
mod keeper;
mod listeners;
mod mounts;
mod network;
pub mod protocol;
mod spec;

pub use footprint::Footprint;
pub use init::run as run_init;
pub use keeper::run as run_keeper;
pub use listeners::{parse_address, reachable};
pub use spec::{HelperKind, NetworkHelper, SandboxSpec};
