//! A session: name, pod and record; the supervisor that keeps it alive; and how other processes of its owner speak to it.

pub mod control;
mod later;
pub mod launch;
mod lock;
mod log;
mod pod;
mod record;
mod spec;
mod supervise;

pub use launch::{LaunchError, Launched};
pub use lock::{Lock, LockError};
pub use pod::{Allocated, Listener, PodError};
pub use record::{
    DIAGNOSTICS, GatewayRecord, Record, Records, RecordsError, SshRecord, State, Which, log_path,
    pid_namespace, read as read_record,
};
pub use spec::{GatewaySpec, SessionSpec};
pub use supervise::run as run_supervisor;
