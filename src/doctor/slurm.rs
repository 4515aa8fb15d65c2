//! What a session in a Slurm job needs of this node: Slurm's programs and their controller, MUNGE, files that nodes see, and
//! a name by which they come back. None of it stands in the way of a session on this node itself.

use std::{
    net::{IpAddr, ToSocketAddrs},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use nix::{
    sys::statfs::{self, FsType, statfs},
    unistd::geteuid,
};
use slurm::{Allocation, JobId, Partition, ProgramError, Slurm, munge::Munge};

use super::{
    Finding,
    folders::{is_network, nearest_existing},
    machine::Machine,
    probe::Outcome,
    run::{Answer, Asked},
};
use crate::config::{Config, Munge as MungeUse, find_program, link_hosts, paths};

/// How long the controller may take to answer all that it is asked.
const CONTROLLER: Duration = Duration::from_secs(5);
/// How long each of MUNGE's programs may take, and the name service.
const OTHERS: Duration = Duration::from_secs(2);
/// Where `munged(8)` listens, with its successive names.
const MUNGE_SOCKETS: [&str; 2] = ["/run/munge/munge.socket.2", "/var/run/munge/munge.socket.2"];
/// Folders of which every node has one of its own.
const OWN: [&str; 4] = ["/tmp", "/var/tmp", "/dev/shm", "/run"];

/// What was asked and has not answered yet.
pub(super) struct Running {
    version: Option<Asked>,
    controller: Option<Receiver<Controller>>,
    hosts: Option<Receiver<Vec<Named>>>,
    found: Result<Slurm, ProgramError>,
    allocation: Option<Allocation>,
    /// A session may go into a job here.
    concerned: bool,
}

/// A name, and what it stands for on this node.
type Named = (String, Vec<IpAddr>);

/// What the controller said, and MUNGE, whose socket it knows.
struct Controller {
    cluster: Result<String, String>,
    partitions: Option<Vec<Partition>>,
    /// When the job ends in which this runs.
    ends_at: Option<Timestamp>,
    munge: Result<String, String>,
}

impl Running {
    pub(super) fn start(config: &Config) -> Self {
        let programs = config.slurm.programs.path();
        let found = Slurm::find(programs);
        let sbatch = match programs {
            Some(folder) => Some(folder.join("sbatch")).filter(|path| path.exists()),
            None => find_program("sbatch"),
        };
        let concerned = sbatch.is_some() || is_configured(config);
        let allocation = Allocation::of(std::env::vars_os()).ok().flatten();
        let mut this = Self { version: None, controller: None, hosts: None, found, allocation, concerned };
        if !concerned {
            return this;
        }
        this.version = sbatch.and_then(|path| Asked::start(&path, &["--version"]));
        if let Ok(slurm) = &this.found {
            let (slurm, job) = (slurm.clone(), this.allocation.as_ref().map(|its| its.job));
            let (munge, socket) = (config.slurm.munge, config.slurm.munge_socket.path().map(PathBuf::from));
            this.controller = Some(elsewhere(move || ask(&slurm, job, munge, socket)));
        }
        let names = link_hosts(&config.slurm.link_host);
        this.hosts = Some(elsewhere(move || names.into_iter().map(resolved).collect()));
        this
    }

    pub(super) fn examine(self, config: &Config, machine: &Machine, namespaces: &Outcome) -> Vec<Finding> {
        if !self.concerned {
            return vec![Finding::ok("Slurm", "not here: sessions run on this node"), munge_alone(machine)];
        }
        let answer = self.version.map(Asked::answer);
        let mut findings = vec![programs(&self.found, answer.as_ref(), is_configured(config))];
        if let Some(heard) = self.controller {
            let patience = CONTROLLER + OTHERS * 2 + Duration::from_secs(1);
            let silent = || Err("it did not answer in time".to_owned());
            let heard = heard.recv_timeout(patience).unwrap_or_else(|_| Controller {
                cluster: silent(),
                partitions: None,
                ends_at: None,
                munge: silent(),
            });
            findings.push(controller(&heard.cluster));
            findings.extend(heard.partitions.as_deref().map(partitions));
            findings.push(munge(config.slurm.munge, &heard.munge, machine));
            findings.extend(self.allocation.as_ref().map(|its| in_job(its, heard.ends_at, namespaces)));
        } else {
            findings.push(munge_alone(machine));
        }
        let program = std::env::current_exe().ok();
        findings.extend(program.map(|path| shared("program on nodes", &path, disk(&path), PROGRAM)));
        let records = paths::state_path();
        findings.extend(records.map(|path| shared("records on nodes", &path, disk(&path), RECORDS)));
        findings.push(link_ports(config));
        let hosts = self.hosts.and_then(|hosts| hosts.recv_timeout(OTHERS).ok());
        findings.push(link_host(hosts.as_deref()));
        findings
    }
}

/// Runs it on a thread that nobody waits for in the end.
fn elsewhere<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (send, receive) = mpsc::channel();
    // Nobody listens any more where it takes too long.
    thread::spawn(move || drop(send.send(what())));
    receive
}

