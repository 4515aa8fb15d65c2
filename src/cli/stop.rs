//! `stop`: asks each session's supervisor, and waits until nothing of the session is left.

use std::{process::ExitCode, time::Duration};

use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::json;

use super::{
    Failure,
    args::StopArgs,
    output::Output,
    sessions::{gateway_is_here, put_down, records, settle_jobs},
    stop_lent,
};
use crate::{
    config::{Config, Overrides},
    session::{
        Lock, Record, Records, State, Which,
        control::{Client, Request},
    },
    sys::process::{PidFd, start_ticks},
};

/// How long a supervisor may take to say that it has heard: it does nothing else meanwhile.
const ANSWER: Duration = Duration::from_secs(5);
/// What ending a sandbox may take beyond its app's grace.
const TEARDOWN: Duration = Duration::from_secs(25);

pub(super) fn stop(args: &StopArgs, output: &Output) -> Result<ExitCode, Failure> {
    let records = records()?;
    let mut chosen = choose(args, &records)?;
    settle_jobs(&mut chosen);
    chosen.retain(|record| record.state != State::Ended);
    // Nothing here knows of the processes of another node.
    if args.all {
        chosen.retain(Record::is_here);
    }
    for record in chosen.iter().filter(|record| !record.awaits_gateway()) {
        gateway_is_here(record)?;
    }
    let grace = args.grace.map(|span| span.duration());
    // All are asked before any is waited for.
    let (detached, attended): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|record| record.detached);
    let asked: Vec<_> = attended.iter().map(|record| (record, ask(record, grace))).collect();
    let (mut stopped, mut told) = (Vec::new(), Vec::new());
    for mut record in detached {
        if record.job.as_ref().is_some_and(|job| job.lent) {
            told.push(stop_lent::put_down(&mut record)?);
        } else {
            cancel(&mut record)?;
        }
        stopped.push(record.name.to_string());
    }
    for host in told {
        host.wait()?;
    }
    for (record, asked) in asked {
        let limit = grace.unwrap_or(Duration::from_secs(600)) + TEARDOWN;
        let heard = asked.is_ok() && Lock::wait_released(&record.footprint.lock, limit);
        if !heard && !force(record) {
            return Err(Failure::Session(format!(
                "{} does not stop (supervisor {})",
                record.name, record.pid
            )));
        }
        // Puts down as ended what could no longer do so itself.
        let _ = records.all()?;
        stopped.push(record.name.to_string());
    }
    output.result(&json!({ "stopped": stopped }), || stopped.join("\n"));
    Ok(ExitCode::SUCCESS)
}

/// Ends the job of a session whose gateway is gone: Slurm gives its app what time the site's `KillWait` says.
fn cancel(record: &mut Record) -> Result<(), Failure> {
    let Some(job) = record.job.as_ref().map(|job| job.id) else { return Ok(()) };
    let failed = |error: &dyn std::fmt::Display| {
        Failure::Session(format!("cannot cancel job {job} of {}: {error}", record.name))
    };
    let config = Config::load(&Overrides::default())?.config;
    let slurm = slurm::Slurm::find(config.slurm.programs.path()).map_err(|error| failed(&error))?;
    slurm.cancel(job).map_err(|error| failed(&error))?;
    record.state = State::Ended;
    record.reason = Some(format!("its gateway was gone; its job {job} was cancelled"));
    record.ended_at = Some(jiff::Timestamp::now());
    put_down(record)
}

fn choose(args: &StopArgs, records: &Records) -> Result<Vec<Record>, Failure> {
    if args.all {
        let mut all = records.all()?;
        all.retain(|record| record.state != State::Ended);
        return Ok(all);
    }
    let mut chosen: Vec<Record> = Vec::new();
    for name in &args.names {
        let record = records.find(name, Which::Live)?;
        if !chosen.iter().any(|its| its.id == record.id) {
            chosen.push(record);
        }
    }
    Ok(chosen)
}

fn ask(record: &Record, grace: Option<Duration>) -> std::io::Result<()> {
    let client = Client::connect(&record.footprint.session)?;
    client.be_patient_for(ANSWER)?;
    client.call(&Request::Stop { grace }).map(drop)
}

/// Kills a supervisor that does not answer. The process is held before it is looked at, and is only signalled if it
/// began when the record says: a number that has come to mean another process is left alone.
fn force(record: &Record) -> bool {
    if !Lock::is_held(&record.footprint.lock) {
        return true;
    }
    let Ok(pid) = i32::try_from(record.pid).map(Pid::from_raw) else { return false };
    let Ok(process) = PidFd::open(pid) else { return false };
    if start_ticks(pid).ok() != record.pid_began || process.signal(Signal::SIGKILL).is_err() {
        return false;
    }
    Lock::wait_released(&record.footprint.lock, TEARDOWN)
}
