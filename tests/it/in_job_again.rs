//! Sessions whose jobs Slurm has ended: they keep their name and their URL, and their owner may start them again.

use std::{fs, process::Command};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    attacked::NOISE,
    harness::{
        Running, Session, Site, User,
        browser::keep,
        cluster::{Cluster, Node, OwnCluster},
        http::Gate,
        place::place,
        program::bare,
        seconds, until,
    },
};

/// `start --slurm` of the small app, whose session stays so long when its job is over.
fn starting(cluster: &Cluster, alice: &User, linger: &str, options: &[&str], words: &[&str]) -> Command {
    let mut command = cluster.shlogin_command(alice, &["start", "--json", "--slurm"]);
    command.args(bare("job", &[&["--network", "isolated"], options].concat(), words));
    command.env("SHLOGIN_SLURM_LINGER", linger);
    command
}

fn start<'u>(
    cluster: &Cluster,
    alice: &'u User,
    linger: &str,
    options: &[&str],
    words: &[&str],
) -> Session<'u> {
    let command = starting(cluster, alice, linger, options, words);
    Session { user: alice, json: Running::spawn(command).finish(seconds(60)).ok().json() }
}

fn cancel(cluster: &Cluster, session: &Session<'_>) -> Value {
    cluster.run_as(session.user, &["scancel", &session.job().to_string()]).ok();
    session.wait_until(seconds(30), "interrupted")
}

fn page(gate: &Gate, path: &str) -> String {
    gate.request("GET", path, &[("Accept", "text/html")], b"").text()
}

/// Nothing of it is left but its gateway.
fn wait_until_no_job_is_left(cluster: &Cluster, alice: &User) {
    until(seconds(20), "nothing of it is on the nodes", || {
        let left = Node::ALL.into_iter().flat_map(|node| cluster.processes_of(node, alice));
        (left.filter(|process| !process.is_zombie()).count() == 0 && cluster.live_jobs(alice).is_empty())
            .then_some(())
    });
}

pub(crate) fn a_session_whose_job_was_cancelled_is_started_again(site: &Site) {
    let alice = &site.alice;
    let cluster = &*OwnCluster::new(&[]);
    let session = start(cluster, alice, "1h", &["-w", "c1"], &["+mark=here", "+say=hello"]);
    let gate = session.signed_in();
    assert_eq!(gate.get("/").text(), "here");
    let first = session.job();
    let guest = alice.shlogin(&["share", "--json", "job"]).ok().json();
    let record = cancel(cluster, &session);
    let why = format!("its job {first} was cancelled");
    assert!(record["reason"].as_str().unwrap().contains(&why), "{record:#}");
    assert!(record["ended_at"].is_null(), "{record:#}");
    wait_until_no_job_is_left(cluster, alice);

    let offer = page(&gate, "/");
    assert!(offer.contains(&why) && offer.contains("Start again"), "{offer}");
    assert_eq!(gate.get("/").status, 503, "a page for people alone");
    alice.shlogin(&["list"]).ok().says("interrupted");
    alice.shlogin(&["show", "job"]).ok().says(&why);
    let said = alice.shlogin(&["exec", "job", "--", "true"]);
    assert!(
        said.code() == 125 && said.stderr.contains(&why) && said.stderr.contains("shlogin restart job"),
        "{said:?}"
    );
    alice.shlogin(&["share", "job"]).ended_with(125).says("shlogin restart job");
    // Who is let in already can be seen, and sent away.
    let listed = alice.shlogin(&["share", "--json", "job", "--list"]).ok().json();
    assert_eq!(listed[0]["id"], guest["guest"], "{listed:#}");
    alice.shlogin(&["share", "job", "--revoke", "--all"]).ok();
    let said = alice.shlogin(&["attach", "job"]);
    assert!(said.code() != 0 && said.stderr.contains("shlogin restart job"), "{said:?}");
    cluster.shlogin(alice, &["extend", "job", "--by", "1h"]).ended_with(125).says("shlogin restart job");
    let said = cluster.try_bare(alice, "job", &[], &[]).ended_with(120);
    assert!(said.stdout.contains("shlogin show job"), "{said:?}");

    // The same URL, the same cookie, the same log.
    let again = cluster.shlogin(alice, &["restart", "--json", "job"]).ok().json();
    assert!(again["url"].as_str().unwrap().starts_with(&gate.origin()), "{again:#}");
    assert_ne!(session.job(), first);
    assert_eq!(gate.get("/").text(), "here");
    let record = session.show();
    assert_eq!((&record["state"], &record["reason"]), (&"running".into(), &Value::Null), "{record:#}");
    assert_eq!((&record["id"], &record["job"]["node"]), (&session.json["id"], &"c1".into()));
    until(seconds(5), "both runs are in the log", || {
        let log = alice.shlogin(&["logs", "job"]).ok().stdout;
        (log.matches("hello").count() == 2).then_some(())
    });
    alice.shlogin(&["exec", "job", "--", "hostname"]).ok().is("c1\n");
    let said = cluster.shlogin(alice, &["restart", "job"]);
    assert!(said.code() == 125 && said.stderr.contains("its job is not over"), "{said:?}");

    // Whoever waits for it may go: it waits by itself.
    cancel(cluster, &session);
    cluster.shlogin(alice, &["restart", "--no-wait", "job"]).ok();
    session.wait_until(seconds(30), "running");
    cancel(cluster, &session);
    let hold = |what: &str| cluster.slurm(&["scontrol", "update", "PartitionName=debug", what]);
    hold("State=DOWN");
    let waiting = Running::spawn(cluster.shlogin_command(alice, &["restart", "job"]));
    waiting.wait_for(seconds(20), "waits for a node");
    waiting.signal(Signal::SIGINT);
    let said = waiting.finish(seconds(20));
    assert!(said.code() == 130 && said.stderr.contains("job goes on"), "{said:?}");
    assert_eq!(session.show()["state"], "waiting");
    let waits = page(&gate, "/");
    assert!(waits.contains("has no node yet"), "{waits}");
    hold("State=UP");
    session.wait_until(seconds(60), "running");
    session.stop();
    cluster.wait_until_nothing_is_left(seconds(15), alice);
    let said = cluster.shlogin(alice, &["restart", "job"]);
    assert!(said.code() == 125 && said.stderr.contains("has ended"), "{said:?}");
}

