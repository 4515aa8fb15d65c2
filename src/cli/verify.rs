//! `verify`: attacks a running session, and prints what held and what did not.

use std::process::ExitCode;

use nix::unistd::geteuid;

use super::{Failure, args::VerifyArgs, code, output::Output, sessions::records};
use crate::{
    config::{Config, Overrides},
    verify::{self, Identity, Report, VerifyError},
};

pub(super) fn verify(args: &VerifyArgs, output: &Output) -> Result<ExitCode, Failure> {
    let attacker = args.attacker.as_deref().map(user).transpose()?;
    let owner = args.owner.as_deref().map(user).transpose()?;
    let others = attacker.iter().chain(&owner).any(|user| user.uid != geteuid().as_raw());
    if others && !geteuid().is_root() {
        return Err(Failure::Usage("only root can act as another user (--as, --owner)".to_owned()));
    }
    let slurm = Config::load(&Overrides::default())?.config.slurm;
    let programs = slurm.programs.path();
    let report = match (&owner, attacker) {
        (Some(owner), Some(attacker)) if owner.uid != geteuid().as_raw() => {
            refuse_root(&attacker)?;
            verify::of(owner, &args.name, attacker)?
        }
        (_, Some(attacker)) if attacker.uid != geteuid().as_raw() => {
            verify::own(&records()?, &args.name, Some(attacker), programs)?
        }
        _ => verify::own(&records()?, &args.name, None, programs)?,
    };
    output.result(&report, || text(&report));
    Ok(if report.through == 0 { ExitCode::SUCCESS } else { code::NO.into() })
}

fn user(name: &str) -> Result<Identity, Failure> {
    Identity::named(name).ok_or_else(|| Failure::Usage(format!("there is no user {name:?}")))
}

fn refuse_root(attacker: &Identity) -> Result<(), Failure> {
    match attacker.uid {
        0 => Err(Failure::Usage("root may open everything of everybody: attack as another user".to_owned())),
        _ => Ok(()),
    }
}

fn text(report: &Report) -> String {
    let mut lines: Vec<String> = report.findings.iter().map(verify::Finding::line).collect();
    lines.extend(report.notes.iter().map(|note| format!("note      {note}")));
    let (held, through) = (report.held, report.through);
    let untried = match report.untried {
        0 => String::new(),
        untried => format!(", {untried} could not be tried"),
    };
    let at = report.at.strftime("%Y-%m-%dT%H:%M:%SZ");
    lines.push(format!(
        "{}: {held} held, {through} got through{untried}; {at}, attacked by {} (its owner is {})",
        report.name, report.attacker.name, report.owner.name
    ));
    lines.join("\n")
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Records(error) => Self::Records(error),
            VerifyError::Io { what, source } => Self::Io { what, source },
            error => Self::Session(error.to_string()),
        }
    }
}
