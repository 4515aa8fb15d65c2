//! Records: what is known of each session, live or ended, one folder each below the state folder.

use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use nix::{sys::signal::kill, unistd::Pid};
use serde::{Deserialize, Serialize};

use super::{JobRecord, Lock, forget_secrets};
use crate::{
    activity::Activity,
    config::{
        node_name,
        paths::{Durability, FolderError, PrivateFolder},
    },
    sandbox::Footprint,
    sys::process::{self, Exit, start_ticks},
    words::{Isolation, Network, PodNumber, RuntimeKind, SessionId, SessionName, TmpMode},
};

/// By how much two nodes' clocks may differ.
const OVERDUE: SignedDuration = SignedDuration::from_mins(10);
const FILE: &str = "record.json";
/// The app's output.
const LOG: &str = "log";
/// What shlogin itself had to say.
pub const DIAGNOSTICS: &str = "shlogin.log";

/// Where a session's log is.
pub fn log_path(state: &Path, id: SessionId) -> PathBuf {
    state.join(id.to_string()).join(LOG)
}

/// Where a session is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its app does not answer yet.
    Starting,
    /// Its app answers.
    Running,
    /// It is no more.
    Ended,
    /// It waits for a node.
    Waiting,
    /// Slurm has ended its job; its owner may start it again.
    Interrupted,
}

/// Where a session's gateway is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GatewayRecord {
    /// The name in its URL.
    pub host: String,
    /// Its port; with `socket`, the one to forward to it.
    pub port: u16,
    /// SHA-256 of its certificate, in hexadecimal pairs.
    pub fingerprint: String,
    /// With `--listen ADDRESS`, that; without, all of the node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<std::net::IpAddr>,
    /// With `--listen unix`, its socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
}

impl GatewayRecord {
    /// Of a session that has had none yet.
    pub fn none() -> Self {
        Self { host: String::new(), port: 0, fingerprint: String::new(), address: None, socket: None }
    }
}

/// Where a session's ssh server is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SshRecord {
    /// Its port; none where only the owner's own processes get at it.
    pub port: Option<u16>,
    /// Its host key, as `known_hosts` has it: algorithm and key.
    pub host_key: String,
    /// That key's fingerprint.
    pub fingerprint: String,
}

/// What is known of a session. `show --json` prints this.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub name: SessionName,
    /// Its identity.
    pub id: SessionId,
    /// Its number on the node of its gateway; none before it has one.
    pub pod: Option<PodNumber>,
    /// Where it is in its life.
    pub state: State,
    /// The app's port inside; none before it answers, and none with a unix socket.
    pub app_port: Option<u16>,
    /// Its gateway; without a name and a port where there was none yet.
    pub gateway: GatewayRecord,
    /// Its ssh server; none in records of earlier versions, and before it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<SshRecord>,
    /// The node of its gateway; none in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its job goes on, and its gateway is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub detached: bool,
    /// The Slurm job in which it runs; none on this node itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobRecord>,
    /// The Slurm job within which all of it was started, gateway and app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<JobRecord>,
    /// What started its app.
    pub runtime: RuntimeKind,
    /// Its image, as it was named.
    pub image: Option<String>,
    /// The words after `--`.
    pub command: Vec<String>,
    /// What it may reach.
    pub network: Network,
    /// How it is fenced.
    pub isolation: Isolation,
    /// Whose `/tmp` it sees.
    pub tmp: TmpMode,
    /// Its supervisor.
    pub pid: u32,
    /// When that process began, in clock ticks since boot: whether the number still means it.
    pub pid_began: Option<u64>,
    /// The PID namespace in which that number means it.
    pub pid_namespace: Option<String>,
    /// When it was started.
    pub started_at: Timestamp,
    /// When its app first answered.
    pub ready_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The app's exit status, or 128 + its signal.
    pub status: Option<u8>,
    /// How the app ended.
    pub exit: Option<Exit>,
    /// Why the session ended.
    pub reason: Option<String>,
    /// When it ends, where it is interrupted and nobody starts it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupted_until: Option<Timestamp>,
    /// How many seconds nobody may use it before it ends; none in records of earlier versions, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<u64>,
    /// The app's output.
    pub log: PathBuf,
    /// What it leaves on the node while it lives.
    pub footprint: Footprint,
}

impl Record {
    /// Whether this is its whole name, or its identity.
    fn is_called(&self, name: &str) -> bool {
        self.name.as_str() == name || self.id.to_string() == name
    }

    /// How long nobody may use it.
    pub fn idle_after(&self) -> Option<Duration> {
        self.idle_timeout.map(Duration::from_secs)
    }

    /// Where its use is counted, if anybody is to judge it.
    pub(super) fn activity(&self) -> Activity {
        if self.idle_timeout.is_some() { Activity::counting() } else { Activity::default() }
    }

    /// Whether its gateway is on this node, so that something can be said of it.
    pub fn is_here(&self) -> bool {
        self.node.as_deref().is_none_or(|node| node == node_name().as_str())
    }

