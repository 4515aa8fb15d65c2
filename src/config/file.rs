//! Reads configuration files that nobody else can have written. Refuses all others, with the command that mends them.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use nix::{libc::O_NONBLOCK, unistd::Uid};

use super::error::ConfigError;

/// No configuration is longer; a file that never ends would take all memory.
const MAX_LENGTH: u64 = 1 << 20;

/// Whom a file may belong to, besides root.
#[derive(Clone, Copy)]
pub(super) enum Trusted {
    /// The administrator's file: this user only (root, except in tests), and nobody else can write in its folder.
    Site(Uid),
    /// A user's own file. May be a link: many keep such files elsewhere.
    User(Uid),
}

/// The text of `path`; `None` where there is no such file.
pub(super) fn read(path: &Path, trusted: Trusted) -> Result<Option<String>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { file: path.to_owned(), source };
    // O_NONBLOCK: opening a FIFO must not wait for a writer.
    let file = match File::options().read(true).custom_flags(O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(unreadable(e)),
    };
    let meta = file.metadata().map_err(unreadable)?;
    if !meta.is_file() {
        return Err(untrusted(path, "it is not a regular file".into(), format!("rm {}", path.display())));
    }
    check(path, meta.uid(), meta.mode(), trusted)?;
    if let (Trusted::Site(_), Some(folder)) = (trusted, path.parent()) {
        let meta = std::fs::metadata(folder).map_err(unreadable)?;
        check(folder, meta.uid(), meta.mode(), trusted)?;
    }
    let mut text = String::new();
    file.take(MAX_LENGTH + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_LENGTH {
        return Err(unreadable(std::io::Error::new(ErrorKind::FileTooLarge, "longer than 1 MiB")));
    }
    Ok(Some(text))
}

fn check(path: &Path, uid: u32, mode: u32, trusted: Trusted) -> Result<(), ConfigError> {
    let shown = path.display();
    let (owner, is_owner) = match trusted {
        Trusted::Site(owner) => (owner, uid == owner.as_raw() || stands_for_root(path, uid)),
        Trusted::User(owner) => (owner, uid == owner.as_raw() || uid == 0),
    };
    if !is_owner {
        return Err(untrusted(
            path,
            format!("it belongs to user {uid}, not to {owner}"),
            format!("chown {owner} {shown}"),
        ));
    }
    if mode & 0o022 != 0 {
        return Err(untrusted(
            path,
            format!("others can write to it (mode {:04o})", mode & 0o7777),
            format!("chmod go-w {shown}"),
        ));
    }
    Ok(())
}

/// In a user namespace without root, as in a session's shell, root's files belong to the overflow user. One that this
/// process can't write is then the best there is.
fn stands_for_root(path: &Path, uid: u32) -> bool {
    let has_root = |map: String| map.lines().any(|line| line.split_whitespace().next() == Some("0"));
    let overflow =
        std::fs::read_to_string("/proc/sys/kernel/overflowuid").ok().and_then(|u| u.trim().parse().ok());
    overflow == Some(uid)
        && std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !has_root(map))
        && nix::unistd::access(path, nix::unistd::AccessFlags::W_OK).is_err()
}

fn untrusted(file: &Path, reason: String, remedy: String) -> ConfigError {
    ConfigError::Untrusted { file: file.to_owned(), reason, remedy }
}
