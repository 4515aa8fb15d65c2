//! Descriptors: those we were born with, anonymous files, locks.

use std::{
    fs::File,
    io::{self, Seek, Write},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
    path::Path,
};

use nix::{
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open},
    sys::{
        memfd::{MFdFlags, memfd_create},
        stat::Mode,
    },
};

/// The descriptor over which a role of this program is told what to do.
pub const INHERITED: RawFd = 3;

/// Takes descriptor `number`, which this process was started with, and marks it close-on-exec.
///
/// To be called once per number, in `main`, before anything else opens descriptors.
///
/// # Errors
/// `EBADF` where there is none: the program was not started by itself.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the number is only looked at, and F_GETFD fails with EBADF where it is not open (fcntl(2)).
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and by the rule in the doc nobody else in this process owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    set_close_on_exec(&fd)?;
    Ok(fd)
}

/// Owns a number that the kernel has just returned from a call which makes a descriptor.
pub(crate) fn just_made(number: RawFd) -> OwnedFd {
    // SAFETY: by the contract above nobody else owns it; the few callers pass accept4(2)'s result on directly.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Marks a descriptor close-on-exec.
///
/// # Errors
/// As `fcntl(2)`, which does not fail on an open descriptor.
pub fn set_close_on_exec(fd: &OwnedFd) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(())
}

/// Sets or clears `O_NONBLOCK`.
///
/// # Errors
/// As `fcntl(2)`.
pub fn set_nonblocking<Fd: AsFd>(fd: Fd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd.as_fd(), FcntlArg::F_GETFL)?);
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// An anonymous file in memory holding `contents`, positioned at its start: for messages too large for a datagram.
///
/// # Errors
/// As `memfd_create(2)` and `write(2)`.
pub fn anonymous_file(name: &str, contents: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC)?);
    file.write_all(contents)?;
    file.rewind()?;
    Ok(file.into())
}

/// Opens a path as a mere place (`O_PATH`), without following a link at its end.
///
/// # Errors
/// As `open(2)`.
pub fn place(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// The path under which this process finds one of its own descriptors.
pub fn self_path<Fd: AsFd>(fd: Fd) -> std::path::PathBuf {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()).into()
}
