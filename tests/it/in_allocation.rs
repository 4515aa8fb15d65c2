//! Sessions in an allocation that is there already, typed on the login node in the shell of `salloc`. Whatever becomes of the session, the
//! allocation stays its owner's.

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::{
    harness::{
        Running, Session, Site, User,
        cluster::{Cluster, Node},
        place::place,
        program::{Output, bare},
        seconds, until,
    },
    in_job::nothing_listens,
};

const DIAL: (&str, &str) = ("SHLOGIN_SLURM_ALLOCATION", "dial");
pub(crate) const ISOLATED: [&str; 2] = ["--network", "isolated"];

/// The shell of an `salloc` on the login node.
struct Shell<'c> {
    cluster: &'c Cluster,
    user: &'c User,
    job: u32,
    /// Its environment.
    env: Vec<(String, String)>,
    _salloc: Running,
}

impl<'c> Shell<'c> {
    fn new(cluster: &'c Cluster, user: &'c User, options: &[&str]) -> Self {
        let mut salloc = cluster.command_as(user, "salloc");
        let line = "env | grep ^SLURM_ > shell.env.new; mv shell.env.new shell.env; exec tail -f /dev/null";
        // Else its shell outlives the allocation, as people like it to.
        salloc.arg("--kill-command=TERM").args(options).args(["sh", "-c", line]);
        let shell = user.home.join("shell.env");
        let _ = fs::remove_file(&shell);
        let salloc = Running::spawn(salloc);
        let text = until(seconds(20), &format!("salloc has a job: {}", salloc.stderr()), || {
            fs::read_to_string(&shell).ok()
        });
        let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        let env: Vec<_> = text.lines().filter_map(pair).collect();
        let job =
            env.iter().find(|(name, _)| name == "SLURM_JOB_ID").map(|(_, value)| value.parse().unwrap());
        Self { cluster, user, job: job.unwrap(), env, _salloc: salloc }
    }

    fn command(&self, args: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = self.cluster.shlogin_command(self.user, args);
        let hers = self.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        command.envs(hers).envs(variables.iter().copied());
        command
    }

    fn shlogin(&self, args: &[&str], variables: &[(&str, &str)]) -> Output {
        Running::spawn(self.command(args, variables)).finish(seconds(60))
    }

    fn try_start(&self, name: &str, words: &[&str], variables: &[(&str, &str)]) -> Output {
        let words = bare(name, &ISOLATED, words);
        let mut args = vec!["start", "--json"];
        args.extend(words.iter().map(String::as_str));
        self.shlogin(&args, variables)
    }

    fn start(&self, name: &str, words: &[&str]) -> Session<'c> {
        Session { user: self.user, json: self.try_start(name, words, &[DIAL]).ok().json() }
    }

    fn is_running(&self) {
        let job = self.cluster.jobs(self.user).into_iter().find(|job| job.id == self.job);
        assert_eq!(job.as_ref().map(|job| job.state.as_str()), Some("RUNNING"), "{job:?}");
    }

    fn cancel(&self) {
        self.cluster.run_as(self.user, &["scancel", &self.job.to_string()]).ok();
    }
}

pub(crate) fn host_of_login() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned()
}

/// Waits until a user has no process of a session's on a node.
pub(crate) fn wait_until_clean(cluster: &Cluster, node: Node, user: &User, within: Duration) {
    let start = Instant::now();
    loop {
        let left: Vec<_> = cluster
            .processes_of(node, user)
            .into_iter()
            .filter(|process| !process.is_zombie() && process.to_string().contains("shlogin"))
            .map(|process| process.to_string())
            .collect();
        if left.is_empty() {
            return;
        }
        assert!(start.elapsed() < within, "on {} there is still {left:#?}", node.name());
        thread::park_timeout(Duration::from_millis(20));
    }
}

/// The process of a session's gate, here.
pub(crate) fn gate_of(session: &Value) -> nix::unistd::Pid {
    nix::unistd::Pid::from_raw(i32::try_from(session["pid"].as_i64().unwrap()).unwrap())
}

pub(crate) fn show(user: &User, name: &str) -> Value {
    Cluster::shared().shlogin(user, &["show", "--json", name]).ok().json()
}

pub(crate) fn wait_for(user: &User, name: &str, within: Duration, state: &str) -> Value {
    until(within, &format!("{name} is {state}: {:#}", show(user, name)), || {
        Some(show(user, name)).filter(|record| record["state"] == state)
    })
}

pub(crate) fn reason(record: &Value) -> &str {
    record["reason"].as_str().unwrap_or_default()
}