    /// Whether it waits for its first gateway: its host is there, and nothing else of it.
    pub fn awaits_gateway(&self) -> bool {
        self.pod.is_none() && self.state != State::Ended
    }
}

/// Why a record cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// No session of this name, and none whose name begins so.
    #[error("there is no session {0}; `shlogin list --all` shows those there are")]
    NotFound(String),
    /// It lives no more.
    #[error("{name} has ended ({reason}): `shlogin show {name}`")]
    Ended {
        /// Its name.
        name: SessionName,
        /// Why.
        reason: String,
    },
    /// Several.
    #[error("{prefix} fits several sessions: {}", names.join(", "))]
    Ambiguous {
        /// What was typed.
        prefix: String,
        /// What it fits.
        names: Vec<String>,
    },
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The folder cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// All records of this user on this node.
pub struct Records {
    state: PrivateFolder,
}

impl Records {
    /// Those below `state`.
    pub fn open(state: PrivateFolder) -> Self {
        Self { state }
    }

    /// The folder of records.
    pub fn folder(&self) -> &PrivateFolder {
        &self.state
    }

    /// All of them, oldest first. What was live and has no process left is put down as ended, and what it left on the
    /// node is removed.
    ///
    /// # Errors
    /// As [`RecordsError`].
    pub fn all(&self) -> Result<Vec<Record>, RecordsError> {
        self.read_all(None)
    }

    /// All of them; those that say no node are of `node`.
    fn read_all(&self, node: Option<&str>) -> Result<Vec<Record>, RecordsError> {
        let failed = |source| RecordsError::Io { path: self.state.path().to_owned(), source };
        let mut found = Vec::new();
        for entry in fs::read_dir(self.state.path()).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if name.to_str().and_then(|name| name.parse::<SessionId>().ok()).is_none() {
                continue;
            }
            // One folder that cannot be used must not hide the others; its owner finds it when she looks for it.
            let Ok(Some(folder)) = self.state.existing_folder(&name) else { continue };
            if let Ok(Some(mut record)) = read(&folder) {
                record.node = record.node.or_else(|| node.map(str::to_owned));
                found.push(settle(record, &folder));
            }
        }
        found.sort_by_key(|record| record.started_at);
        Ok(found)
    }

    /// Those of this user's other nodes as well, where homes are shared. What cannot be read there is passed over.
    ///
    /// # Errors
    /// As [`RecordsError`], of this node's.
    pub fn everywhere(&self) -> Result<Vec<Record>, RecordsError> {
        let mut found = self.all()?;
        let own = self.state.path();
        for entry in own.parent().and_then(|all| fs::read_dir(all).ok()).into_iter().flatten().flatten() {
            let path = entry.path();
            if path != own
                && let Ok(Some(other)) = PrivateFolder::existing(&path)
            {
                let node = entry.file_name();
                found.extend(Self::open(other).read_all(node.to_str()).unwrap_or_default());
            }
        }
        found.sort_by_key(|record| record.started_at);
        Ok(found)
    }

    /// The one that `name` means: a live session of this name, here or else on another node, else the only live one whose name
    /// begins so, else, with [`Which::Any`], the same among the ended ones (the newest of one name).
    ///
    /// # Errors
    /// As [`RecordsError`].
    pub fn find(&self, name: &str, which: Which) -> Result<Record, RecordsError> {
        let is_live = |record: &Record| record.state != State::Ended;
        let here = self.all()?.into_iter().find(|record| is_live(record) && record.is_called(name));
        if let Some(record) = here {
            return Ok(record);
        }
        let (live, ended): (Vec<_>, Vec<_>) = self.everywhere()?.into_iter().partition(is_live);
        if let Some(record) = pick(&live, name)? {
            return Ok(record);
        }
        let ended = pick(&newest_of_each_name(ended), name)?;
        match (ended, which) {
            (Some(record), Which::Any) => Ok(record),
            (Some(record), Which::Live) => {
                Err(RecordsError::Ended { name: record.name, reason: record.reason.unwrap_or_default() })
            }
            (None, _) => Err(RecordsError::NotFound(name.to_owned())),
        }
    }

    /// Writes a record.
    ///
    /// # Errors
    /// As [`RecordsError`].
    pub fn write(&self, record: &Record) -> Result<(), RecordsError> {
        write(&self.state.folder(record.id.to_string())?, record)
    }

    /// Removes an ended session's record and log.
    ///
    /// # Errors
    /// As [`RecordsError`].
    pub fn forget(&self, record: &Record) -> Result<(), RecordsError> {
        let path = self.state.path().join(record.id.to_string());
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(RecordsError::Io { path, source }),
            _ => Ok(()),
        }
    }

    /// Removes the records of sessions that ended longer than `max_age` ago.
    ///
    /// # Errors
    /// As [`RecordsError`].
    pub fn expire(&self, max_age: Duration) -> Result<(), RecordsError> {
        let oldest = Timestamp::now().checked_sub(max_age).unwrap_or(Timestamp::MIN);
        for record in self.all()? {
            if record.ended_at.is_some_and(|at| at < oldest) {
                self.forget(&record)?;
            }
        }
        Ok(())
    }
}