pub(crate) fn a_page_starts_a_session_again(site: &Site) {
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let session = start(cluster, alice, "1h", &[], &["+mark=back again"]);
    cancel(cluster, &session);
    let url = alice.shlogin(&["url", "job"]).ok().stdout;
    let (saw, picture) = alice.browse("again", &[url.trim(), "back again"]);
    keep(&picture.with_file_name("again-offer.png"), "again-offer");
    assert!(saw["offer"].as_str().unwrap().contains("was cancelled"), "{saw:#}");
    assert_eq!((&saw["focused"], &saw["path"]), (&"Start again".into(), &"/".into()), "{saw:#}");
    assert_eq!(saw["console"], serde_json::json!([]), "{saw:#}");
    session.stop();
    cluster.wait_until_nothing_is_left(seconds(15), alice);
}

/// One that nobody uses gives its node back, and has another when somebody does, as often as that is.
pub(crate) fn a_session_that_nobody_used_is_started_again(site: &Site) {
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let session = start(cluster, alice, "1h", &["--idle-timeout", "5s"], &["+mark=here"]);
    let gate = session.signed_in();
    for run in 1..=2 {
        let job = session.job();
        let record = session.wait_until(seconds(40), "interrupted");
        assert_eq!(record["reason"], "nobody used it for 5 s", "run {run}: {record:#}");
        cluster.wait_job(seconds(15), job, "COMPLETED");
        wait_until_no_job_is_left(cluster, alice);
        let offer = page(&gate, "/");
        assert!(offer.contains("nobody used it for 5 s") && offer.contains("Start again"), "{offer}");
        cluster.shlogin(alice, &["restart", "job"]).ok();
        assert_eq!(gate.get("/").text(), "here");
    }
    session.stop();
    cluster.wait_until_nothing_is_left(seconds(15), alice);
}

/// Between two jobs it is stopped, and not kept for longer, whatever ended its job.
pub(crate) fn a_session_that_nobody_used_ends_as_others_do(site: &Site) {
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let idle = ["--idle-timeout", "5s"];
    let session = start(cluster, alice, "1h", &idle, &[]);
    session.wait_until(seconds(40), "interrupted");
    session.stop();
    assert_eq!(session.show()["reason"], "nobody used it for 5 s");
    cluster.wait_until_nothing_is_left(seconds(15), alice);

    let session = start(cluster, alice, "2s", &idle, &[]);
    let record = session.wait_until(seconds(40), "ended");
    assert_eq!(record["reason"], "nobody used it for 5 s");
    cluster.wait_until_nothing_is_left(seconds(15), alice);

    // Its owner asks for its end while it is being ended for another reason.
    let session = start(cluster, alice, "1h", &idle, &["+deaf"]);
    until(seconds(40), "it is to end", || {
        let left = alice.shlogin(&["show", "job"]).ok().stdout;
        left.contains("ends now").then_some(())
    });
    session.stop();
    let record = session.show();
    assert!(record["reason"].as_str().unwrap().starts_with("it was stopped"), "{record:#}");
    cluster.wait_until_nothing_is_left(seconds(15), alice);
}

