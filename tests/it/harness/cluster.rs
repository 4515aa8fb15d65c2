//! A small Slurm cluster: this machine as its login node, and two compute nodes that are namespaces of it.
//! `tests/cluster/cluster` makes it and says how it looks; here are a test's hands and eyes.
//!
//! Most tests share one. What breaks something makes one of its own ([`OwnCluster`]), which is there in a second.

use std::{
    ffi::OsStr,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Deref,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    Process, User, census,
    interfaces::change,
    place::place,
    program::{Output, Running},
    seconds, until,
};

/// Every cluster's folder has a name that begins so, in the folder of its run.
const FOLDER: &str = "cluster";

static SHARED: OnceLock<Result<Cluster, String>> = OnceLock::new();

/// A compute node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Node {
    C1,
    C2,
}

impl Node {
    pub(crate) const ALL: [Self; 2] = [Self::C1, Self::C2];

    /// As Slurm knows it, and as it knows itself.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::C1 => "c1",
            Self::C2 => "c2",
        }
    }
}

/// A job, as `squeue` has it.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) id: u32,
    pub(crate) uid: u32,
    /// `PENDING`, `RUNNING`, `COMPLETED` and so on.
    pub(crate) state: String,
    /// Where it runs or ran; empty before.
    pub(crate) nodes: String,
    /// Why it is in this state.
    pub(crate) reason: String,
    pub(crate) name: String,
}

/// What somebody can connect to, or send to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Listener {
    Tcp(SocketAddr, u32),
    Udp(SocketAddr, u32),
    /// A path, or a name that begins with `@`.
    Unix(String),
}

/// A cluster that is up.
pub(crate) struct Cluster {
    folder: PathBuf,
    network: String,
}

