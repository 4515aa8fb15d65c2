//! The one thing asked of rtnetlink(7): routes that lead nowhere.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, recv, sendto};

const HEADER: usize = 16;

/// Makes `address` unreachable in the current network namespace (`RTN_UNREACHABLE`), whatever other routes come.
///
/// # Errors
/// As rtnetlink's `RTM_NEWROUTE`; needs `CAP_NET_ADMIN` over the namespace.
pub fn make_unreachable(address: IpAddr) -> io::Result<()> {
    // SAFETY: socket(2) takes plain numbers; its result is checked before it is owned.
    let raw =
        unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let kernel = NetlinkAddr::new(0, 0);
    sendto(socket.as_raw_fd(), &unreachable_route(address), &kernel, MsgFlags::empty())?;
    let mut answer = [0_u8; 512];
    let len = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    // nlmsghdr, then the error number of nlmsgerr, negative; 0 is the acknowledgement (netlink(7)).
    let code = answer[..len].get(HEADER..HEADER + 4).ok_or(io::ErrorKind::UnexpectedEof)?;
    match i32::from_ne_bytes([code[0], code[1], code[2], code[3]]) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(-code)),
    }
}

fn unreachable_route(address: IpAddr) -> Vec<u8> {
    let (family, octets) = match address {
        IpAddr::V4(v4) => (AddressFamily::Inet, v4.octets().to_vec()),
        IpAddr::V6(v6) => (AddressFamily::Inet6, v6.octets().to_vec()),
    };
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let attribute_len = 4 + octets.len();
    let total = HEADER + 12 + attribute_len;
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let mut message = Vec::with_capacity(total);
    // nlmsghdr: length, type, flags, sequence, port. All of it fits its field: the numbers are small and fixed.
    message.extend_from_slice(&u32::try_from(total).unwrap_or_default().to_ne_bytes());
    message.extend_from_slice(&libc::RTM_NEWROUTE.to_ne_bytes());
    message.extend_from_slice(&u16::try_from(flags).unwrap_or_default().to_ne_bytes());
    message.extend_from_slice(&1_u32.to_ne_bytes());
    message.extend_from_slice(&0_u32.to_ne_bytes());
    // rtmsg: family, destination bits, source bits, TOS, table, protocol, scope, type, flags.
    message.push(u8::try_from(family as i32).unwrap_or_default());
    message.extend_from_slice(&[bits, 0, 0, libc::RT_TABLE_MAIN, libc::RTPROT_STATIC]);
    message.extend_from_slice(&[libc::RT_SCOPE_UNIVERSE, libc::RTN_UNREACHABLE]);
    message.extend_from_slice(&0_u32.to_ne_bytes());
    // rtattr: length, type, value.
    message.extend_from_slice(&u16::try_from(attribute_len).unwrap_or_default().to_ne_bytes());
    message.extend_from_slice(&libc::RTA_DST.to_ne_bytes());
    message.extend_from_slice(&octets);
    message
}
