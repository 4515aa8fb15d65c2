//! The link: how a host on another machine and the gateway of its session find each other, prove who they are, and keep
//! a stream between them whatever becomes of the connections below it. The host dials; nothing listens where it runs.
//!
//! ```text
//! host                                                        gateway
//!   │ reads link.json in the session's folder: where, and which certificate
//!   │ ── TCP, TLS 1.3: both with certificates of their own ──────►│ the host knows the gateway's; the gateway takes any
//!   │ ── Hello { session, run, job, credential, stream } ────────►│ judges
//!   │◄─ Welcome { stream } or Later or Refused { why } ───────────│
//!   │◄═ the lasting stream's own frames ═════════════════════════►│ HTTP/2 above it, with the host as its server
//!   │   … the connection breaks, the host dials again, the stream goes on …
//! ```
//! Who a host is, is proven once a run: where MUNGE is, by a credential of its user's that names this very TLS connection;
//! else by the key that the session's folder holds for it, which only its user can read. After that the run's own
//! certificate is known. A credential that is caught and sent again belongs to another connection, and proves nothing.
//!
//! Knows no HTTP, no Slurm but by its job numbers, and nothing of what runs.

mod accept;
mod dial;
mod hello;
pub mod message;
pub mod pin;
mod proof;
mod rendezvous;
mod strangers;
mod tls;

pub use accept::{Expected, Linked, Links, OpenError};
pub use dial::{DialError, Dialler};
pub use hello::{Hello, LONGEST, NOT_ITS_HOST, Reply, Run, RunId, VERSION, statement};
pub use proof::{Proof, Prover};
pub use rendezvous::{Rendezvous, RendezvousError, gateway_key, host_key, kept_host_key, remove_keys};
pub use tls::{Fingerprint, Identity, IdentityError, binding, server_name, without_certificate};
