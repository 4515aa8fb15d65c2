//! Reads a user's own files only where nobody else could have written them: sshd's `StrictModes`.
//!
//! A file counts if it is a regular one, and it and every folder up to the user's home belong to the user or to root and
//! can be written to by nobody else. Links are followed, and what they lead to is judged (`safe_path` of OpenSSH).
//! Everything here may wait for a file server: call it where waiting is allowed.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, ErrorKind, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::owner::Owner;

/// Why a file is not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// The kernel says no.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A folder, a FIFO, a device.
    #[error("{} is not a regular file", .0.display())]
    Irregular(PathBuf),
    /// Somebody else could have written it.
    #[error("{} can be changed by others than its user (owner {uid}, mode {mode:04o})", path.display())]
    Exposed {
        /// Which file or folder.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
        /// Its permissions.
        mode: u32,
    },
    /// Longer than any file of its kind.
    #[error("{} has more than {most} bytes", path.display())]
    Long {
        /// Which file.
        path: PathBuf,
        /// How many it may have.
        most: u64,
    },
}

/// The content of a file that only `owner` and root can have written; `None` where there is none.
///
/// # Errors
/// Where it can't be read, or others could have written it, or it has more than `most` bytes.
pub(super) fn read(path: &Path, owner: &Owner, most: u64) -> Result<Option<Vec<u8>>, FileError> {
    let failed = |source| FileError::Io { path: path.to_owned(), source };
    // A FIFO without a writer must not hold us up.
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    check(&file, path, owner)?;
    let mut content = Vec::new();
    file.take(most + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > most {
        return Err(FileError::Long { path: path.to_owned(), most });
    }
    Ok(Some(content))
}

fn check(file: &File, path: &Path, owner: &Owner) -> Result<(), FileError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| FileError::Io { path, source }
    };
    let opened = file.metadata().map_err(io(path))?;
    if !opened.is_file() {
        return Err(FileError::Irregular(path.to_owned()));
    }
    let real = fs::canonicalize(path).map_err(io(path))?;
    let found = fs::metadata(&real).map_err(io(&real))?;
    if (found.dev(), found.ino()) != (opened.dev(), opened.ino()) {
        // It has been exchanged since it was opened: which folders it was in is not known.
        return Err(io(path)(ErrorKind::StaleNetworkFileHandle.into()));
    }
    is_owners_alone(&opened, &real, owner)?;
    let home = fs::canonicalize(&owner.home).ok();
    for folder in real.ancestors().skip(1) {
        is_owners_alone(&fs::metadata(folder).map_err(io(folder))?, folder, owner)?;
        if Some(folder) == home.as_deref() {
            break;
        }
    }
    Ok(())
}

