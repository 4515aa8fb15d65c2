//! A name's lock: held by the processes of the session that has the name, released by the kernel when the last is gone.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::words::SessionName;

/// Why a name could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A live session has it.
    #[error("the name {0} is in use: `shlogin show {0}` says by what")]
    InUse(SessionName),
    /// The file could not be made.
    #[error("cannot lock {path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// A held lock. Duplicates of its descriptor, in whatever process, hold the same one (`flock(2)`): it is released when
/// the last of them is closed, and by nothing else.
pub struct Lock {
    file: File,
}

impl Lock {
    /// Where a name's lock is.
    pub fn path_in(runtime: &Path, name: &SessionName) -> PathBuf {
        runtime.join(format!("{name}.lock"))
    }

    /// Takes a name.
    ///
    /// # Errors
    /// As [`LockError`].
    pub fn take(runtime: &Path, name: &SessionName) -> Result<Self, LockError> {
        let path = Self::path_in(runtime, name);
        let failed = |source| LockError::Io { path: path.clone(), source };
        loop {
            let mut options = OpenOptions::new();
            let file =
                options.create(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(&path);
            let file = file.map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(LockError::InUse(name.clone())),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
            // Whoever had it before may have removed the file between our open and our lock.
            let ours = file.metadata().map_err(failed)?;
            if fs::symlink_metadata(&path)
                .is_ok_and(|there| there.ino() == ours.ino() && there.dev() == ours.dev())
            {
                return Ok(Self { file });
            }
        }
    }

    /// Whether somebody holds the lock at `path`. Looks without taking it. A file that is not this user's holds nothing.
    pub fn is_held(path: &Path) -> bool {
        let file = OpenOptions::new().read(true).custom_flags(UNTRUSTED).open(path).and_then(own_file);
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Waits until nobody holds the lock at `path`: all of its session is gone then. `false` after `limit`.
    pub fn wait_released(path: &Path, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while Self::is_held(path) {
            if Instant::now() > until {
                return false;
            }
            // flock(2) has no time limit of its own, and a signal to end it would be one for the whole process.
            std::thread::park_timeout(Duration::from_millis(5));
        }
        true
    }

    /// A duplicate, for another process to hold it too.
    ///
    /// # Errors
    /// As `dup(2)`.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.file.try_clone().map(OwnedFd::from)
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whatever may lie at a lock's path, a link is not followed and a FIFO not waited for.
const UNTRUSTED: libc::c_int = libc::O_NOFOLLOW | libc::O_NONBLOCK;

fn own_file(file: File) -> io::Result<File> {
    let found = file.metadata()?;
    let ours = found.is_file() && found.uid() == nix::unistd::geteuid().as_raw();
    if ours { Ok(file) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_held_until_the_last_duplicate_goes() {
        let folder = std::env::temp_dir().join(format!("shlogin-lock-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let name: SessionName = "a".parse().unwrap();
        let lock = Lock::take(&folder, &name).unwrap();
        let second = lock.share().unwrap();
        assert!(matches!(Lock::take(&folder, &name), Err(LockError::InUse(_))));
        drop(lock);
        assert!(Lock::is_held(&Lock::path_in(&folder, &name)));
        drop(second);
        fs::remove_dir_all(&folder).unwrap();
        assert!(!Lock::is_held(&Lock::path_in(&folder, &name)));
    }
}
