//! Pods: a number for each session on a node, and the ports that go with it. The kernel is the register: whoever has bound
//! the ssh port has the pod, whichever user it is.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::fd::{AsRawFd, OwnedFd},
    os::unix::net::UnixListener,
    path::Path,
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
        sockopt,
    },
};

use crate::{
    config::Listen,
    words::{PodNumber, PodRange},
};

/// Why there is no pod.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// All are taken.
    #[error("no pod is free: all ports from {first} to {last} are in use")]
    NoneFree {
        /// The first ssh port.
        first: u16,
        /// The last.
        last: u16,
    },
    /// The pod that was asked for is taken.
    #[error("cannot bind pod {pod}'s port {port}: {source}")]
    Taken {
        /// Which pod.
        pod: PodNumber,
        /// Which of its ports.
        port: u16,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Pods have too few ports.
    #[error("a session in a job needs a third port: pods.width must be 3 or more")]
    NoLink,
    /// The address or the socket's path cannot be listened on.
    #[error("cannot listen on {what}: {source}")]
    Listen {
        /// The address or path.
        what: String,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// Where a gateway listens.
pub enum Listener {
    /// On a port.
    Tcp(TcpListener),
    /// On a socket in the session's own folder.
    Unix(UnixListener),
}

/// A pod, taken for as long as its sockets are open.
pub struct Allocated {
    /// Its number.
    pub pod: PodNumber,
    /// Its ssh port, bound on all addresses. Nobody listens on it yet.
    pub ssh: OwnedFd,
    /// Its gateway's listener.
    pub gateway: Listener,
    /// The gateway's port; with a unix socket, the port it would have.
    pub port: u16,
    /// The listener for its host, where that is another machine.
    pub link: Option<TcpListener>,
}

/// What a pod is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum HostAt {
    /// Its host is this very machine.
    Here,
    /// Its host is another, and is to dial it.
    Elsewhere,
}

impl Allocated {
    /// Takes the first free pod.
    ///
    /// # Errors
    /// As [`PodError`].
    pub fn first_free(
        range: PodRange,
        listen: &Listen,
        session: &Path,
        host: HostAt,
    ) -> Result<Self, PodError> {
        for pod in range.pods() {
            match Self::take(pod, range, listen, session, host) {
                Err(PodError::Taken { source, .. }) if source.kind() == io::ErrorKind::AddrInUse => {}
                other => return other,
            }
        }
        let mut all = range.pods();
        let first = all.next().map_or(0, |pod| range.ssh_port(pod));
        Err(PodError::NoneFree { first, last: all.last().map_or(first, |pod| range.ssh_port(pod)) })
    }

    /// Takes this very pod.
    ///
    /// # Errors
    /// As [`PodError`].
    pub fn take(
        pod: PodNumber,
        range: PodRange,
        wanted: &Listen,
        session: &Path,
        host: HostAt,
    ) -> Result<Self, PodError> {
        let (ssh_port, port) = (range.ssh_port(pod), range.https_port(pod));
        let taken = |port| move |errno: Errno| PodError::Taken { pod, port, source: errno.into() };
        // Without SO_REUSEADDR, and on all addresses: so that it excludes every other bind to this port.
        let ssh = bound(None, ssh_port, Reuse::No).map_err(taken(ssh_port))?;
        let gateway = match wanted {
            Listen::Unix => Listener::Unix(listen_in(session)?),
            Listen::All => Listener::Tcp(listening(None, port).map_err(taken(port))?),
            Listen::Address(ip) => {
                Listener::Tcp(listening(Some(*ip), port).map_err(|errno| match errno {
                    Errno::EADDRNOTAVAIL => PodError::Listen { what: ip.to_string(), source: errno.into() },
                    errno => taken(port)(errno),
                })?)
            }
        };
        let link = match host {
            HostAt::Here => None,
            HostAt::Elsewhere => {
                let port = range.link_port(pod).ok_or(PodError::NoLink)?;
                // Nodes come from wherever they are; whoever else comes has to prove that he is one.
                Some(listening(None, port).map_err(taken(port))?)
            }
        };
        Ok(Self { pod, ssh, gateway, port, link })
    }
}

fn listen_in(session: &Path) -> Result<UnixListener, PodError> {
    let path = session.join("gateway");
    UnixListener::bind(&path).map_err(|source| PodError::Listen { what: path.display().to_string(), source })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reuse {
    /// Nobody else may bind the port.
    No,
    /// Connections of an earlier session that are still closing do not count; listeners do.
    Closing,
}

fn bound(ip: Option<IpAddr>, port: u16, reuse: Reuse) -> Result<OwnedFd, Errno> {
    match ip {
        Some(ip) => bound_to(SocketAddr::new(ip, port), reuse),
        // One socket for both families, where the kernel has both.
        None => match bound_to((Ipv6Addr::UNSPECIFIED, port).into(), reuse) {
            Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => {
                bound_to((Ipv4Addr::UNSPECIFIED, port).into(), reuse)
            }
            other => other,
        },
    }
}

fn bound_to(address: SocketAddr, reuse: Reuse) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        setsockopt(&fd, sockopt::Ipv6V6Only, &false)?;
    }
    if reuse == Reuse::Closing {
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(fd)
}

fn listening(ip: Option<IpAddr>, port: u16) -> Result<TcpListener, Errno> {
    let fd = bound(ip, port, Reuse::Closing)?;
    // Two sockets with SO_REUSEADDR may be bound to one port; only one of them gets to listen.
    listen(&fd, Backlog::new(1024)?)?;
    Ok(TcpListener::from(fd))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_is_taken_is_not_given_again_whatever_the_address() {
        // Below the ports that the kernel gives to outgoing connections, which others make meanwhile.
        let range = PodRange::new(14_200, 10, 3).unwrap();
        let folder = Path::new("/nonexistent");
        let any = Allocated::first_free(range, &Listen::All, folder, HostAt::Here).unwrap();
        let local =
            Allocated::first_free(range, &Listen::Address(Ipv4Addr::LOCALHOST.into()), folder, HostAt::Here)
                .unwrap();
        let third = Allocated::first_free(range, &Listen::All, folder, HostAt::Here).unwrap();
        let mut numbers = [any.pod, local.pod, third.pod].map(PodNumber::value);
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2, 3]);
        assert!(matches!(
            Allocated::first_free(range, &Listen::All, folder, HostAt::Here),
            Err(PodError::NoneFree { .. })
        ));
        assert!(std::net::TcpListener::bind(("127.0.0.1", range.ssh_port(any.pod))).is_err());
        drop(local);
        let again = Allocated::first_free(range, &Listen::All, folder, HostAt::Here).unwrap();
        assert_eq!(again.port, range.https_port(again.pod));
    }
}
