//! Sessions in jobs that do not begin, or not yet: what their person is told, and that nothing is left of them.

use std::{fs, path::Path, thread, time::Instant};

use serde_json::Value;

use crate::harness::{
    Running, Session, Site, User,
    cluster::{Cluster, Node, OwnCluster},
    in_job::job_of,
    place::place,
    program::{Output, bare},
    seconds, until,
};

const ISOLATED: [&str; 4] = ["-w", "c1", "--network", "isolated"];

/// What came of a start that must fail: its one message for programs, after which there is a record and nothing else.
fn failed(cluster: &Cluster, alice: &User, name: &str, output: Output, code: i32, says: &[&str]) -> Value {
    let output = output.ended_with(code);
    let error = output.json();
    let message = error["error"]["message"].as_str().unwrap().to_owned();
    for words in says {
        assert!(message.contains(words), "{words:?} in {error:#}");
    }
    cluster.wait_until_nothing_is_left(seconds(15), alice);
    let record = alice.shlogin(&["show", "--json", name]).ok().json();
    assert_eq!(record["state"], "ended", "{record:#}");
    let reason = record["reason"].as_str().unwrap();
    assert!(message.contains(reason), "{reason:?} in {message:?}");
    error
}

/// `start --slurm --json` with these variables of the program's.
fn start_with(cluster: &Cluster, alice: &User, variables: &[(&str, &str)], args: &[String]) -> Output {
    let mut command = cluster.shlogin_command(alice, &["start", "--json", "--slurm"]);
    command.args(args).envs(variables.iter().copied());
    Running::spawn(command).finish(seconds(90))
}

pub(crate) fn what_slurm_refuses_is_told_in_its_words(site: &Site) {
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    for (options, says) in [
        (&["-p", "nowhere"][..], &["partition", "nowhere"][..]),
        (&["--time=never"], &["time"]),
        (&["-w", "c77"], &["node name"]),
        (&["--sbatch=--no-such-option"], &["no-such-option"]),
    ] {
        let said = cluster.try_bare(alice, "refused", options, &[]);
        failed(cluster, alice, "refused", said, 114, says);
    }
    // What a session cannot do with is refused before there is one.
    for option in ["--array=1-3", "--sbatch=--array=1-3", "--sbatch=--output=/tmp/x", "--sbatch=--wait"] {
        let said = cluster.try_bare(alice, "several", &[option], &[]).ended_with(2);
        let name = option.trim_start_matches("--sbatch=").split('=').next().unwrap();
        assert!(said.stderr.contains(name), "{option}: {said:?}");
    }
    alice.shlogin(&["show", "several"]).ended_with(116);

    let empty = alice.home.join("empty");
    alice.own_folder(&empty, 0o755);
    let programs = [("SHLOGIN_SLURM_PROGRAMS", empty.to_str().unwrap())];
    let said = start_with(cluster, alice, &programs, &bare("no-slurm", &[], &[]));
    failed(cluster, alice, "no-slurm", said, 125, &["sbatch", empty.to_str().unwrap()]);
    let munge = [("SHLOGIN_SLURM_MUNGE", "require"), ("SHLOGIN_SLURM_MUNGE_SOCKET", "/nonexistent/socket")];
    let said = start_with(cluster, alice, &munge, &bare("no-munge", &[], &[]));
    failed(cluster, alice, "no-munge", said, 125, &["MUNGE is required", "/nonexistent/socket"]);
}

/// An account that may not use a partition: sites that enforce it refuse the job, the others let it wait for good.
pub(crate) fn an_account_that_may_not_use_a_partition_is_told_of(site: &Site) {
    let alice = &site.alice;
    let not_hers = |cluster: &Cluster| {
        cluster.slurm(&["scontrol", "update", "PartitionName=debug", "AllowAccounts=physics"]);
    };
    let cluster = OwnCluster::new(&["EnforcePartLimits=ALL"]);
    not_hers(&cluster);
    for options in [&["-p", "debug"][..], &["-p", "debug", "-A", "chemistry"]] {
        let said = cluster.try_bare(alice, "refused", options, &[]);
        failed(&cluster, alice, "refused", said, 114, &["account", "partition"]);
    }
    drop(cluster);

    let cluster = OwnCluster::new(&["EnforcePartLimits=NO"]);
    not_hers(&cluster);
    let mut command = cluster.shlogin_command(alice, &["start", "--slurm"]);
    command.args(bare("waits", &ISOLATED, &[]));
    let waiting = Running::spawn(command);
    waiting.wait_for(seconds(20), "account");
    alice.shlogin(&["stop", "waits"]).ok();
    let said = waiting.finish(seconds(20));
    assert!(said.code() != 0 && said.stderr.contains("it was stopped"), "{said:?}");
    cluster.wait_until_nothing_is_left(seconds(15), alice);
}

