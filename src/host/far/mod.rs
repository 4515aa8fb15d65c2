//! A host on another machine, reached over a trunk (HTTP/2, RFC 9113) that it has dialled: both ends of what is said there.
//!
//! ```text
//! gateway                                            host
//!   │ ── CONNECT 127.0.0.1:8888 ─────────────────────►│ connects inside; then the bytes of that connection
//!   │ ── shlogin-dial /PATH ─────────────────────────►│ the same, to a unix socket
//!   │ ── shlogin-run ────────────────────────────────►│ then packets:
//!   │      Run, Sftp ►      ◄ Started, or NotRun      │
//!   │      input ►          ◄ output, errors, Exited  │
//!   │ ── shlogin-tell ───────────────────────────────►│ Signal, Resize, Deaf, Usage; one answer
//!   │ ── shlogin-listen ─────────────────────────────►│ Listen ►  ◄ Listening, Incoming …
//!   │ ── shlogin-take /N ────────────────────────────►│ the bytes of one that came in
//! ```
//! All but the first are extended CONNECTs (RFC 8441) with that protocol. What was started over a channel is hung up when the
//! channel breaks. A signal has a channel of its own: it must not wait behind input that nobody reads.

mod gateway_end;
mod host_end;
mod listening;
mod packet;
mod programs;
mod side;

use std::{
    ffi::OsString,
    io,
    net::SocketAddr,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use nix::{pty::Winsize, sys::termios::Termios};
use serde::{Deserialize, Serialize};

pub use gateway_end::FarHost;
pub use host_end::Reach;
pub(super) use listening::FarListener;

use super::{HostError, Invocation, Usage};
use crate::{sandbox::protocol::Endpoint, sys::process::Exit};

/// To a unix socket.
const DIAL: &str = "shlogin-dial";
/// Runs a program.
const RUN: &str = "shlogin-run";
/// Tells something of a program that runs.
const TELL: &str = "shlogin-tell";
/// Listens inside.
const LISTEN: &str = "shlogin-listen";
/// Takes one that came in.
const TAKE: &str = "shlogin-take";

/// What a gateway asks.
#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    Run {
        what: Invocation,
        env: Vec<(OsString, OsString)>,
        terminal: Option<Tty>,
    },
    Sftp,
    Signal {
        id: u64,
        signal: i32,
    },
    Resize {
        id: u64,
        rows: u16,
        cols: u16,
    },
    /// Nobody reads its output, or with `errors` its errors, any more.
    Deaf {
        id: u64,
        errors: bool,
    },
    Listen {
        at: Endpoint,
    },
    /// What the processes have used.
    Usage,
}

/// What a host answers.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Started {
        id: u64,
    },
    NotRun(Refusal),
    Exited {
        exit: Option<Exit>,
    },
    Done,
    /// None where the sandbox has ended.
    Usage(Option<Usage>),
    Listening {
        port: Option<u16>,
    },
    NotListening {
        errno: i32,
    },
    Incoming {
        number: u64,
        from: Option<SocketAddr>,
    },
}

/// Why a program was not run, as it is told over a trunk.
#[derive(Debug, Serialize, Deserialize)]
struct Refusal {
    /// What could not be run, and the kernel's reason: an error of [`HostError::Spawn`].
    spawn: Option<(String, i32)>,
    why: String,
}

impl From<HostError> for Refusal {
    fn from(error: HostError) -> Self {
        let why = error.to_string();
        match error {
            HostError::Spawn { program, source } => {
                Self { spawn: Some((program, source.raw_os_error().unwrap_or(libc::EIO))), why }
            }
            _ => Self { spawn: None, why },
        }
    }
}

impl From<Refusal> for HostError {
    fn from(refusal: Refusal) -> Self {
        match refusal.spawn {
            Some((program, errno)) => Self::Spawn { program, source: io::Error::from_raw_os_error(errno) },
            None => Self::Sandbox(refusal.why),
        }
    }
}

/// A terminal as it is to be on the other machine: size and modes of the one on this.
#[derive(Debug, Serialize, Deserialize)]
struct Tty {
    rows: u16,
    cols: u16,
    /// Input, output, control and local modes, as `termios(3)` has them on Linux.
    modes: [u32; 4],
    characters: Vec<u8>,
}

impl Tty {
    fn new(size: Winsize, modes: &Termios) -> Self {
        let raw = libc::termios::from(modes.clone());
        Self {
            rows: size.ws_row,
            cols: size.ws_col,
            modes: [raw.c_iflag, raw.c_oflag, raw.c_cflag, raw.c_lflag],
            characters: raw.c_cc.to_vec(),
        }
    }

    fn size(&self) -> Winsize {
        Winsize { ws_row: self.rows, ws_col: self.cols, ws_xpixel: 0, ws_ypixel: 0 }
    }

    /// The modes laid over `usual`, which says all that is not told.
    fn modes(&self, usual: Termios) -> Termios {
        let mut raw = libc::termios::from(usual);
        [raw.c_iflag, raw.c_oflag, raw.c_cflag, raw.c_lflag] = self.modes;
        for (ours, theirs) in raw.c_cc.iter_mut().zip(&self.characters) {
            *ours = *theirs;
        }
        raw.into()
    }
}

/// A path in the path of a request: as its bytes, in hexadecimal, for it may be any bytes at all.
fn to_request_path(path: &Path) -> String {
    let digits: String = path.as_os_str().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("/{digits}")
}

fn from_request_path(text: &str) -> Option<PathBuf> {
    let digits = text.strip_prefix('/')?;
    if digits.len() % 2 != 0 || !digits.is_ascii() {
        return None;
    }
    let bytes = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok());
    Some(PathBuf::from(OsString::from_vec(bytes.collect::<Option<Vec<u8>>>()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_any_bytes_goes_through_a_request() {
        for path in ["/run/app", "/tmp/a b%2f\u{e4}", "x"] {
            assert_eq!(from_request_path(&to_request_path(Path::new(path))).unwrap(), Path::new(path));
        }
        let odd = PathBuf::from(OsString::from_vec(vec![b'/', 0xff, 0x01]));
        assert_eq!(from_request_path(&to_request_path(&odd)), Some(odd));
        for bad in ["", "/1", "/zz", "2f", "/2\u{e4}"] {
            assert_eq!(from_request_path(bad), None, "{bad}");
        }
    }
}
