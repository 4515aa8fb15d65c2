//! What a live session leaves on the node, and its removal, which whoever outlives the others does.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, PermissionsExt},
        },
    },
    path::{Path, PathBuf},
};

use nix::{
    dir::Dir,
    fcntl::{AtFlags, OFlag, open, openat, renameat},
    sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstatat},
    unistd::{UnlinkatFlags, unlinkat},
};

use serde::{Deserialize, Serialize};

/// The folders of a live session. All are gone when the session is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    /// `RUNTIME/NAME`: the control socket, and the gateway's with `--listen unix`.
    pub session: PathBuf,
    /// `SCRATCH/shlogin-UID-UUID`: on disk.
    pub scratch: PathBuf,
    /// `RUNTIME/NAME.lock`: held while the session lives.
    pub lock: PathBuf,
}

impl Footprint {
    /// The private `/tmp`.
    pub fn tmp(&self) -> PathBuf {
        self.scratch.join("tmp")
    }

    /// The private `/var/tmp`.
    pub fn var_tmp(&self) -> PathBuf {
        self.scratch.join("var-tmp")
    }

    /// The runtime's own files.
    pub fn room(&self) -> PathBuf {
        self.scratch.join("room")
    }

    /// Removes all of it, given a descriptor of the lock that the caller holds. What is already gone is no error, so it
    /// may be called by several. Where the lock's path has come to mean another file, the name is another session's by
    /// now, and only what carries our own identity is removed.
    ///
    /// # Errors
    /// The first path that could not be removed; the others are tried all the same.
    pub fn remove(&self, lock: BorrowedFd<'_>) -> io::Result<()> {
        let scratch = self.remove_scratch();
        if !self.is_locked_by(lock) {
            return scratch;
        }
        let folders = scratch.and(remove_tree(&self.session));
        // Last: whoever gets this lock next finds nothing in its way.
        let lock = match fs::remove_file(&self.lock) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        folders.and(lock)
    }

    /// Removes the scratch folder alone: its name is nobody else's, ever.
    ///
    /// # Errors
    /// As `unlinkat(2)`.
    pub fn remove_scratch(&self) -> io::Result<()> {
        remove_tree(&self.scratch)
    }

    fn is_locked_by(&self, lock: BorrowedFd<'_>) -> bool {
        let held = lock.try_clone_to_owned().and_then(|fd| fs::File::from(fd).metadata());
        let there = fs::symlink_metadata(&self.lock);
        matches!((held, there), (Ok(held), Ok(there)) if (held.dev(), held.ino()) == (there.dev(), there.ino()))
    }
}

/// As `fs::remove_dir_all`, which follows no links, but also through what an app has left so that it cannot be removed that
/// way: folders that it made unreadable, or as many inside each other as there are descriptors.
fn remove_tree(root: &Path) -> io::Result<()> {
    match fs::remove_dir_all(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => {
            flatten(root)?;
            fs::remove_dir(root)
        }
        Ok(()) => Ok(()),
    }
}