fn is_configured(config: &Config) -> bool {
    let its = &config.slurm;
    let named = [&its.programs, &its.munge_socket, &its.template].iter().any(|path| path.path().is_some());
    named
        || !(its.options.is_empty() && its.partitions.is_empty() && its.apps.is_empty())
        || its.link_host != crate::config::HostChoice::Auto
        || its.munge != MungeUse::Auto
}

fn ask(slurm: &Slurm, job: Option<JobId>, munge: MungeUse, socket: Option<PathBuf>) -> Controller {
    let until = Instant::now() + CONTROLLER;
    let slurm = || {
        let left = until.saturating_duration_since(Instant::now());
        slurm.clone().with_deadline(left.max(Duration::from_millis(200)))
    };
    let site = slurm().config();
    let reached = site.is_ok();
    let partitions = reached.then(|| slurm().shown_partitions().ok()).flatten();
    let ends_at = job.filter(|_| reached).and_then(|job| slurm().job(job).ok()?.end);
    let socket = socket.or_else(|| site.as_ref().ok()?.munge_socket.clone());
    Controller {
        cluster: site
            .map(|site| site.cluster.unwrap_or_else(|| "without a name".to_owned()))
            .map_err(|error| error.to_string()),
        partitions,
        ends_at,
        munge: if munge == MungeUse::Off { Ok("not used".to_owned()) } else { try_munge(socket) },
    }
}

/// Makes a credential, and reads it.
fn try_munge(socket: Option<PathBuf>) -> Result<String, String> {
    let munge = Munge::find(None).map_err(|error| error.to_string())?.with_deadline(OTHERS);
    let munge = socket.as_ref().map_or(munge.clone(), |socket| munge.with_socket(socket));
    let uid = geteuid().as_raw();
    let credential = munge.encode(b"shlogin doctor", Some(uid), Duration::from_secs(60));
    let read =
        credential.and_then(|credential| munge.decode(&credential)).map_err(|error| error.to_string())?;
    if read.uid != uid || read.payload != b"shlogin doctor" {
        return Err(format!("its credential is of user {}, and not of {uid}", read.uid));
    }
    let at = socket.map(|socket| format!(", at {}", socket.display())).unwrap_or_default();
    Ok(format!("made a credential and read it{at}"))
}

fn programs(found: &Result<Slurm, ProgramError>, answer: Option<&Answer>, configured: bool) -> Finding {
    let what = "Slurm";
    match found {
        Ok(_) => version(what, answer),
        Err(error) if configured => Finding::blocked(
            what,
            error.to_string(),
            "set slurm.programs to the folder of sbatch and its like, or to auto",
        ),
        Err(error) => Finding::limited(what, error.to_string(), "install Slurm's client programs"),
    }
}

/// What `sbatch --version` says, which reads Slurm's configuration first.
fn version(what: &'static str, answer: Option<&Answer>) -> Finding {
    let why = match answer {
        Some(answer) if answer.succeeded() => {
            return Finding::ok(what, answer.version().unwrap_or("of an unknown version"));
        }
        Some(Answer { status: Some(_), text }) => text.lines().next().unwrap_or("sbatch fails"),
        _ => "sbatch does not say its version in time",
    };
    Finding::limited(what, why, "sbatch --version, and look at SLURM_CONF")
}

