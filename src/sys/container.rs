//! A container that a runtime made below this process's own namespaces: finding its first process, and joining it.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
};

use nix::{
    fcntl::{OFlag, open},
    sched::{CloneFlags, setns},
    sys::stat::Mode,
    unistd::{Pid, chroot, fchdir},
};

use super::{descriptor, process};

/// A container, held by its first process.
#[derive(Debug)]
pub struct Container {
    first: process::PidFd,
    root: OwnedFd,
}

impl Container {
    /// Finds the container among the processes that descend from `ancestor`, as `/proc` shows them now; with several, the
    /// oldest.
    ///
    /// A container's first process is PID 1 of a PID namespace right below that of `/proc`, and its user namespace is a
    /// child of ours. Both count. A runtime's helpers, such as the one that mounts the image, share the container's user
    /// namespace, but neither its mounts nor its PID namespace. What programs in the container make for themselves lies
    /// one user namespace deeper.
    ///
    /// # Errors
    /// `NotFound` where there is none; otherwise as `open(2)` on `/proc`.
    pub fn below(ancestor: Pid) -> io::Result<Self> {
        let ours = File::open("/proc/self/ns/user")?.metadata()?;
        let ours = (ours.dev(), ours.ino());
        let found = process::descendants_of(ancestor)?.into_iter().filter_map(|pid| Self::of(pid, ours).ok());
        let oldest = found.flatten().min_by_key(|(_, born)| *born);
        oldest.map(|(container, _)| container).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The container whose first process this is, and when it began. `None` where it is no such process.
    fn of(pid: Pid, ours: (u64, u64)) -> io::Result<Option<(Self, u64)>> {
        // Held before it is looked at: should it end, and another get its number, joining fails.
        let first = process::PidFd::open(pid)?;
        if !numbers_are_of_a_first_one(&fs::read_to_string(format!("/proc/{pid}/status"))?) {
            return Ok(None);
        }
        let parent = File::from(parent(&File::open(format!("/proc/{pid}/ns/user"))?)?).metadata()?;
        if (parent.dev(), parent.ino()) != ours {
            return Ok(None);
        }
        let folder = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(format!("/proc/{pid}/root").as_str(), folder, Mode::empty())?;
        Ok(Some((Self { first, root }, process::start_ticks(pid)?)))
    }

    /// Moves this single-threaded process into the container's user and mount namespaces, and to its root folder.
    ///
    /// No right is needed for it: who made a user namespace has every capability over it while in its parent
    /// (`user_namespaces(7)`). They come with the move, and are the caller's to give up.
    ///
    /// # Errors
    /// As `setns(2)`: `ESRCH` where the container has ended, `EINVAL` where this process has threads.
    pub fn join(self) -> io::Result<()> {
        setns(&self.first, CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
        // The move leads to the root of the mounts, and a runtime may have put its container's elsewhere.
        fchdir(&self.root)?;
        chroot(".")?;
        Ok(())
    }
}

/// Whether a process is PID 1 of a PID namespace right below that of `/proc`, by its `status` there: `NSpid:` has its
/// numbers in all its PID namespaces, from that of `/proc` down (`proc_pid_status(5)`).
fn numbers_are_of_a_first_one(status: &str) -> bool {
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.is_some_and(|numbers| numbers.split_whitespace().skip(1).eq(["1"]))
}

mod ioctl {
    #![allow(missing_docs, unreachable_pub, reason = "made by a macro; ioctl_ns(2) documents it")]
    nix::ioctl_none!(get_parent, 0xb7, 2);
}

/// The parent of a user namespace.
fn parent(namespace: &File) -> io::Result<OwnedFd> {
    // SAFETY: NS_GET_PARENT takes no argument, and returns a new descriptor (ioctl_ns(2)).
    let made = unsafe { ioctl::get_parent(namespace.as_raw_fd())? };
    Ok(descriptor::just_made(made))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_process_is_one_in_one_namespace_further_down() {
        let status = |numbers: &str| format!("Name:\tappinit\nNSpid:\t{numbers}\nNSpgid:\t1\n");
        assert!(numbers_are_of_a_first_one(&status("19\t1")));
        for others in ["1", "19", "34\t13", "40\t20\t1", ""] {
            assert!(!numbers_are_of_a_first_one(&status(others)), "{others}");
        }
        assert!(!numbers_are_of_a_first_one("Name:\tNSpid: 2 1\n"));
    }

    #[test]
    fn without_a_container_none_is_found() {
        let error = Container::below(Pid::this()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
