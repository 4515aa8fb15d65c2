//! The paths a session made: what their modes promise, and what the kernel keeps of it.

use std::{
    fs::{self, Metadata, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
};
use serde::{Deserialize, Serialize};

use super::{Finding, finding::Outcome, target::Target};

/// Below one folder, so many paths are looked at, and so deep. What an app makes in its own `/tmp` has no end.
const MOST: usize = 256;
const DEPTH: usize = 3;

/// What a path is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Kind {
    Folder,
    File,
    Socket,
}

/// A file, folder or socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Made {
    path: PathBuf,
    kind: Kind,
    mode: u32,
    uid: u32,
}

/// A path that has to be closed by itself, and what is below it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Root {
    what: String,
    made: Made,
    below: Vec<Made>,
    /// Whether files below must be closed by themselves as well, for a home may be copied elsewhere.
    strict: bool,
}

impl Root {
    /// A folder or file that keeps others out, with all that is in it. `None` where there is no such path.
    pub(super) fn of(what: &str, path: &Path) -> Option<Self> {
        let made = Made::at(path)?;
        let mut below = Vec::new();
        if made.kind == Kind::Folder {
            walk(path, DEPTH, &mut below);
        }
        Some(Self { what: what.to_owned(), made, below, strict: false })
    }

    /// The same, where each file is to be closed by its own mode too.
    pub(super) fn strict(what: &str, path: &Path) -> Option<Self> {
        Some(Self { strict: true, ..Self::of(what, path)? })
    }

    /// The same, of a folder alone: what is in it is told elsewhere.
    pub(super) fn alone(what: &str, path: &Path) -> Option<Self> {
        Some(Self { what: what.to_owned(), made: Made::at(path)?, below: Vec::new(), strict: false })
    }

    /// What its modes say.
    pub(super) fn modes(&self, owner: u32) -> Finding {
        let mut open: Vec<String> = self.made.open_to_others(owner).into_iter().collect();
        let closed_above = open.is_empty();
        for made in &self.below {
            if made.uid != owner || !closed_above || (self.strict && made.kind == Kind::File) {
                open.extend(made.open_to_others(owner));
            }
        }
        let held = match self.below.len() {
            0 => format!("{:04o}", self.made.mode),
            n => format!("{:04o}, which keeps the {n} paths below it", self.made.mode),
        };
        let what = format!("{} {}", self.what, self.made.path.display());
        Finding::new(what, "look at owner and mode", Outcome::of_opened(&open, held))
    }

    fn attack(&self) -> Finding {
        let all = || std::iter::once(&self.made).chain(&self.below);
        let opened: Vec<String> =
            all().filter_map(|made| Some(format!("{} {}", made.path.display(), made.try_open()?))).collect();
        let held = format!("none of {} paths opened", all().count());
        let what = format!("{} {}", self.what, self.made.path.display());
        Finding::new(what, "open, list, connect", Outcome::of_opened(&opened, held))
    }
}

impl Made {
    fn at(path: &Path) -> Option<Self> {
        let seen = fs::symlink_metadata(path).ok()?;
        let kind = kind_of(&seen)?;
        Some(Self { path: path.to_owned(), kind, mode: seen.mode() & 0o7777, uid: seen.uid() })
    }

    fn open_to_others(&self, owner: u32) -> Option<String> {
        let Self { path, mode, uid, .. } = self;
        if *uid != owner {
            return Some(format!("{} belongs to user {uid}", path.display()));
        }
        (mode & 0o077 != 0).then(|| format!("{} has mode {mode:04o}", path.display()))
    }

    /// How it opened to this process; `None` where it did not.
    fn try_open(&self) -> Option<&'static str> {
        let open = |options: &mut OpenOptions, flags| {
            options.custom_flags(flags | libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&self.path).is_ok()
        };
        match self.kind {
            Kind::Folder if fs::read_dir(&self.path).is_ok() => Some("could be listed"),
            Kind::Folder if fs::symlink_metadata(self.path.join(".")).is_ok() => Some("could be entered"),
            Kind::File if open(OpenOptions::new().read(true), 0) => Some("could be read"),
            Kind::File if open(OpenOptions::new().append(true), 0) => Some("could be written"),
            Kind::Socket if reach(&self.path) => Some("took a connection"),
            _ => None,
        }
    }
}