fn controller(cluster: &Result<String, String>) -> Finding {
    let what = "Slurm's controller";
    match cluster {
        Ok(cluster) => Finding::ok(what, format!("answers; cluster {cluster}")),
        Err(why) => Finding::limited(
            what,
            why.lines().next().unwrap_or_default(),
            "scontrol ping, and look at SLURM_CONF; sessions on this node need none",
        ),
    }
}

fn partitions(all: &[Partition]) -> Finding {
    let what = "Slurm's partitions";
    let shown = |its: &Partition| {
        let star = if its.is_default { "*" } else { "" };
        let limit = its.time_limit.map(|limit| format!(", limit {limit}")).unwrap_or_default();
        let nodes = its.nodes;
        format!("{}{star} ({}{limit}, {} of {} nodes idle)", its.name, its.state, nodes.idle, nodes.total)
    };
    let list = all.iter().map(shown).collect::<Vec<_>>().join(", ");
    match all.iter().any(|its| its.state == "up" && its.nodes.total > its.nodes.other) {
        true => Finding::ok(what, list),
        false if all.is_empty() => {
            Finding::limited(what, "none is shown to you", "sinfo --all; ask the administrators for one")
        }
        false => {
            Finding::limited(what, format!("{list}: none of them takes jobs now"), "sinfo --list-reasons")
        }
    }
}

fn munge(wanted: MungeUse, tried: &Result<String, String>, machine: &Machine) -> Finding {
    let what = "MUNGE";
    let remedy = || format!("{} && systemctl enable --now munge", machine.install("munge", "munge"));
    match (wanted, tried) {
        (MungeUse::Off, _) => {
            Finding::ok(what, "not used (slurm.munge = \"off\"): a job has a key in a file")
        }
        (_, Ok(detail)) => Finding::ok(what, detail),
        (MungeUse::Require, Err(why)) => Finding::blocked(what, why, remedy()),
        (MungeUse::Auto, Err(why)) => {
            Finding::limited(what, format!("{why}; a job gets a key in a file instead"), remedy())
        }
    }
}

/// Where nobody needs it.
fn munge_alone(machine: &Machine) -> Finding {
    let munge = match MUNGE_SOCKETS.iter().find(|socket| machine.has(socket)) {
        Some(socket) if UnixStream::connect(socket).is_ok() => format!("answers at {socket}"),
        Some(socket) => format!("{socket} is there, and nobody answers"),
        None => "not here".to_owned(),
    };
    Finding::ok("MUNGE", munge)
}

fn in_job(its: &Allocation, ends_at: Option<Timestamp>, namespaces: &Outcome) -> Finding {
    let what = "this job";
    let ends_at = its.ends_at.and_then(|at| Timestamp::from_second(at).ok()).or(ends_at);
    let minutes = ends_at.map(|at| at.duration_since(Timestamp::now()).as_secs().max(0) / 60);
    let left = match minutes {
        Some(minutes) if minutes < 60 => format!("{minutes} min left"),
        Some(minutes) => format!("{} h {} min left", minutes / 60, minutes % 60),
        None => "how long it has is not known".to_owned(),
    };
    let Some(node) = &its.node else {
        // What slurmd starts has its name; the shell of salloc stays where it was typed.
        let detail = format!("job {}, {left}; this shell is on none of its nodes", its.job);
        return Finding::ok(what, format!("{detail}: sessions get there by slurm.allocation = \"dial\""));
    };
    let detail = format!("job {} on {node}, {left}", its.job);
    match namespaces {
        Outcome::Works => Finding::ok(what, format!("{detail}; namespaces work here")),
        _ => Finding::limited(
            what,
            format!("{detail}; namespaces do not work here"),
            "see user namespaces, on each node: srun shlogin doctor",
        ),
    }
}

/// What a path lies on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Disk {
    Network,
    /// A kind that no other node can have the same of.
    OfThisNode(&'static str),
    /// One that may be either.
    Unknown,
}

