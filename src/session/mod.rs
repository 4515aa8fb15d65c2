//! A session: name, pod and record; the supervisor that keeps it alive; and how other processes of its owner speak to it.

pub mod control;
mod followed;
mod idle;
mod job;
mod later;
pub mod launch;
mod lock;
mod log;
mod pod;
mod record;
mod spec;
mod supervise;
pub mod surroundings;

pub use followed::Followed;
pub use idle::{IdleReport, IdleState, LastUse, exact};
pub use job::{BatchSpec, JobRecord, Lent, LentHost, MungeUse, span};
pub use launch::{LaunchError, Launched, Sockets};
pub use lock::{Lock, LockError};
pub use pod::{Allocated, HostAt, Listener, PodError};
pub use record::{
    DIAGNOSTICS, GatewayRecord, Record, Records, RecordsError, SshRecord, State, Which, log_path,
    pid_namespace, read as read_record,
};
pub use spec::{GatewaySpec, SessionSpec, Work, forget_secrets};
pub use supervise::{
    End, FromHostHere, HostHere, host_process, run as run_supervisor, run_gate, run_host, run_host_in_job,
    wait_for_a_gateway,
};
