//! The name service, where the node's own listens on its loopback: the same addresses, inside.

use std::{
    io,
    net::{IpAddr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
};

/// The port of DNS (RFC 1035).
const DNS: u16 = 53;

/// A UDP and a TCP socket for each resolver, bound to its address in this network namespace. Needs
/// `CAP_NET_BIND_SERVICE` over it.
pub(super) fn sockets(resolvers: &[IpAddr]) -> io::Result<Vec<OwnedFd>> {
    let mut made = Vec::new();
    for resolver in resolvers {
        made.push(UdpSocket::bind((*resolver, DNS))?.into());
        made.push(TcpListener::bind((*resolver, DNS))?.into());
    }
    Ok(made)
}