fn disk(path: &Path) -> Disk {
    const RAMFS: FsType = FsType(0x8584_58f6);
    match statfs(nearest_existing(path)).map(|stat| stat.filesystem_type()) {
        Ok(statfs::TMPFS_MAGIC) => Disk::OfThisNode("tmpfs"),
        Ok(statfs::OVERLAYFS_SUPER_MAGIC) => Disk::OfThisNode("overlay"),
        Ok(RAMFS) => Disk::OfThisNode("ramfs"),
        Ok(kind) if is_network(kind) => Disk::Network,
        _ => Disk::Unknown,
    }
}

const PROGRAM: &str = "install shlogin at a path that all nodes see";
const RECORDS: &str = "export XDG_STATE_HOME=/a/folder/that/nodes/see";

/// Whether the nodes are likely to see a path.
fn shared(what: &'static str, path: &Path, disk: Disk, remedy: &str) -> Finding {
    let shown = path.display();
    let tell = format!("srun ls -ld {}", nearest_existing(path).display());
    if let Some(own) = OWN.iter().find(|own| path.starts_with(own)) {
        let detail = format!("{shown}: each node has a {own} of its own");
        return Finding::limited(what, detail, format!("{remedy}; `{tell}` tells whether one does"));
    }
    match disk {
        Disk::Network => Finding::ok(what, format!("{shown}, on the network")),
        Disk::OfThisNode(kind) => Finding::limited(
            what,
            format!("{shown} is on {kind}, which no other node sees"),
            format!("{remedy}; `{tell}` tells whether one does"),
        ),
        Disk::Unknown => {
            Finding::ok(what, format!("{shown}, on a disk that may be this node's alone: `{tell}` tells"))
        }
    }
}

fn link_ports(config: &Config) -> Finding {
    let what = "link ports";
    let mut ports = config.pods.pods().filter_map(|pod| config.pods.link_port(pod));
    match (ports.next(), ports.last()) {
        (None, _) => Finding::limited(what, "none: pods have two ports each", "set pods.width to 3 or more"),
        (Some(first), None) => Finding::ok(what, format!("{first}, to be reached from the nodes")),
        (Some(first), Some(last)) => {
            Finding::ok(what, format!("{first}-{last}, each pod's third, to be reached from the nodes"))
        }
    }
}

/// What a name stands for on this node. What it does on the others need not be the same.
fn resolved(name: String) -> Named {
    let found = (name.as_str(), 0).to_socket_addrs();
    let addresses = found.into_iter().flatten().map(|address| address.ip()).collect();
    (name, addresses)
}

