//! `list`, `show`, `url`, `forget`.

use std::{collections::HashSet, path::Path, process::ExitCode};

use serde::Serialize;
use serde_json::json;
use slurm::Slurm;

use super::{
    Failure,
    args::{ForgetArgs, ListArgs, OneArgs},
    code,
    in_allocation::{folder_of, is_node_of},
    output::Output,
    table::table,
};
use crate::{
    config::{
        Config, Overrides,
        paths::{PrivateFolder, state_folder},
    },
    session::{
        IdleReport, JobRecord, Record, Records, State, Which,
        control::{Answer, Client, Request},
        forget_secrets, pid_namespace,
    },
    words::SessionName,
};

/// This user's records on this node.
pub(super) fn records() -> Result<Records, Failure> {
    Ok(Records::open(state_folder()?))
}

pub(super) fn list(args: &ListArgs, output: &Output) -> Result<ExitCode, Failure> {
    let mut all = records()?.everywhere()?;
    settle_jobs(&mut all);
    if !args.all {
        all.retain(|record| record.state != State::Ended);
    }
    output.result(&all, || table(&all, jiff::Timestamp::now()));
    Ok(ExitCode::SUCCESS)
}

pub(super) fn show(args: &OneArgs, output: &Output) -> Result<ExitCode, Failure> {
    let mut found = vec![records()?.find(&args.name, Which::Any)?];
    settle_jobs(&mut found);
    let [record] = &found[..] else { return Ok(ExitCode::FAILURE) };
    let idle = idle_report(record);
    output.result(&Shown { record, idle: idle.as_ref() }, || details(record, idle.as_ref()));
    Ok(ExitCode::SUCCESS)
}

/// What `show --json` prints.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    record: &'a Record,
    /// How it was judged at the last look, where it is to end when nobody uses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    idle: Option<&'a IdleReport>,
}

/// Asks a live session whether it is used. One that cannot be asked is shown without.
fn idle_report(record: &Record) -> Option<IdleReport> {
    record.idle_timeout.filter(|_| record.state != State::Ended)?;
    let client = connect(record).ok()?;
    client.be_patient_for(std::time::Duration::from_secs(5)).ok()?;
    match client.call(&Request::Idle) {
        Ok(Answer::Idle { report }) => report,
        _ => None,
    }
}

/// A record with its URL: what `start --json` and `url --json` print.
#[derive(Serialize)]
pub(super) struct WithUrl<'a> {
    #[serde(flatten)]
    pub(super) record: &'a Record,
    pub(super) url: &'a str,
}

pub(super) fn url(args: &OneArgs, output: &Output) -> Result<ExitCode, Failure> {
    let record = records()?.find(&args.name, Which::Live)?;
    let url = new_url(&record)?;
    output.result(&WithUrl { record: &record, url: &url }, || url.clone());
    Ok(ExitCode::SUCCESS)
}

/// A URL of a live session, with a new token.
pub(super) fn new_url(record: &Record) -> Result<String, Failure> {
    let client = connect(record)?;
    client.be_patient_for(std::time::Duration::from_secs(10)).map_err(Failure::io("cannot ask"))?;
    match client.call(&Request::Url).map_err(Failure::io(format!("cannot ask {}", record.name)))? {
        Answer::Url { url } => Ok(url),
        Answer::Failed { why } => Err(Failure::Session(why)),
        _ => Err(Failure::Session(format!("{} gave no URL", record.name))),
    }
}

