//! A session in a Slurm job: two processes, its gateway on the login node and its host on a compute node, with the link
//! between them.
//!
//! ```text
//! shlogin start --slurm        login node                          compute node
//!   └► shlogin @gate             gateway, ssh, terminals, record     slurmstepd
//!        │ sbatch ──────────────── slurmctld ───────────────────────► └► shlogin @host (the batch script exec'ed it)
//!        │◄═══════════ link: TLS, dialled by the host ═══════════════════╡  keeper ─ init ─ app, as everywhere
//!        │ ── shlogin-life: Begin { work }, Stop ────────────────────────►│
//!        │◄─ Answers { endpoint }, Ended { end } ─────────────────────────│
//!        │◄─ shlogin-log: what the app says ──────────────────────────────│
//! ```
//! In a job that is there already (`batch.lent`), nothing is submitted: the gate starts the host by srun, or the person's own
//! `start` has begun it on the node ([`here`]), where it waits for its first gate. Such a job is never ended by any of us.
//!
//! What the session does is told over the link, and not before the host has proven who it is: neither the job's script nor
//! its environment nor Slurm's spool hold any of it.

mod far_life;
mod gate;
mod gate_life;
mod here;
mod look;
mod manner;
mod node;
mod node_life;
mod output;
mod own_end;
mod papers;
mod prepare;
mod proof;
mod watch;
mod wire;

pub use gate::run as run_gate;
pub use here::{FromHostHere, HostHere, wait_for_a_gateway};
pub use look::{host_process, run as run_host_in_job};
pub use node::run as run_host;

/// Freed memory that either end of a link keeps, in bytes: about what is under way over it.
const KEPT: i32 = 4 << 20;