fn link_host(hosts: Option<&[Named]>) -> Finding {
    let what = "link host";
    let remedy = "set slurm.link_host to a name or address by which nodes reach this one";
    let Some(hosts) = hosts else {
        return Finding::limited(what, "the name service did not answer in time", remedy);
    };
    let say = |(name, addresses): &Named| {
        let shown: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        match &shown[..] {
            [one] if one == name => name.clone(),
            [] => format!("{name} (no address)"),
            _ => format!("{name} ({})", shown.join(" ")),
        }
    };
    let list = hosts.iter().map(say).collect::<Vec<_>>().join(", ");
    let reaches = |ip: &IpAddr| !ip.is_loopback() && !ip.is_unspecified();
    if hosts.iter().any(|(_, addresses)| addresses.iter().any(reaches)) {
        return Finding::ok(what, format!("nodes try {list}"));
    }
    let detail = if list.is_empty() { "this node has no address".to_owned() } else { list };
    Finding::limited(what, format!("{detail}: nothing that leads here from a node"), remedy)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_path_that_nodes_do_not_see_is_named_with_what_tells() {
        for (path, disk, verdict) in [
            ("/tmp/x/shlogin", Disk::Unknown, Verdict::Limited),
            ("/dev/shm/shlogin", Disk::Network, Verdict::Limited),
            ("/tmpfs/shlogin", Disk::Network, Verdict::Ok),
            ("/opt/shlogin", Disk::OfThisNode("overlay"), Verdict::Limited),
            ("/opt/shlogin", Disk::Unknown, Verdict::Ok),
        ] {
            let finding = shared("program on nodes", Path::new(path), disk, PROGRAM);
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            let said = finding.detail + &finding.remedy.unwrap_or_default();
            assert!(disk == Disk::Network || said.contains("srun ls -ld"), "{said}");
        }
        assert_eq!(disk(Path::new("/proc/self")), Disk::Unknown);
    }

    #[test]
    fn a_name_has_to_lead_here_from_elsewhere() {
        let host = |name: &str, addresses: &[&str]| {
            (name.to_owned(), addresses.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>())
        };
        let debian = [host("login1", &["127.0.1.1"])];
        assert_eq!(link_host(Some(&debian)).verdict, Verdict::Limited);
        assert_eq!(link_host(Some(&[host("nowhere", &[])])).verdict, Verdict::Limited);
        assert_eq!(link_host(None).verdict, Verdict::Limited);
        let both = [host("login1", &["127.0.1.1"]), host("10.0.0.1", &["10.0.0.1"])];
        let finding = link_host(Some(&both));
        assert_eq!(finding.verdict, Verdict::Ok);
        assert_eq!(finding.detail, "nodes try login1 (127.0.1.1), 10.0.0.1");
    }

    #[test]
    fn only_what_is_required_stands_in_the_way() {
        let machine = Machine::real();
        let fails = Err("the munge daemon cannot be reached".to_owned());
        assert_eq!(munge(MungeUse::Auto, &fails, &machine).verdict, Verdict::Limited);
        assert_eq!(munge(MungeUse::Require, &fails, &machine).verdict, Verdict::Blocked);
        assert_eq!(munge(MungeUse::Off, &fails, &machine).verdict, Verdict::Ok);
        let missing = || Slurm::find(Some(Path::new("/proc")));
        assert_eq!(programs(&missing(), None, true).verdict, Verdict::Blocked);
        assert_eq!(programs(&missing(), None, false).verdict, Verdict::Limited);
        assert_eq!(partitions(&[]).verdict, Verdict::Limited);
    }

    #[test]
    fn a_version_is_what_sbatch_says_if_it_says_one() {
        let said = |text: &str, status: Option<i32>| {
            let answer = Answer { text: text.to_owned(), status: status.map(ExitStatus::from_raw) };
            let finding = version("Slurm", Some(&answer));
            (finding.verdict, finding.detail)
        };
        assert_eq!(said("slurm-wlm 22.05.8\n", Some(0)), (Verdict::Ok, "22.05.8".to_owned()));
        assert_eq!(said("slurm\n", Some(0)), (Verdict::Ok, "of an unknown version".to_owned()));
        let fails = said("sbatch: error: no configuration\nmore\n", Some(1 << 8));
        assert_eq!(fails, (Verdict::Limited, "sbatch: error: no configuration".to_owned()));
        let (verdict, why) = said("", None);
        assert!(verdict == Verdict::Limited && why.contains("in time"), "{why}");
    }

    #[test]
    fn a_job_says_where_it_is_and_how_long() {
        let env = [("SLURM_JOB_ID", "7"), ("SLURMD_NODENAME", "c1")];
        let env = env.map(|(name, value)| (name.into(), value.into()));
        let its = Allocation::of(env).unwrap().unwrap();
        let ends = Timestamp::now() + jiff::SignedDuration::from_secs(3_900 + 30);
        let finding = in_job(&its, Some(ends), &Outcome::Works);
        assert_eq!(finding.detail, "job 7 on c1, 1 h 5 min left; namespaces work here");
        let finding = in_job(&its, None, &Outcome::Unknown(String::new()));
        assert_eq!(finding.verdict, Verdict::Limited);
        let shell = Allocation::of([("SLURM_JOB_ID".into(), "7".into())]).unwrap().unwrap();
        let finding = in_job(&shell, Some(ends), &Outcome::Works);
        assert!(finding.detail.contains("on none of its nodes"), "{}", finding.detail);
        assert!(!finding.detail.contains("namespaces"), "{}", finding.detail);
    }
}
