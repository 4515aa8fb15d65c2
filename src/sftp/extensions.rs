//! OpenSSH's extensions: their names, what they ask, and the answers that are not a mere status.

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use nix::sys::statvfs::{FsFlags, Statvfs};

use super::{
    attributes::Attributes,
    handles::{self, Handle},
    names::Names,
    refusal::{Refusal, Status},
    request::handle,
    wire::{Fields, MAX_DATA, MAX_PACKET, Malformed, Replies},
};

/// What the server says it has, with the versions of `PROTOCOL`, section 4.
pub(super) const OFFERED: [(&str, &str); 11] = [
    ("posix-rename@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("fstatvfs@openssh.com", "2"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
    ("limits@openssh.com", "1"),
    ("expand-path@openssh.com", "1"),
    ("copy-data", "1"),
    ("home-directory", "1"),
    ("users-groups-by-id@openssh.com", "1"),
];

/// What a client asks by one of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Extension<'a> {
    /// A rename that replaces what is there.
    Replace {
        from: &'a Path,
        to: &'a Path,
    },
    FileSystem(&'a Path),
    FileSystemOf(Handle<'a>),
    HardLink {
        from: &'a Path,
        to: &'a Path,
    },
    Sync(Handle<'a>),
    SetLinkStat {
        path: &'a Path,
        attributes: Attributes,
    },
    Limits,
    ExpandPath(&'a Path),
    CopyData(CopyData<'a>),
    /// Of the user of this name, or, without one, the client's.
    HomeFolder(&'a [u8]),
    /// Numbers, one after the other.
    NamesOf {
        users: &'a [u8],
        groups: &'a [u8],
    },
}

/// A copy within the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CopyData<'a> {
    pub(super) from: Handle<'a>,
    from_offset: u64,
    /// 0 for up to the file's end.
    len: u64,
    pub(super) to: Handle<'a>,
    to_offset: u64,
}

impl<'a> Extension<'a> {
    /// `None` for one that is not known.
    pub(super) fn read(fields: &mut Fields<'a>) -> Result<Option<Self>, Malformed> {
        Ok(Some(match fields.bytes()? {
            b"posix-rename@openssh.com" => Self::Replace { from: fields.path()?, to: fields.path()? },
            b"statvfs@openssh.com" => Self::FileSystem(fields.path()?),
            b"fstatvfs@openssh.com" => Self::FileSystemOf(handle(fields)?),
            b"hardlink@openssh.com" => Self::HardLink { from: fields.path()?, to: fields.path()? },
            b"fsync@openssh.com" => Self::Sync(handle(fields)?),
            b"lsetstat@openssh.com" => {
                Self::SetLinkStat { path: fields.path()?, attributes: Attributes::read(fields)? }
            }
            b"limits@openssh.com" => Self::Limits,
            b"expand-path@openssh.com" => Self::ExpandPath(fields.path()?),
            b"copy-data" => Self::CopyData(CopyData {
                from: handle(fields)?,
                from_offset: fields.u64()?,
                len: fields.u64()?,
                to: handle(fields)?,
                to_offset: fields.u64()?,
            }),
            b"home-directory" => Self::HomeFolder(fields.bytes()?),
            b"users-groups-by-id@openssh.com" => {
                Self::NamesOf { users: fields.bytes()?, groups: fields.bytes()? }
            }
            _ => return Ok(None),
        }))
    }
}

/// The most of everything.
pub(super) fn write_limits(replies: &mut Replies) {
    for most in [MAX_PACKET, MAX_DATA, MAX_DATA, handles::MOST] {
        replies.u64(u64::try_from(most).unwrap_or(u64::MAX));
    }
}

/// What `statvfs(3)` says, in the order of `PROTOCOL`, section 4.4.
pub(super) fn write_file_system(replies: &mut Replies, system: &Statvfs) {
    let flags = [(FsFlags::ST_RDONLY, 1), (FsFlags::ST_NOSUID, 2)];
    let flags = flags.iter().filter(|(flag, _)| system.flags().contains(*flag)).map(|(_, bit)| bit).sum();
    let values = [
        system.block_size(),
        system.fragment_size(),
        system.blocks(),
        system.blocks_free(),
        system.blocks_available(),
        system.files(),
        system.files_free(),
        system.files_available(),
        system.filesystem_id(),
        flags,
        system.name_max(),
    ];
    for value in values {
        replies.u64(value);
    }
}

/// The names of users and groups, empty where there is none.
pub(super) fn write_names(replies: &mut Replies, names: &Names, users: &[u8], groups: &[u8]) {
    let numbers = |bytes: &[u8]| -> Vec<u32> {
        let mut fields = Fields::new(bytes);
        std::iter::from_fn(|| fields.u32().ok()).collect()
    };
    let list = |names: Vec<&[u8]>| {
        let mut list = Replies::default();
        names.into_iter().for_each(|name| list.bytes(name));
        list
    };
    let users = numbers(users).into_iter().map(|number| names.user(number).unwrap_or_default()).collect();
    let groups = numbers(groups).into_iter().map(|number| names.group(number).unwrap_or_default()).collect();
    replies.bytes(list(users).as_bytes());
    replies.bytes(list(groups).as_bytes());
}

impl CopyData<'_> {
    /// Copies. One that would read what it has written is refused, as OpenSSH does.
    pub(super) fn run(&self, from: &File, to: &File) -> Result<(), Refusal> {
        if self.from == self.to && overlap(self.from_offset, self.to_offset, self.len) {
            return Err(Refusal::new(Status::Failure, "a copy onto itself"));
        }
        let mut buffer = vec![0; MAX_DATA];
        let mut done = 0_u64;
        loop {
            let left = if self.len == 0 { u64::MAX } else { self.len - done };
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            if most == 0 {
                return Ok(());
            }
            let at = |offset: u64| offset.checked_add(done).ok_or(nix::errno::Errno::EFBIG);
            let got = from.read_at(&mut buffer[..most], at(self.from_offset)?)?;
            if got == 0 {
                // Up to the end is what was asked for, or there is less than was asked for.
                return if self.len == 0 { Ok(()) } else { Err(Refusal::eof()) };
            }
            to.write_all_at(&buffer[..got], at(self.to_offset)?)?;
            done += u64::try_from(got).unwrap_or(u64::MAX);
        }
    }
}

fn overlap(a: u64, b: u64, len: u64) -> bool {
    len == 0 || a.abs_diff(b) < len
}
