//! Descriptors on the async runtime.

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Registers a non-blocking descriptor with the current runtime.
///
/// # Errors
/// Where the runtime's poll cannot take it (`epoll_ctl(2)`).
pub fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, always says the same number, and is closed only when it is dropped, which the AsyncFd
    // that owns it does after its own deregistration.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(io::Error::from)
}
