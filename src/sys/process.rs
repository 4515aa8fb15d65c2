//! Processes: descriptors for them, waiting, signals, and what /proc says of them.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    /// By itself, with this status (0 to 255).
    Status(u8),
    /// By this signal.
    Signal(u8),
}

impl Exit {
    /// As a shell reports it: the status, or 128 + the signal.
    pub fn code(self) -> u8 {
        match self {
            Self::Status(status) => status,
            Self::Signal(signal) => 128_u8.saturating_add(signal),
        }
    }

    fn from_wait(status: WaitStatus) -> Option<(Pid, Self)> {
        match status {
            WaitStatus::Exited(pid, status) => {
                Some((pid, Self::Status(u8::try_from(status & 0xff).unwrap_or(255))))
            }
            WaitStatus::Signaled(pid, signal, _) => {
                Some((pid, Self::Signal(u8::try_from(signal as i32).unwrap_or(255))))
            }
            _ => None,
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status}"),
            Self::Signal(number) => match Signal::try_from(i32::from(*number)) {
                Ok(signal) => write!(f, "signal {number} ({signal})"),
                Err(_) => write!(f, "signal {number}"),
            },
        }
    }
}

/// A process, held: the number cannot come to mean another (`pidfd_open(2)`).
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Takes hold of a process.
    ///
    /// # Errors
    /// `ESRCH` where it is gone.
    pub fn open(pid: Pid) -> io::Result<Self> {
        // SAFETY: pidfd_open(2) takes plain numbers and returns a new descriptor, or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
        let fd = i32::try_from(fd).map_err(io::Error::other)?;
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made by the kernel, close-on-exec, and known to nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sends a signal (`pidfd_send_signal(2)`).
    ///
    /// # Errors
    /// `ESRCH` where it is gone, `EPERM` where it is not ours.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        // SAFETY: the descriptor is ours, the siginfo pointer may be null.
        let done = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                signal as i32,
                std::ptr::null::<u8>(),
                0,
            )
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits for its end. `false` where that has not come after `limit`.
    pub fn wait(&self, limit: std::time::Duration) -> bool {
        let until = std::time::Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(std::time::Instant::now());
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], left) {
                Ok(ready) => return ready > 0,
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
    }
}

impl From<OwnedFd> for PidFd {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The next child that ended, without waiting; `None` where none has (or there is none).
pub fn reap() -> Option<(Pid, Exit)> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return None,
            Ok(status) => {
                if let Some(ended) = Exit::from_wait(status) {
                    return Some(ended);
                }
            }
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

/// A descriptor that becomes readable when one of `signals` comes; they are blocked otherwise (`signalfd(2)`).
///
/// # Errors
/// As `signalfd(2)`.
pub fn signals(signals: &[Signal]) -> io::Result<SignalFd> {
    let set: SigSet = signals.iter().copied().collect();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// Unblocks all signals and sets them back to their defaults: what a new program expects to be born with.
///
/// # Errors
/// As `sigprocmask(2)`.
pub fn reset_signals() -> io::Result<()> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    for signal in Signal::iterator() {
        if !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
            // SAFETY: SIG_DFL is no function of ours, so nothing can run in a signal's context (signal(2)).
            unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl)? };
        }
    }
    Ok(())
}

/// Waits for a child for at most `limit`. `false` where it has not ended by then.
pub fn ends_within(child: &mut std::process::Child, limit: std::time::Duration) -> bool {
    let Ok(held) =
        i32::try_from(child.id()).map_err(io::Error::other).and_then(|pid| PidFd::open(Pid::from_raw(pid)))
    else {
        return child.wait().is_ok();
    };
    held.wait(limit) && child.wait().is_ok()
}