pub(crate) fn whoever_follows_a_restart_holds_nothing_up_and_hears_the_end(site: &Site) {
    let alice = &site.alice;
    let cluster = &*OwnCluster::new(&[]);
    let hold = |what: &str| cluster.slurm(&["scontrol", "update", "PartitionName=debug", what]);
    let app = format!("{NOISE}; exec /usr/bin/python3 {}", place().app().display());
    let start = || {
        let mut command = cluster.shlogin_command(alice, &["start", "--json", "--slurm", "--name", "job"]);
        command.args(["--network", "isolated", "--", "sh", "-c", &app]).env("SHLOGIN_SLURM_LINGER", "1h");
        Session { user: alice, json: Running::spawn(command).finish(seconds(60)).ok().json() }
    };

    let session = start();
    cancel(cluster, &session);
    hold("State=DOWN");
    let follower = Running::spawn(cluster.shlogin_command(alice, &["restart", "job"]));
    follower.wait_for(seconds(20), "waits for a node");
    follower.signal(Signal::SIGSTOP);
    hold("State=UP");
    session.wait_until(seconds(60), "running");
    session.stop();
    follower.signal(Signal::SIGCONT);
    follower.finish(seconds(20));
    cluster.wait_until_nothing_is_left(seconds(15), alice);

    let session = start();
    cancel(cluster, &session);
    hold("State=DOWN");
    let follower = Running::spawn(cluster.shlogin_command(alice, &["restart", "job"]));
    follower.wait_for(seconds(20), "waits for a node");
    session.stop();
    let said = follower.finish(seconds(20));
    assert!(said.code() == 125 && said.stderr.contains("job did not start: it was stopped"), "{said:?}");
    hold("State=UP");
    cluster.wait_until_nothing_is_left(seconds(15), alice);
}

/// By its node's failure, and by its time: what is told, and that it goes on elsewhere.
pub(crate) fn a_session_whose_node_failed_is_started_on_another(site: &Site) {
    let alice = &site.alice;
    let cluster = OwnCluster::new(&["MessageTimeout=2", "SlurmdTimeout=5", "KillWait=2"]);
    let session = start(&cluster, alice, "1h", &["--no-requeue"], &["+mark=here"]);
    let gate = session.signed_in();
    let record = session.show();
    let node = record["job"]["node"].as_str().unwrap().to_owned();
    let cut = Node::ALL.into_iter().find(|its| its.name() == node).unwrap();
    let cut = cluster.cut(cut);
    let record = session.wait_until(seconds(60), "interrupted");
    assert!(record["reason"].as_str().unwrap().contains(&format!("{node} failed")), "{record:#}");
    cluster.shlogin(alice, &["restart", "job"]).ok();
    let other = session.show()["job"]["node"].as_str().unwrap().to_owned();
    assert_ne!(other, node);
    assert_eq!(gate.get("/").text(), "here");
    // The one that was cut off comes back, and is nobody's any more.
    drop(cut);
    until(seconds(60), "it has gone", || {
        let node = Node::ALL.into_iter().find(|its| its.name() == node).unwrap();
        cluster.processes_of(node, alice).is_empty().then_some(())
    });
    assert_eq!(gate.get("/").text(), "here");
    assert_eq!(session.show()["job"]["node"], other.as_str());
    session.stop();
    cluster.wait_until_nothing_is_left(seconds(15), alice);
}

