//! Answers requests: one client, one after the other.

use std::{
    fs::{self, DirBuilder, File},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, FileExt, symlink},
    },
    path::{Path, PathBuf},
};

use nix::sys::statvfs::{fstatvfs, statvfs};

use super::{
    attributes::{self, Target},
    extensions::{self, Extension},
    files,
    folder::Folder,
    handles::{Handle, Handles, Open},
    names::Names,
    paths,
    refusal::{Refusal, Status},
    request::Request,
    wire::{MAX_DATA, Replies, kind},
};

/// The version that is spoken.
const VERSION: u32 = 3;
/// What is said of every failure; clients need some tag.
const LANGUAGE: &[u8] = b"en";

/// What a client has open, and where it began.
pub(super) struct Server {
    handles: Handles,
    names: Names,
    home: PathBuf,
}

/// Whether an answer has been written, or is the status `Ok`.
enum Answered {
    Written,
    Done,
}

impl Server {
    pub(super) fn new(names: Names, home: PathBuf) -> Self {
        Self { handles: Handles::default(), names, home }
    }

    /// Says which version this is, and what it can besides.
    pub(super) fn greet(replies: &mut Replies) {
        // The packet has the version where the others have the number of their request.
        let Ok(()) = replies.packet(kind::VERSION, VERSION, |reply| {
            for (name, version) in extensions::OFFERED {
                reply.bytes(name.as_bytes());
                reply.bytes(version.as_bytes());
            }
            Ok::<_, std::convert::Infallible>(())
        });
    }

    /// Does what is asked, and answers it.
    pub(super) fn answer(&mut self, id: u32, request: Request<'_>, replies: &mut Replies) {
        let (status, why) = match self.act(id, request, replies) {
            Ok(Answered::Written) => return,
            Ok(Answered::Done) => (Status::Ok, String::new()),
            Err(refusal) => (refusal.status, refusal.why),
        };
        let Ok(()) = replies.packet(kind::STATUS, id, |reply| {
            reply.u32(status.code());
            reply.bytes(why.as_bytes());
            reply.bytes(LANGUAGE);
            Ok::<_, std::convert::Infallible>(())
        });
    }

    fn act(&mut self, id: u32, request: Request<'_>, replies: &mut Replies) -> Result<Answered, Refusal> {
        match request {
            Request::Open { path, flags, attributes } => {
                let open = || files::open(path, flags, attributes.mode_or(0o666)).map(Open::File);
                return handle(id, replies, self.handles.open(open)?);
            }
            Request::OpenFolder(path) => {
                let open = || Ok(Open::Folder(Folder::open(path)?));
                return handle(id, replies, self.handles.open(open)?);
            }
            Request::Read { handle, offset, len } => {
                return read(id, replies, self.handles.file(handle)?, offset, len);
            }
            Request::ReadFolder(handle) => {
                let folder = self.handles.folder(handle)?;
                replies.packet(kind::NAME, id, |reply| folder.write_batch(reply, &self.names))?;
                return Ok(Answered::Written);
            }
            Request::Stat(path) => return stat(id, replies, &fs::metadata(path)?),
            Request::LinkStat(path) => return stat(id, replies, &fs::symlink_metadata(path)?),
            Request::FileStat(handle) => return stat(id, replies, &self.handles.file(handle)?.metadata()?),
            Request::RealPath(path) => return name(id, replies, &paths::real(path)?),
            Request::ReadLink(path) => return name(id, replies, &fs::read_link(path)?),
            Request::Extended(extension) => return self.extend(id, extension, replies),
            Request::Close(handle) => self.handles.close(handle)?,
            Request::Write { handle, offset, data } => {
                self.handles.file(handle)?.write_all_at(data, offset)?;
            }
            Request::SetStat { path, attributes } => attributes.apply(Target::Path(path))?,
            Request::SetFileStat { handle, attributes } => {
                attributes.apply(Target::File(self.handles.file(handle)?))?;
            }
            Request::Remove(path) => fs::remove_file(path)?,
            Request::MakeFolder { path, attributes } => {
                DirBuilder::new().mode(attributes.mode_or(0o777).bits()).create(path)?;
            }
            Request::RemoveFolder(path) => fs::remove_dir(path)?,
            Request::Rename { from, to } => files::rename_to_free(from, to)?,
            Request::MakeLink { target, link } => symlink(target, link)?,
            Request::Unknown => return Err(Refusal::new(Status::Unsupported, "not known here")),
        }
        Ok(Answered::Done)
    }

