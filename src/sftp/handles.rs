//! What a client has open, by the handles it was given.

use std::{fs::File, io};

use super::{
    folder::Folder,
    refusal::{Refusal, Status},
};

/// The most at once: a client has no use for more, and each is a descriptor.
pub(super) const MOST: usize = 1000;

/// A handle as a client sent it, whatever that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handle<'a>(pub(super) &'a [u8]);

impl Handle<'_> {
    fn index(self) -> Option<usize> {
        usize::try_from(u32::from_be_bytes(self.0.try_into().ok()?)).ok()
    }
}

/// Something open.
pub(super) enum Open {
    File(File),
    Folder(Folder),
}

#[derive(Default)]
pub(super) struct Handles(Vec<Option<Open>>);

impl Handles {
    /// Opens something, if there is room for it: an open that is refused must not have made or cut a file.
    pub(super) fn open(&mut self, open: impl FnOnce() -> Result<Open, Refusal>) -> Result<[u8; 4], Refusal> {
        let free = self.0.iter().position(Option::is_none).unwrap_or(self.0.len());
        let (true, Ok(number)) = (free < MOST, u32::try_from(free)) else {
            return Err(Refusal::new(Status::Failure, "too many open files"));
        };
        let opened = Some(open()?);
        match self.0.get_mut(free) {
            Some(slot) => *slot = opened,
            None => self.0.push(opened),
        }
        Ok(number.to_be_bytes())
    }

    pub(super) fn file(&self, handle: Handle<'_>) -> Result<&File, Refusal> {
        match handle.index().and_then(|index| self.0.get(index)) {
            Some(Some(Open::File(file))) => Ok(file),
            _ => Err(unknown()),
        }
    }

    pub(super) fn folder(&mut self, handle: Handle<'_>) -> Result<&mut Folder, Refusal> {
        match handle.index().and_then(|index| self.0.get_mut(index)) {
            Some(Some(Open::Folder(folder))) => Ok(folder),
            _ => Err(unknown()),
        }
    }

    /// Closes one. What a file system only says at the close, such as that the quota is used up, is told.
    pub(super) fn close(&mut self, handle: Handle<'_>) -> Result<(), Refusal> {
        match handle.index().and_then(|index| self.0.get_mut(index)).and_then(Option::take) {
            Some(Open::File(file)) => Ok(nix::unistd::close(file).map_err(io::Error::from)?),
            Some(Open::Folder(_)) => Ok(()),
            None => Err(unknown()),
        }
    }
}

fn unknown() -> Refusal {
    Refusal::new(Status::Failure, "no such handle")
}