/// Its gateway's node does not come back: whoever looks from another one puts it down, when its time is over.
pub(crate) fn an_interrupted_session_whose_node_is_gone_ends_in_its_time(site: &Site) {
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let session = start(cluster, alice, "1h", &[], &[]);
    let mut record = cancel(cluster, &session);
    let until = record["interrupted_until"].as_str().unwrap().to_owned();
    session.stop();
    cluster.wait_until_nothing_is_left(seconds(15), alice);
    // The same, as another login node has left it in the home that they share.
    let (here, there) = (session.folder(), alice.state().join("login9"));
    let folder = there.join(session.id());
    let write = |record: &Value| {
        let text = serde_json::to_string(record).unwrap();
        let owned = folder.strip_prefix(&alice.home).unwrap().join("record.json");
        alice.own_file(owned.to_str().unwrap(), &text, 0o600);
    };
    alice.own_folder(&there, 0o700);
    alice.own_folder(&folder, 0o700);
    fs::remove_dir_all(here).unwrap();
    let log = folder.join("log");
    for (name, value) in [("node", "login9"), ("log", log.to_str().unwrap())] {
        record[name] = value.into();
    }
    write(&record);
    alice.shlogin(&["list"]).ok().says("interrupted on login9");
    assert!(until.as_str() > record["started_at"].as_str().unwrap(), "{record:#}");
    record["interrupted_until"] = record["started_at"].clone();
    write(&record);
    // Of so little, two nodes' clocks may differ.
    alice.shlogin(&["list"]).ok().says("interrupted on login9");
    record["interrupted_until"] = "2026-01-01T00:00:00Z".into();
    write(&record);
    assert!(alice.list().is_empty());
    let ended = alice.shlogin(&["show", "--json", "job"]).ok().json();
    assert_eq!((&ended["state"], &ended["reason"]), (&"ended".into(), &record["reason"]), "{ended:#}");
}

/// What a session does not wait for, and when it waits no longer.
pub(crate) fn a_session_is_not_kept_for_ever(site: &Site) {
    let alice = &site.alice;
    let cluster = OwnCluster::new(&[]);
    // Nobody comes.
    let session = start(&cluster, alice, "2s", &[], &[]);
    let job = session.job();
    cluster.run_as(alice, &["scancel", &job.to_string()]).ok();
    let record = session.wait_until(seconds(30), "ended");
    let cancelled = format!("its job {job} was cancelled");
    assert!(record["reason"].as_str().unwrap().contains(&cancelled), "{record:#}");
    cluster.wait_until_nothing_is_left(seconds(15), alice);

    // Its owner does not want it any more.
    let session = start(&cluster, alice, "1h", &[], &[]);
    let job = session.job();
    cancel(&cluster, &session);
    session.stop();
    cluster.wait_until_nothing_is_left(seconds(5), alice);
    let record = session.show();
    assert!(record["reason"].as_str().unwrap().contains(&format!("job {job} was cancelled")), "{record:#}");

    // Somebody waits for its first URL, and gets an answer.
    let waiting = Running::spawn(starting(&cluster, alice, "1h", &["--hold"], &[]));
    let waits = Session { user: alice, json: until(seconds(20), "it waits", || alice.list().pop()) };
    waits.wait_until(seconds(20), "waiting");
    let job = until(seconds(20), "it has a job", || cluster.live_jobs(alice).pop()).id;
    cluster.run_as(alice, &["scancel", &job.to_string()]).ok();
    let said = waiting.finish(seconds(30)).ended_with(115);
    assert!(said.stdout.contains("was cancelled"), "{said:?}");
    cluster.wait_until_nothing_is_left(seconds(15), alice);

    // Slurm does not take another job: it stays as it was, and says why.
    let session = start(&cluster, alice, "1h", &[], &["+mark=here"]);
    let gate = session.signed_in();
    cancel(&cluster, &session);
    cluster.slurm(&["scontrol", "update", "PartitionName=debug", "State=INACTIVE"]);
    let said = cluster.shlogin(alice, &["restart", "job"]).ended_with(114);
    assert!(said.stderr.contains("sbatch refuses"), "{said:?}");
    let offer = page(&gate, "/");
    assert!(offer.contains("sbatch refuses") && offer.contains("Start again"), "{offer}");
    assert_eq!(session.show()["state"], "interrupted");
    cluster.slurm(&["scontrol", "update", "PartitionName=debug", "State=UP"]);
    cluster.shlogin(alice, &["restart", "job"]).ok();
    assert_eq!(gate.get("/").text(), "here");

    // Its gateway is gone, between two jobs.
    let saved = session.folder().join("session.json");
    assert!(saved.exists());
    cancel(&cluster, &session);
    let gateway = i32::try_from(session.show()["pid"].as_u64().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(gateway), Signal::SIGKILL).unwrap();
    let record = session.wait_until(seconds(5), "ended");
    assert!(record["reason"].as_str().unwrap().contains("was cancelled"), "{record:#}");
    assert!(!saved.exists() && !session.folder().join("gateway.pem").exists(), "what only its life needed");
    cluster.wait_until_nothing_is_left(seconds(15), alice);
}