    fn extend(&self, id: u32, extension: Extension<'_>, replies: &mut Replies) -> Result<Answered, Refusal> {
        match extension {
            Extension::FileSystem(path) => {
                let system = statvfs(path)?;
                return extended(id, replies, |reply| extensions::write_file_system(reply, &system));
            }
            Extension::FileSystemOf(handle) => {
                let system = fstatvfs(self.handles.file(handle)?)?;
                return extended(id, replies, |reply| extensions::write_file_system(reply, &system));
            }
            Extension::Limits => return extended(id, replies, extensions::write_limits),
            Extension::NamesOf { users, groups } => {
                return extended(id, replies, |reply| {
                    extensions::write_names(reply, &self.names, users, groups)
                });
            }
            Extension::ExpandPath(path) => {
                return name(id, replies, &paths::real(&paths::expand(path, &self.home, &self.names)?)?);
            }
            Extension::HomeFolder(user) => {
                let home = if user.is_empty() { Some(&*self.home) } else { self.names.home_of(user) };
                let home = home.ok_or_else(|| Refusal::new(Status::NoSuchFile, "no such user is known"))?;
                return name(id, replies, home);
            }
            Extension::Replace { from, to } => fs::rename(from, to)?,
            Extension::HardLink { from, to } => fs::hard_link(from, to)?,
            Extension::Sync(handle) => self.handles.file(handle)?.sync_all()?,
            Extension::SetLinkStat { path, attributes } => attributes.apply(Target::Link(path))?,
            Extension::CopyData(copy) => {
                copy.run(self.handles.file(copy.from)?, self.handles.file(copy.to)?)?;
            }
        }
        Ok(Answered::Done)
    }
}

fn handle(id: u32, replies: &mut Replies, handle: [u8; 4]) -> Result<Answered, Refusal> {
    write(kind::HANDLE, id, replies, |reply| reply.bytes(Handle(&handle).0))
}

/// Reads at an offset. Less than was asked for may come: a client asks again (section 6.4 of the draft).
fn read(id: u32, replies: &mut Replies, file: &File, offset: u64, len: u32) -> Result<Answered, Refusal> {
    let most = usize::try_from(len).unwrap_or(usize::MAX).min(MAX_DATA);
    replies.packet(kind::DATA, id, |reply| {
        match reply.read_bytes(most, |buffer| file.read_at(buffer, offset))? {
            0 if most > 0 => Err(Refusal::eof()),
            _ => Ok(()),
        }
    })?;
    Ok(Answered::Written)
}

fn stat(id: u32, replies: &mut Replies, file: &fs::Metadata) -> Result<Answered, Refusal> {
    write(kind::ATTRS, id, replies, |reply| attributes::write(reply, file))
}

/// One name, of which nothing more is said.
fn name(id: u32, replies: &mut Replies, path: &Path) -> Result<Answered, Refusal> {
    write(kind::NAME, id, replies, |reply| {
        reply.u32(1);
        reply.bytes(path.as_os_str().as_bytes());
        reply.bytes(path.as_os_str().as_bytes());
        attributes::write_none(reply);
    })
}

fn extended(id: u32, replies: &mut Replies, fill: impl FnOnce(&mut Replies)) -> Result<Answered, Refusal> {
    write(kind::EXTENDED_REPLY, id, replies, fill)
}

fn write(
    of_kind: u8,
    id: u32,
    replies: &mut Replies,
    fill: impl FnOnce(&mut Replies),
) -> Result<Answered, Refusal> {
    replies.packet(of_kind, id, |reply| {
        fill(reply);
        Ok::<_, Refusal>(())
    })?;
    Ok(Answered::Written)
}
