//! The other half of a session in a Slurm job: its compute node, attacked by a program of its owner's beside the job's own,
//! outside the sandbox.
//!
//! ```text
//! login node                                        compute node
//! verify ── srun --overlap, Order on its stdin ──►  @attack-in-job: finds @host and its sandbox in /proc; learns, attacks
//!        ◄─ Done on its stdout ───────────────────  ends
//! ```
//! The order holds nothing that opens anything: it goes over Slurm's network as it is. Where srun can't, or the job has no
//! node, that is a finding, and never one that held.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use nix::{
    sys::prctl,
    unistd::{Pid, getuid},
};
use serde::{Deserialize, Serialize};
use slurm::{JobId, Slurm, Step};
use tokio::{net::lookup_host, time::timeout};

use super::{
    Finding, VerifyError, abstracts,
    client::{self, CONNECT},
    finding::Outcome,
    gateway,
    learn::{self, Inside, Secrets},
    link,
    paths::Root,
    ports, processes,
    supervisors::uid_of,
    tables,
    target::{Identity, Place, Process, SandboxAt, Target},
};
use crate::{
    config::{node_name, paths::runtime_path},
    session::host_process,
    sys::{rights, spawn::role},
};

/// How long all of it may take there.
const LIMIT: Duration = Duration::from_secs(180);
/// Longer orders are not read.
const MOST: u64 = 16 << 20;

/// The half of a session that is elsewhere, as the login node knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Far {
    pub(super) job: JobId,
    /// Where the job runs; none before it does.
    pub(super) node: Option<String>,
    /// How it is with the job.
    pub(super) stands: String,
    /// The session's folder of records, which both nodes see.
    pub(super) folder: PathBuf,
    /// Where private folders go, there.
    pub(super) scratch: Option<PathBuf>,
}

/// What is to be done on the node.
#[derive(Serialize, Deserialize)]
struct Order {
    target: Target,
    folder: PathBuf,
    scratch: Option<PathBuf>,
}

/// What came of it.
#[derive(Serialize, Deserialize)]
struct Done {
    node: String,
    findings: Vec<Finding>,
}

/// Attacks the compute node's half as its owner, who is this process's user.
pub(super) fn attack(far: &Far, target: &Target, slurm: Result<Slurm, String>) -> Vec<Finding> {
    let what = match &far.node {
        Some(node) => format!("on {node}"),
        None => "on the compute node".to_owned(),
    };
    match run(far, target, slurm) {
        Ok(Done { node, findings }) => findings
            .into_iter()
            .map(|finding| Finding { what: format!("on {node}: {}", finding.what), ..finding })
            .collect(),
        Err(why) => vec![Finding::new(what, "all of it, by srun", Outcome::Untried(why))],
    }
}

/// What somebody else than its owner is told.
pub(super) fn only_by_its_owner(far: &Far) -> Finding {
    let node = far.node.as_deref().unwrap_or("the compute node");
    let why = "only its owner's own verify gets there".to_owned();
    Finding::new(format!("on {node}"), "all of it, by srun", Outcome::Untried(why))
}

fn run(far: &Far, target: &Target, slurm: Result<Slurm, String>) -> Result<Done, String> {
    let node = far.node.as_deref().ok_or_else(|| far.stands.clone())?;
    let slurm = slurm?.with_deadline(LIMIT);
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let target = Target { sandbox: SandboxAt::Here, ..target.clone() };
    let order = Order { target, folder: far.folder.clone(), scratch: far.scratch.clone() };
    let input = serde_json::to_vec(&order).map_err(|error| error.to_string())?;
    let step = Step { job: far.job, node, program: &program, args: &[role::ATTACK_IN_JOB], input: &input };
    let answer = slurm.run_in_job(step).map_err(|error| error.to_string())?;
    serde_json::from_slice(&answer).map_err(|error| format!("what came back is no report: {error}"))
}

