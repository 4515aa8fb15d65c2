//! A session in a job whose cluster the test may break: what is said of it, and what is left of it.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use nix::unistd::Pid;
use serde_json::Value;

use super::{
    Process, Running, Session, User,
    cluster::{Cluster, Listener, Node},
    http::{Answer, Gate},
    place::place,
    program::bare,
    seconds, until,
};

/// A cluster that notices soon what has gone.
pub(crate) const SHORT: &[&str] = &["MessageTimeout=2", "SlurmdTimeout=5", "KillWait=2"];

pub(crate) const NETWORK: &[&str] = &["--network", "isolated"];

/// A session in a job of a cluster's.
pub(crate) struct InJob<'s> {
    pub(crate) cluster: &'s Cluster,
    pub(crate) alice: &'s User,
    pub(crate) session: Session<'s>,
}

/// Starts a session in a job and waits until it answers; with `--no-wait`, until there is a job.
pub(crate) fn start<'s>(cluster: &'s Cluster, alice: &'s User, args: &[&str]) -> InJob<'s> {
    let mut command = cluster.command_as(alice, place().program());
    command.args(["start", "--json", "--slurm"]).args(args);
    let json = Running::spawn(command).finish(seconds(60)).ok().json();
    InJob { cluster, alice, session: Session { user: alice, json } }
}

