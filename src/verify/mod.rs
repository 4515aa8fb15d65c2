//! Attacks a running session from outside, and says of each attempt whether it got through.
//!
//! Two phases. The **owner's** learns what there is (processes, ports, sockets, paths), takes a token to the gateway as
//! a browser would, and tries what only somebody with a cookie can. It ends in an error where the gateway does not let
//! its owner in: refusals would then prove nothing. The **attacker's** knows where everything is and has a used token
//! and a made-up cookie; nothing it is told opens anything.
//!
//! ```text
//! verify NAME                          learn, then attack, both in this process: the owner is the attacker
//! verify NAME --as B          (root)   learn here; @attack ─► becomes B ─► attack
//! verify NAME --as B --owner A (root)  @attack ─► becomes A ─► learn; @attack ─► becomes B ─► attack
//! ```
//! Of a session in a Slurm job, only the gateway, its link and its folders are here; the sandbox is not, and its process
//! numbers mean others here. There, `verify NAME` goes as its owner: see the module `step`.
//!
//! Of another user's session root knows no folder: `$XDG_STATE_HOME` and `$XDG_RUNTIME_DIR` are that user's own choice.
//! So the running supervisor is looked for by its name in `ps`, and the file that it writes its diagnostics to says
//! where the record is, which says the rest.
//!
//! It changes nothing, but for one step more in its job, one sign-in more among those the gateway remembers, and one `GET /` that the app sees.

#![forbid(unsafe_code)]

mod abstracts;
mod client;
mod finding;
mod gateway;
mod learn;
mod link;
mod owner;
mod paths;
mod pin;
mod ports;
mod processes;
mod role;
#[cfg(test)]
mod scratch;
mod step;
mod supervisors;
mod tables;
mod target;

use std::{io, path::Path, process::ExitCode};

use jiff::Timestamp;
use serde::Serialize;
use slurm::Slurm;

use crate::{
    session::{Records, RecordsError, Which},
    words::{SessionId, SessionName},
};
pub use finding::Finding;
use learn::Learned;
pub use role::run as run_attack;
pub use target::Identity;
use target::Target;

/// What came of all attempts.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The session's name.
    pub name: SessionName,
    /// Its identity.
    pub id: SessionId,
    /// Whose it is.
    pub owner: Identity,
    /// Who attacked.
    pub attacker: Identity,
    /// When it was done.
    pub at: Timestamp,
    /// How many attempts were held off.
    pub held: usize,
    /// How many got through.
    pub through: usize,
    /// How many could not be made.
    pub untried: usize,
    /// What was not tried, and why.
    pub notes: Vec<String>,
    /// Each attempt.
    pub findings: Vec<Finding>,
}

/// Why a session could not be attacked.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is none, or its record can't be read.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The gateway does not let its owner in, so that it refuses others says nothing.
    #[error("the gateway of {name} does not let its owner in: {why}")]
    Shut {
        /// Which session.
        name: SessionName,
        /// What happened instead.
        why: String,
    },
    /// What there is to attack is not on this node.
    #[error("{name} cannot be attacked from here: {why}")]
    NotHere {
        /// Which session.
        name: SessionName,
        /// Where it is, or what to do first.
        why: String,
    },
    /// The part that ran as another user failed.
    #[error("as {user}: {why}")]
    Role {
        /// As whom.
        user: String,
        /// What it said.
        why: String,
    },
}

impl VerifyError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// Attacks a session of this process's user, as that user or as `attacker`. `programs` is the folder of Slurm's.
///
/// # Errors
/// As [`VerifyError`].
pub fn own(
    records: &Records,
    name: &str,
    attacker: Option<Identity>,
    programs: Option<&Path>,
) -> Result<Report, VerifyError> {
    let record = records.find(name, Which::Live)?;
    let slurm = Slurm::find(programs).map_err(|error| error.to_string());
    let learned = learn::learn(&record, records.all()?, &slurm)?;
    match attacker {
        Some(attacker) => attack_as(learned, attacker),
        None => {
            let myself = Identity::of_this_process();
            let mut findings = attack(&learned.target, &myself)?;
            if let Some(far) = &learned.far {
                findings.extend(step::attack(far, &learned.target, slurm));
            }
            Ok(report(learned, myself, findings))
        }
    }
}

/// The role [`crate::sys::spawn::role::ATTACK_IN_JOB`]. Call it before any thread exists.
pub fn run_attack_in_job() -> ExitCode {
    step::serve()
}

/// Attacks a session of `owner`'s as `attacker`. Needs root.
///
/// # Errors
/// As [`VerifyError`].
pub fn of(owner: &Identity, name: &str, attacker: Identity) -> Result<Report, VerifyError> {
    let supervisor = supervisors::find(owner, name)?;
    let learned = role::learn_as(owner, &supervisor)?;
    attack_as(learned, attacker)
}

fn attack_as(learned: Learned, attacker: Identity) -> Result<Report, VerifyError> {
    let mut findings = role::attack_as(&attacker, &learned.target)?;
    findings.extend(learned.far.as_ref().map(step::only_by_its_owner));
    Ok(report(learned, attacker, findings))
}

fn report(learned: Learned, attacker: Identity, findings: Vec<Finding>) -> Report {
    let Learned { target, findings: mut all, mut notes, far: _ } = learned;
    all.extend(findings);
    if attacker.uid == target.owner.uid {
        notes.push(
            "Its owner may open their own files and processes: root tries it as another user, with --as."
                .to_owned(),
        );
    }
    if attacker.uid == 0 {
        notes.push("Root may read every process: memory was not tried.".to_owned());
    }
    let through = all.iter().filter(|finding| finding.got_through).count();
    let untried = all.iter().filter(|finding| finding.untried).count();
    Report {
        name: target.name,
        id: target.id,
        owner: target.owner,
        attacker,
        at: Timestamp::now(),
        held: all.len() - through - untried,
        through,
        untried,
        notes,
        findings: all,
    }
}

/// All that `attacker`, who is this process's user, can try.
fn attack(target: &Target, attacker: &Identity) -> Result<Vec<Finding>, VerifyError> {
    let mut findings = client::block_on(async {
        let mut findings = ports::attack(target).await;
        findings.extend(gateway::attack(target, attacker).await);
        findings.extend(link::attack(target, attacker).await);
        findings
    })?;
    findings.extend(abstracts::attack(target));
    if attacker.uid != target.owner.uid {
        findings.extend(paths::attack(target));
        // The last of all: one that worked would leave this process in another namespace.
        findings.extend(processes::attack(target));
    } else if attacker.uid != 0 {
        findings.extend(processes::attack_memory(target));
    }
    Ok(findings)
}
