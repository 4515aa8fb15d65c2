//! What a live session leaves on the node, and its removal, which whoever outlives the others does.

use std::{
    fs, io,
    os::{
        fd::BorrowedFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
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

/// As `fs::remove_dir_all`, which follows no links, but through folders that an app has made unreadable for itself.
fn remove_tree(root: &Path) -> io::Result<()> {
    match fs::remove_dir_all(root) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(root);
            fs::remove_dir_all(root)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Gives the owner every right on each folder of a tree. What fails here fails again, and is told, in the removal.
fn open_up(folder: &Path) {
    let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
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
