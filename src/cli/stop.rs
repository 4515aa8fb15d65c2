//! `stop`: asks each session's supervisor, and waits until nothing of the session is left.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

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
        pid_namespace,
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
    let (mut detached, attended): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|record| record.detached);
    let asked: Vec<_> = attended.iter().map(|record| (record, ask(record, grace))).collect();
    let mut stopped = Vec::new();
    let mut told = end_detached(&mut detached, &mut stopped)?;
    for (record, heard) in asked {
        let limit = grace.unwrap_or(Duration::from_secs(600)) + TEARDOWN;
        let failed =
            || Failure::Session(format!("{} does not stop (supervisor {})", record.name, record.pid));
        let gone = heard && wait_until_gone(record, limit) || force(record);
        if !gone {
            return Err(failed());
        }
        // Puts down as ended what could no longer do so itself. The job of a gateway that was killed goes on.
        let left = records.all()?.into_iter().find(|its| its.id == record.id && its.state != State::Ended);
        match left {
            None => stopped.push(record.name.to_string()),
            Some(left) if left.detached => told.extend(end_detached(&mut [left], &mut stopped)?),
            Some(_) => return Err(failed()),
        }
    }
    for host in told {
        host.wait()?;
    }
    output.result(&json!({ "stopped": stopped }), || stopped.join("\n"));
    Ok(ExitCode::SUCCESS)
}

/// Ends sessions whose gateways are gone. Returns the hosts that are to follow.
fn end_detached(detached: &mut [Record], stopped: &mut Vec<String>) -> Result<Vec<stop_lent::Told>, Failure> {
    let mut told = Vec::new();
    for record in detached {
        if record.job.as_ref().is_some_and(|job| job.lent) {
            told.push(stop_lent::put_down(record)?);
        } else {
            cancel(record)?;
        }
        stopped.push(record.name.to_string());
    }
    Ok(told)
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

/// Whether a session's supervisor has heard that it is to end.
fn ask(record: &Record, grace: Option<Duration>) -> bool {
    match Client::connect(&record.footprint.session) {
        Ok(client) => {
            client.be_patient_for(ANSWER).and_then(|()| client.call(&Request::Stop { grace })).is_ok()
        }
        // Its socket was removed, with all of the runtime folder as a rule: a signal says the same, but for the grace.
        Err(_) => supervisor(record).is_some_and(|process| process.signal(Signal::SIGTERM).is_ok()),
    }
}

/// The supervisor of a session, held before it is looked at: it is only that if it began when the record says, for its number may
/// have come to mean another process.
fn supervisor(record: &Record) -> Option<PidFd> {
    let pid = i32::try_from(record.pid).map(Pid::from_raw).ok()?;
    let process = PidFd::open(pid).ok()?;
    (record.pid_namespace == pid_namespace() && start_ticks(pid).ok() == record.pid_began).then_some(process)
}

/// Waits until nothing of a session is left: the lock says so, and where that was removed, the supervisor's end does, which the rest
/// does not outlive. `false` after `limit`.
fn wait_until_gone(record: &Record, limit: Duration) -> bool {
    let until = Instant::now() + limit;
    let supervisor = supervisor(record);
    Lock::wait_released(&record.footprint.lock, limit)
        && supervisor.is_none_or(|process| process.wait(until.saturating_duration_since(Instant::now())))
}

/// Kills a supervisor that does not answer.
fn force(record: &Record) -> bool {
    match supervisor(record) {
        Some(process) => process.signal(Signal::SIGKILL).is_ok() && wait_until_gone(record, TEARDOWN),
        None => !Lock::is_held(&record.footprint.lock),
    }
}