/// Puts down as ended what was cut off, by a restart or by force, and removes what it left on the node.
fn settle(record: Record, folder: &PrivateFolder) -> Record {
    if record.state == State::Ended || lives(&record) && !is_overdue(&record) {
        return record;
    }
    // It may have ended between the two looks.
    let mut record = read(folder).ok().flatten().unwrap_or(record);
    let goes_on = !matches!(record.state, State::Ended | State::Interrupted);
    if goes_on && record.job.is_some() && !record.awaits_gateway() {
        // What it leads to is not here: of that, Slurm has the last word.
        record.detached = true;
        let _ = remove_leftovers(&record);
    } else if record.state != State::Ended {
        if record.state != State::Interrupted {
            record.reason =
                Some("it was cut off: its supervisor was killed, or the node restarted".to_owned());
        }
        record.state = State::Ended;
        record.ended_at = Some(Timestamp::now());
        // What cannot be removed or written now is tried again at the next look. What another node has is its own.
        if record.is_here() {
            let _ = remove_leftovers(&record);
        }
        if forget_secrets(folder).is_ok() {
            let _ = write(folder, &record);
        }
    }
    record
}

/// Whether a session that was interrupted on another node should have ended by now: that node does not come back, and no other
/// would ever say so. Of one that is here, its process tells.
fn is_overdue(record: &Record) -> bool {
    let overdue = |until: Timestamp| Timestamp::now().duration_since(until) > OVERDUE;
    !record.is_here() && record.state == State::Interrupted && record.interrupted_until.is_some_and(overdue)
}

/// Whether a session lives: its lock is held, wherever it was when it was started, or its supervisor is there.
fn lives(record: &Record) -> bool {
    // Of another node's processes, nothing can be said here.
    if !record.is_here() {
        return true;
    }
    // From within a session (or another container) neither locks nor process numbers mean what they mean outside.
    if record.pid_namespace != pid_namespace() {
        return true;
    }
    let runtime = record.footprint.lock.parent().map(PrivateFolder::existing);
    if matches!(runtime, Some(Ok(Some(_)))) && Lock::is_held(&record.footprint.lock) {
        return true;
    }
    let Ok(pid) = i32::try_from(record.pid).map(Pid::from_raw) else { return false };
    match start_ticks(pid) {
        Ok(began) => Some(began) == record.pid_began,
        // What cannot be seen may be there; of a number, the kernel says at least whether it is ours.
        Err(_) => process::are_hidden() && kill(pid, None).is_ok(),
    }
}

fn remove_leftovers(record: &Record) -> io::Result<()> {
    let footprint = &record.footprint;
    let runtime = footprint.lock.parent().map(PrivateFolder::existing);
    let Some(Ok(Some(runtime))) = runtime else {
        // The runtime folder is gone, or somebody else's by now.
        return footprint.remove_scratch();
    };
    // Taking the lock keeps a new session of this name from being taken for the old one.
    match Lock::take(runtime.path(), &record.name) {
        Ok(lock) => footprint.remove(lock.as_fd()),
        Err(_) => footprint.remove_scratch(),
    }
}

/// The PID namespace of this process, as `namespaces(7)` names it.
pub fn pid_namespace() -> Option<String> {
    Some(fs::read_link("/proc/self/ns/pid").ok()?.to_string_lossy().into_owned())
}

/// Among which sessions to look for a name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those that live.
    Live,
    /// The ended ones, too.
    Any,
}

/// The record in a folder of its own; `None` where there is none.
///
/// # Errors
/// As [`RecordsError`].
pub fn read(folder: &PrivateFolder) -> Result<Option<Record>, RecordsError> {
    // One that cannot be parsed is another version's; it is not shown, and goes when its owner removes it.
    Ok(folder.read(FILE)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Writes it there.
pub(super) fn write(folder: &PrivateFolder, record: &Record) -> Result<(), RecordsError> {
    // After a crash of the machine a session that lived is one that was cut off, whatever its record said last.
    let durability = if record.state == State::Ended { Durability::Lasting } else { Durability::Passing };
    let text = serde_json::to_vec_pretty(record)
        .map_err(|error| RecordsError::Io { path: folder.path().to_owned(), source: error.into() })?;
    Ok(folder.write(FILE, &text, durability)?)
}

fn pick(among: &[Record], name: &str) -> Result<Option<Record>, RecordsError> {
    if let Some(exact) = among.iter().find(|record| record.is_called(name)) {
        return Ok(Some(exact.clone()));
    }
    let fits: Vec<_> =
        among.iter().filter(|record| !name.is_empty() && record.name.as_str().starts_with(name)).collect();
    match fits[..] {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        _ => Err(RecordsError::Ambiguous {
            prefix: name.to_owned(),
            names: fits.iter().map(|record| record.name.to_string()).collect(),
        }),
    }
}

fn newest_of_each_name(records: Vec<Record>) -> Vec<Record> {
    let mut newest = std::collections::BTreeMap::new();
    for record in records {
        // Oldest first, so the last of a name stays.
        newest.insert(record.name.clone(), record);
    }
    newest.into_values().collect()
}