/// Keeps up to so many bytes of freed memory at hand, where the C library would give all but 128 KiB back to the kernel each time,
/// and take it again, page by page: for processes through which much flows (mallopt(3)).
///
/// # Errors
/// Where the C library refuses.
pub fn keep_freed_memory(bytes: i32) -> io::Result<()> {
    // SAFETY: it takes two numbers by value and changes the allocator's own settings (mallopt(3)).
    let done = unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, bytes) };
    if done == 1 { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Raises the number of descriptors this process may have to the most it is allowed (`RLIMIT_NOFILE`).
///
/// # Errors
/// As `setrlimit(2)`.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

/// How many descriptors this process may have.
pub fn descriptor_limit() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(256, |(now, _)| now);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// All processes that descend from this one, as `/proc` shows them now.
///
/// # Errors
/// Where `/proc` cannot be read.
pub fn descendants() -> io::Result<Vec<Pid>> {
    descendants_of(Pid::this())
}

/// All processes that descend from `ancestor`, as `/proc` shows them now.
///
/// # Errors
/// Where `/proc` cannot be read.
pub fn descendants_of(ancestor: Pid) -> io::Result<Vec<Pid>> {
    let mut parents = std::collections::HashMap::<i32, Vec<i32>>::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // The command's name, in parentheses, may hold anything: what follows the last one counts (proc_pid_stat(5)).
        let after = stat.rsplit_once(") ").map(|(_, rest)| rest);
        let parent = after.and_then(|rest| rest.split(' ').nth(1)).and_then(|ppid| ppid.parse().ok());
        parents.entry(parent.unwrap_or_default()).or_default().push(pid);
    }
    let mut found = Vec::new();
    let mut next = vec![ancestor.as_raw()];
    while let Some(parent) = next.pop() {
        for child in parents.remove(&parent).unwrap_or_default() {
            found.push(Pid::from_raw(child));
            next.push(child);
        }
    }
    Ok(found)
}

/// Sends `SIGKILL` to all that descends from this process, and to nothing else: each is held before it is looked at a
/// second time, so that a number which has meanwhile come to mean a stranger is not signalled.
pub fn kill_descendants() {
    kill_descendants_of(Pid::this());
}

/// The same, for all that descends from `ancestor`, and not for `ancestor` itself.
pub fn kill_descendants_of(ancestor: Pid) {
    let seen = descendants_of(ancestor).unwrap_or_default();
    let held: Vec<(Pid, PidFd)> =
        seen.into_iter().filter_map(|pid| PidFd::open(pid).ok().map(|process| (pid, process))).collect();
    let still = descendants_of(ancestor).unwrap_or_default();
    for (pid, process) in held {
        if still.contains(&pid) {
            // It may have ended since, which is what is wanted.
            let _ = process.signal(Signal::SIGKILL);
        }
    }
}

/// When a process began, in clock ticks since boot (`/proc/PID/stat`, field 22).
///
/// # Errors
/// Where there is no such process, or it has ended and only waits to be reaped.
pub fn start_ticks(pid: Pid) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    if stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let field = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(19));
    field.and_then(|ticks| ticks.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Whether this `/proc` does not show all processes (its option `hidepid`, `proc_pid(5)`). Then it hides from their own user, too,
/// those that have closed their memory (`PR_SET_DUMPABLE`), as ours have. The first of all is root's, and shown where any is.
pub fn are_hidden() -> bool {
    fs::read("/proc/1/stat").is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_are_children_and_theirs() {
        let mut shell = std::process::Command::new("sh");
        // The grandchild says its number itself, so it is what it will be when that is heard.
        shell.args(["-c", "sh -c 'echo $$; exec sleep 3600' & wait"]).stdout(std::process::Stdio::piped());
        let mut child = shell.spawn().unwrap();
        let mut line = String::new();
        let out = child.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
        let grandchild = Pid::from_raw(line.trim().parse().unwrap());
        let found = descendants().unwrap();
        let held = PidFd::open(grandchild).unwrap();
        assert!(found.contains(&Pid::from_raw(i32::try_from(child.id()).unwrap())));
        assert!(found.contains(&grandchild));
        held.signal(Signal::SIGKILL).unwrap();
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn the_start_of_a_process_does_not_change() {
        let me = Pid::this();
        assert_eq!(start_ticks(me).unwrap(), start_ticks(me).unwrap());
        assert!(start_ticks(me).unwrap() > 0);
    }
}