/// How long Slurm may take to say how the jobs are, where somebody waits for it.
const SLURMS_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// Asks Slurm how the jobs are of sessions of which nothing here can tell, and puts down as ended what has ended: those whose
/// gateways are gone, and those that were started on another node within a job.
pub(super) fn settle_jobs(records: &mut [Record]) {
    let unknown = |record: &Record| {
        let job = record.job.as_ref().filter(|_| record.detached);
        let job = job.or_else(|| record.within.as_ref().filter(|_| !record.is_here()));
        job.filter(|_| record.state != State::Ended).map(|job| job.id)
    };
    let mut ids: Vec<_> = records.iter().filter_map(unknown).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return;
    }
    let programs = Config::load(&Overrides::default()).ok().map(|resolved| resolved.config.slurm.programs);
    let slurm = Slurm::find(programs.as_ref().and_then(|programs| programs.path()));
    let jobs = slurm.ok().and_then(|slurm| slurm.with_deadline(SLURMS_PATIENCE).jobs(&ids).ok());
    for record in records {
        let Some(id) = unknown(record) else { continue };
        let Some(its) = (if record.detached { &mut record.job } else { &mut record.within }) else {
            continue;
        };
        its.linked = false;
        let found = jobs.as_ref().and_then(|jobs| jobs.iter().find(|job| job.id == id));
        match found {
            // It says nothing: all is as it was.
            None => its.state = slurm::State::Undetermined,
            Some(job) if record.detached => its.update(&its.still(job.clone(), record.id)),
            // It is no session's own.
            Some(job) => its.update(job),
        }
        if its.state.is_ended() {
            let gone = match (record.detached, record.pod) {
                (true, Some(_)) => "its gateway was gone, and ",
                (true, None) => "no gateway had come, and ",
                (false, _) => "",
            };
            record.reason = Some(format!("{gone}its job {id} is {}", its.state));
            record.state = State::Ended;
            record.ended_at = Some(jiff::Timestamp::now());
            // What cannot be done now is found again at the next look.
            let _ = put_down(record);
        }
    }
}

/// The names of this node's sessions that live. Most hold their locks, too; those do not whose runtime folder was removed under them,
/// and those in jobs whose gateways are gone.
pub(super) fn live_names(records: &Records) -> Result<HashSet<SessionName>, Failure> {
    let mut all = records.all()?;
    settle_jobs(&mut all);
    // Whether one of another container lives, nobody here can tell.
    all.retain(|record| record.state != State::Ended && record.pid_namespace == pid_namespace());
    Ok(all.into_iter().map(|record| record.name).collect())
}

/// Writes down the end of a session that had nobody left to do so, and removes what only its life needed.
pub(super) fn put_down(record: &Record) -> Result<(), Failure> {
    let records = records_of(record)?;
    if let Some(folder) = PrivateFolder::existing(&folder_of(record))? {
        forget_secrets(&folder).map_err(Failure::io(format!("cannot remove the keys of {}", record.name)))?;
    }
    Ok(records.write(record)?)
}

pub(super) fn connect(record: &Record) -> Result<Client, Failure> {
    gateway_is_here(record)?;
    if record.detached {
        return Err(Failure::Session(format!(
            "the gateway of {0} is gone, its job is not: `shlogin attach {0}` takes it over",
            record.name
        )));
    }
    Client::connect(&record.footprint.session).map_err(|error| {
        let Record { name, footprint, .. } = record;
        if error.kind() == std::io::ErrorKind::NotFound {
            return Failure::Session(format!(
                "{name} lives, but nothing reaches it: {} was removed; `shlogin stop {name}` ends it",
                footprint.session.display()
            ));
        }
        Failure::io(format!("cannot reach session {name}"))(error)
    })
}

/// That a session has a place where something can be run: one that is interrupted has none.
pub(super) fn has_a_place(record: &Record) -> Result<(), Failure> {
    if record.state == State::Interrupted {
        let why = record.reason.as_deref().unwrap_or("its job is over");
        return Err(Failure::Session(format!(
            "nothing of {0} runs: {why}; `shlogin restart {0}` starts it again",
            record.name
        )));
    }
    Ok(())
}

/// To a session in which something is to be run.
pub(super) fn connect_to_run(record: &Record) -> Result<Client, Failure> {
    has_a_place(record)?;
    connect(record)
}

/// The records among which this one is, which may be another node's.
pub(super) fn records_of(record: &Record) -> Result<Records, Failure> {
    let folder = record.log.parent().and_then(std::path::Path::parent).map(PrivateFolder::existing);
    match folder {
        Some(Ok(Some(folder))) => Ok(Records::open(folder)),
        Some(Err(error)) => Err(error.into()),
        _ => Err(Failure::Session(format!("the records of {} are gone", record.name))),
    }
}

/// That a session's gateway is on this node: there is nothing to be said to one on another.
pub(super) fn gateway_is_here(record: &Record) -> Result<(), Failure> {
    if record.awaits_gateway() {
        return Err(Failure::Session(format!(
            "{0} waits for its gateway: on a login node, type `shlogin attach {0}`",
            record.name
        )));
    }
    if let Some(node) = record.node.as_deref().filter(|_| !record.is_here()) {
        // On a node of its own job, no gateway is to be.
        let elsewhere = |job: &JobRecord| !(job.lent && is_node_of(job));
        let elsewhere = |job: &JobRecord| record.state != State::Interrupted && elsewhere(job);
        let attach = if record.job.as_ref().is_some_and(elsewhere) {
            format!(", or take it over by `shlogin attach {}`", record.name)
        } else {
            String::new()
        };
        return Err(Failure::Session(format!(
            "the gateway of {} is on {node}: go there{attach}",
            record.name
        )));
    }
    Ok(())
}