/// Beside the allocation nothing is started that its person believes in it, unless the gateway is to stay here.
pub(crate) fn beside_an_allocation_nothing_starts_on_the_login_node_by_mistake(site: &Site) {
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let shell = Shell::new(cluster, alice, &["-w", "c1"]);
    let said = shell.try_start("lost", &[], &[]).ended_with(2).json();
    let message = said["error"]["message"].as_str().unwrap();
    for words in [&format!("is no node of job {}, which has c1", shell.job), "SHLOGIN_SLURM_ALLOCATION=dial"]
    {
        assert!(message.contains(words), "{words}: {message}");
    }
    let listen = [("SHLOGIN_SLURM_ALLOCATION", "listen")];
    shell.try_start("lost", &[], &listen).ended_with(2);
    alice.shlogin(&["show", "lost"]).ended_with(116);
    // Without the variable, it is a session of this node, as ever; and --no-wait says nothing then.
    let here = alice.start_bare("here", &ISOLATED, &[]);
    assert_eq!(here.report()["env"].get("SLURM_JOB_ID"), None);
    here.stop();
    alice.shlogin(&["start", "--no-wait", "--", "true"]).ended_with(2).says("--slurm");
    // A job of one's own is asked for as ever, wherever one stands.
    let words = bare("own", &["--slurm", "-w", "c2", "--network", "isolated"], &[]);
    let args: Vec<_> = ["start", "--json"].into_iter().chain(words.iter().map(String::as_str)).collect();
    let own = Session { user: alice, json: shell.shlogin(&args, &[DIAL]).ok().json() };
    assert_ne!(own.job(), shell.job);
    own.stop();
    shell.is_running();
    shell.cancel();
    // What is left of a job that is over starts nothing, either.
    until(seconds(30), "the job is over", || cluster.live_jobs(alice).is_empty().then_some(()));
    shell.try_start("late", &[], &[DIAL]).ended_with(2).says("SLURM_JOB_ID is left over from it");
    cluster.wait_until_nothing_is_left(seconds(15), alice);
}

pub(crate) fn from_the_shell_of_salloc_sessions_run_in_the_allocation(site: &Site) {
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let before = cluster.listening_sockets(Node::C1);
    let shell = Shell::new(cluster, alice, &["-w", "c1", "-c", "3", "--gres=gpu:1"]);
    let secret = "hidden-in-an-environment-94135";
    let one =
        shell.try_start("one", &["+mark=one", "+bind=0.0.0.0", "+port=18471"], &[DIAL, ("SECRET", secret)]);
    let one = Session { user: alice, json: one.ok().json() };
    let two = shell.start("two", &["+mark=two"]);
    for session in [&one, &two] {
        assert_eq!(session.job(), shell.job);
        assert_eq!(session.signed_in().get("/").text(), session.name());
        let env = &session.report()["env"];
        let job = shell.job.to_string();
        for (name, value) in [
            ("SLURM_JOB_ID", job.as_str()),
            ("SLURMD_NODENAME", "c1"),
            ("SLURM_CPUS_ON_NODE", "3"),
            ("CUDA_VISIBLE_DEVICES", "0"),
        ] {
            assert_eq!(env[name], value, "{name} of {}: {env:#}", session.name());
        }
        assert_eq!(alice.shlogin(&["exec", session.name(), "--", "uname", "-n"]).ok().stdout, "c1\n");
        assert_eq!(session.show()["job"]["lent"], true);
    }
    assert_eq!(one.report()["env"]["SECRET"], secret);
    // What srun and Slurm are told holds nothing of it.
    let steps = cluster.slurm(&["scontrol", "show", "step", &shell.job.to_string()]);
    assert!(steps.contains("Name=one") && !steps.contains(secret), "{steps}");
    for process in crate::harness::census::processes_of(alice.uid) {
        let of = |name: &str| fs::read(format!("/proc/{}/{name}", process.pid)).unwrap_or_default();
        let (words, env) = (of("cmdline"), of("environ"));
        if String::from_utf8_lossy(&words).contains("srun") {
            for bytes in [words, env] {
                assert!(!String::from_utf8_lossy(&bytes).contains(secret), "{process}");
            }
        }
    }
    nothing_listens(cluster, Node::C1, &before, alice, "no-such-name");
    shell.shlogin(&["verify", "one"], &[DIAL]).ok();
    let said = alice.shlogin(&["show", "one"]).ok().stdout;
    assert!(
        said.contains(&format!("job {} is running on c1, ", shell.job)) && said.contains(" left"),
        "{said}"
    );
    alice.shlogin(&["ssh", "one", "echo", "$SLURM_JOB_ID"]).ok().is(&format!("{}\n", shell.job));
    // More time is Slurm's to give, as with any job.
    cluster.shlogin(alice, &["extend", "one", "--by", "1h"]).ended_with(125).says("nobody but its operators");
    a_host_of_another_job_is_refused(&shell, &one);

    one.stop();
    assert_eq!(reason(&one.show()).split(';').next(), Some("it was stopped"));
    assert_eq!(two.signed_in().get("/").text(), "two", "the other goes on");
    shell.is_running();
    // An app that ends by itself ends its session, and no more. It does not answer, and the gateway for it only if there is time.
    let answer = two.signed_in().try_request("GET", "/exit?7", &[], b"").ok().flatten();
    assert!(answer.as_ref().is_none_or(|answer| answer.status == 502), "{answer:?}");
    let ended = two.wait_until(seconds(10), "ended");
    assert_eq!(reason(&ended), "its app ended with status 7");
    wait_until_clean(cluster, Node::C1, alice, seconds(15));
    shell.is_running();
    shell.cancel();
    cluster.wait_until_nothing_is_left(seconds(15), alice);
}

