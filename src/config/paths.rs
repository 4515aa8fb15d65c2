//! The folders that belong to one user: found where the desktop's rules have them, checked, never trusted.
//!
//! A [`PrivateFolder`] is a descriptor of a folder that is this user's and closed to everybody else. What is done in it
//! is done relative to that descriptor, so it stays in this folder whatever happens to the path. Somebody else's folder, a
//! link, a FIFO, or a folder that others can enter is refused with the reason; nothing is ever removed or taken over.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    fs::File,
    io::{self, ErrorKind, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, open, openat, renameat},
    sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmod, fchmodat, fstat, mkdirat},
    unistd::{Uid, UnlinkatFlags, User, fsync, geteuid, linkat, unlinkat},
};

use super::host::node_name;

/// Why a folder can't be used. Prints as the reason and the remedy.
#[derive(Debug)]
pub enum FolderError {
    /// It is a link, a FIFO, a file: something that somebody may have put in the folder's place.
    NotAFolder {
        /// Where it is.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// It belongs to somebody else.
    Foreign {
        /// Where it is.
        path: PathBuf,
        /// To whom it belongs.
        owner: Uid,
        /// To whom it should.
        user: Uid,
    },
    /// Others can read it, write in it or pass through it.
    OpenToOthers {
        /// Where it is.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The kernel says no.
    Io {
        /// What was tried.
        action: &'static str,
        /// With which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Neither `$HOME` nor the user database gives a home.
    NoHome(Uid),
}

impl FolderError {
    fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { action, path: path.to_owned(), source: source.into() }
    }

    /// What is wrong.
    pub fn reason(&self) -> String {
        match self {
            Self::NotAFolder { path, what } => format!("{} is {what}, not a folder", path.display()),
            Self::Foreign { path, owner, user } => {
                format!("{} belongs to user {owner}, not to {user}: somebody else made it", path.display())
            }
            Self::OpenToOthers { path, mode } => {
                format!("{} is open to others (mode {mode:04o})", path.display())
            }
            Self::Io { action, path, source } => format!("cannot {action} {}: {source}", path.display()),
            Self::NoHome(user) => format!("user {user} has no home"),
        }
    }

    /// The command that mends it, where there is one.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::NotAFolder { path, .. } => Some(format!("rm {}", path.display())),
            Self::Foreign { path, .. } => Some(format!("as root: rm -r {}", path.display())),
            Self::OpenToOthers { path, .. } => Some(format!("chmod 0700 {}", path.display())),
            Self::NoHome(_) => Some("export HOME=/a/folder/of/yours".to_owned()),
            Self::Io { .. } => None,
        }
    }
}

impl fmt::Display for FolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason())?;
        self.remedy().map_or(Ok(()), |remedy| write!(f, "; remedy: {remedy}"))
    }
}

impl std::error::Error for FolderError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// What a written file has to outlive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// The process: nobody waits for the disk. For what says nothing once the machine has crashed.
    Passing,
    /// The machine's crash (`fsync(2)`, which may take tens of milliseconds).
    Lasting,
}

/// A folder of this user's (the effective one), with mode 0700.
#[derive(Debug)]
pub struct PrivateFolder {
    fd: OwnedFd,
    path: PathBuf,
}

/// The runtime folder, made where there is none: `$XDG_RUNTIME_DIR/shlogin`, else `/tmp/shlogin-UID`.
///
/// # Errors
/// Where it can't be made, or what is there can't be trusted.
pub fn runtime_folder() -> Result<PrivateFolder, FolderError> {
    PrivateFolder::open_or_make(&runtime_path())
}

/// Where the runtime folder is. A `$XDG_RUNTIME_DIR` that is not this user's is passed over, and so is one that goes when
/// the user signs out: a session is to be found again at the next sign-in.
pub fn runtime_path() -> PathBuf {
    let xdg = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    match xdg.filter(|folder| is_this_users(folder) && !goes_at_sign_out(folder)) {
        Some(folder) => folder.join("shlogin"),
        None => PathBuf::from(format!("/tmp/shlogin-{}", geteuid())),
    }
}

