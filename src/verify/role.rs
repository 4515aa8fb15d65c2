//! The role `@attack`: a part of `verify` that runs as another user.
//!
//! ```text
//! verify (root)                     @attack (root, then USER for good)
//!   │ ── Order (file, descriptor 3) ────►│ initgroups, setresgid, setresuid, no_new_privs
//!   │◄── Reply (pipe, descriptor 4) ─────│ learns or attacks; ends
//! ```
//! It becomes the user after it has been executed, not before: the change of user makes it undumpable in the same step
//! (`prctl(2)`, `PR_SET_DUMPABLE`), so that the one it becomes can't trace it and put words into its mouth.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use caps::CapSet;
use nix::{
    fcntl::OFlag,
    sys::prctl,
    unistd::{Gid, Pid, Uid, getpid, initgroups, pipe2, setresgid, setresuid},
};
use serde::{Deserialize, Serialize};

use super::{
    Finding, VerifyError,
    learn::{self, Learned},
    supervisors::Supervisor,
    target::{Identity, Target},
};
use crate::{
    config::paths::PrivateFolder,
    sandbox::protocol,
    session::{Records, RecordsError, read_record},
    sys::{
        descriptor::{INHERITED, inherited},
        spawn::{self, Leash, role},
    },
};

/// How long either phase may take, with every port filtered and every answer slow.
const LIMIT: Duration = Duration::from_secs(300);
/// Longer replies are not read: the other side is another user's process.
const MOST: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
struct Order {
    user: Identity,
    /// With whom it ends.
    parent: i32,
    what: What,
}

#[derive(Serialize, Deserialize)]
enum What {
    /// The owner's phase, for the session with its record in this folder.
    Learn(PathBuf),
    /// The attacker's.
    Attack(Box<Target>),
}

#[derive(Serialize, Deserialize)]
enum Reply {
    Learned(Box<Learned>),
    Attacked(Vec<Finding>),
    /// It ended before it was looked at.
    NoSession(String),
    Failed(String),
}

/// Has the owner's phase run as `owner`.
///
/// # Errors
/// As [`VerifyError`].
pub(super) fn learn_as(owner: &Identity, session: &Supervisor) -> Result<Learned, VerifyError> {
    match run_as(owner, &session.name, What::Learn(session.folder.clone()))? {
        Reply::Learned(learned) => Ok(*learned),
        other => Err(unfit(owner, other)),
    }
}

/// Has the attacker's phase run as `attacker`.
///
/// # Errors
/// As [`VerifyError`].
pub(super) fn attack_as(attacker: &Identity, target: &Target) -> Result<Vec<Finding>, VerifyError> {
    match run_as(attacker, target.name.as_str(), What::Attack(Box::new(target.clone())))? {
        Reply::Attacked(findings) => Ok(findings),
        other => Err(unfit(attacker, other)),
    }
}

fn unfit(user: &Identity, reply: Reply) -> VerifyError {
    match reply {
        Reply::NoSession(name) => RecordsError::NotFound(name).into(),
        Reply::Failed(why) => VerifyError::Role { user: user.name.clone(), why },
        _ => VerifyError::Role { user: user.name.clone(), why: "it did what it was not asked".to_owned() },
    }
}

fn run_as(user: &Identity, label: &str, what: What) -> Result<Reply, VerifyError> {
    let failed = || VerifyError::io(format!("cannot run a process as {}", user.name));
    let order = Order { user: user.clone(), parent: getpid().as_raw(), what };
    let (answer, theirs) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| failed()(errno.into()))?;
    let fds = vec![protocol::to_file(&order).map_err(failed())?, theirs];
    let mut child = spawn::role(role::ATTACK, label, fds, None, Leash::DiesWithParent).map_err(failed())?;
    let said = hear(answer);
    if said.is_err() {
        // It may be stopped by the one it became; it has nothing to tidy up.
        let _ = child.kill();
    }
    let _ = child.wait();
    said.map_err(|error| VerifyError::Role { user: user.name.clone(), why: error.to_string() })
}

/// Reads to the end, but no longer than [`LIMIT`].
fn hear(answer: OwnedFd) -> io::Result<Reply> {
    let until = Instant::now() + LIMIT;
    let mut answer = File::from(answer).take(MOST);
    let mut text = Vec::new();
    let mut buffer = [0; 64 * 1024];
    loop {
        protocol::wait_readable(answer.get_ref(), until.saturating_duration_since(Instant::now()))?;
        match answer.read(&mut buffer)? {
            0 if text.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            0 => return Ok(serde_json::from_slice(&text)?),
            len => text.extend_from_slice(&buffer[..len]),
        }
    }
}

/// The role [`role::ATTACK`]. Descriptors: 3 the order as a file, 4 the pipe for the reply. Call it before any thread
/// exists.
pub fn run() -> ExitCode {
    let [order, answer] = match [0, 1].map(|n| inherited(INHERITED + n)) {
        [Ok(a), Ok(b)] => [a, b],
        _ => return ExitCode::FAILURE,
    };
    let Ok(order) = protocol::from_file::<Order>(order) else { return ExitCode::FAILURE };
    let reply = match become_user(&order.user, Pid::from_raw(order.parent)) {
        Ok(()) => carry_out(order.what, &order.user),
        Err(error) => Reply::Failed(format!("becoming that user: {error}")),
    };
    let text = serde_json::to_vec(&reply).unwrap_or_default();
    match File::from(answer).write_all(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Becomes `user`, with that user's groups, for good.
fn become_user(user: &Identity, parent: Pid) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let name = CString::new(user.name.as_str())?;
    prctl::set_no_new_privs()?;
    caps::clear(None, CapSet::Inheritable).map_err(io::Error::other)?;
    initgroups(&name, gid)?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    // Already so, unless the machine is set up to debug such processes (`fs.suid_dumpable`).
    prctl::set_dumpable(false)?;
    if !uid.is_root() && setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok() {
        return Err(io::Error::other("it could become root again"));
    }
    // The change of user has undone it.
    spawn::die_with(parent)
}

fn carry_out(what: What, user: &Identity) -> Reply {
    match what {
        What::Attack(target) => match super::attack(&target, user) {
            Ok(findings) => Reply::Attacked(findings),
            Err(error) => Reply::Failed(error.to_string()),
        },
        What::Learn(folder) => match learn(&folder) {
            Ok(learned) => Reply::Learned(Box::new(learned)),
            Err(VerifyError::Records(RecordsError::NotFound(name))) => Reply::NoSession(name),
            Err(error) => Reply::Failed(error.to_string()),
        },
    }
}

/// The owner's phase of the session with its record in `folder`.
fn learn(folder: &Path) -> Result<Learned, VerifyError> {
    let gone = || RecordsError::NotFound(folder.display().to_string());
    let open = |path| PrivateFolder::existing(path).map_err(RecordsError::from)?.ok_or_else(gone);
    let record = read_record(&open(folder)?)?.ok_or_else(gone)?;
    let all = Records::open(open(folder.parent().ok_or_else(gone)?)?).all()?;
    // Its environment is empty: neither Slurm's programs nor its configuration are to be found.
    learn::learn(&record, all, &Err("only its owner's own verify asks Slurm".to_owned()))
}
