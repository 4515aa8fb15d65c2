//! `restart`: another job for a session whose job Slurm has ended.

use std::{os::fd::AsFd, process::ExitCode, time::Duration};

use super::{
    Failure,
    args::RestartArgs,
    output::Output,
    sessions::{connect, records, settle_jobs},
    start::Follower,
};
use crate::{
    session::{
        Launched, State, Which,
        control::{Answer, Request},
    },
    sys::message,
};

/// How long its gateway may take to answer: it may still be waiting for Slurm to end the job before.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn restart(args: &RestartArgs, output: &Output) -> Result<ExitCode, Failure> {
    let mut found = vec![records()?.find(&args.name, Which::Any)?];
    settle_jobs(&mut found);
    let record = found.remove(0);
    if record.state == State::Ended {
        return Err(Failure::Session(format!(
            "{} has ended, and nothing is kept of how it was started: `shlogin start` it",
            record.name
        )));
    }
    let failed = |error| Failure::io(format!("cannot ask {}", record.name))(error);
    let client = connect(&record)?;
    client.be_patient_for(PATIENCE).map_err(Failure::io("cannot ask"))?;
    let interrupts = Follower::interrupts()?;
    let (ours, theirs) = message::pair().map_err(Failure::io("socketpair"))?;
    client.ask(&Request::Restart, &[theirs.as_fd()]).map_err(failed)?;
    drop(theirs);
    match client.answer().map_err(failed)? {
        Some(Answer::Started) => {}
        Some(Answer::Failed { why }) => {
            return Err(Failure::Session(format!("{} is not started again: {why}", record.name)));
        }
        _ => return Err(Failure::Session(format!("{} has just ended", record.name))),
    }
    Follower::joined(output, interrupts, Launched::joined(ours), &record, args.no_wait)
        .follow(&record.footprint)
}
