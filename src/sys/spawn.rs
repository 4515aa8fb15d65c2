//! Starting processes: roles of our own program, and programs of others with descriptors and a terminal.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use nix::{
    sys::{prctl, signal::Signal, stat::Mode},
    unistd::{Pid, getppid, setsid},
};
use serde::{Deserialize, Serialize};

use super::{descriptor::INHERITED, process::reset_signals};

/// The words in `argv[1]` that choose a hidden role.
pub mod role {
    /// The session's supervisor.
    pub const SUPERVISE: &str = "@supervise";
    /// Parent of init and of the network helper.
    pub const KEEPER: &str = "@keeper";
    /// PID 1 of the sandbox.
    pub const INIT: &str = "@init";
    /// Whether namespaces can be had here.
    pub const PROBE: &str = "@probe-namespaces";
    /// Asks PAM about one password.
    pub const PASSWORD: &str = "@password";
    /// A part of `verify` that runs as another user.
    pub const ATTACK: &str = "@attack";
    /// A part of `verify` that runs on a compute node, in the job of the session that it attacks.
    pub const ATTACK_IN_JOB: &str = "@attack-in-job";
    /// Serves the session's files over SFTP.
    pub const SFTP: &str = "@sftp";
    /// The gateway of a session in a Slurm job.
    pub const GATE: &str = "@gate";
    /// The host of such a session, in the job.
    pub const HOST: &str = "@host";
    /// Says, in the job, whether that host is there.
    pub const HOST_IN_JOB: &str = "@host-in-job";
}

/// What becomes of a role when the process that started it dies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Leash {
    /// It is killed with it (`PR_SET_PDEATHSIG`).
    DiesWithParent,
    /// It notices by its sockets, and tidies up first.
    NoticesItself,
}

/// Starts this very program in another role, in a session of its own, with `fds` as its descriptors 3, 4, …, `stderr`
/// (or `/dev/null`) for what it has to say, and an empty environment. `label` is what `ps` shows beside the role.
///
/// # Errors
/// As `fork(2)` and `execve(2)`.
pub fn role(
    role: &str,
    label: &str,
    fds: Vec<OwnedFd>,
    stderr: Option<OwnedFd>,
    leash: Leash,
) -> io::Result<Child> {
    role_in(Vec::new(), role, label, fds, stderr, leash)
}

/// The same, in an environment: for a role that runs programs which are nothing without one.
///
/// # Errors
/// As `fork(2)` and `execve(2)`.
pub fn role_in(
    env: Vec<(OsString, OsString)>,
    role: &str,
    label: &str,
    fds: Vec<OwnedFd>,
    stderr: Option<OwnedFd>,
    leash: Leash,
) -> io::Result<Child> {
    role_with(env, role, &[label.as_ref()], fds, stderr, leash)
}

/// The same, with these words behind the role's.
///
/// # Errors
/// As `fork(2)` and `execve(2)`.
pub fn role_with(
    env: Vec<(OsString, OsString)>,
    role: &str,
    words: &[&OsStr],
    fds: Vec<OwnedFd>,
    stderr: Option<OwnedFd>,
    leash: Leash,
) -> io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(role).args(words).env_clear().envs(env);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr.map_or_else(Stdio::null, Stdio::from));
    start_role(command, fds, leash)
}

/// Starts this very program in a role that serves a client over its standard streams, in a session of its own, with
/// `told` as its descriptor 3 and an empty environment. It dies with this process.
///
/// # Errors
/// As `fork(2)` and `execve(2)`.
pub fn serving_role(role: &str, told: OwnedFd, [input, output, error]: [OwnedFd; 3]) -> io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(role).env_clear().stdin(input).stdout(output).stderr(error);
    start_role(command, vec![told], Leash::DiesWithParent)
}

