//! Sockets in the abstract namespace: they have no file and no permissions; only the network namespace keeps others
//! away.

use std::{io, os::fd::AsRawFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt};

use super::{
    Finding,
    finding::Outcome,
    tables,
    target::{AbstractSocket, SandboxAt, Target},
};
use crate::words::Isolation;

/// Looks for each on the host, and connects to its name there.
pub(super) fn attack(target: &Target) -> Vec<Finding> {
    if target.sandbox != SandboxAt::Here {
        return Vec::new();
    }
    if target.abstracts.is_empty() {
        let none = Outcome::Held("there is none".to_owned());
        return vec![Finding::new("abstract sockets inside", "look for any", none)];
    }
    let host = tables::abstract_sockets(&tables::ours()).unwrap_or_default();
    target.abstracts.iter().map(|inside| one(inside, &host, target)).collect()
}

fn one(inside: &AbstractSocket, host: &[AbstractSocket], target: &Target) -> Finding {
    let is_visible = host.iter().any(|socket| socket.inode == inside.inode);
    let outcome = match reach(inside) {
        // The number of its inode says that it is the very socket; a name alone may be another's.
        Ok((pid, _)) if is_visible || target.processes.iter().any(|its| its.pid == pid) => {
            Outcome::Through("connected".to_owned())
        }
        Ok((pid, uid)) => Outcome::Held(format!(
            "another socket has this name on the host, of process {pid} and user {uid}; it is not in the session"
        )),
        // Without a network of its own it is to be seen; that nobody gets in is what matters.
        Err(error) if is_visible && target.isolation == Isolation::Socket => {
            Outcome::Held(format!("seen, but not to be connected to: {error}"))
        }
        Err(_) if is_visible => Outcome::Through("seen on the host".to_owned()),
        Err(error) => Outcome::Held(format!("not seen on the host, and {error}")),
    };
    let name = String::from_utf8_lossy(&inside.name);
    Finding::new(format!("abstract socket @{name}"), "look and connect", outcome)
}

/// Who took the connection, by the kernel's word.
fn reach(to: &AbstractSocket) -> io::Result<(i32, u32)> {
    let kind = SockType::try_from(to.kind).unwrap_or(SockType::Stream);
    let made = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    connect(made.as_raw_fd(), &UnixAddr::new_abstract(&to.name)?)?;
    let who = getsockopt(&made, sockopt::PeerCredentials)?;
    Ok((who.pid(), who.uid()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::{linux::net::SocketAddrExt, unix::net};

    #[test]
    fn a_socket_on_the_host_is_seen_and_reached() {
        let name = format!("shlogin-verify-{}", std::process::id());
        let address = net::SocketAddr::from_abstract_name(&name).unwrap();
        let listener = net::UnixListener::bind_addr(&address).unwrap();
        let seen = tables::abstract_sockets(&tables::ours()).unwrap();
        let socket = seen.iter().find(|socket| socket.name == name.as_bytes()).unwrap();
        assert_eq!(reach(socket).unwrap().0, i32::try_from(std::process::id()).unwrap());
        drop(listener);
        assert!(reach(socket).is_err());
    }
}
