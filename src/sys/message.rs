//! Datagrams with descriptors, over `SOCK_SEQPACKET` sockets: what is sent at once arrives at once, or not at all.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use nix::{
    cmsg_space,
    errno::Errno,
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
        socketpair,
    },
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
/// # Errors
/// As `recvmsg(2)`. `InvalidData` where the message was cut off, carried more than [`MAX_FDS`] descriptors, or anything
/// but descriptors: what came with it is closed before this returns.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<(usize, Vec<OwnedFd>)>> {
    let mut control = cmsg_space!([RawFd; MAX_FDS]);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = loop {
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    let mut strange = false;
    for part in message.cmsgs()? {
        match part {
            ControlMessageOwned::ScmRights(raw) => {
                // SAFETY: the kernel has just installed these numbers for us (unix(7), SCM_RIGHTS); nobody else knows them.
                fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
            _ => strange = true,
        }
    }
    let cut = message.flags.intersects(MsgFlags::MSG_CTRUNC | MsgFlags::MSG_TRUNC);
    if cut || strange {
        return Err(io::ErrorKind::InvalidData.into());
    }
    if message.bytes == 0 {
        // A datagram of no bytes cannot be told from the end; we never send one, so whoever does is cut off.
        return Ok(None);
    }
    Ok(Some((message.bytes, fds)))
}

/// Whether a received descriptor is a connected stream socket of family `AF_INET`, `AF_INET6` or `AF_UNIX`.
pub fn is_connected_stream<Fd: AsFd>(fd: Fd) -> bool {
    use nix::sys::socket::{SockaddrLike, SockaddrStorage, getpeername, getsockopt, sockopt};
    let kind = getsockopt(&fd, sockopt::SockType);
    let peer = getpeername::<SockaddrStorage>(fd.as_fd().as_raw_fd());
    let family = peer.ok().and_then(|peer| peer.family());
    kind == Ok(SockType::Stream)
        && matches!(family, Some(AddressFamily::Inet | AddressFamily::Inet6 | AddressFamily::Unix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_descriptors() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count()
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
        let before = open_descriptors();
        let raw = vec![a.as_raw_fd(); 253];
        let mut buffer = vec![0; MAX_LEN];
        for _ in 0..20 {
            let rights = [ControlMessage::ScmRights(&raw)];
            sendmsg::<()>(a.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None).unwrap();
            let error = receive(b.as_fd(), &mut buffer).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        assert_eq!(open_descriptors(), before);
    }

    #[test]
    fn only_connected_stream_sockets_pass_as_such() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(is_connected_stream(&stream));
        assert!(!is_connected_stream(&listener));
        assert!(!is_connected_stream(&std::net::UdpSocket::bind("127.0.0.1:0").unwrap()));
        assert!(!is_connected_stream(&std::fs::File::open("/dev/null").unwrap()));
        assert!(!is_connected_stream(&pair().unwrap().0));
    }
}
