//! Datagrams with descriptors, over `SOCK_SEQPACKET` sockets: what is sent at once arrives at once, or not at all.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair},
};

/// The longest message, in bytes. More goes through an anonymous file whose descriptor is sent.
pub const MAX_LEN: usize = 64 * 1024;
/// The most descriptors that one message may carry.
pub const MAX_FDS: usize = 8;

/// Two connected ends, close-on-exec, blocking.
///
/// # Errors
/// As `socketpair(2)`.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends one message with its descriptors.
///
/// # Errors
/// As `sendmsg(2)`; `EPIPE` where the other end is gone (no signal is raised), `EAGAIN` where a non-blocking socket is full.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if bytes.is_empty() || bytes.len() > MAX_LEN || fds.len() > MAX_FDS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    let parts = [IoSlice::new(bytes)];
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Receives one message into `buffer` (of at least [`MAX_LEN`] bytes) and returns its length and descriptors.
/// `None` where the other end is gone.
///
/// A descriptor for which this process has no number left is missing from them.
///
/// # Errors
/// As `recvmsg(2)`. `InvalidData` where the message was cut off, carried more than [`MAX_FDS`] descriptors, or anything
/// but descriptors: what came with it is closed before this returns.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<(usize, Vec<OwnedFd>)>> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // In units of the header's own alignment (cmsg(3)), and room for as many descriptors as a message may carry.
    let mut control = [0_u64; CONTROL_LEN.div_ceil(8)];
    // SAFETY: msghdr is plain data (recvmsg(2)), for which all zeros is a value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = CONTROL_LEN;
    let len = loop {
        // SAFETY: the header points at `part` and `control`, `part` at `buffer`; all outlive the call, with their lengths.
        let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) };
        if let Ok(len) = usize::try_from(len) {
            break len;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    };
    // Owned before anything is judged. (nix gives a truncated message's descriptors to nobody, so they would stay open.)
    let (fds, strange) = descriptors(&header);
    // Where we have no number left for it, a descriptor is lost without a word but this flag: that is no fault of the
    // sender's, and its message, then without what should have come with it, is for the receiver to judge.
    let too_many = header.msg_flags & libc::MSG_CTRUNC != 0 && !fds.is_empty();
    if strange || too_many || header.msg_flags & libc::MSG_TRUNC != 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    if len == 0 {
        // A datagram of no bytes cannot be told from the end; we never send one, so whoever does is cut off.
        return Ok(None);
    }
    Ok(Some((len, fds)))
}

#[expect(clippy::cast_possible_truncation, reason = "a handful of descriptors")]
// SAFETY: CMSG_SPACE is arithmetic on its argument (cmsg(3)).
const CONTROL_LEN: usize = unsafe { libc::CMSG_SPACE((MAX_FDS * size_of::<RawFd>()) as u32) } as usize;

/// Takes over all descriptors that a received header carries, and says whether it carried anything else.
fn descriptors(header: &libc::msghdr) -> (Vec<OwnedFd>, bool) {
    let mut fds = Vec::new();
    let mut strange = false;
    // SAFETY: the kernel has filled in the control buffer and its length; the macros stay within it (cmsg(3)), and what
    // lies behind an SCM_RIGHTS header are descriptors that it has just installed for us (unix(7)), known to nobody else.
    // They are read unaligned, since a cut message may end anywhere.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(header);
        while let Some(part) = next.as_ref() {
            if (part.cmsg_level, part.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let first = libc::CMSG_DATA(next).cast::<RawFd>();
                let bytes = part.cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize);
                for n in 0..bytes / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(first.add(n).read_unaligned()));
                }
            } else {
                strange = true;
            }
            next = libc::CMSG_NXTHDR(header, next);
        }
    }
    (fds, strange)
}

/// Whether a received descriptor is a connected stream socket of family `AF_INET`, `AF_INET6` or `AF_UNIX`.
pub fn is_connected_stream<Fd: AsFd>(fd: &Fd) -> bool {
    use nix::sys::socket::{SockaddrStorage, getpeername};
    is_stream(fd, getpeername::<SockaddrStorage>(fd.as_fd().as_raw_fd()))
}

/// Whether a received descriptor is a listening stream socket of one of these families.
pub fn is_listening_stream<Fd: AsFd>(fd: &Fd) -> bool {
    use nix::sys::socket::{SockaddrStorage, getsockname, getsockopt, sockopt};
    getsockopt(fd, sockopt::AcceptConn) == Ok(true)
        && is_stream(fd, getsockname::<SockaddrStorage>(fd.as_fd().as_raw_fd()))
}

fn is_stream<Fd: AsFd>(fd: &Fd, address: nix::Result<nix::sys::socket::SockaddrStorage>) -> bool {
    use nix::sys::socket::{SockaddrLike, getsockopt, sockopt};
    let family = address.ok().and_then(|address| address.family());
    getsockopt(fd, sockopt::SockType) == Ok(SockType::Stream)
        && matches!(family, Some(AddressFamily::Inet | AddressFamily::Inet6 | AddressFamily::Unix))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many descriptors of this process are of the same socket: other tests open others meanwhile.
    fn copies_of(socket: &OwnedFd) -> usize {
        let same = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        let all = std::fs::read_dir("/proc/self/fd").unwrap();
        all.filter(|entry| std::fs::read_link(entry.as_ref().unwrap().path()).is_ok_and(|its| its == same))
            .count()
    }

    #[test]
    fn bytes_and_descriptors_arrive_together() {
        let (a, b) = pair().unwrap();
        let (x, y) = pair().unwrap();
        send(a.as_fd(), b"take these", &[x.as_fd(), y.as_fd()]).unwrap();
        let mut buffer = vec![0; MAX_LEN];
        let (len, fds) = receive(b.as_fd(), &mut buffer).unwrap().unwrap();
        assert_eq!((&buffer[..len], fds.len()), (&b"take these"[..], 2));
        drop(a);
        assert!(receive(b.as_fd(), &mut buffer).unwrap().is_none());
    }

    /// Threat 4: 253 descriptors in one message. All that the kernel installed is closed again.
    #[test]
    fn a_message_with_too_many_descriptors_leaves_none_behind() {
        let (a, b) = pair().unwrap();
        let raw = vec![a.as_raw_fd(); 253];
        let mut buffer = vec![0; MAX_LEN];
        for _ in 0..20 {
            let rights = [ControlMessage::ScmRights(&raw)];
            sendmsg::<()>(a.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None).unwrap();
            let error = receive(b.as_fd(), &mut buffer).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        assert_eq!(copies_of(&a), 1);
    }

    #[test]
    fn only_connected_stream_sockets_pass_as_such() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(is_connected_stream(&stream));
        assert!(!is_connected_stream(&listener));
        assert!(!is_connected_stream(&std::net::UdpSocket::bind("127.0.0.1:0").unwrap()));
        assert!(!is_connected_stream(&std::fs::File::open("/dev/null").unwrap()));
        assert!(is_listening_stream(&listener));
        assert!(!is_listening_stream(&stream));
        assert!(!is_connected_stream(&pair().unwrap().0));
    }
}
