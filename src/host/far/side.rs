//! A program's stream on this machine, whose other end is a program on another: pipe, terminal, socket or file.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use bytes::{Buf, Bytes, BytesMut};
use nix::sys::stat::{SFlag, fstat};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWriteExt, Interest, unix::AsyncFd},
};

use super::packet::PIECE;
use crate::sys::{descriptor::set_nonblocking, readiness};

/// One descriptor, read or written.
pub(super) enum Side {
    /// As it becomes ready.
    Ready(AsyncFd<OwnedFd>),
    /// By threads: a file is always ready, and may take for ever.
    File(File),
}

impl Side {
    /// Takes a descriptor, which is made non-blocking if it can wait.
    ///
    /// # Errors
    /// As `fstat(2)` and `epoll_ctl(2)`.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        let kind = SFlag::from_bits_truncate(fstat(&fd)?.st_mode) & SFlag::S_IFMT;
        if matches!(kind, SFlag::S_IFREG | SFlag::S_IFDIR | SFlag::S_IFBLK) || is_null(&fd) {
            return Ok(Self::File(File::from_std(fd.into())));
        }
        set_nonblocking(&fd)?;
        let interest = match kind {
            // One end each: the kernel does not watch a pipe for what its other end does.
            SFlag::S_IFIFO if readable(&fd) => Interest::READABLE,
            SFlag::S_IFIFO => Interest::WRITABLE,
            _ => Interest::READABLE | Interest::WRITABLE,
        };
        Ok(Self::Ready(readiness::watch(fd, interest)?))
    }

    /// Reads what there is; nothing at the end, and where the other side of a terminal is gone. May be dropped while it waits,
    /// except with a file.
    ///
    /// # Errors
    /// As `read(2)`.
    pub(super) async fn read(&mut self) -> io::Result<Bytes> {
        let mut buffer = BytesMut::zeroed(PIECE);
        let count = match self {
            Self::File(file) => file.read(&mut buffer).await?,
            Self::Ready(fd) => {
                let read =
                    fd.async_io(Interest::READABLE, |fd| Ok(nix::unistd::read(fd, &mut buffer)?)).await;
                match read {
                    Err(error) if error.raw_os_error() == Some(libc::EIO) => 0,
                    other => other?,
                }
            }
        };
        buffer.truncate(count);
        // What is kept of it is what was read.
        Ok(if count < PIECE / 8 { Bytes::copy_from_slice(&buffer) } else { buffer.freeze() })
    }

    /// Reads what there is at this moment; `None` where there is nothing.
    pub(super) fn read_now(&self) -> Option<Bytes> {
        let Self::Ready(fd) = self else { return None };
        let mut buffer = BytesMut::zeroed(PIECE);
        let count = nix::unistd::read(fd.get_ref(), &mut buffer).ok().filter(|count| *count > 0)?;
        buffer.truncate(count);
        Some(buffer.freeze())
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// As `write(2)`.
    pub(super) async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => {
                file.write_all(bytes).await?;
                file.flush().await
            }
            Self::Ready(fd) => {
                while !bytes.is_empty() {
                    let wrote =
                        fd.async_io(Interest::WRITABLE, |fd| Ok(nix::unistd::write(fd, bytes)?)).await?;
                    bytes = bytes.get(wrote..).unwrap_or_default();
                }
                Ok(())
            }
        }
    }

    /// Writes some of it, and leaves the rest. May be dropped while it waits, except with a file.
    ///
    /// # Errors
    /// As `write(2)`.
    pub(super) async fn write_some(&mut self, bytes: &mut Bytes) -> io::Result<()> {
        let wrote = match self {
            Self::File(_) => {
                self.write(bytes).await?;
                bytes.len()
            }
            Self::Ready(fd) => {
                fd.async_io(Interest::WRITABLE, |fd| Ok(nix::unistd::write(fd, bytes)?)).await?
            }
        };
        bytes.advance(wrote);
        Ok(())
    }

    /// The descriptor, where it is one that can wait.
    pub(super) fn fd(&self) -> Option<&OwnedFd> {
        match self {
            Self::Ready(fd) => Some(fd.get_ref()),
            Self::File(_) => None,
        }
    }
}

fn is_null(fd: &OwnedFd) -> bool {
    let null = nix::sys::stat::stat("/dev/null").map(|null| null.st_rdev);
    matches!((fstat(fd), null), (Ok(its), Ok(null)) if its.st_rdev == null && its.st_rdev != 0)
}

fn readable(fd: &OwnedFd) -> bool {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = fcntl(fd.as_fd(), FcntlArg::F_GETFL).map(OFlag::from_bits_truncate);
    !flags.is_ok_and(|flags| flags & OFlag::O_ACCMODE == OFlag::O_WRONLY)
}
