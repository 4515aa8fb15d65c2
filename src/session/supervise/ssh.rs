//! The session's ssh server, as its supervisor holds it: its listener, its key, and what programs see of it.

use std::{
    net::TcpListener,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
};

use nix::sys::socket::{Backlog, listen};

use crate::{
    host::LocalHost,
    session::{Record, SessionSpec, SshRecord},
    ssh::{Inside, Server, Settings, Temporary},
    terminal::Terminals,
    words::{Isolation, TmpMode},
};

/// Connections that nobody has taken yet.
const BACKLOG: i32 = 128;

/// Opens it on the pod's port, and puts port and key into the record.
pub(super) fn open(
    spec: &SessionSpec,
    record: &mut Record,
    port: &OwnedFd,
    host: Arc<LocalHost>,
    terminals: Terminals,
) -> Result<Server, String> {
    todo!()
}
