//! The sandbox's view of the filesystem: the node's, with a `/tmp`, `/dev/shm` and `/proc` of its own, and the runtime
//! folder covered. Nothing here is visible outside.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use nix::mount::{MsFlags, mount};

use super::SandboxSpec;
use crate::{
    sys::descriptor::{place, self_path},
    words::{Network, TmpMode},
};

/// Sockets in the filesystem behind which a daemon of the node asks the network on others' behalf: a way out, for small
/// messages, of a network that is to have none.
const ASKS_FOR_OTHERS: [&str; 5] = [
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/systemd/resolve/io.systemd.Resolve.Monitor",
    "/run/dbus/system_bus_socket",
    "/run/nscd/socket",
    "/run/avahi-daemon/socket",
];

/// What failed, for the message.
pub(super) type Failure = (String, io::Error);

/// Makes the mounts. To be called as PID 1, with `CAP_SYS_ADMIN` over the mount namespace.
pub(super) fn arrange(spec: &SandboxSpec) -> Result<(), Failure> {
    // Slave, not private: what the node mounts later (home folders by autofs) still arrives; nothing goes the other way.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>)
        .map_err(|errno| ("separating the mounts".to_owned(), errno.into()))?;
    let room = open(&spec.footprint.room())?;
    if spec.tmp == TmpMode::Private {
        private_tmp(spec)?;
    }
    fs::create_dir_all(&spec.cover).map_err(|error| (format!("making {}", spec.cover.display()), error))?;
    bind(&room, &spec.cover)?;
    if spec.network == Network::Isolated {
        for socket in ASKS_FOR_OTHERS.iter().map(Path::new).filter(|path| path.exists()) {
            bind(&open(Path::new("/dev/null"))?, socket)?;
        }
    }
    // In the new PID namespace the old /proc would show, and let signal, other processes than ours.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>)
        .map_err(|errno| ("mounting a /proc of its own".to_owned(), errno.into()))
}

fn private_tmp(spec: &SandboxSpec) -> Result<(), Failure> {
    let covered =
        [(Path::new("/tmp"), spec.footprint.tmp()), (Path::new("/var/tmp"), spec.footprint.var_tmp())];
    // All places are opened before any of them is covered.
    let mut kept = Vec::new();
    for path in &spec.keep {
        if covered.iter().any(|(over, _)| path.starts_with(over) && path != over) {
            kept.push((path, open(path)?));
        }
    }
    let sources = covered.iter().map(|(_, source)| open(source)).collect::<Result<Vec<_>, _>>()?;
    for ((over, _), source) in covered.iter().zip(&sources) {
        if over.is_dir() {
            bind(source, over)?;
        }
    }
    for (path, source) in kept {
        mount_point(path, &source).map_err(|error| (format!("making {} visible", path.display()), error))?;
        bind(&source, path)?;
    }
    if let Ok(shm) = fs::metadata("/dev/shm") {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let options = format!("mode={:o}", shm.permissions().mode() & 0o7777);
        mount(Some("tmpfs"), "/dev/shm", Some("tmpfs"), flags, Some(options.as_str()))
            .map_err(|errno| ("mounting a /dev/shm of its own".to_owned(), errno.into()))?;
    }
    Ok(())
}

/// An empty file or folder at `path`, as `source` is one, for it to be mounted on.
fn mount_point(path: &Path, source: &OwnedFd) -> io::Result<()> {
    if fs::metadata(self_path(source))?.is_dir() {
        return fs::create_dir_all(path);
    }
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    fs::OpenOptions::new().create(true).append(true).open(path).map(drop)
}

fn open(path: &Path) -> Result<OwnedFd, Failure> {
    place(path).map_err(|error| (format!("opening {}", path.display()), error))
}

fn bind(source: &OwnedFd, over: &Path) -> Result<(), Failure> {
    let from = self_path(source);
    mount(Some(&from), over, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(|errno| (format!("covering {}", over.display()), errno.into()))
}

/// Makes the folders that [`arrange`] mounts, mode 1777 where they stand for such: their parent keeps others out.
pub(super) fn prepare(spec: &SandboxSpec) -> io::Result<()> {
    let make = |path: PathBuf, mode| -> io::Result<()> {
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
    };
    fs::DirBuilder::new().mode(0o700).create(&spec.footprint.scratch)?;
    fs::set_permissions(&spec.footprint.scratch, fs::Permissions::from_mode(0o700))?;
    let owner = fs::symlink_metadata(&spec.footprint.scratch)?.uid();
    if owner != nix::unistd::geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    make(spec.footprint.room(), 0o700)?;
    make(spec.footprint.tmp(), 0o1777)?;
    make(spec.footprint.var_tmp(), 0o1777)
}