pub(crate) fn what_a_node_lacks_is_told_by_its_name(site: &Site) {
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    // Each node has a /tmp of its own. What is root's there is nothing that a session left.
    let hidden = Path::new("/tmp").join(format!("{}-hidden", alice.name));
    let _removed = Removed(&hidden);
    fs::create_dir(&hidden).unwrap();
    let image = hidden.join("tiny.sif");
    fs::copy(place().image("tiny"), &image).unwrap();
    let image = image.to_str().unwrap();
    let words = [&ISOLATED[..], &["--name", "unseen", image]]
        .concat()
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>();
    let said = start_with(cluster, alice, &[], &words);
    failed(cluster, alice, "unseen", said, 121, &["node c1 does not see", image]);

    let mut command = cluster.shlogin_command(alice, &["start", "--json", "--slurm"]);
    command.args(bare("nowhere", &ISOLATED, &[])).current_dir(&hidden);
    let said = Running::spawn(command).finish(seconds(60));
    failed(cluster, alice, "nowhere", said, 125, &["node c1 has no folder", hidden.to_str().unwrap()]);
}

struct Removed<'p>(&'p Path);

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0);
    }
}

pub(crate) fn an_app_that_does_not_begin_on_a_node_is_told_as_here(site: &Site) {
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let start = |name: &str, options: &[&str], words: &[&str]| {
        cluster.try_bare(alice, name, &[&ISOLATED[..], options].concat(), words)
    };
    let said = start("dies", &[], &["+say=on stdout", "+complain=what went wrong", "+exit=42"]);
    assert!(said.stdout.contains("what went wrong") && said.stdout.contains("on stdout"), "{said:?}");
    let error = failed(cluster, alice, "dies", said, 122, &["42"]);
    assert_eq!(error["error"]["status"], 42, "{error:#}");
    assert_eq!(alice.shlogin(&["show", "--json", "dies"]).ok().json()["status"], 42);
    alice.shlogin(&["logs", "dies"]).ok().says("what went wrong");

    let said = start("never", &["--ready-timeout", "1s"], &["+say=still thinking", "+never"]);
    assert!(said.stdout.contains("still thinking"), "{said:?}");
    failed(cluster, alice, "never", said, 123, &["opened no port within 1 s"]);

    let words = [
        "start",
        "--json",
        "--slurm",
        "--name",
        "ghost",
        "-w",
        "c1",
        "--network",
        "isolated",
        "--",
        "no-such-command",
    ];
    failed(cluster, alice, "ghost", cluster.shlogin(alice, &words), 122, &["no-such-command"]);

    // Cancelled by Slurm while it begins.
    thread::scope(|scope| {
        let starting = scope.spawn(|| start("cancelled", &[], &["+say=thinking", "+never"]));
        until(seconds(20), "it thinks", || {
            let said = alice.shlogin(&["logs", "cancelled"]);
            said.stdout.contains("thinking").then_some(())
        });
        let job = job_of(&alice.shlogin(&["show", "--json", "cancelled"]).ok().json());
        cluster.run_as(alice, &["scancel", &job.to_string()]).ok();
        let said = starting.join().unwrap();
        failed(cluster, alice, "cancelled", said, 115, &[&format!("job {job} was cancelled")]);
    });
}

/// A controller that does not answer is no end of a session; one that hears of a job too late gets no job.
pub(crate) fn a_controller_that_does_not_answer_harms_no_session(site: &Site) {
    let alice = &site.alice;
    let cluster = OwnCluster::new(&["MessageTimeout=2"]);
    let session = cluster.start_bare(alice, "before", &ISOLATED, &["+mark=before"]);
    let paused = cluster.pause_controller();
    let said = cluster.try_bare(alice, "late", &ISOLATED, &[]).ended_with(114).json();
    let message = said["error"]["message"].as_str().unwrap();
    assert!(message.contains("late did not start"), "{message}");
    assert_eq!(session.signed_in().get("/").text(), "before");
    assert_eq!(session.show()["state"], "running");
    let begun = Instant::now();
    session.stop();
    assert!(begun.elapsed() < seconds(45), "stop took {:?}", begun.elapsed());
    alice.wait_until_nothing_is_left(seconds(2));
    drop(paused);
    until(seconds(10), "the controller answers", || {
        (cluster.run_as(alice, &["squeue"]).code() == 0).then_some(())
    });
    cluster.wait_until_nothing_is_left(seconds(20), alice);
    assert!(session.show()["reason"].as_str().unwrap().contains("stopped"));
}

