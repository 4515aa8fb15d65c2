//! The two things asked of rtnetlink(7): which interfaces there are, and routes that end here.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use nix::{
    net::if_::{if_nameindex, if_nametoindex},
    sys::socket::{MsgFlags, NetlinkAddr, recv, sendto},
};

const HEADER: usize = 16;

/// A prefix of addresses, all of which are to be the namespace's own.
#[derive(Clone, Copy, Debug)]
pub struct Prefix {
    /// Its first address.
    pub address: IpAddr,
    /// How many of its bits count.
    pub bits: u8,
}

/// The numbers of all interfaces of the current network namespace but its loopback.
///
/// # Errors
/// As `if_nameindex(3)`.
pub fn devices() -> io::Result<Vec<u32>> {
    let loopback = if_nametoindex("lo")?;
    Ok(if_nameindex()?
        .iter()
        .map(nix::net::if_::Interface::index)
        .filter(|index| *index != loopback)
        .collect())
}

/// Makes every address of `prefix` one of this namespace's own on interface `device` (`RTN_LOCAL` in the local table): a
/// packet for it ends here, also where its sender has chosen that interface (`SO_BINDTODEVICE`), which passes over
/// routes by other ones.
///
/// # Errors
/// As rtnetlink's `RTM_NEWROUTE`; needs `CAP_NET_ADMIN` over the namespace.
pub fn keep_local(prefix: Prefix, device: u32) -> io::Result<()> {
    // SAFETY: socket(2) takes plain numbers; its result is checked before it is owned.
    let raw =
        unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let kernel = NetlinkAddr::new(0, 0);
    sendto(socket.as_raw_fd(), &local_route(prefix, device), &kernel, MsgFlags::empty())?;
    let mut answer = [0_u8; 512];
    let len = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    // nlmsghdr, then the error number of nlmsgerr, negative; 0 is the acknowledgement (netlink(7)).
    let code = answer[..len].get(HEADER..HEADER + 4).ok_or(io::ErrorKind::UnexpectedEof)?;
    match i32::from_ne_bytes([code[0], code[1], code[2], code[3]]) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(-code)),
    }
}

/// Less preferred than the kernel's own local routes (metric 0), beside which some of these stand.
const METRIC: u32 = 10;

fn local_route(prefix: Prefix, device: u32) -> Vec<u8> {
    let (family, octets) = match prefix.address {
        IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
    };
    let mut body = Vec::new();
    // rtmsg: family, destination bits, source bits, TOS, table, protocol, scope, type, flags.
    body.push(u8::try_from(family).unwrap_or_default());
    body.extend_from_slice(&[prefix.bits, 0, 0, libc::RT_TABLE_LOCAL, libc::RTPROT_STATIC]);
    body.extend_from_slice(&[libc::RT_SCOPE_HOST, libc::RTN_LOCAL]);
    body.extend_from_slice(&0_u32.to_ne_bytes());
    attribute(&mut body, libc::RTA_DST, &octets);
    attribute(&mut body, libc::RTA_OIF, &device.to_ne_bytes());
    attribute(&mut body, libc::RTA_PRIORITY, &METRIC.to_ne_bytes());
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let mut message = Vec::with_capacity(HEADER + body.len());
    // nlmsghdr: length, type, flags, sequence, port. All of it fits its field: the numbers are small and fixed.
    message.extend_from_slice(&u32::try_from(HEADER + body.len()).unwrap_or_default().to_ne_bytes());
    message.extend_from_slice(&libc::RTM_NEWROUTE.to_ne_bytes());
    message.extend_from_slice(&u16::try_from(flags).unwrap_or_default().to_ne_bytes());
    message.extend_from_slice(&1_u32.to_ne_bytes());
    message.extend_from_slice(&0_u32.to_ne_bytes());
    message.extend_from_slice(&body);
    message
}

/// Appends an rtattr: length, type, value, which all are multiples of four bytes here.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend_from_slice(&u16::try_from(4 + value.len()).unwrap_or_default().to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
}
