//! The encoding: fields of a packet read, replies written. Lengths are checked before anything is touched.

use std::{
    ffi::OsStr,
    io::{self, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
};

/// The longest packet taken, its own length not counted: as OpenSSH has it.
pub(super) const MAX_PACKET: usize = 256 * 1024;
/// The most data in one packet: what is left beside the other fields.
pub(super) const MAX_DATA: usize = MAX_PACKET - 1024;

/// A packet's kind, its first byte.
pub(super) mod kind {
    pub(crate) const INIT: u8 = 1;
    pub(crate) const VERSION: u8 = 2;
    pub(crate) const OPEN: u8 = 3;
    pub(crate) const CLOSE: u8 = 4;
    pub(crate) const READ: u8 = 5;
    pub(crate) const WRITE: u8 = 6;
    pub(crate) const LSTAT: u8 = 7;
    pub(crate) const FSTAT: u8 = 8;
    pub(crate) const SETSTAT: u8 = 9;
    pub(crate) const FSETSTAT: u8 = 10;
    pub(crate) const OPENDIR: u8 = 11;
    pub(crate) const READDIR: u8 = 12;
    pub(crate) const REMOVE: u8 = 13;
    pub(crate) const MKDIR: u8 = 14;
    pub(crate) const RMDIR: u8 = 15;
    pub(crate) const REALPATH: u8 = 16;
    pub(crate) const STAT: u8 = 17;
    pub(crate) const RENAME: u8 = 18;
    pub(crate) const READLINK: u8 = 19;
    pub(crate) const SYMLINK: u8 = 20;
    pub(crate) const STATUS: u8 = 101;
    pub(crate) const HANDLE: u8 = 102;
    pub(crate) const DATA: u8 = 103;
    pub(crate) const NAME: u8 = 104;
    pub(crate) const ATTRS: u8 = 105;
    pub(crate) const EXTENDED: u8 = 200;
    pub(crate) const EXTENDED_REPLY: u8 = 201;
}

/// A packet that ends before its fields do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a packet is shorter than its fields")]
pub(super) struct Malformed;

/// What is left of a packet.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(packet: &'a [u8]) -> Self {
        Self(packet)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(self.u32()?).map_err(|_| Malformed)?;
        self.take(len)
    }

    /// A path; the empty one stands for where the client is.
    pub(super) fn path(&mut self) -> Result<&'a Path, Malformed> {
        let bytes = self.bytes()?;
        Ok(Path::new(OsStr::from_bytes(if bytes.is_empty() { b"." } else { bytes })))
    }
}

/// Replies that wait to be sent, in one buffer that is used again and again. What stands beyond `end` is left over from
/// earlier ones, so that a read of a file needs no fresh zeroes to be read over.
#[derive(Default)]
pub(super) struct Replies {
    buffer: Vec<u8>,
    end: usize,
}

impl Replies {
    /// One packet, filled by `fill`; where that fails, nothing is added.
    pub(super) fn packet<E>(
        &mut self,
        kind: u8,
        id: u32,
        fill: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.end;
        self.u32(0);
        self.put(&[kind]);
        self.u32(id);
        if let Err(error) = fill(self) {
            self.end = start;
            return Err(error);
        }
        self.set_u32(start, length(self.end - start - 4));
        Ok(())
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.space(bytes.len()).copy_from_slice(bytes);
        self.end += bytes.len();
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.put(&value.to_be_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.u32(length(bytes.len()));
        self.put(bytes);
    }

    /// Bytes of at most `most`, as many as `read` says it has put.
    pub(super) fn read_bytes(
        &mut self,
        most: usize,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let at = self.end;
        self.u32(0);
        let got = read(self.space(most))?;
        self.set_u32(at, length(got));
        self.end += got;
        Ok(got)
    }

    /// A number to be [set](Self::set_u32) when it is known: how many follow.
    pub(super) fn count(&mut self) -> usize {
        let at = self.end;
        self.u32(0);
        at
    }

    pub(super) fn set_u32(&mut self, at: usize, value: u32) {
        if let Some(place) = self.buffer.get_mut(at..at + 4) {
            place.copy_from_slice(&value.to_be_bytes());
        }
    }

    fn space(&mut self, len: usize) -> &mut [u8] {
        let needed = self.end + len;
        if self.buffer.len() < needed {
            self.buffer.resize(needed, 0);
        }
        &mut self.buffer[self.end..needed]
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.buffer[..self.end]
    }

    pub(super) fn len(&self) -> usize {
        self.end
    }

    /// Sends all of them.
    pub(super) fn send(&mut self, to: &mut impl Write) -> io::Result<()> {
        let sent = to.write_all(self.as_bytes());
        self.end = 0;
        sent
    }
}

/// Nothing that is sent comes near the limit.
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
