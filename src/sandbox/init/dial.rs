//! Connections and listeners that init makes for the supervisor, none of which may hold it up.

use std::{
    collections::HashMap,
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrLike, SockaddrStorage, UnixAddr, connect, getsockopt,
        socket, sockopt,
    },
};

use crate::sandbox::protocol::{Endpoint, Event, RequestId};

/// The most connections under way at once, and the most sockets; more are refused, for an app that does not accept must
/// not fill our table.
const MOST: usize = 256;

/// Connections under way.
#[derive(Default)]
pub(super) struct Pending(Vec<(RequestId, OwnedFd)>);

impl Pending {
    /// Begins one. The event is its failure, where that is known at once.
    pub(super) fn begin(&mut self, id: RequestId, to: &Endpoint) -> Option<Event> {
        if self.0.len() >= MOST {
            return Some(Event::NotConnected { id, errno: Errno::EAGAIN as i32 });
        }
        match attempt(to) {
            Ok(socket) => {
                self.0.push((id, socket));
                None
            }
            Err(error) => Some(Event::NotConnected { id, errno: error.raw_os_error().unwrap_or_default() }),
        }
    }

    /// The sockets to wait on, for writing.
    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(|(_, socket)| socket.as_fd())
    }

    /// Takes out those whose fate is known.
    pub(super) fn finished(&mut self) -> Vec<(Event, Option<OwnedFd>)> {
        let mut done = Vec::new();
        for (id, socket) in std::mem::take(&mut self.0) {
            match getsockopt(&socket, sockopt::SocketError) {
                Ok(0) if is_connected(&socket) => done.push((Event::Connected { id }, Some(socket))),
                Ok(0) => self.0.push((id, socket)),
                Ok(errno) => done.push((Event::NotConnected { id, errno }, None)),
                Err(errno) => done.push((Event::NotConnected { id, errno: errno as i32 }, None)),
            }
        }
        done
    }
}

fn is_connected(socket: &OwnedFd) -> bool {
    nix::sys::socket::getpeername::<SockaddrStorage>(socket.as_raw_fd()).is_ok()
}

/// The sockets in the filesystem that were made for listening, by path: device and inode of each.
#[derive(Default)]
pub(super) struct Sockets(HashMap<PathBuf, (u64, u64)>);

impl Sockets {
    /// Listens, for programs of the session. A socket in the filesystem is its owner's alone, as an ssh server makes it.
    pub(super) fn listen(&mut self, at: &Endpoint) -> io::Result<OwnedFd> {
        let path = match at {
            Endpoint::Tcp(address) => return Ok(std::net::TcpListener::bind(address)?.into()),
            Endpoint::Unix(path) => path,
        };
        if self.0.len() >= MOST {
            return Err(Errno::EAGAIN.into());
        }
        let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
        let bound = std::os::unix::net::UnixListener::bind(path);
        nix::sys::stat::umask(before);
        let bound = bound?;
        if let Some(made) = identity(path) {
            self.0.insert(path.clone(), made);
        }
        Ok(bound.into())
    }

    /// Removes one of them. What stands there by now and is another's stays.
    pub(super) fn unlink(&mut self, path: &Path) {
        let made = self.0.remove(path);
        if made.is_some() && made == identity(path) {
            // It may be gone already, or its folder may be closed to us by now: an app's own affair.
            let _ = fs::remove_file(path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

fn attempt(to: &Endpoint) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let open = |family| socket(family, SockType::Stream, flags, None);
    let (made, result) = match to {
        Endpoint::Tcp(address) => {
            let address = SockaddrStorage::from(*address);
            let made = open(address.family().unwrap_or(AddressFamily::Inet))?;
            let result = connect(made.as_raw_fd(), &address);
            (made, result)
        }
        Endpoint::Unix(path) => {
            let made = open(AddressFamily::Unix)?;
            let result = connect(made.as_raw_fd(), &UnixAddr::new(path)?);
            (made, result)
        }
    };
    match result {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(made),
        Err(errno) => Err(errno.into()),
    }
}