/// The folder of this user's records and certificate on this node, made where there is none:
/// `$XDG_STATE_HOME/shlogin/NODE`. The node's name is in it because nodes share homes.
///
/// # Errors
/// Where it can't be made, or what is there can't be trusted.
pub fn state_folder() -> Result<PrivateFolder, FolderError> {
    let path = state_path().ok_or(FolderError::NoHome(geteuid()))?;
    let (Some(own), Some(node)) = (path.parent(), path.file_name()) else {
        return Err(FolderError::NoHome(geteuid()));
    };
    PrivateFolder::open_or_make(own)?.folder(node)
}

/// Where the state folder is; `None` for a user without a home.
pub fn state_path() -> Option<PathBuf> {
    let base = xdg("XDG_STATE_HOME").or_else(|| Some(home()?.join(".local/state")))?;
    Some(base.join("shlogin").join(node_name().as_str()))
}

/// `$XDG_CONFIG_HOME`, else `~/.config`; `None` for a user without a home.
pub fn config_home() -> Option<PathBuf> {
    xdg("XDG_CONFIG_HOME").or_else(|| Some(home()?.join(".config")))
}

/// `$HOME`, else what the user database says.
pub fn home() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    home.or_else(|| User::from_uid(geteuid()).ok().flatten().map(|user| user.dir))
        .filter(|home| home.is_absolute())
}

