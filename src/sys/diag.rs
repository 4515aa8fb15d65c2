//! What listens, asked of the kernel directly (`sock_diag(7)`): it walks its listeners only, where `/proc/net/tcp` walks
//! the table of all connections of the whole machine, which takes milliseconds.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use nix::sys::socket::{MsgFlags, NetlinkAddr, recv, sendto};

const HEADER: usize = 16;
/// `SOCK_DIAG_BY_FAMILY`, of `linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;
/// `1 << TCP_LISTEN`, of `linux/tcp_states.h`.
const LISTENING: u32 = 1 << 10;
/// The length of `inet_diag_msg`, of `linux/inet_diag.h`, up to and with its inode.
const ANSWER: usize = 72;

/// The listening TCP sockets of one family in the current network namespace, each with its inode.
///
/// # Errors
/// As `sock_diag(7)`; `NotFound` where the kernel has no such thing.
pub fn listening(family: Family) -> io::Result<Vec<(SocketAddr, u64)>> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: socket(2) takes plain numbers; its result is checked before it is owned.
    let raw = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_SOCK_DIAG) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    sendto(socket.as_raw_fd(), &request(family), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut found = Vec::new();
    let mut buffer = [0_u8; 32 * 1024];
    loop {
        let len = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if read_messages(&buffer[..len], &mut found)? {
            return Ok(found);
        }
    }
}

/// Which addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6, and IPv4 through it.
    V6,
}

fn request(family: Family) -> Vec<u8> {
    let family = match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
    // inet_diag_req_v2: family, protocol, extensions, padding, states, and an empty inet_diag_sockid of 48 bytes.
    let mut body = vec![
        u8::try_from(family).unwrap_or_default(),
        u8::try_from(libc::IPPROTO_TCP).unwrap_or_default(),
        0,
        0,
    ];
    body.extend_from_slice(&LISTENING.to_ne_bytes());
    body.extend_from_slice(&[0; 48]);
    let mut message = Vec::with_capacity(HEADER + body.len());
    // nlmsghdr: length, type, flags, sequence, port. All of it fits its field: the numbers are small and fixed.
    message.extend_from_slice(&u32::try_from(HEADER + body.len()).unwrap_or_default().to_ne_bytes());
    message.extend_from_slice(&BY_FAMILY.to_ne_bytes());
    message.extend_from_slice(&u16::try_from(flags).unwrap_or_default().to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(&body);
    message
}

/// Takes in what one datagram holds. `true` where it was the last.
fn read_messages(mut bytes: &[u8], found: &mut Vec<(SocketAddr, u64)>) -> io::Result<bool> {
    while let (Some(len), Some(kind)) = (u32_at(bytes, 0), bytes.get(4..6)) {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let body = bytes.get(HEADER..len).ok_or(io::ErrorKind::InvalidData)?;
        match i32::from(u16::from_ne_bytes([kind[0], kind[1]])) {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => {
                let code =
                    u32_at(body, 0).map_or(libc::EINVAL, |code| i32::from_ne_bytes(code.to_ne_bytes()).abs());
                return Err(io::Error::from_raw_os_error(code));
            }
            _ => found.extend(socket_of(body)),
        }
        // Messages begin at multiples of four (netlink(3)).
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// inet_diag_msg: family at 0, port at 4 and address at 8 in network order, inode at 68.
fn socket_of(body: &[u8]) -> Option<(SocketAddr, u64)> {
    let body = body.get(..ANSWER)?;
    let port = u16::from_be_bytes([body[4], body[5]]);
    let ip: IpAddr = match i32::from(body[0]) {
        libc::AF_INET => Ipv4Addr::new(body[8], body[9], body[10], body[11]).into(),
        libc::AF_INET6 => Ipv6Addr::from(<[u8; 16]>::try_from(&body[8..24]).ok()?).into(),
        _ => return None,
    };
    Some((SocketAddr::new(ip, port), u32_at(body, 68)?.into()))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_and_a_cut_answer_are_errors() {
        let mut error = 20_u32.to_ne_bytes().to_vec();
        error.extend_from_slice(&2_u16.to_ne_bytes());
        error.extend_from_slice(&[0; 10]);
        error.extend_from_slice(&(-libc::ENOENT).to_ne_bytes());
        let told = read_messages(&error, &mut Vec::new()).unwrap_err();
        assert_eq!(told.kind(), io::ErrorKind::NotFound);
        assert!(read_messages(&error[..18], &mut Vec::new()).is_err());
    }
}
