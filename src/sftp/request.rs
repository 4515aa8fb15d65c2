//! What a client asks, parsed: afterwards it fits, or is known not to.

use std::path::Path;

use super::{
    attributes::Attributes,
    extensions::Extension,
    handles::Handle,
    wire::{Fields, Malformed, kind},
};

/// A packet from a client.
pub(super) enum Packet<'a> {
    /// The first one. Its extensions are none that a server needs to know.
    Init,
    /// Any other.
    Request { id: u32, request: Request<'a> },
}

/// What a client asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request<'a> {
    Open {
        path: &'a Path,
        flags: u32,
        attributes: Attributes,
    },
    Close(Handle<'a>),
    Read {
        handle: Handle<'a>,
        offset: u64,
        len: u32,
    },
    Write {
        handle: Handle<'a>,
        offset: u64,
        data: &'a [u8],
    },
    Stat(&'a Path),
    LinkStat(&'a Path),
    FileStat(Handle<'a>),
    SetStat {
        path: &'a Path,
        attributes: Attributes,
    },
    SetFileStat {
        handle: Handle<'a>,
        attributes: Attributes,
    },
    OpenFolder(&'a Path),
    ReadFolder(Handle<'a>),
    Remove(&'a Path),
    MakeFolder {
        path: &'a Path,
        attributes: Attributes,
    },
    RemoveFolder(&'a Path),
    RealPath(&'a Path),
    Rename {
        from: &'a Path,
        to: &'a Path,
    },
    ReadLink(&'a Path),
    MakeLink {
        target: &'a Path,
        link: &'a Path,
    },
    Extended(Extension<'a>),
    /// Something that is not served here.
    Unknown,
}

impl<'a> Packet<'a> {
    /// Parses a packet, its length not included.
    pub(super) fn parse(packet: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(packet);
        let of_kind = fields.byte()?;
        if of_kind == kind::INIT {
            // Its version is not asked: the answer is 3, the highest both know (section 4 of the draft).
            fields.u32()?;
            return Ok(Self::Init);
        }
        Ok(Self::Request { id: fields.u32()?, request: request(of_kind, &mut fields)? })
    }
}

fn request<'a>(of_kind: u8, fields: &mut Fields<'a>) -> Result<Request<'a>, Malformed> {
    Ok(match of_kind {
        kind::OPEN => Request::Open {
            path: fields.path()?,
            flags: fields.u32()?,
            attributes: Attributes::read(fields)?,
        },
        kind::CLOSE => Request::Close(handle(fields)?),
        kind::READ => Request::Read { handle: handle(fields)?, offset: fields.u64()?, len: fields.u32()? },
        kind::WRITE => {
            Request::Write { handle: handle(fields)?, offset: fields.u64()?, data: fields.bytes()? }
        }
        kind::LSTAT => Request::LinkStat(fields.path()?),
        kind::FSTAT => Request::FileStat(handle(fields)?),
        kind::SETSTAT => Request::SetStat { path: fields.path()?, attributes: Attributes::read(fields)? },
        kind::FSETSTAT => {
            Request::SetFileStat { handle: handle(fields)?, attributes: Attributes::read(fields)? }
        }
        kind::OPENDIR => Request::OpenFolder(fields.path()?),
        kind::READDIR => Request::ReadFolder(handle(fields)?),
        kind::REMOVE => Request::Remove(fields.path()?),
        kind::MKDIR => Request::MakeFolder { path: fields.path()?, attributes: Attributes::read(fields)? },
        kind::RMDIR => Request::RemoveFolder(fields.path()?),
        kind::REALPATH => Request::RealPath(fields.path()?),
        kind::STAT => Request::Stat(fields.path()?),
        kind::RENAME => Request::Rename { from: fields.path()?, to: fields.path()? },
        kind::READLINK => Request::ReadLink(fields.path()?),
        // The draft has the link first. OpenSSH's client sends the target first, and so do all that followed it.
        kind::SYMLINK => Request::MakeLink { target: fields.path()?, link: fields.path()? },
        kind::EXTENDED => match Extension::read(fields)? {
            Some(extension) => Request::Extended(extension),
            None => Request::Unknown,
        },
        _ => Request::Unknown,
    })
}

/// A handle.
pub(super) fn handle<'a>(fields: &mut Fields<'a>) -> Result<Handle<'a>, Malformed> {
    fields.bytes().map(Handle)
}