/// Of the XDG variables, a relative path "should be considered invalid and ignored" (XDG Base Directory Specification).
fn xdg(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

fn is_this_users(folder: &Path) -> bool {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let stat = || fstat(open(folder, flags, Mode::empty())?);
    folder.is_absolute()
        && stat().is_ok_and(|stat| stat.st_uid == geteuid().as_raw() && stat.st_mode & 0o022 == 0)
}

/// Whether systemd removes `folder` when the user's last sign-in ends (`pam_systemd(8)`): `/run/user/UID` of a user who
/// does not linger.
pub fn goes_at_sign_out(folder: &Path) -> bool {
    let uid = geteuid();
    folder.starts_with(format!("/run/user/{uid}"))
        && Path::new("/run/systemd/system").exists()
        && !User::from_uid(uid)
            .ok()
            .flatten()
            .is_some_and(|user| Path::new("/var/lib/systemd/linger").join(user.name).exists())
}

impl PrivateFolder {
    /// The folder at `path`, made where there is none, with the folders above it.
    ///
    /// # Errors
    /// Where it can't be made, or what is there can't be trusted.
    pub fn open_or_make(path: &Path) -> Result<Self, FolderError> {
        let (parent, name) = split(path)?;
        let parent = open_or_make_above(parent)?;
        Self::make_in(parent.as_fd(), name, path)
    }

    /// The folder at `path`; `None` where there is nothing.
    ///
    /// # Errors
    /// Where what is there can't be trusted.
    pub fn existing(path: &Path) -> Result<Option<Self>, FolderError> {
        Self::open_in(AT_FDCWD, path.as_os_str(), path)
    }

    /// The folder `name` in this one, made where there is none.
    ///
    /// # Errors
    /// As [`PrivateFolder::open_or_make`].
    pub fn folder(&self, name: impl AsRef<OsStr>) -> Result<Self, FolderError> {
        let (name, path) = self.entry(name.as_ref())?;
        Self::make_in(self.fd.as_fd(), name, &path)
    }

    /// The folder `name` in this one; `None` where there is nothing.
    ///
    /// # Errors
    /// As [`PrivateFolder::existing`].
    pub fn existing_folder(&self, name: impl AsRef<OsStr>) -> Result<Option<Self>, FolderError> {
        let (name, path) = self.entry(name.as_ref())?;
        Self::open_in(self.fd.as_fd(), name, &path)
    }

    /// A folder `name` in this one that was not there before; `None` where something of that name is there already. Who
    /// makes it has it: for allocating names.
    ///
    /// # Errors
    /// Where it can't be made.
    pub fn new_folder(&self, name: impl AsRef<OsStr>) -> Result<Option<Self>, FolderError> {
        let (name, path) = self.entry(name.as_ref())?;
        match mkdirat(&self.fd, name, Mode::S_IRWXU) {
            Ok(()) => Self::open_in(self.fd.as_fd(), name, &path),
            Err(Errno::EEXIST) => Ok(None),
            Err(e) => Err(FolderError::io("make", &path, e)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `content` to the file `name`, mode 0600 whatever the umask: all of it or, where that fails, nothing. A reader
    /// sees the old file or the new one; with [`Durability::Lasting`], also after a crash of the machine.
    ///
    /// # Errors
    /// Where it can't be written (a full disk): the old file is then untouched.
    pub fn write(
        &self,
        name: impl AsRef<OsStr>,
        content: &[u8],
        durability: Durability,
    ) -> Result<(), FolderError> {
        let (name, path) = self.entry(name.as_ref())?;
        let draft = draft_of(name);
        let written = self.write_draft(&draft, content, durability).and_then(|()| {
            renameat(&self.fd, draft.as_os_str(), &self.fd, name)?;
            if durability == Durability::Lasting {
                fsync(&self.fd)?;
            }
            Ok(())
        });
        written.map_err(|e| {
            // Where the draft is gone already, this has nothing to do.
            let _ = unlinkat(&self.fd, draft.as_os_str(), UnlinkatFlags::NoRemoveDir);
            FolderError::io("write", &path, e)
        })
    }

    /// Writes `content` to the file `name`, as [`PrivateFolder::write`] does lastingly, unless there is one: of several who
    /// do it at once, one succeeds. Whether it was this one.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn write_new(&self, name: impl AsRef<OsStr>, content: &[u8]) -> Result<bool, FolderError> {
        let (name, path) = self.entry(name.as_ref())?;
        let draft = draft_of(name);
        let written = self.write_draft(&draft, content, Durability::Lasting).and_then(|()| {
            match linkat(&self.fd, draft.as_os_str(), &self.fd, name, AtFlags::empty()) {
                Ok(()) => {
                    fsync(&self.fd)?;
                    Ok(true)
                }
                Err(Errno::EEXIST) => Ok(false),
                // A file system without hard links (link(2)): the last one wins there.
                Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS) => {
                    renameat(&self.fd, draft.as_os_str(), &self.fd, name)?;
                    fsync(&self.fd)?;
                    Ok(true)
                }
                Err(e) => Err(e.into()),
            }
        });
        // Linked, renamed, or not wanted.
        let _ = unlinkat(&self.fd, draft.as_os_str(), UnlinkatFlags::NoRemoveDir);
        written.map_err(|e| FolderError::io("write", &path, e))
    }

    fn write_draft(&self, draft: &OsStr, content: &[u8], durability: Durability) -> io::Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let mut file = File::from(openat(&self.fd, draft, flags, mode)?);
        fchmod(&file, mode)?;
        file.write_all(content)?;
        if durability == Durability::Lasting {
            file.sync_all()?;
        }
        Ok(())
    }

    /// The content of the file `name`; `None` where there is none.
    ///
    /// # Errors
    /// Where it can't be read, or is no regular file of this user's.
    pub fn read(&self, name: impl AsRef<OsStr>) -> Result<Option<Vec<u8>>, FolderError> {
        let (name, path) = self.entry(name.as_ref())?;
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let mut file = match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT) => return Ok(None),
            Err(e) => return Err(FolderError::io("read", &path, e)),
        };
        let failed = |e: io::Error| FolderError::io("read", &path, e);
        let stat = fstat(&file).map_err(|e| failed(e.into()))?;
        if kind(&stat) != SFlag::S_IFREG || stat.st_uid != geteuid().as_raw() {
            return Err(failed(io::Error::new(ErrorKind::InvalidInput, "not a regular file of this user's")));
        }
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(failed)?;
        Ok(Some(content))
    }

    /// A name of one part, and the path it makes here.
    fn entry<'a>(&self, name: &'a OsStr) -> Result<(&'a OsStr, PathBuf), FolderError> {
        let path = self.path.join(name);
        let mut parts = Path::new(name).components();
        let is_one_part =
            matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name);
        if is_one_part {
            Ok((name, path))
        } else {
            Err(FolderError::io("use", &path, ErrorKind::InvalidFilename))
        }
    }

    fn make_in(parent: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<Self, FolderError> {
        match mkdirat(parent, name, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(FolderError::io("make", path, e)),
        }
        let gone = || FolderError::io("open", path, Errno::ENOENT);
        Self::open_in(parent, name, path)?.ok_or_else(gone)
    }

    /// Looks before it opens: an `O_PATH` descriptor is of whatever is there, runs no driver and waits for no writer, and
    /// what it says can't change between the look and the use.
    fn open_in(parent: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<Option<Self>, FolderError> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let place = match openat(parent, name, flags, Mode::empty()) {
            Ok(place) => place,
            Err(Errno::ENOENT) => return Ok(None),
            Err(e) => return Err(FolderError::io("open", path, e)),
        };
        let stat = fstat(&place).map_err(|e| FolderError::io("examine", path, e))?;
        check(&stat, path)?;
        if stat.st_mode & 0o700 != 0o700 {
            // A umask has taken bits from the owner as well; fchmod(2) refuses O_PATH, its name in /proc does not.
            let magic = format!("/proc/self/fd/{}", place.as_raw_fd());
            fchmodat(AT_FDCWD, magic.as_str(), Mode::S_IRWXU, FchmodatFlags::FollowSymlink)
                .map_err(|e| FolderError::io("set the mode of", path, e))?;
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = openat(&place, ".", flags, Mode::empty()).map_err(|e| FolderError::io("open", path, e))?;
        Ok(Some(Self { fd, path: path.to_owned() }))
    }
}

/// A name for what is still being written, that nobody else uses.
fn draft_of(name: &OsStr) -> OsString {
    let mut draft = OsString::from(".");
    draft.push(name);
    draft.push(format!(".{}", uuid::Uuid::new_v4().simple()));
    draft
}

impl AsFd for PrivateFolder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn check(stat: &FileStat, path: &Path) -> Result<(), FolderError> {
    let path = path.to_owned();
    let what = match kind(stat) {
        SFlag::S_IFDIR => "",
        SFlag::S_IFLNK => "a symbolic link",
        SFlag::S_IFIFO => "a FIFO",
        SFlag::S_IFSOCK => "a socket",
        SFlag::S_IFREG => "a file",
        _ => "a device",
    };
    if !what.is_empty() {
        return Err(FolderError::NotAFolder { path, what });
    }
    let (owner, user) = (Uid::from_raw(stat.st_uid), geteuid());
    if owner != user {
        return Err(FolderError::Foreign { path, owner, user });
    }
    if stat.st_mode & 0o077 != 0 {
        return Err(FolderError::OpenToOthers { path, mode: stat.st_mode & 0o7777 });
    }
    Ok(())
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

fn split(path: &Path) -> Result<(&Path, &OsStr), FolderError> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if path.is_absolute() && !path.as_os_str().as_bytes().contains(&0) => {
            Ok((parent, name))
        }
        _ => Err(FolderError::io("use", path, ErrorKind::InvalidFilename)),
    }
}

/// The folder at `path`, whoever's it is. Those of its parts that are missing are made, and are this user's alone.
fn open_or_make_above(path: &Path) -> Result<OwnedFd, FolderError> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    match open(path, flags, Mode::empty()) {
        Ok(fd) => Ok(fd),
        Err(Errno::ENOENT) => {
            let (parent, name) = split(path)?;
            let parent = open_or_make_above(parent)?;
            Ok(PrivateFolder::make_in(parent.as_fd(), name, path)?.fd)
        }
        Err(e) => Err(FolderError::io("open", path, e)),
    }
}
