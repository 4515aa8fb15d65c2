//! What a user has on the node at this moment: processes, mounts, listeners, and the files that only a live session has.

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::unistd::Pid;

use super::{User, until};

/// One process, as `/proc` shows it.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    pub(crate) parent: Pid,
    pub(crate) name: String,
    pub(crate) words: Vec<String>,
    state: char,
    uids: Vec<u32>,
}

impl Process {
    fn read(proc: &Path, pid: i32) -> Option<Self> {
        let folder = proc.join(pid.to_string());
        let status = fs::read_to_string(folder.join("status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let command = fs::read(folder.join("cmdline")).unwrap_or_default();
        Some(Self {
            pid: Pid::from_raw(pid),
            parent: Pid::from_raw(field("PPid:")?.parse().ok()?),
            name: field("Name:")?.to_owned(),
            words: command
                .split(|byte| *byte == 0)
                .filter(|word| !word.is_empty())
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect(),
            state: field("State:")?.chars().next()?,
            uids: field("Uid:")?.split_whitespace().filter_map(|uid| uid.parse().ok()).collect(),
        })
    }

    /// Ended, and not yet waited for by its parent.
    pub(crate) fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    /// What it is to the program: `@supervise`, `@keeper`, `@init`, or else its name.
    pub(crate) fn role(&self) -> &str {
        match self.words.get(1) {
            Some(word) if word.starts_with('@') => word,
            _ => &self.name,
        }
    }

    /// All four of real, effective, saved and filesystem user id.
    pub(crate) fn uids(&self) -> &[u32] {
        &self.uids
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid)).map_or(0, Iterator::count)
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: String = self.words.join(" ").chars().take(160).collect();
        write!(f, "process {} (parent {}) {} {}: {words}", self.pid, self.parent, self.state, self.name)
    }
}

/// All processes any of whose user ids is this; but for those that are over and wait for the node's own init to say so.
pub(crate) fn processes_of(uid: u32) -> Vec<Process> {
    processes_in(Path::new("/proc"), uid)
}

/// Those that this mount of proc(5) shows, which may be another node's.
pub(crate) fn processes_in(proc: &Path, uid: u32) -> Vec<Process> {
    fs::read_dir(proc)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Process::read(proc, pid))
        .filter(|process| process.uids.contains(&uid))
        .filter(|process| !(process.is_zombie() && process.parent.as_raw() == 1))
        .collect()
}

/// Mount points below a folder, in the node's own mount namespace.
pub(crate) fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/1/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|point| point.starts_with(folder))
        .collect()
}

/// Everything of a user's that is there only while sessions live.
#[derive(Default)]
pub(crate) struct Census {
    pub(crate) processes: Vec<Process>,
    pub(crate) mounts: Vec<PathBuf>,
    pub(crate) files: Vec<PathBuf>,
    pub(crate) listeners: Vec<String>,
}

impl Census {
    /// Takes it.
    pub(crate) fn of(user: &User) -> Self {
        let own = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|meta| meta.uid() == user.uid);
        let entries = |folder: &Path| -> Vec<PathBuf> {
            fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
        };
        // The program's own folder in the runtime folder may stay; what is in it may not.
        let mut files: Vec<_> =
            entries(&user.runtime).into_iter().filter(|path| !path.ends_with("shlogin")).collect();
        files.extend(entries(&user.runtime.join("shlogin")));
        for shared in ["/tmp", "/var/tmp", "/dev/shm"] {
            for path in entries(Path::new(shared)).into_iter().filter(own) {
                if path.ends_with(format!("shlogin-{}", user.uid)) {
                    files.extend(entries(&path));
                } else {
                    files.push(path);
                }
            }
        }
        let mut mounts = mounts_below(&user.home);
        mounts.extend(mounts_below(&user.runtime));
        mounts.extend(mounts_below(Path::new(&format!("/var/tmp/shlogin-{}", user.uid))));
        let id = format!("user_id={},", user.uid);
        let table = fs::read_to_string("/proc/1/mountinfo").unwrap_or_default();
        mounts.extend(
            table
                .lines()
                .filter(|line| line.contains(&id))
                .filter_map(|line| line.split(' ').nth(4))
                .map(PathBuf::from),
        );
        Self { processes: processes_of(user.uid), mounts, files, listeners: listeners_of(user.uid) }
    }

    /// Nothing at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.processes.is_empty()
            && self.mounts.is_empty()
            && self.files.is_empty()
            && self.listeners.is_empty()
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.processes.iter().try_for_each(|process| writeln!(f, "  {process}"))?;
        self.mounts.iter().try_for_each(|path| writeln!(f, "  mount {}", path.display()))?;
        self.files.iter().try_for_each(|path| writeln!(f, "  file {}", path.display()))?;
        self.listeners.iter().try_for_each(|line| writeln!(f, "  listener {line}"))
    }
}

/// Addresses of TCP sockets that listen in the node's network and belong to this user, as `/proc/net/tcp` writes them.
fn listeners_of(uid: u32) -> Vec<String> {
    ["/proc/1/net/tcp", "/proc/1/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| {
            table
                .lines()
                .skip(1)
                .map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
                .filter(|fields| fields.get(3).is_some_and(|state| state == "0A"))
                .filter(|fields| fields.get(7).and_then(|owner| owner.parse().ok()) == Some(uid))
                .map(|fields| fields[1].clone())
                .collect::<Vec<_>>()
        })
        .collect()
}

impl User {
    /// Her processes.
    pub(crate) fn processes(&self) -> Vec<Process> {
        processes_of(self.uid)
    }

    /// Waits for the first process of hers that has this role (see [`Process::role`]).
    pub(crate) fn wait_for_process(&self, within: Duration, role: &str) -> Process {
        until(within, &format!("a process {role}"), || {
            self.processes().into_iter().find(|process| process.role() == role)
        })
    }

    /// Waits until she has no process, mount, listener or file of a live session any more.
    ///
    /// # Panics
    /// With the list of what is still there.
    pub(crate) fn wait_until_nothing_is_left(&self, within: Duration) {
        let start = std::time::Instant::now();
        loop {
            let census = Census::of(self);
            if census.is_empty() {
                return;
            }
            assert!(start.elapsed() < within, "after {within:?}, {} still has:\n{census}", self.name);
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

/// The memory that a process has at this moment, in bytes.
pub(crate) fn resident(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