/// Empties a folder without ever being deeper than one level in it: folders further down are moved up before they are
/// looked into.
fn flatten(root: &Path) -> io::Result<()> {
    fs::set_permissions(root, fs::Permissions::from_mode(0o700))?;
    let top = open(root, FOLDER, Mode::empty())?;
    let mut left = entries(&top)?;
    let mut moved = 0_u64;
    while let Some((name, kind)) = left.pop() {
        if kind != Kind::Folder {
            unlinkat(&top, name.as_os_str(), UnlinkatFlags::NoRemoveDir)?;
            continue;
        }
        fchmodat(&top, name.as_os_str(), Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
        let folder = openat(&top, name.as_os_str(), FOLDER, Mode::empty())?;
        for (inner, kind) in entries(&folder)? {
            if kind != Kind::Folder {
                unlinkat(&folder, inner.as_os_str(), UnlinkatFlags::NoRemoveDir)?;
                continue;
            }
            // Moving a folder changes its `..`, which takes the right to write in it.
            fchmodat(&folder, inner.as_os_str(), Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
            moved += 1;
            let up = OsString::from(format!(".moved-{}-{moved}", std::process::id()));
            renameat(&folder, inner.as_os_str(), &top, up.as_os_str())?;
            left.push((up, Kind::Folder));
        }
        unlinkat(&top, name.as_os_str(), UnlinkatFlags::RemoveDir)?;
    }
    Ok(())
}

const FOLDER: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Folder,
    Other,
}

fn entries(folder: &OwnedFd) -> io::Result<Vec<(OsString, Kind)>> {
    let mut found = Vec::new();
    for entry in Dir::openat(folder, ".", FOLDER, Mode::empty())?.iter() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
        if name == "." || name == ".." {
            continue;
        }
        let is_folder = match entry.file_type() {
            Some(kind) => kind == nix::dir::Type::Directory,
            // Some file systems do not say.
            None => {
                let stat = fstatat(folder, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
                SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR
            }
        };
        found.push((name, if is_folder { Kind::Folder } else { Kind::Other }));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    /// A session that takes its time to go must not take the next one of its name along.
    #[test]
    fn what_is_another_session_s_by_now_stays() {
        let base = std::env::temp_dir().join(format!("shlogin-successor-{}", std::process::id()));
        let footprint = Footprint {
            session: base.join("name"),
            scratch: base.join("scratch"),
            lock: base.join("name.lock"),
        };
        fs::create_dir_all(&footprint.scratch).unwrap();
        let ours = fs::File::create(&footprint.lock).unwrap();
        fs::remove_file(&footprint.lock).unwrap();
        let _theirs = fs::File::create(&footprint.lock).unwrap();
        fs::create_dir_all(&footprint.session).unwrap();
        footprint.remove(ours.as_fd()).unwrap();
        assert!(!footprint.scratch.exists() && footprint.session.exists() && footprint.lock.exists());
        fs::remove_dir_all(&base).unwrap();
    }

    /// Deeper than a path can say or a process has descriptors for, with a folder in the middle that nobody may read.
    #[test]
    fn removes_folders_without_end() {
        let base = std::env::temp_dir().join(format!("shlogin-deep-{}", std::process::id()));
        fs::create_dir_all(&base).unwrap();
        let mut at = open(&base, FOLDER, Mode::empty()).unwrap();
        let mut middle = None;
        for level in 0..6000 {
            nix::sys::stat::mkdirat(&at, "d", Mode::S_IRWXU).unwrap();
            let next = openat(&at, "d", FOLDER, Mode::empty()).unwrap();
            fs::write(format!("/proc/self/fd/{}/file", std::os::fd::AsRawFd::as_raw_fd(&next)), "x").unwrap();
            let above = std::mem::replace(&mut at, next);
            if level == 3000 {
                middle = Some(above);
            }
        }
        fchmodat(middle.as_ref().unwrap(), "d", Mode::empty(), FchmodatFlags::FollowSymlink).unwrap();
        drop((at, middle));
        remove_tree(&base).unwrap();
        assert!(!base.exists());
    }

    #[test]
    fn removes_what_an_app_made_unreadable_and_follows_no_link() {
        let base = std::env::temp_dir().join(format!("shlogin-footprint-{}", std::process::id()));
        let kept = base.join("kept");
        fs::create_dir_all(&kept).unwrap();
        let footprint = Footprint {
            session: base.join("session"),
            scratch: base.join("scratch"),
            lock: base.join("lock"),
        };
        fs::create_dir_all(footprint.tmp().join("a/b")).unwrap();
        fs::create_dir_all(&footprint.session).unwrap();
        let lock = fs::File::create(&footprint.lock).unwrap();
        std::os::unix::fs::symlink(&kept, footprint.tmp().join("a/link")).unwrap();
        fs::set_permissions(footprint.tmp().join("a"), fs::Permissions::from_mode(0o000)).unwrap();
        footprint.remove(lock.as_fd()).unwrap();
        footprint.remove(lock.as_fd()).unwrap();
        let left: Vec<_> = fs::read_dir(&base).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["kept"]);
        fs::remove_dir_all(&base).unwrap();
    }
}