fn is_owners_alone(found: &Metadata, path: &Path, owner: &Owner) -> Result<(), FileError> {
    let (uid, mode) = (found.uid(), found.mode() & 0o7777);
    if (uid == 0 || uid == owner.uid) && mode & 0o022 == 0 {
        return Ok(());
    }
    Err(FileError::Exposed { path: path.to_owned(), uid, mode })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use nix::{sys::stat::Mode, unistd};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    /// A home folder of a test's own, gone with it.
    pub(in crate::ssh) struct Home(pub(in crate::ssh) Owner);

    impl Home {
        pub(in crate::ssh) fn new() -> Self {
            let home = std::env::temp_dir().join(format!("shlogin-ssh-{}", uuid::Uuid::new_v4().simple()));
            let home = Self(Owner { name: "ada".to_owned(), uid: unistd::geteuid().as_raw(), home });
            fs::create_dir(&home.0.home).unwrap();
            home.mode("", 0o755);
            fs::create_dir(home.at(".ssh")).unwrap();
            home.mode(".ssh", 0o700);
            home
        }

        pub(in crate::ssh) fn at(&self, name: &str) -> PathBuf {
            self.0.home.join(name)
        }

        pub(in crate::ssh) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
            fs::write(self.at(name), text).unwrap();
            self.mode(name, 0o600);
        }

        fn mode(&self, name: &str, mode: u32) {
            fs::set_permissions(self.at(name), fs::Permissions::from_mode(mode)).unwrap();
        }

        fn read(&self, name: &str) -> Result<Option<Vec<u8>>, FileError> {
            read(&self.at(name), &self.0, 100)
        }
    }

    impl Drop for Home {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0.home);
        }
    }

    #[test]
    fn a_private_file_is_read_and_a_missing_one_is_none() {
        let home = Home::new();
        home.write(".ssh/keys", "text");
        assert_eq!(home.read(".ssh/keys").unwrap().unwrap(), b"text");
        assert!(home.read(".ssh/other").unwrap().is_none() && home.read("none/other").unwrap().is_none());
        home.mode(".ssh/keys", 0o644);
        home.mode("", 0o711);
        assert!(home.read(".ssh/keys").unwrap().is_some(), "others may read it");
    }

    #[test]
    fn what_others_could_have_written_is_not_believed() {
        for name in [".ssh/keys", ".ssh", ""] {
            for mode in [0o770, 0o702, 0o777, 0o1777] {
                let home = Home::new();
                home.write(".ssh/keys", "text");
                home.mode(name, mode);
                assert!(matches!(home.read(".ssh/keys"), Err(FileError::Exposed { .. })), "{name} {mode:o}");
            }
        }
    }

    #[test]
    fn what_is_above_the_home_is_its_administrators_business() {
        let home = Home::new();
        fs::create_dir_all(home.at("ada/.ssh")).unwrap();
        home.write("ada/.ssh/keys", "text");
        home.mode("", 0o777);
        let inner = Owner { home: home.at("ada"), ..home.0.clone() };
        assert!(read(&home.at("ada/.ssh/keys"), &inner, 100).unwrap().is_some());
        let elsewhere = Owner { home: "/nowhere".into(), ..inner };
        assert!(read(&home.at("ada/.ssh/keys"), &elsewhere, 100).is_err());
    }

    #[test]
    fn somebody_elses_file_or_folder_is_not_believed() {
        if !unistd::geteuid().is_root() {
            return;
        }
        for name in [".ssh/keys", ".ssh", ""] {
            let home = Home::new();
            home.write(".ssh/keys", "text");
            chown(home.at(name), Some(12_345), None).unwrap();
            assert!(matches!(home.read(".ssh/keys"), Err(FileError::Exposed { uid: 12_345, .. })), "{name}");
            let theirs = Owner { uid: 12_345, ..home.0.clone() };
            assert!(read(&home.at(".ssh/keys"), &theirs, 100).unwrap().is_some(), "the rest is root's");
        }
    }

    #[test]
    fn a_link_is_judged_by_what_it_leads_to() {
        let home = Home::new();
        fs::create_dir(home.at("dotfiles")).unwrap();
        home.mode("dotfiles", 0o755);
        home.write("dotfiles/keys", "text");
        symlink("../dotfiles/keys", home.at(".ssh/keys")).unwrap();
        assert!(home.read(".ssh/keys").unwrap().is_some());
        home.mode("dotfiles", 0o775);
        assert!(matches!(home.read(".ssh/keys"), Err(FileError::Exposed { .. })));
    }

    #[test]
    fn what_is_no_regular_file_holds_nobody_up() {
        let home = Home::new();
        unistd::mkfifo(&home.at(".ssh/keys"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        assert!(matches!(home.read(".ssh/keys"), Err(FileError::Irregular(_))));
        assert!(matches!(home.read(".ssh"), Err(FileError::Irregular(_))));
        assert!(matches!(read(Path::new("/dev/zero"), &home.0, 100), Err(FileError::Irregular(_))));
    }

    #[test]
    fn a_file_without_end_is_not_read() {
        let home = Home::new();
        home.write(".ssh/keys", [b'x'; 100]);
        assert_eq!(home.read(".ssh/keys").unwrap().unwrap().len(), 100);
        home.write(".ssh/keys", [b'x'; 101]);
        assert!(matches!(home.read(".ssh/keys"), Err(FileError::Long { most: 100, .. })));
    }
}
