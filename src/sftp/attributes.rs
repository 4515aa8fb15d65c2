//! A file's attributes, as the protocol has them: read from requests, applied to files, written to replies.

use std::{
    fs::{File, Metadata, Permissions},
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, PermissionsExt, chown, fchown, lchown},
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::AT_FDCWD,
    sys::{
        stat::{FchmodatFlags, Mode, UtimensatFlags, fchmodat, futimens, utimensat},
        time::TimeSpec,
    },
    unistd::truncate,
};

use super::{
    refusal::{Refusal, Status},
    wire::{Fields, Malformed, Replies},
};

const SIZE: u32 = 1;
const OWNER: u32 = 2;
const MODE: u32 = 4;
const TIMES: u32 = 8;
const EXTENDED: u32 = 0x8000_0000;

/// What a client wants of a file's attributes.
#[derive(Default, Debug, PartialEq, Eq)]
pub(super) struct Attributes {
    size: Option<u64>,
    owner: Option<(u32, u32)>,
    mode: Option<u32>,
    /// Of access and of modification, in seconds since 1970.
    times: Option<(u32, u32)>,
}

/// What they are applied to.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    /// An open file.
    File(&'a File),
    /// What a path leads to.
    Path(&'a Path),
    /// What a path names, a symbolic link too.
    Link(&'a Path),
}

impl Attributes {
    pub(super) fn read(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let flags = fields.u32()?;
        let has = |flag| flags & flag != 0;
        let read = Self {
            size: has(SIZE).then(|| fields.u64()).transpose()?,
            owner: has(OWNER).then(|| Ok((fields.u32()?, fields.u32()?))).transpose()?,
            mode: has(MODE).then(|| fields.u32()).transpose()?,
            times: has(TIMES).then(|| Ok((fields.u32()?, fields.u32()?))).transpose()?,
        };
        if has(EXTENDED) {
            // Pairs of a name and a value, none of which is known here.
            for _ in 0..fields.u32()? {
                fields.bytes()?;
                fields.bytes()?;
            }
        }
        Ok(read)
    }

    /// The mode of a file or folder to be made with them; the umask comes off it.
    pub(super) fn mode_or(&self, default: u32) -> Mode {
        Mode::from_bits_truncate(self.mode.unwrap_or(default) & 0o7777)
    }

    /// Makes a file as they have it, one after the other, up to the first that cannot be.
    pub(super) fn apply(&self, to: Target<'_>) -> Result<(), Refusal> {
        if let Some(size) = self.size {
            resize(to, size)?;
        }
        if let Some(mode) = self.mode {
            set_mode(to, mode & 0o7777)?;
        }
        if let Some((accessed, modified)) = self.times {
            let times = [accessed, modified].map(|seconds| TimeSpec::new(seconds.into(), 0));
            set_times(to, &times)?;
        }
        if let Some((user, group)) = self.owner {
            match to {
                Target::File(file) => fchown(file, Some(user), Some(group)),
                Target::Path(path) => chown(path, Some(user), Some(group)),
                Target::Link(path) => lchown(path, Some(user), Some(group)),
            }
            .map_err(|error| match error.raw_os_error() {
                // In the sandbox there are no others (user_namespaces(7)): it is no fault of the message.
                Some(libc::EINVAL) => Errno::EPERM.into(),
                _ => error,
            })?;
        }
        Ok(())
    }
}

fn resize(to: Target<'_>, size: u64) -> Result<(), Refusal> {
    match to {
        Target::File(file) => Ok(file.set_len(size)?),
        Target::Path(path) => {
            let size = i64::try_from(size).map_err(|_| Errno::EFBIG)?;
            Ok(truncate(path, size)?)
        }
        Target::Link(_) => Err(Refusal::new(Status::BadMessage, "a link has no size to set")),
    }
}

fn set_mode(to: Target<'_>, mode: u32) -> Result<(), Refusal> {
    match to {
        Target::File(file) => Ok(file.set_permissions(Permissions::from_mode(mode))?),
        Target::Path(path) => Ok(std::fs::set_permissions(path, Permissions::from_mode(mode))?),
        Target::Link(path) => {
            let mode = Mode::from_bits_truncate(mode);
            Ok(fchmodat(AT_FDCWD, path, mode, FchmodatFlags::NoFollowSymlink)?)
        }
    }
}

fn set_times(to: Target<'_>, [accessed, modified]: &[TimeSpec; 2]) -> Result<(), Refusal> {
    let by_path = |path, follow| utimensat(AT_FDCWD, path, accessed, modified, follow);
    match to {
        Target::File(file) => Ok(futimens(file.as_fd(), accessed, modified)?),
        Target::Path(path) => Ok(by_path(path, UtimensatFlags::FollowSymlink)?),
        Target::Link(path) => Ok(by_path(path, UtimensatFlags::NoFollowSymlink)?),
    }
}

/// Writes what a file's attributes are.
pub(super) fn write(replies: &mut Replies, file: &Metadata) {
    // The protocol's times end in 2106 and begin in 1970.
    let seconds = |time: i64| u32::try_from(time.max(0)).unwrap_or(u32::MAX);
    replies.u32(SIZE | OWNER | MODE | TIMES);
    replies.u64(file.size());
    replies.u32(file.uid());
    replies.u32(file.gid());
    replies.u32(file.mode());
    replies.u32(seconds(file.atime()));
    replies.u32(seconds(file.mtime()));
}

/// Writes that nothing is said of them.
pub(super) fn write_none(replies: &mut Replies) {
    replies.u32(0);
}