/// The small app without an image. `options` are those of `start`.
pub(crate) fn start_bare<'s>(
    cluster: &'s Cluster,
    alice: &'s User,
    name: &str,
    options: &[&str],
    words: &[&str],
) -> InJob<'s> {
    let args = bare(name, &[NETWORK, options].concat(), words);
    start(cluster, alice, &args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// An app that writes `asked` into its log when it is asked to end, and ends well.
pub(crate) fn polite() -> [String; 3] {
    let app = place().app();
    let script =
        format!("trap 'echo asked; exit 0' TERM; /usr/bin/python3 -S -E {} +say=up & wait", app.display());
    ["bash".to_owned(), "-c".to_owned(), script]
}

pub(crate) fn start_polite<'s>(cluster: &'s Cluster, alice: &'s User, options: &[&str]) -> InJob<'s> {
    let polite = polite();
    let mut args = vec!["--name", "job"];
    args.extend(options);
    args.push("--");
    args.extend(polite.iter().map(String::as_str));
    start(cluster, alice, &args)
}

impl InJob<'_> {
    pub(crate) fn name(&self) -> &str {
        self.session.name()
    }

    pub(crate) fn show(&self) -> Value {
        self.session.show()
    }

    /// The job's number.
    pub(crate) fn job(&self) -> u32 {
        let record = self.show();
        let id = record["job"]["id"].as_u64().unwrap_or_else(|| panic!("no job: {record:#}"));
        u32::try_from(id).unwrap()
    }

    /// Where it runs.
    pub(crate) fn node(&self) -> Node {
        let record = self.show();
        let name = record["job"]["node"].as_str().unwrap_or_else(|| panic!("no node: {record:#}"));
        Node::ALL.into_iter().find(|node| node.name() == name).unwrap()
    }

    /// What `show` and `list` say for a person.
    pub(crate) fn said(&self) -> String {
        let show = self.alice.shlogin(&["show", self.name()]).ok().stdout;
        show + &self.alice.shlogin(&["list"]).ok().stdout
    }

    pub(crate) fn wait_for_state(&self, within: Duration, state: &str) -> Value {
        let start = Instant::now();
        loop {
            let record = self.show();
            if record["state"] == state {
                return record;
            }
            assert!(
                start.elapsed() < within,
                "not {state} within {within:?}: {record:#}\n{}\n{}",
                self.diagnostics(),
                self.cluster.logs()
            );
            thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Waits for its end and returns the reason.
    pub(crate) fn ended(&self, within: Duration) -> String {
        let record = self.wait_for_state(within, "ended");
        record["reason"].as_str().unwrap_or_else(|| panic!("no reason: {record:#}")).to_owned()
    }

    /// What gate and host have logged.
    pub(crate) fn diagnostics(&self) -> String {
        let folder = self.folder();
        let files = fs::read_dir(&folder).into_iter().flatten().flatten();
        let logs = files.filter(|file| {
            let name = file.file_name().to_string_lossy().into_owned();
            name.starts_with("slurm-") || name == "shlogin.log"
        });
        logs.map(|file| {
            let text = fs::read_to_string(file.path()).unwrap_or_default();
            format!("--- {}\n{text}", file.file_name().display())
        })
        .collect()
    }

    /// The session's folder of records.
    pub(crate) fn folder(&self) -> std::path::PathBuf {
        let record = self.show();
        std::path::Path::new(record["log"].as_str().unwrap()).parent().unwrap().to_owned()
    }

    pub(crate) fn log(&self) -> String {
        self.alice.shlogin(&["logs", self.name()]).ok().stdout
    }

    /// Its one process of this role, as this machine counts.
    pub(crate) fn process(&self, role: &str) -> Pid {
        let all = self.alice.processes();
        let found = all.iter().find(|process| process.role().starts_with(role));
        found.unwrap_or_else(|| panic!("no {role} in {all:#?}")).pid
    }

    /// Asks for a page as a browser would, on the way to the app.
    pub(crate) fn page(gate: &Gate) -> Answer {
        gate.request("GET", "/", &[("Accept", "text/html")], b"")
    }

    /// Waits until the app itself answers.
    pub(crate) fn wait_for_app(&self, within: Duration, gate: &Gate, mark: &str) {
        let start = Instant::now();
        loop {
            let answer = Self::page(gate);
            if answer.status == 200 && answer.text() == mark {
                return;
            }
            assert!(start.elapsed() < within, "{answer:?}\n{:#}\n{}", self.show(), self.diagnostics());
            thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// Waits until Slurm has done with the job.
    pub(crate) fn wait_until_job_ended(&self, id: u32) {
        until(seconds(30), "the job's end", || {
            let job = self.cluster.jobs(self.alice).into_iter().find(|its| its.id == id)?;
            (!matches!(job.state.as_str(), "RUNNING" | "COMPLETING" | "PENDING")).then_some(())
        });
    }

    /// Nothing of hers is left on any node, and then nothing on the login node.
    pub(crate) fn wait_until_nothing_is_left(&self, within: Duration) {
        let start = Instant::now();
        for node in Node::ALL {
            wait_until_clean(self.cluster, node, self.alice, within.saturating_sub(start.elapsed()));
        }
        self.alice.wait_until_nothing_is_left(within.saturating_sub(start.elapsed()) + seconds(2));
    }
}

/// What a user has on a node while a session lives there.
pub(crate) fn left_on(cluster: &Cluster, node: Node, user: &User) -> Vec<String> {
    let mut left = alive_on(cluster, node, user);
    for path in cluster.files_of(node, user) {
        // The program's own folder may stay; what is in it may not.
        if path.ends_with(format!("shlogin-{}", user.uid)) {
            left.extend(
                fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| format!("{entry:?}")),
            );
        } else {
            left.push(path.display().to_string());
        }
    }
    left
}

/// The same without folders.
pub(crate) fn alive_on(cluster: &Cluster, node: Node, user: &User) -> Vec<String> {
    let mut left: Vec<_> =
        cluster.processes_of(node, user).iter().map(|process: &Process| process.to_string()).collect();
    let mounts = cluster.root_of(node).parent().map(|process| process.join("mountinfo")).unwrap();
    let hers = format!("user_id={},", user.uid);
    let mounts = fs::read_to_string(mounts).unwrap();
    left.extend(mounts.lines().filter(|line| line.contains(&hers)).map(str::to_owned));
    for listener in cluster.listening_sockets(node) {
        if matches!(&listener, Listener::Tcp(_, uid) | Listener::Udp(_, uid) if *uid == user.uid) {
            left.push(format!("{listener:?}"));
        }
    }
    left
}

pub(crate) fn wait_until_clean(cluster: &Cluster, node: Node, user: &User, within: Duration) {
    wait_until_gone(within, || left_on(cluster, node, user));
}

pub(crate) fn wait_until_gone(within: Duration, look: impl Fn() -> Vec<String>) {
    let start = Instant::now();
    loop {
        let left = look();
        if left.is_empty() {
            return;
        }
        assert!(start.elapsed() < within, "after {within:?} there is still {left:#?}");
        thread::park_timeout(Duration::from_millis(20));
    }
}