/// It has the session's folder and its user's credential, and is in another job.
fn a_host_of_another_job_is_refused(shell: &Shell<'_>, session: &Session<'_>) {
    let program = place().program().display().to_string();
    let folder = session.folder().display().to_string();
    let words = ["srun", "-Q", "-w", "c2", "-t", "1", &program, "@host", &folder, "step"];
    shell.cluster.run_as(shell.user, &words).ended_with(1).says("this is not the session's job");
    assert_eq!(session.signed_in().get("/").status, 200);
}

pub(crate) fn the_end_of_an_allocation_is_the_session_s_and_is_told(site: &Site) {
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let shell = Shell::new(cluster, alice, &["-w", "c1"]);
    let session = shell.start("gone", &[]);
    shell.cancel();
    let ended = session.wait_until(seconds(30), "ended");
    let why = format!("its job {} was cancelled", shell.job);
    assert!(reason(&ended).starts_with(&why), "{ended:#}");
    cluster.wait_until_nothing_is_left(seconds(15), alice);

    // A step that is asked to end is no allocation that is.
    let shell = Shell::new(cluster, alice, &["-w", "c1"]);
    let session = shell.start("step", &[]);
    cluster.run_as(alice, &["scancel", "--signal=TERM", &format!("{}.0", shell.job)]).ok();
    let ended = session.wait_until(seconds(30), "ended");
    assert!(reason(&ended).starts_with("it was ended in its job, which goes on: "), "{ended:#}");
    wait_until_clean(cluster, Node::C1, alice, seconds(10));
    shell.is_running();
    shell.cancel();
    cluster.wait_until_nothing_is_left(seconds(15), alice);

    // Its time: the app is asked before Slurm asks anybody.
    let shell = Shell::new(cluster, alice, &["-w", "c1", "-t", "1"]);
    let session = shell.start("brief", &[]);
    let ended = session.wait_until(seconds(60), "ended");
    assert!(reason(&ended).starts_with("its job's time was over"), "{ended:#}");
    wait_until_clean(cluster, Node::C1, alice, seconds(10));
    shell.is_running();
    shell.cancel();
    cluster.wait_until_nothing_is_left(seconds(15), alice);
}

pub(crate) fn a_gateway_that_is_gone_is_followed_by_another_or_by_the_end(site: &Site) {
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let shell = Shell::new(cluster, alice, &["-w", "c1"]);
    let session = shell.start("on", &["+mark=on"]);
    let kill_gate = || {
        kill(gate_of(&session.show()), Signal::SIGKILL).unwrap();
        until(seconds(10), "it is detached", || (session.show()["detached"] == true).then_some(()));
    };
    kill_gate();
    let again = cluster.shlogin(alice, &["attach", "--json", "on"]).ok().json();
    let again = Session { user: alice, json: again };
    assert_eq!((again.pod(), again.signed_in().get("/").text().as_str()), (session.pod(), "on"));
    // Nobody has started that host but the gate before: it is looked for, and found gone.
    let host = cluster.processes_of(Node::C1, alice).into_iter().find(|process| process.role() == "@host");
    let pid = host.expect("there is a host").pid.to_string();
    Running::spawn(cluster.inside_as_root(Node::C1, &["kill", "-9", &pid])).finish(seconds(10)).ok();
    let ended = session.wait_until(seconds(40), "ended");
    let why = format!(
        "its host on c1 is gone: it was killed, or what it was started in has ended; job {} goes on",
        shell.job
    );
    assert_eq!(reason(&ended), why);
    wait_until_clean(cluster, Node::C1, alice, seconds(10));

    let session = shell.start("off", &[]);
    kill(gate_of(&session.show()), Signal::SIGKILL).unwrap();
    until(seconds(10), "it is detached", || (session.show()["detached"] == true).then_some(()));
    cluster.shlogin(alice, &["stop", "off"]).ok();
    wait_until_clean(cluster, Node::C1, alice, seconds(5));
    assert!(reason(&session.show()).starts_with("it was stopped"), "{:#}", session.show());
    assert!(!session.folder().join("gateway.pem").exists(), "the keys are gone with it");
    shell.is_running();
    shell.cancel();
    cluster.wait_until_nothing_is_left(seconds(15), alice);
}
