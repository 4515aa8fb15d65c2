//! The session's files over SFTP: version 3 of the protocol (draft-ietf-secsh-filexfer-02) with the extensions of
//! OpenSSH's `PROTOCOL`, as the hidden role `@sftp`. It serves one client on its standard streams, and sees what the
//! session's programs see. Refuses nothing that the kernel allows its user; it holds no right beyond hers.
//!
//! ```text
//! client ── requests ─► connection ─► request ─► server ─► files, folders, extensions
//!        ◄─ replies ──────────┘ (one write for all that were answered together)
//! ```
//! One thread, no async runtime: a client asks in order and is answered in order, and a role that joins namespaces must
//! not have threads. Paths are bytes from end to end.

mod attributes;
mod connection;
mod extensions;
mod files;
mod folder;
mod handles;
mod names;
mod paths;
mod refusal;
mod request;
mod role;
mod server;
#[cfg(test)]
mod tests;
mod wire;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use role::run;

/// How files are to be served: what the role is told on its descriptor 3.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SftpSpec {
    /// Whose files.
    pub view: View,
    /// Where the client starts, unless the container's `/etc/passwd` says otherwise.
    pub home: PathBuf,
    /// The person's `umask(2)`.
    pub umask: u32,
}

/// What a client sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum View {
    /// What the role sees itself: the sandbox's view of the node.
    Node,
    /// What programs in the container see that runs in the sandbox.
    Container,
}
