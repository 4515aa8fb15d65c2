//! Why a request is not done: the protocol's status codes, and how the kernel's reasons map to them.

use std::io;

use nix::errno::Errno;

/// `SSH_FX_…`, as far as a server sends them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(super) enum Status {
    Ok = 0,
    Eof = 1,
    NoSuchFile = 2,
    PermissionDenied = 3,
    Failure = 4,
    BadMessage = 5,
    Unsupported = 8,
}

impl Status {
    pub(super) fn code(self) -> u32 {
        self as u32
    }
}

/// A request that is not done.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: Status,
    /// For people; most clients show their own words for the status.
    pub(super) why: String,
}

impl Refusal {
    pub(super) fn new(status: Status, why: &str) -> Self {
        Self { status, why: why.to_owned() }
    }

    /// The end of a file or folder.
    pub(super) fn eof() -> Self {
        Self::new(Status::Eof, "end of file")
    }
}

impl From<Errno> for Refusal {
    /// As OpenSSH's server maps them.
    fn from(errno: Errno) -> Self {
        let status = match errno {
            Errno::ENOENT | Errno::ENOTDIR | Errno::EBADF | Errno::ELOOP => Status::NoSuchFile,
            Errno::EPERM | Errno::EACCES | Errno::EFAULT => Status::PermissionDenied,
            Errno::ENAMETOOLONG | Errno::EINVAL => Status::BadMessage,
            Errno::ENOSYS => Status::Unsupported,
            _ => Status::Failure,
        };
        Self::new(status, errno.desc())
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Errno::from_raw(errno).into(),
            // A path with a zero byte in it is refused before the kernel sees it.
            None if error.kind() == io::ErrorKind::InvalidInput => {
                Self::new(Status::BadMessage, "no such path can be")
            }
            None => Self { status: Status::Failure, why: error.to_string() },
        }
    }
}
