//! Namespaces: entering new ones, and the first process in them.

use std::{fs, io, os::fd::AsRawFd};

use nix::{
    sched::{CloneFlags, unshare},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
    unistd::{Gid, Pid, Uid},
};

/// Moves this single-threaded process into new user, network, mount and IPC namespaces, with its own user and group
/// mapped to themselves, and its next child into a new PID namespace (`user_namespaces(7)`).
///
/// # Errors
/// As `unshare(2)`: `EPERM`, `ENOSPC`, `EUSERS` where the machine forbids it.
pub fn enter_new(user: Uid, group: Gid) -> io::Result<()> {
    let ours = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWIPC;
    unshare(ours)?;
    // An unprivileged process may map its own ids only, and its group only after giving up setgroups(2).
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
    Ok(())
}

/// Which side of [`fork_sibling`] one is on.
pub enum Fork {
    /// The caller; the new process is this one.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Forks a process whose parent is the caller's parent (`CLONE_PARENT`): the caller can leave, and the process that
/// started it is the one to wait for the child.
///
/// The caller must be single-threaded; this is checked.
///
/// # Errors
/// As `clone(2)`; `InvalidInput` where the process has threads.
pub fn fork_sibling() -> io::Result<Fork> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and with a null stack this is fork(2) with another parent (clone(2)); the process has one
    // thread, so the child may do all that the parent may.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => i32::try_from(pid).map(|pid| Fork::Parent(Pid::from_raw(pid))).map_err(io::Error::other),
    }
}

mod ioctl {
    #![allow(missing_docs, unreachable_pub, reason = "made by macros; netdevice(7) documents them")]
    nix::ioctl_readwrite_bad!(get_flags, libc::SIOCGIFFLAGS, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_flags, libc::SIOCSIFFLAGS, libc::ifreq);
}

/// Brings the loopback interface of the current network namespace up.
///
/// # Errors
/// As the ioctls `SIOCGIFFLAGS` and `SIOCSIFFLAGS` of `netdevice(7)`; needs `CAP_NET_ADMIN` over the namespace.
pub fn bring_loopback_up() -> io::Result<()> {
    let control = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: ifreq is plain data (netdevice(7)), for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    // SAFETY: the request names an interface and outlives both calls; the kernel fills in, and we read, ifru_flags.
    unsafe {
        ioctl::get_flags(control.as_raw_fd(), &raw mut request)?;
        let up = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).map_err(io::Error::other)?;
        request.ifr_ifru.ifru_flags |= up;
        ioctl::set_flags(control.as_raw_fd(), &raw const request)?;
    }
    Ok(())
}