fn start_role(mut command: Command, fds: Vec<OwnedFd>, leash: Leash) -> io::Result<Child> {
    command.arg0("shlogin").current_dir("/");
    let parent = nix::unistd::getpid();
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    // SAFETY: the closure runs in the child between fork and exec. It only makes system calls on numbers that `fds` keeps
    // open until spawn() has returned, and allocates nothing once `raw` and `high` are made (signal-safety(7)).
    unsafe {
        command.pre_exec(move || {
            place_at(&raw, INHERITED)?;
            let ours = INHERITED.saturating_add(i32::try_from(raw.len()).unwrap_or(i32::MAX));
            close_on_exec_from(ours)?;
            reset_signals()?;
            setsid()?;
            if leash == Leash::DiesWithParent {
                die_with(parent)?;
            }
            Ok(())
        });
    }
    let child = command.spawn();
    drop(fds);
    child
}

/// Marks all descriptors from number `first` up close-on-exec: whoever started us may have left some open, and what we
/// start is to have none but those it is given.
fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    let first = libc::c_uint::try_from(first).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: plain numbers (close_range(2)); nothing is closed before the exec that ends this process's use of them.
    let done =
        unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Duplicates `raw` to the numbers `first`, `first + 1`, …, which stay open over `execve(2)`.
fn place_at(raw: &[RawFd], first: RawFd) -> io::Result<()> {
    // First out of the way, lest one lands on another that is still to be moved.
    let mut high = [-1; 16];
    let above = first + 32;
    for (slot, fd) in high.iter_mut().zip(raw) {
        // SAFETY: plain numbers (fcntl(2)).
        *slot = unsafe { libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, above) };
        if *slot < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    if raw.len() > high.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (number, fd) in (first..).zip(&high[..raw.len()]) {
        // SAFETY: plain numbers; dup2 clears close-on-exec on the copy (dup(2)).
        if unsafe { libc::dup2(*fd, number) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Asks to be killed when `parent` dies, and notices if it already has.
///
/// # Errors
/// `Interrupted` where the parent is gone; otherwise as `prctl(2)`.
pub fn die_with(parent: Pid) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() == parent { Ok(()) } else { Err(io::ErrorKind::Interrupted.into()) }
}

/// A program of somebody else's, fully described. `env` is all the environment it gets.
#[derive(Clone, Serialize, Deserialize)]
pub struct Program {
    /// Its words; the first is looked up in the `PATH` of `env`.
    pub argv: Vec<OsString>,
    /// Its environment.
    pub env: Vec<(OsString, OsString)>,
    /// Where it starts.
    pub cwd: PathBuf,
    /// Its file mode creation mask (`umask(2)`): its user's, for ours is stricter.
    pub umask: u32,
}

/// What a program has as its standard streams.
pub enum Streams {
    /// One descriptor each for stdin, stdout and stderr.
    Separate([OwnedFd; 3]),
    /// A terminal for all three, made its controlling one.
    Terminal(OwnedFd),
}

/// Starts a program in a session of its own. Returns its PID.
///
/// # Errors
/// As `execve(2)`; `NotFound` where the program or its working folder does not exist.
pub fn program(program: &Program, streams: Streams) -> io::Result<Child> {
    let (first, rest) = program.argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(first);
    command.args(rest).env_clear().envs(program.env.iter().map(|(k, v)| (k, v))).current_dir(&program.cwd);
    let umask = Mode::from_bits_truncate(program.umask);
    let terminal = match streams {
        Streams::Separate([input, output, error]) => {
            command.stdin(input).stdout(output).stderr(error);
            false
        }
        Streams::Terminal(tty) => {
            command.stdin(tty.try_clone()?).stdout(tty.try_clone()?).stderr(tty);
            true
        }
    };
    // SAFETY: the closure makes system calls only, on no memory but its own (signal-safety(7)).
    unsafe {
        command.pre_exec(move || {
            close_on_exec_from(3)?;
            nix::sys::stat::umask(umask);
            reset_signals()?;
            setsid()?;
            if terminal && libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    command.spawn()
}

/// Starts a helper that is killed when this process dies, with the standard streams given.
///
/// # Errors
/// As `execve(2)`.
pub fn helper(mut command: Command) -> io::Result<Child> {
    let parent = nix::unistd::getpid();
    // SAFETY: system calls only, as above.
    unsafe {
        command.pre_exec(move || {
            close_on_exec_from(3)?;
            reset_signals()?;
            die_with(parent)
        });
    }
    command.spawn()
}
