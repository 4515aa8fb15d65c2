//! Terminals: pairs of them, their size, raw mode.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    pty::{OpenptyResult, Winsize, openpty},
    sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr},
};

mod ioctl {
    #![allow(missing_docs, unreachable_pub, reason = "made by macros; ioctl_tty(2) documents them")]
    nix::ioctl_read_bad!(get_size, libc::TIOCGWINSZ, nix::pty::Winsize);
    nix::ioctl_write_ptr_bad!(set_size, libc::TIOCSWINSZ, nix::pty::Winsize);
}

/// A new pseudoterminal: (ours, the program's), both close-on-exec, with the size and modes given.
///
/// # Errors
/// As `openpty(3)`.
pub fn pair(size: &Winsize, modes: Option<&Termios>) -> io::Result<(OwnedFd, OwnedFd)> {
    let OpenptyResult { master, slave } = openpty(Some(size), modes)?;
    for fd in [&master, &slave] {
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    Ok((master, slave))
}

/// The modes that the kernel gives a new terminal.
///
/// # Errors
/// As `openpty(3)`.
pub fn usual_modes() -> io::Result<Termios> {
    // Both ends: a terminal whose other end is closed says nothing of itself (`EIO`).
    let pair = openpty(None, None)?;
    Ok(tcgetattr(&pair.slave)?)
}

/// The size of a terminal, in rows and columns.
///
/// # Errors
/// `ENOTTY` where it is none.
pub fn size(tty: BorrowedFd<'_>) -> io::Result<Winsize> {
    let mut size = Winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel writes one winsize, which we own (ioctl_tty(2)).
    unsafe { ioctl::get_size(tty.as_raw_fd(), &raw mut size)? };
    Ok(size)
}

/// Sets it; the program on the terminal gets `SIGWINCH`.
///
/// # Errors
/// `ENOTTY` where it is none.
pub fn resize(tty: BorrowedFd<'_>, size: &Winsize) -> io::Result<()> {
    // SAFETY: the kernel reads one winsize, which outlives the call.
    unsafe { ioctl::set_size(tty.as_raw_fd(), std::ptr::from_ref(size))? };
    Ok(())
}

/// A terminal in raw mode, set back when dropped.
pub struct RawMode<'a> {
    tty: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> RawMode<'a> {
    /// Puts the terminal into raw mode.
    ///
    /// # Errors
    /// `ENOTTY` where it is none.
    pub fn enter(tty: BorrowedFd<'a>) -> io::Result<Self> {
        let before = tcgetattr(tty)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(tty, SetArg::TCSADRAIN, &raw)?;
        Ok(Self { tty, before })
    }

    /// The modes it had before.
    pub fn before(&self) -> &Termios {
        &self.before
    }
}

impl Drop for RawMode<'_> {
    fn drop(&mut self) {
        // A terminal that is gone cannot be set back, and nobody is left to tell.
        let _ = tcsetattr(self.tty.as_fd(), SetArg::TCSADRAIN, &self.before);
    }
}