/// A URL is good before there is a node: it shows why there is none, and then the app.
pub(crate) fn a_session_that_waits_has_a_page_that_says_why(site: &Site) {
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let options = [&ISOLATED[..], &["--no-wait", "--hold"]].concat();
    let begun = Instant::now();
    let session = cluster.start_bare(alice, "held", &options, &["+mark=at last"]);
    assert!(begun.elapsed() < seconds(10), "it does not wait: {:?}", begun.elapsed());
    let mut gate = session.stranger();
    assert_eq!(gate.get("/").status, 401);
    gate.sign_in(session.url());
    let job = session.job();
    let held = format!("job {job} waits for a node: its owner holds it back");
    let page = || gate.request("GET", "/", &[("Accept", "text/html")], b"");
    until(seconds(10), "the page says why", || page().text().contains(&held).then_some(()));
    assert_eq!((page().status, gate.get("/").status), (200, 503), "a page for people alone");
    alice.shlogin(&["show", "held"]).ok().says(&held);
    assert_eq!(session.show()["state"], "waiting");
    // There is no program to be had yet, and that is what one is told.
    let said = alice.shlogin(&["exec", "held", "--", "true"]);
    assert!(said.code() == 125 && said.stderr.contains("node"), "{said:?}");
    cluster.slurm(&["scontrol", "release", &job.to_string()]);
    until(seconds(30), "the same cookie leads to the app", || {
        (gate.get("/").text() == "at last").then_some(())
    });
    session.stop();
    cluster.wait_until_nothing_is_left(seconds(15), alice);

    // Whoever waits for it at the terminal is told the same; stopping it ends the wait, and the job.
    let words: Vec<_> = ["start", "--slurm", "--hold"]
        .map(str::to_owned)
        .into_iter()
        .chain(bare("waits", &ISOLATED, &[]))
        .collect();
    let waiting =
        Running::spawn(cluster.shlogin_command(alice, &words.iter().map(String::as_str).collect::<Vec<_>>()));
    waiting.wait_for(seconds(20), "its owner holds it back");
    alice.shlogin(&["stop", "waits"]).ok();
    let said = waiting.finish(seconds(20));
    assert!(said.code() != 0 && said.stderr.contains("it was stopped"), "{said:?}");
    cluster.wait_until_nothing_is_left(seconds(15), alice);
    // And so does Ctrl-C.
    let waiting =
        Running::spawn(cluster.shlogin_command(alice, &words.iter().map(String::as_str).collect::<Vec<_>>()));
    waiting.wait_for(seconds(20), "its owner holds it back");
    waiting.signal(nix::sys::signal::Signal::SIGINT);
    assert_ne!(waiting.finish(seconds(20)).code(), 0);
    cluster.wait_until_nothing_is_left(seconds(15), alice);
}

/// A hundred sessions in the queue, listed and called off at once.
pub(crate) fn a_hundred_sessions_wait_in_the_queue(site: &Site) {
    let _alone = crate::harness::heavy();
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let app = bare("NAME", &["--network", "isolated"], &[])[2..].join(" ");
    let line = format!(
        "seq 100 | xargs -P 4 -I {{}} $S start --slurm --no-wait --begin=now+1hour --name waits-{{}} {app} 2>errors | sort -u | wc -l"
    );
    let mut command = cluster.command_as(alice, "bash");
    command.args(["-c", &line]).env("S", place().program());
    Running::spawn(command).finish(seconds(240)).ok().is("100\n");
    let begun = Instant::now();
    let listed = alice.list();
    let took = begun.elapsed();
    assert_eq!(listed.len(), 100);
    for session in &listed {
        assert_eq!(session["state"], "waiting", "{session:#}");
    }
    assert!(took < std::time::Duration::from_millis(300), "list took {took:?}");
    let mut jobs: Vec<_> = listed.iter().map(job_of).collect();
    jobs.sort_unstable();
    jobs.dedup();
    assert_eq!((jobs.len(), cluster.live_jobs(alice).len()), (100, 100));
    let shown = alice.shlogin(&["show", "waits-77"]).ok().stdout;
    assert!(shown.contains("waits for a node"), "{shown}");
    alice.shlogin(&["stop", "--all"]).ok();
    cluster.wait_until_nothing_is_left(seconds(60), alice);
    assert!(alice.list().is_empty());
    for node in Node::ALL {
        assert!(cluster.files_of(node, alice).is_empty());
    }
    let last = Session { user: alice, json: listed[99].clone() }.show();
    assert_eq!((&last["state"], &last["reason"]), (&"ended".into(), &"it was stopped".into()), "{last:#}");
}
