//! A name's lock: held by the processes of the session that has the name, released by the kernel when the last is gone.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::{
        fd::OwnedFd,
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
    #[error("the name {0} is in use")]
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
    path: PathBuf,
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
                return Ok(Self { file, path });
            }
        }
    }

    /// Whether a live session has the name. Looks without taking it.
    pub fn is_held(runtime: &Path, name: &SessionName) -> bool {
        let Ok(file) = File::open(Self::path_in(runtime, name)) else { return false };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// Waits until no session has the name: all of it is gone then. `false` after `limit`.
    pub fn wait_released(runtime: &Path, name: &SessionName, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while Self::is_held(runtime, name) {
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

    /// Removes the file, for a session that did not come to be.
    pub fn discard(self) {
        // If it stays, the next to take the name finds it unlocked.
        let _ = fs::remove_file(&self.path);
    }
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
        assert!(Lock::is_held(&folder, &name));
        drop(second);
        fs::remove_dir_all(&folder).unwrap();
        assert!(!Lock::is_held(&folder, &name));
    }
}