pub(super) fn forget(args: &ForgetArgs, output: &Output) -> Result<ExitCode, Failure> {
    let records = records()?;
    let mut chosen = Vec::new();
    if args.all {
        chosen = records.all()?;
        chosen.retain(|record| record.state == State::Ended);
    }
    for name in &args.names {
        let record = records.find(name, Which::Any)?;
        if record.state != State::Ended {
            output.note(format_args!("shlogin: {} still lives: stop it first", record.name));
            return Ok(code::NO.into());
        }
        // All that ended under this name, not only the newest; of another node, where it is that one's.
        let folder = |record: &Record| folder_of(record).parent().map(Path::to_owned);
        let whose = folder(&record);
        chosen.extend(
            records
                .everywhere()?
                .into_iter()
                .filter(|its| its.name == record.name && its.state == State::Ended && folder(its) == whose),
        );
    }
    for record in &chosen {
        records_of(record)?.forget(record)?;
    }
    let names: Vec<_> = chosen.iter().map(|record| record.name.to_string()).collect();
    output.result(&json!({ "forgotten": names }), || names.join("\n"));
    Ok(ExitCode::SUCCESS)
}

/// Its pod's number, where it has one.
pub(super) fn pod(record: &Record) -> String {
    record.pod.map_or_else(|| "-".to_owned(), |pod| pod.to_string())
}

fn details(record: &Record, idle: Option<&IdleReport>) -> String {
    let detached = record.detached && record.state != State::Ended;
    let state = if detached { "detached".to_owned() } else { format!("{:?}", record.state).to_lowercase() };
    let gateway = match record.pod {
        Some(_) => format!("https://{}:{}/", record.gateway.host, record.gateway.port),
        None => format!("none yet: on a login node, `shlogin attach {}`", record.name),
    };
    let mut lines = vec![
        ("name", record.name.to_string()),
        ("id", record.id.to_string()),
        ("pod", pod(record)),
        ("state", state),
        ("gateway", gateway),
        ("fingerprint", record.gateway.fingerprint.clone()),
        ("app port", record.app_port.map_or_else(|| "-".to_owned(), |port| port.to_string())),
        ("runtime", record.runtime.to_string()),
        ("image", record.image.clone().unwrap_or_else(|| "-".to_owned())),
        ("isolation", record.isolation.to_string()),
        ("network", record.network.to_string()),
        ("tmp", record.tmp.to_string()),
        ("supervisor", record.pid.to_string()),
        ("started", record.started_at.to_string()),
        ("log", record.log.display().to_string()),
    ];
    if let Some(job) = &record.within {
        lines.push(("within", job.summary(jiff::Timestamp::now())));
    }
    if let Some(job) = &record.job {
        lines.push(("job", job.summary(jiff::Timestamp::now())));
        lines.extend(job.partition.clone().map(|partition| ("partition", partition)));
        if !matches!(record.state, State::Ended | State::Interrupted) {
            let link = if job.linked { "up" } else { "down" };
            lines.push(("link", link.to_owned()));
        }
    }
    if record.pod.is_none() {
        lines.retain(|(key, _)| *key != "fingerprint");
    }
    if let Some(ssh) = &record.ssh {
        let port = ssh.port.map_or_else(|| "none: `shlogin ssh`".to_owned(), |port| port.to_string());
        lines.push(("ssh port", port));
        lines.push(("ssh key", ssh.fingerprint.clone()));
    }
    if let Some(socket) = &record.gateway.socket {
        lines.push(("socket", socket.display().to_string()));
    }
    if let Some(idle) = idle {
        lines.extend(idle.lines(jiff::Timestamp::now()));
    }
    if let Some(at) = record.ended_at {
        lines.push(("ended", at.to_string()));
    }
    if let Some(exit) = record.exit {
        lines.push(("exit", exit.to_string()));
    }
    if let Some(reason) = &record.reason {
        lines.push(("reason", reason.clone()));
    }
    lines.into_iter().map(|(key, value)| format!("{key:<12} {value}\n")).collect()
}