impl Cluster {
    /// The one that all tests share: the first brings it up, and it goes with the run's folder.
    ///
    /// # Panics
    /// When it does not come up.
    pub(crate) fn shared() -> &'static Self {
        let shared = SHARED.get_or_init(|| Self::up(place().root().join(FOLDER), &[]));
        shared.as_ref().unwrap_or_else(|why| panic!("the cluster does not come up: {why}"))
    }

    fn up(folder: PathBuf, settings: &[&str]) -> Result<Self, String> {
        let mut command = script(&folder, &["up"]);
        let output = change(|| command.args(settings).output()).map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let mut cluster = Self { folder, network: String::new() };
        let network = cluster.says(&["network"]);
        cluster.network = network;
        Ok(cluster)
    }

    /// What every command of Slurm's needs as `SLURM_CONF`.
    pub(crate) fn slurm_conf(&self) -> PathBuf {
        self.folder.join("etc/slurm.conf")
    }

    /// Where the nodes reach the login node, which is this machine.
    pub(crate) fn login_address(&self) -> Ipv4Addr {
        format!("{}.1", self.network).parse().unwrap()
    }

    /// Where the login node reaches a compute node. No name stands for it here.
    pub(crate) fn address(&self, node: Node) -> Ipv4Addr {
        format!("{}.1{}", self.network, &node.name()[1..]).parse().unwrap()
    }

    /// A command that a user will run on the login node, where Slurm is this cluster's. Sessions end with their jobs: what else
    /// becomes of them has tests of its own.
    pub(crate) fn command_as(&self, user: &User, program: impl AsRef<OsStr>) -> Command {
        let mut command = user.command(program);
        command.env("SLURM_CONF", self.slurm_conf()).env("SHLOGIN_SLURM_LINGER", "0s");
        command
    }

    /// Runs one to its end.
    pub(crate) fn run_as(&self, user: &User, words: &[&str]) -> Output {
        let mut command = self.command_as(user, words[0]);
        command.args(&words[1..]);
        Running::spawn(command).finish(seconds(60))
    }

    /// A command that a user will run on a compute node and outside of any job, as if she came in by ssh.
    pub(crate) fn inside(&self, node: Node, user: &User, words: &[&str]) -> Command {
        let mut command = script(&self.folder, &["in", node.name(), "as", &user.name, "--"]);
        command.args(words);
        command
    }

    /// A command that root will run on a compute node.
    pub(crate) fn inside_as_root(&self, node: Node, words: &[&str]) -> Command {
        let mut command = script(&self.folder, &["in", node.name(), "--"]);
        command.args(words);
        command
    }

    /// Hands a batch script of one line to Slurm, and gives the job's number.
    pub(crate) fn submit(&self, user: &User, options: &[&str], line: &str) -> u32 {
        let words = [&["sbatch", "--parsable"], options, &["--wrap", line]].concat();
        self.run_as(user, &words).ok().stdout.trim().parse().unwrap()
    }

    /// All jobs of a user's that the controller knows, and those too that ended some minutes ago.
    pub(crate) fn jobs(&self, user: &User) -> Vec<Job> {
        let mut jobs = self.all_jobs();
        jobs.retain(|job| job.uid == user.uid);
        jobs
    }

    /// Waits until a job is in this state.
    ///
    /// # Panics
    /// With what is known of it, when it is not in time.
    pub(crate) fn wait_job(&self, within: Duration, id: u32, state: &str) -> Job {
        let start = Instant::now();
        loop {
            let job = self.all_jobs().into_iter().find(|job| job.id == id);
            match job {
                Some(job) if job.state == state => return job,
                job => assert!(
                    start.elapsed() < within,
                    "job {id} is not {state} within {within:?}: {job:?}\n{}",
                    self.logs()
                ),
            }
            thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn all_jobs(&self) -> Vec<Job> {
        let table = self.slurm(&["squeue", "-h", "-t", "all", "-o", "%A|%U|%T|%N|%r|%j"]);
        let job = |line: &str| {
            let mut fields = line.splitn(6, '|').map(str::to_owned);
            let mut next = || fields.next();
            Some(Job {
                id: next()?.parse().ok()?,
                uid: next()?.parse().ok()?,
                state: next()?,
                nodes: next()?,
                reason: next()?,
                name: next()?,
            })
        };
        table.lines().map(|line| job(line).unwrap_or_else(|| panic!("no job: {line}"))).collect()
    }

    /// The last lines of every daemon's log.
    pub(crate) fn logs(&self) -> String {
        self.says(&["logs"])
    }

    /// Waits until a node is in this state: `idle`, `mixed`, `down*`, where the `*` says that it does not answer.
    pub(crate) fn wait_node(&self, within: Duration, node: Node, state: &str) {
        until(within, &format!("{} is {state}", node.name()), || {
            let said = self.slurm(&["sinfo", "-h", "-p", "debug", "-n", node.name(), "-o", "%T"]);
            (said.trim() == state).then_some(())
        });
    }

    /// Runs a command of Slurm's as root.
    ///
    /// # Panics
    /// When it fails.
    pub(crate) fn slurm(&self, words: &[&str]) -> String {
        let output =
            Command::new(words[0]).args(&words[1..]).env("SLURM_CONF", self.slurm_conf()).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The root folder of a node, as this machine reaches it.
    pub(crate) fn root_of(&self, node: Node) -> PathBuf {
        self.proc_of(node).join("root")
    }

    /// The node's process 1.
    fn proc_of(&self, node: Node) -> PathBuf {
        Path::new("/proc").join(self.says(&["pid", node.name()]))
    }

    /// A user's processes on a node, in jobs and outside of them, with the numbers they have there.
    pub(crate) fn processes_of(&self, node: Node, user: &User) -> Vec<Process> {
        census::processes_in(&self.root_of(node).join("proc"), user.uid)
    }

    /// What a user has in the folders that everybody on a node shares.
    pub(crate) fn files_of(&self, node: Node, user: &User) -> Vec<PathBuf> {
        owned_by(user.uid, &self.root_of(node))
    }

    /// What listens in a node's own network; not what does in a session's.
    pub(crate) fn listening_sockets(&self, node: Node) -> Vec<Listener> {
        let net = self.proc_of(node).join("net");
        let table = |name: &str| fs::read_to_string(net.join(name)).unwrap_or_default();
        let mut found = Vec::new();
        for name in ["tcp", "tcp6"] {
            found.extend(inet(&table(name), "0A").map(|(address, uid)| Listener::Tcp(address, uid)));
        }
        for name in ["udp", "udp6"] {
            found.extend(inet(&table(name), "07").map(|(address, uid)| Listener::Udp(address, uid)));
        }
        // the fourth field says whether it accepts connections; see proc_pid_net(5)
        for line in table("unix").lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            if fields.get(3) == Some(&"00010000") {
                found.push(Listener::Unix(fields.get(7).copied().unwrap_or_default().to_owned()));
            }
        }
        found
    }

    fn says(&self, words: &[&str]) -> String {
        let output = script(&self.folder, words).output().unwrap();
        assert!(output.status.success(), "cluster {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

/// One test's own cluster, in which it may break what it likes. It is gone when this is dropped.
pub(crate) struct OwnCluster(Cluster);

impl OwnCluster {
    /// Brings it up. The settings are those of `cluster up`.
    ///
    /// # Panics
    /// When it does not come up.
    pub(crate) fn new(settings: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let name = format!("{FOLDER}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let cluster = Cluster::up(place().root().join(name), settings);
        Self(cluster.unwrap_or_else(|why| panic!("the cluster does not come up: {why}")))
    }

    /// Stops the controller as a debugger would: who connects to it waits. It goes on when the guard is dropped.
    pub(crate) fn pause_controller(&self) -> Undo<'_> {
        self.says(&["pause"]);
        Undo { cluster: self, words: ["resume", ""] }
    }

    /// Cuts a node off: packets vanish, and nobody is told. The guard's drop mends it.
    pub(crate) fn cut(&self, node: Node) -> Undo<'_> {
        self.says(&["cut", node.name()]);
        Undo { cluster: self, words: ["join", node.name()] }
    }

    /// Takes a node's power away. It says goodbye to nobody.
    pub(crate) fn kill_node(&self, node: Node) {
        self.says(&["kill", node.name()]);
    }

    /// Gives it back, and waits until the controller counts on the node again.
    pub(crate) fn revive(&self, node: Node) {
        self.says(&["revive", node.name()]);
    }
}

impl Deref for OwnCluster {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.0
    }
}

impl Drop for OwnCluster {
    fn drop(&mut self) {
        take_down(&self.folder);
    }
}

/// Undoes a break when it is dropped.
#[must_use = "what was broken is mended when this is dropped"]
pub(crate) struct Undo<'c> {
    cluster: &'c Cluster,
    words: [&'static str; 2],
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let _ = script(&self.cluster.folder, &self.words).status();
    }
}

/// Takes down the clusters of a run, which may be one that was killed.
pub(crate) fn take_down_below(run: &Path) {
    for entry in fs::read_dir(run).into_iter().flatten().flatten() {
        let is_cluster = entry.file_name().to_string_lossy().starts_with(FOLDER);
        if is_cluster && entry.path().is_dir() {
            take_down(&entry.path());
        }
    }
}

fn take_down(folder: &Path) {
    let _ = change(|| script(folder, &["down"]).status());
}

/// Ends what a user has in the shared cluster, if it is up, before her number is the next one's.
pub(crate) fn forget(uid: u32) {
    if let Some(Ok(cluster)) = SHARED.get() {
        // a test that fails comes by here as well, and is to be told of its own failure
        let user = uid.to_string();
        let _ =
            Command::new("scancel").args(["--user", &user]).env("SLURM_CONF", cluster.slurm_conf()).status();
        let roots = Node::ALL.map(|node| cluster.folder.join("nodes").join(node.name()));
        for path in roots.iter().flat_map(|root| owned_by(uid, root)) {
            let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
        }
    }
}

fn owned_by(uid: u32, root: &Path) -> Vec<PathBuf> {
    ["tmp", "var/tmp", "dev/shm", "run/user"]
        .iter()
        .flat_map(|shared| fs::read_dir(root.join(shared)).into_iter().flatten().flatten())
        .filter(|entry| entry.metadata().is_ok_and(|meta| meta.uid() == uid))
        .map(|entry| entry.path())
        .collect()
}

fn script(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/cluster"));
    command.args(words).env("SHLOGIN_CLUSTER", folder).stdin(Stdio::null());
    command
}

/// The local addresses and the owners of the sockets in this state, of a table as in proc_pid_net(5).
fn inet(table: &str, state: &str) -> impl Iterator<Item = (SocketAddr, u32)> {
    table.lines().skip(1).filter_map(move |line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let in_state = fields.get(3) == Some(&state);
        in_state.then(|| Some((address(fields[1])?, fields.get(7)?.parse().ok()?))).flatten()
    })
}

/// `0100007F:1F90` is 127.0.0.1:8080: each word of an address is a number as the processor has it.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let mut bytes = Vec::new();
    for at in (0..host.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(host.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    let host = match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(four) => IpAddr::from(Ipv4Addr::from(four)),
        Err(_) => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[..]).ok()?)),
    };
    Some(SocketAddr::new(host, u16::from_str_radix(port, 16).ok()?))
}
