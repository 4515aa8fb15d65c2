//! Files opened, renamed and linked: where the protocol's words and the kernel's differ.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, RenameFlags, open as open_at, renameat2},
    sys::stat::Mode,
};

use super::refusal::{Refusal, Status};

const READ: u32 = 1;
const WRITE: u32 = 2;
const APPEND: u32 = 4;
const CREATE: u32 = 8;
const TRUNCATE: u32 = 16;
const EXCLUSIVE: u32 = 32;

/// `open(2)`'s flags for the protocol's.
pub(super) fn open_flags(flags: u32) -> Result<OFlag, Refusal> {
    let has = |flag| flags & flag != 0;
    let mut wanted = match (has(READ), has(WRITE)) {
        (true, true) => OFlag::O_RDWR,
        (true, false) => OFlag::O_RDONLY,
        (false, true) => OFlag::O_WRONLY,
        (false, false) => return Err(Refusal::new(Status::BadMessage, "neither to read nor to write")),
    };
    // A truncation without writing is no more than a mistake, and Linux would do it (open(2)).
    wanted.set(OFlag::O_TRUNC, has(TRUNCATE) && has(WRITE));
    wanted.set(OFlag::O_APPEND, has(APPEND));
    wanted.set(OFlag::O_CREAT, has(CREATE));
    wanted.set(OFlag::O_EXCL, has(CREATE) && has(EXCLUSIVE));
    // A pipe without another end would hold the client up for ever; on files it changes nothing.
    Ok(wanted | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
}

/// Opens a file; `mode` is what it gets where it is made.
pub(super) fn open(path: &Path, flags: u32, mode: Mode) -> Result<File, Refusal> {
    Ok(open_at(path, open_flags(flags)?, mode)?.into())
}

/// Renames, unless something is there: version 3 of the protocol knows no replacing.
pub(super) fn rename_to_free(from: &Path, to: &Path) -> Result<(), Refusal> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => Ok(rename_step_by_step(from, to)?),
        Err(Errno::EEXIST) => Err(Refusal::new(Status::Failure, Errno::EEXIST.desc())),
        done => Ok(done?),
    }
}

/// The same for file systems that cannot do it at once, as NFS: a file is linked, which fails where something is; for
/// anything else there is a moment between looking and renaming.
fn rename_step_by_step(from: &Path, to: &Path) -> io::Result<()> {
    if fs::symlink_metadata(from)?.is_file() {
        match fs::hard_link(from, to) {
            Ok(()) => return fs::remove_file(from),
            Err(error) if !cannot_link(&error) => return Err(error),
            Err(_) => {}
        }
    }
    match fs::symlink_metadata(to) {
        Ok(_) => Err(Errno::EEXIST.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(from, to),
        Err(error) => Err(error),
    }
}

/// Whether it is the file system that has no hard links.
fn cannot_link(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EPERM | libc::EXDEV))
}
