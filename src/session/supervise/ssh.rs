//! The session's ssh server, as its supervisor holds it: its listener, its key, and what programs see of it.

use std::{io, net::TcpListener, os::fd::OwnedFd, path::PathBuf};

use nix::sys::socket::{Backlog, listen};

use crate::{
    sandbox::SandboxSpec,
    session::{Record, SessionSpec, SshRecord},
    ssh::{Inside, Server, Settings, SpendToken, Temporary},
    words::{Isolation, TmpMode},
};

/// Connections that nobody has taken yet.
const BACKLOG: i32 = 128;

/// Opens it on the pod's port, where the gateway listens as well, and puts port and key into the record. With
/// `ssh.enabled = false`, or where the gateway is a socket in a private folder, nothing listens there; the owner's own
/// processes are served all the same.
pub(super) fn open(
    spec: &SessionSpec,
    record: &mut Record,
    port: &OwnedFd,
    inside: Inside,
    spend_token: SpendToken,
) -> Result<Server, String> {
    let keys = spec.gateway.keys.join("ssh");
    let settings = Settings { inside, keys, config: spec.ssh.clone(), spend_token };
    let server = Server::new(settings).map_err(|error| error.to_string())?;
    let open = spec.ssh.enabled && record.gateway.socket.is_none();
    let listener = open.then(|| listening(port)).transpose();
    let listener = listener.map_err(|error| format!("cannot listen on the pod's ssh port: {error}"))?;
    record.ssh = Some(SshRecord {
        port: listener.as_ref().and_then(|listener| listener.local_addr().ok()).map(|at| at.port()),
        host_key: server.host_key(),
        fingerprint: server.fingerprint(),
    });
    if let Some(listener) = listener {
        tokio::spawn(server.clone().serve_tcp(listener, record.gateway.address));
    }
    Ok(server)
}

/// The port stays bound by who has given us this, until nothing is left of the session.
fn listening(port: &OwnedFd) -> io::Result<TcpListener> {
    let port = port.try_clone()?;
    listen(&port, Backlog::new(BACKLOG)?)?;
    Ok(TcpListener::from(port))
}

/// Where programs of the session have their temporary files, from both sides.
pub(super) fn temporary(sandbox: &SandboxSpec) -> Temporary {
    let inside = PathBuf::from("/tmp");
    let outside = match (sandbox.isolation, sandbox.tmp) {
        (Isolation::Namespace, TmpMode::Private) => sandbox.footprint.tmp(),
        _ => inside.clone(),
    };
    Temporary { outside, inside }
}
