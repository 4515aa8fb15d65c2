//! A socket for messages with descriptors, on the async runtime.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{Interest, unix::AsyncFd};

use crate::sys::{descriptor::set_nonblocking, message, readiness};

/// One end of a `SOCK_SEQPACKET` pair: JSON in datagrams, descriptors beside it.
pub struct Channel(AsyncFd<OwnedFd>);

impl Channel {
    /// Registers the socket with the current runtime.
    ///
    /// # Errors
    /// Where it cannot be.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        set_nonblocking(&socket)?;
        Ok(Self(readiness::watch(socket, Interest::READABLE | Interest::WRITABLE)?))
    }

    /// Sends one message.
    ///
    /// # Errors
    /// As [`message::send`].
    pub async fn send<T: Serialize>(&self, value: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(value)?;
        self.0.async_io(Interest::WRITABLE, |socket| message::send(socket.as_fd(), &bytes, fds)).await
    }

    /// Sends one message if there is room for it now; `WouldBlock` where there is none.
    ///
    /// # Errors
    /// As [`message::send`].
    pub fn try_send<T: Serialize>(&self, value: &T) -> io::Result<()> {
        message::send(self.0.get_ref().as_fd(), &serde_json::to_vec(value)?, &[])
    }

    /// Receives one message, using `buffer` of [`message::MAX_LEN`] bytes. `None` where the other end is gone.
    /// May be dropped while it waits without losing anything.
    ///
    /// # Errors
    /// As [`message::receive`]; `InvalidData` where it is not a `T`.
    pub async fn receive<T: DeserializeOwned>(
        &self,
        buffer: &mut [u8],
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let received =
            self.0.async_io(Interest::READABLE, |socket| message::receive(socket.as_fd(), buffer)).await?;
        match received {
            Some((len, fds)) => Ok(Some((serde_json::from_slice(&buffer[..len])?, fds))),
            None => Ok(None),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}