/// The role [`role::ATTACK_IN_JOB`]: an order on standard input, a report on standard output. Call it before any thread
/// exists.
pub(super) fn serve() -> ExitCode {
    match carry_out() {
        Ok(done) => {
            let text = serde_json::to_vec(&done).unwrap_or_default();
            if io::stdout().write_all(&text).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(why) => {
            // srun brings it to whoever asked; there is nobody else to tell.
            let _ = writeln!(io::stderr(), "{why}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out() -> Result<Done, String> {
    let said = |error: io::Error| error.to_string();
    prctl::set_no_new_privs().map_err(|errno| said(errno.into()))?;
    rights::drop_capabilities().map_err(said)?;
    let mut text = Vec::new();
    io::stdin().take(MOST).read_to_end(&mut text).map_err(said)?;
    let order: Order = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let node = std::env::var("SLURMD_NODENAME").unwrap_or_else(|_| node_name().as_str().to_owned());
    let findings = there(order).map_err(|error| error.to_string())?;
    Ok(Done { node, findings })
}

/// Learns what there is on this node, and attacks it.
fn there(order: Order) -> Result<Vec<Finding>, VerifyError> {
    let Order { mut target, folder, scratch } = order;
    let owner = Identity::of_this_process();
    let Some(host) = host_process(&folder) else {
        let why = "no process of the session's is to be seen there".to_owned();
        return Ok(vec![Finding::new("the session's host", "look for it in /proc", Outcome::Untried(why))]);
    };
    let mut findings = Vec::new();
    let Inside { keepers, processes, ports, abstracts } = match learn::inside(host, target.isolation) {
        Ok(inside) => inside,
        Err(error) => {
            let why = Outcome::Untried(format!("no sandbox is to be seen there: {error}"));
            return Ok(vec![Finding::new("the session's sandbox", "look for it in /proc", why)]);
        }
    };
    let name = format!("job-{}", target.id.simple());
    target.roots = roots(&name, scratch.map(|at| at.join(format!("shlogin-{}-{}", getuid(), target.id))));
    if target.roots.is_empty() {
        let why = Outcome::Untried(format!("there is no {name} where runtime folders are"));
        findings.push(Finding::new("session folder", "look at owner and mode", why));
    }
    findings.extend(target.roots.iter().map(|root| root.modes(owner.uid)));
    let tls = folder.parent().map(|state| state.join("tls")).unwrap_or_default();
    let secrets = Secrets::of([None, None], &tls).with_keys_of(&folder);
    findings.push(processes::search(&processes, |bytes| secrets.are_in(bytes)));
    target.keepers = keepers;
    target.processes = processes;
    target.ports = ports;
    target.abstracts = abstracts;
    // Those are the login node's: none of them is meant to answer here.
    target.doors = Vec::new();
    findings.extend(client::block_on(async {
        let mut findings = ports::attack_app(&target).await;
        findings.push(listeners(&target, &owner, host));
        findings.extend(from_here(&target, &owner).await);
        findings.extend(link::attack(&target, &owner).await);
        findings
    })?);
    findings.extend(abstracts::attack(&target));
    findings.extend(processes::attack_memory(&target));
    Ok(findings)
}

/// What it has made on this node. Its runtime folder is where the job's environment put it, which need not be ours.
fn roots(name: &str, scratch: Option<PathBuf>) -> Vec<Root> {
    let uid = getuid();
    let places =
        [runtime_path(), format!("/tmp/shlogin-{uid}").into(), format!("/run/user/{uid}/shlogin").into()];
    let runtime = places.into_iter().find(|place| place.join(name).is_dir());
    let mut all = Vec::new();
    if let Some(runtime) = runtime {
        all.push(Root::alone("runtime folder", &runtime));
        all.push(Root::of("session folder", &runtime.join(name)));
        all.push(Root::of("lock", &runtime.join(format!("{name}.lock"))));
    }
    all.push(scratch.and_then(|scratch| Root::of("scratch folder", &scratch)));
    all.into_iter().flatten().collect()
}

/// The gateway, from where its host is.
async fn from_here(target: &Target, owner: &Identity) -> Vec<Finding> {
    let Place::Tcp(_) = target.door.place else { return Vec::new() };
    let hosts = target.link.iter().flat_map(|link| &link.hosts);
    for host in hosts {
        let found = timeout(CONNECT, lookup_host((host.as_str(), target.door.port))).await;
        for address in found.into_iter().flatten().flatten() {
            let place = Place::Tcp(address);
            if client::reach(&place).await.is_ok() {
                let mut target = target.clone();
                target.door.place = place;
                return gateway::attack(&target, owner).await;
            }
        }
    }
    let why = Outcome::Untried(format!("it does not answer to this node, port {}", target.door.port));
    vec![Finding::new("gateway", "TCP connect", why)]
}

/// Nothing of a session's listens in its node's own network. The host's memory is closed to its own user, so whose a socket
/// is can be said only of those that are somebody else's.
fn listeners(target: &Target, owner: &Identity, host: Pid) -> Finding {
    let tried = "look for any of hers in the node's network";
    let what = format!("listeners of {}", owner.name);
    let Ok(table) = tables::listening(&tables::ours()) else {
        return Finding::new(what, tried, Outcome::Untried("the table cannot be read".to_owned()));
    };
    let ours: Vec<i32> = target.processes.iter().map(|its| its.pid).chain([host.as_raw()]).collect();
    let mut others = Vec::new();
    let mut closed = Vec::new();
    for pid in pids_of(owner.uid).into_iter().filter(|pid| !ours.contains(pid)) {
        match std::fs::read_dir(format!("/proc/{pid}/fd")) {
            Ok(_) => others.push(pid),
            Err(_) => closed.extend(processes::process(pid)),
        }
    }
    let explained = tables::held_by(others.into_iter());
    let hers = table.iter().filter(|one| one.uid == owner.uid);
    let (theirs, left): (Vec<_>, Vec<_>) = hers.partition(|one| explained.contains(&one.inode));
    let left: Vec<String> = left.iter().map(|one| one.address.to_string()).collect();
    Finding::new(what, tried, judge(&left, theirs.len(), &closed))
}

fn judge(left: &[String], of_others: usize, closed: &[Process]) -> Outcome {
    match (left, closed) {
        ([], _) if of_others == 0 => Outcome::Held("there is none".to_owned()),
        ([], _) => Outcome::Held(format!("there are {of_others}, all of other processes of hers")),
        (_, []) => Outcome::Through(format!("the session listens on {}", left.join(", "))),
        (_, [first, ..]) => Outcome::Untried(format!(
            "{} may be the session's or that of {}, which cannot be looked into",
            left.join(", "),
            first.what()
        )),
    }
}

fn pids_of(uid: u32) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| uid_of(*pid) == Some(uid) && File::open(format!("/proc/{pid}/stat")).is_ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_the_session_s_unless_somebody_else_s_it_can_be() {
        let left = ["0.0.0.0:80".to_owned()];
        let closed = [Process { pid: 7, name: "shlogin".to_owned() }];
        assert!(matches!(judge(&left, 0, &[]), Outcome::Through(_)));
        assert!(matches!(judge(&left, 3, &closed), Outcome::Untried(_)));
        assert!(matches!(judge(&[], 3, &closed), Outcome::Held(_)));
        assert_eq!(judge(&[], 0, &[]), Outcome::Held("there is none".to_owned()));
    }

    #[test]
    fn where_there_is_no_node_nothing_was_tried() {
        let far = Far {
            job: "7".parse().unwrap(),
            node: None,
            stands: "job 7 waits for a node".to_owned(),
            folder: "/nowhere".into(),
            scratch: None,
        };
        let finding = only_by_its_owner(&far);
        assert!(finding.untried && finding.what == "on the compute node", "{}", finding.line());
    }
}