/// Whether the kernel lets this process connect; a queue that is full is no refusal.
fn reach(path: &Path) -> bool {
    let attempt = |kind| -> Result<(), Errno> {
        let made = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
        connect(made.as_raw_fd(), &UnixAddr::new(path)?)
    };
    [SockType::Stream, SockType::SeqPacket, SockType::Datagram]
        .iter()
        .any(|kind| matches!(attempt(*kind), Ok(()) | Err(Errno::EAGAIN)))
}

fn walk(folder: &Path, depth: usize, found: &mut Vec<Made>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if found.len() >= MOST {
            return;
        }
        // Links have no permissions of their own, and lead where others are responsible.
        let Some(made) = Made::at(&entry.path()) else { continue };
        let is_folder = made.kind == Kind::Folder;
        found.push(made);
        if is_folder && depth > 1 {
            walk(&entry.path(), depth - 1, found);
        }
    }
}

fn kind_of(seen: &Metadata) -> Option<Kind> {
    let kind = seen.file_type();
    match (kind.is_dir(), kind.is_file(), kind.is_socket()) {
        (true, _, _) => Some(Kind::Folder),
        (_, true, _) => Some(Kind::File),
        (_, _, true) => Some(Kind::Socket),
        _ => None,
    }
}

/// Tries each path, as somebody who owns none.
pub(super) fn attack(target: &Target) -> Vec<Finding> {
    target.roots.iter().map(Root::attack).collect()
}

/// Whether any of these files holds one of `secrets`; the files' names where it does.
pub(super) fn that_hold(files: &[PathBuf], holds: impl Fn(&[u8]) -> bool) -> Vec<String> {
    let read = |path: &PathBuf| -> io::Result<Vec<u8>> {
        use io::Read;
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(64 << 20).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let found = files.iter().filter(|path| read(path).is_ok_and(|bytes| holds(&bytes)));
    found.map(|path| path.display().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::scratch::Scratch;
    use std::os::unix::fs::PermissionsExt;

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_closed_folder_keeps_what_is_below_it_and_an_open_one_does_not() {
        let base = Scratch::new();
        let owner = nix::unistd::geteuid().as_raw();
        let (tmp, file) = (base.path().join("tmp"), base.path().join("tmp/file"));
        fs::create_dir(&tmp).unwrap();
        fs::write(&file, "x").unwrap();
        set(&file, 0o644);
        set(&tmp, 0o1777);
        set(base.path(), 0o700);
        let look = || Root::of("scratch", base.path()).unwrap().modes(owner);
        assert!(!look().got_through, "{}", look().line());
        set(base.path(), 0o711);
        let open = look();
        assert!(open.got_through);
        for part in ["mode 0711", "mode 1777", "mode 0644"] {
            assert!(open.result.contains(part), "{}", open.line());
        }
        set(base.path(), 0o700);
        assert!(Root::of("scratch", base.path()).unwrap().modes(owner + 1).got_through);
    }

    #[test]
    fn records_are_closed_each_by_itself() {
        let base = Scratch::new();
        let owner = nix::unistd::geteuid().as_raw();
        let file = base.path().join("log");
        fs::write(&file, "x").unwrap();
        set(base.path(), 0o700);
        set(&file, 0o600);
        assert!(!Root::strict("record", base.path()).unwrap().modes(owner).got_through);
        set(&file, 0o640);
        assert!(Root::strict("record", base.path()).unwrap().modes(owner).got_through);
        assert!(!Root::of("record", base.path()).unwrap().modes(owner).got_through);
    }

    #[test]
    fn what_opens_is_told_with_how() {
        let base = Scratch::new();
        let (socket, file) = (base.path().join("control"), base.path().join("log"));
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        fs::write(&file, "secret").unwrap();
        let finding = Root::of("session", base.path()).unwrap().attack();
        for part in ["could be listed", "control took a connection", "log could be read"] {
            assert!(finding.result.contains(part), "{}", finding.line());
        }
        assert_eq!(
            that_hold(&[file.clone(), socket], |bytes| bytes == b"secret"),
            [file.display().to_string()]
        );
    }
}
