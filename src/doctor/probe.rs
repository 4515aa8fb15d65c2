//! Tries the namespaces of a session in a process that is thrown away.
//!
//! ```text
//! doctor ─ /proc/self/exe @probe-namespaces          unshares, one kind after the other, and maps its ids
//!            └► /proc/self/exe @probe-namespaces pid1  mounts /proc in them, and enters one more user namespace
//! ```
//! Each step is a line on standard output, its name and its errno (0 where it worked); the first failure ends the trial.

use std::{
    fs, io,
    path::Path,
    process::{Command, ExitCode},
};

use caps::{CapSet, Capability};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid},
};

use super::run::Asked;
use crate::sys::spawn::role::PROBE;

/// The word that makes the probe the first process of its namespaces.
const AS_PID_1: &str = "pid1";

/// The steps, in their order.
pub(super) const STEPS: [&str; 8] = ["user", "map", "net", "mnt", "pid", "ipc", "proc", "nested"];

/// How far the trial got.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// All steps.
    Works,
    /// To this step, which failed.
    Failed { step: &'static str, errno: Errno },
    /// The probe itself could not be run or said nothing that makes sense.
    Unknown(String),
}

/// A trial under way.
pub(super) struct Running(Option<Asked>);

impl Running {
    pub(super) fn start() -> Self {
        Self(Asked::start(Path::new("/proc/self/exe"), &[PROBE]))
    }

    pub(super) fn outcome(self) -> Outcome {
        match self.0 {
            Some(asked) => outcome_of(&asked.answer().text),
            None => Outcome::Unknown("/proc/self/exe cannot be run".to_owned()),
        }
    }
}

/// The role [`PROBE`]: tries the namespaces in this process, which has no other use, and prints what happened. Call it
/// before any thread exists.
pub fn probe_namespaces() -> ExitCode {
    let works = if std::env::args().nth(2).is_some_and(|word| word == AS_PID_1) {
        as_pid_1()
    } else {
        enter() && run_as_pid_1()
    };
    if works { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn enter() -> bool {
    let (user, group) = (geteuid(), getegid());
    let map = || {
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
        fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
    };
    said("user", unshare(CloneFlags::CLONE_NEWUSER))
        && said("map", map().map_err(|e| errno(&e)))
        && said("net", unshare(CloneFlags::CLONE_NEWNET))
        && said("mnt", unshare(CloneFlags::CLONE_NEWNS))
        && said("pid", unshare(CloneFlags::CLONE_NEWPID))
        && said("ipc", unshare(CloneFlags::CLONE_NEWIPC))
}

/// A process that is not root loses its capabilities when it executes a program; those that are ambient it keeps
/// (`capabilities(7)`).
fn run_as_pid_1() -> bool {
    let keep = |set| caps::raise(None, set, Capability::CAP_SYS_ADMIN);
    if keep(CapSet::Inheritable).and_then(|()| keep(CapSet::Ambient)).is_err() {
        return said("proc", Err(Errno::EPERM));
    }
    match Command::new("/proc/self/exe").args([PROBE, AS_PID_1]).status() {
        Ok(status) => status.success(),
        Err(e) => said("proc", Err(errno(&e))),
    }
}

fn as_pid_1() -> bool {
    let none = None::<&str>;
    let private = || mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let fresh = || mount(Some("proc"), "/proc", Some("proc"), flags, none);
    said("proc", private().and_then(|()| fresh())) && said("nested", unshare(CloneFlags::CLONE_NEWUSER))
}

fn said(step: &str, result: Result<(), Errno>) -> bool {
    let errno = result.err().map_or(0, |errno| errno as i32);
    println!("{step} {errno}");
    errno == 0
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32))
}

fn outcome_of(text: &str) -> Outcome {
    let mut lines = text.lines();
    for step in STEPS {
        let errno = lines.next().and_then(|line| line.strip_prefix(step)).and_then(|n| n.trim().parse().ok());
        match errno {
            Some(0) => {}
            Some(errno) => return Outcome::Failed { step, errno: Errno::from_raw(errno) },
            None => return Outcome::Unknown(format!("the trial ended before the step {step:?}")),
        }
    }
    Outcome::Works
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_that_failed_is_the_outcome() {
        let all: String = STEPS.iter().map(|step| format!("{step} 0\n")).collect();
        assert_eq!(outcome_of(&all), Outcome::Works);
        assert_eq!(outcome_of("user 28\n"), Outcome::Failed { step: "user", errno: Errno::ENOSPC });
        assert_eq!(outcome_of("user 0\nmap 1\n"), Outcome::Failed { step: "map", errno: Errno::EPERM });
        for text in ["", "running 0 tests\n", "user 0\n", "user x\n"] {
            assert!(matches!(outcome_of(text), Outcome::Unknown(_)), "{text:?}");
        }
    }
}
