//! However a session in a job ends, nothing of it is left on its node, nor in Slurm's queue.

use std::{
    fs,
    time::{Duration, Instant},
};

use nix::sys::signal::{Signal, kill};
use serde_json::json;

use crate::harness::{
    Running, Site, User,
    cluster::{Node, OwnCluster},
    place::place,
    seconds,
    watched_job::{InJob, SHORT, alive_on, left_on, start, start_bare, wait_until_clean, wait_until_gone},
};

/// Kills one process of a session after the other, each of another session.
fn kill_each<'s>(alice: &'s User, roles: &[&str], start: impl Fn() -> InJob<'s>) {
    for role in roles {
        let session = start();
        let (job, node) = (session.job(), session.node());
        let victim = session.process(role);
        kill(victim, Signal::SIGKILL).unwrap();
        let killed = Instant::now();
        let reason = session.ended(seconds(30));
        eprintln!("{role}: {:?}, {reason}", killed.elapsed());
        // With the job's first process, Slurm kills whatever it has seen of the job, and so who would tidy up.
        let left = if *role == "@host" { alive_on } else { left_on };
        wait_until_gone(seconds(10), || left(session.cluster, node, alice));
        alice.wait_until_nothing_is_left(seconds(5));
        session.wait_until_job_ended(job);
        if *role == "python3" {
            assert_eq!(session.show()["status"], 137, "{:#}", session.show());
        }
        alice.shlogin(&["forget", session.name()]).ok();
    }
    // The next one tidies up, too.
    let last = start();
    last.session.stop();
    last.wait_until_nothing_is_left(seconds(5));
}

pub(crate) fn killing_any_process_on_the_node_leaves_nothing_there(site: &Site) {
    let alice = &site.alice;
    let cluster = OwnCluster::new(&[]);
    let image = place().image("tiny").display().to_string();
    // pasta renames itself, to passt.avx2 for one, after which of its builds it is
    kill_each(alice, &["@keeper", "@init", "pas", "squashfuse", "python3", "@host"], || {
        start(&cluster, alice, &["--name", "victim", "-w", "c1", &image])
    });
}

/// Where Slurm itself loses sight of a daemon, namespaces do not.
pub(crate) fn an_app_s_daemons_go_with_its_job(site: &Site) {
    let alice = &site.alice;
    let cluster = OwnCluster::new(&["ProctrackType=proctrack/linuxproc", "KillWait=2"]);
    let begin = || start_bare(&cluster, alice, "daemons", &["-w", "c1"], &["+deaf", "+children=5"]);
    kill_each(alice, &["@host"], begin);
    alice.shlogin(&["forget", "daemons"]).ok();

    let session = begin();
    let node = session.node();
    assert!(cluster.processes_of(node, alice).len() >= 9, "the host, keeper, init, app and its five daemons");
    cluster.run_as(alice, &["scancel", &session.job().to_string()]).ok();
    session.ended(seconds(30));
    session.wait_until_nothing_is_left(seconds(10));
}

/// Whatever the session is at, its job is gone soon after it was told to stop.
pub(crate) fn stop_ends_the_job_wherever_the_session_stands(site: &Site) {
    let alice = &site.alice;
    let cluster = OwnCluster::new(SHORT);
    let stop = |at: &str, session: &InJob<'_>, within: Duration| {
        let job = session.job();
        let asked = Instant::now();
        session.session.stop();
        let took = asked.elapsed();
        eprintln!("{at}: stopped within {took:?}: {:#}", session.show()["reason"]);
        assert!(took < within, "{at}: {took:?}");
        let record = session.show();
        let reason = record["reason"].as_str().unwrap();
        assert!(reason.starts_with("it was stopped") && !reason.contains("scancel"), "{record:#}");
        let job = cluster.jobs(alice).into_iter().find(|its| its.id == job).unwrap();
        assert!(!matches!(job.state.as_str(), "RUNNING" | "PENDING"), "{at}: {job:?}");
        alice.shlogin(&["forget", session.name()]).ok();
    };
    let held = start_bare(&cluster, alice, "held", &["--hold", "--no-wait"], &[]);
    held.wait_for_state(seconds(5), "waiting");
    stop("pending", &held, seconds(5));
    held.wait_until_nothing_is_left(seconds(5));

    let never = start_bare(&cluster, alice, "never", &["--no-wait"], &["+never"]);
    never.wait_for_state(seconds(20), "starting");
    stop("starting", &never, seconds(10));
    never.wait_until_nothing_is_left(seconds(5));

    let running = start_bare(&cluster, alice, "running", &["-w", "c1"], &[]);
    stop("running", &running, seconds(10));
    running.wait_until_nothing_is_left(seconds(5));

    let lost = start_bare(&cluster, alice, "lost", &["-w", "c1"], &[]);
    fs::remove_dir_all(alice.runtime.join("shlogin")).unwrap();
    stop("without its folder", &lost, seconds(10));
    lost.wait_until_nothing_is_left(seconds(5));

    // A gateway that hears nothing is killed, and its job is not to go on without it.
    let deaf = start_bare(&cluster, alice, "deaf", &["-w", "c1"], &[]);
    let job = deaf.job();
    kill(deaf.session.pid(), Signal::SIGSTOP).unwrap();
    // Its gateway knows where Slurm is; this one has to be told.
    cluster.shlogin(alice, &["stop", "deaf"]).ok();
    assert_eq!(deaf.show()["reason"], format!("its gateway was gone; its job {job} was cancelled"));
    cluster.wait_job(seconds(10), job, "CANCELLED");
    deaf.wait_until_nothing_is_left(seconds(10));

    let severed = start_bare(&cluster, alice, "severed", &["-w", "c1", "--no-requeue"], &[]);
    let cut = cluster.cut(Node::C1);
    stop("cut off", &severed, seconds(30));
    alice.shlogin(&["list"]).ok();
    drop(cut);
    severed.wait_until_nothing_is_left(seconds(60));

    // The job's script waits, so that nobody has dialled yet.
    let go = alice.home.join("go");
    let script = format!(
        "#!/bin/bash\nwhile [ ! -e {} ]; do sleep 0.1; done\nexec @SHLOGIN@ @host @FOLDER@\n",
        go.display()
    );
    alice.own_file(".config/shlogin/session.sbatch", &script, 0o600);
    let begun = start_bare(&cluster, alice, "begun", &["--no-wait"], &[]);
    cluster.wait_job(seconds(20), begun.job(), "RUNNING");
    assert_eq!(begun.show()["state"], "waiting");
    stop("not dialled", &begun, seconds(10));
    begun.wait_until_nothing_is_left(seconds(10));
}

pub(crate) fn a_session_without_a_gateway_keeps_its_name_while_its_job_runs(site: &Site) {
    let (cluster, alice) = (OwnCluster::new(SHORT), &site.alice);
    let session = start_bare(&cluster, alice, "kept", &["-w", "c1"], &[]);
    let job = session.job();
    kill(session.session.pid(), Signal::SIGKILL).unwrap();
    cluster.try_bare(alice, "kept", &[], &[]).ended_with(120).says("in use");
    cluster.run_as(alice, &["scancel", &job.to_string()]).ok();
    cluster.wait_job(seconds(10), job, "CANCELLED");
    // Nobody has looked after it meanwhile.
    let next = start_bare(&cluster, alice, "kept", &["-w", "c1"], &[]);
    next.session.stop();
    next.wait_until_nothing_is_left(seconds(15));
}

/// A Slurm that has lost its state numbers its jobs from 1 again. Here a session's record is given the number of another job.
pub(crate) fn a_job_that_has_its_number_by_now_is_left_alone(site: &Site) {
    let (cluster, alice) = (OwnCluster::new(SHORT), &site.alice);
    let session = start_bare(&cluster, alice, "old", &["-w", "c1"], &[]);
    let (its, others) = (session.job(), cluster.submit(alice, &["-w", "c2"], "sleep 1000"));
    cluster.wait_job(seconds(10), others, "RUNNING");
    kill(session.session.pid(), Signal::SIGKILL).unwrap();
    let file = session.folder().join("record.json");
    let text = fs::read_to_string(&file).unwrap();
    let renumbered = text.replace(&format!("\"id\": {its},"), &format!("\"id\": {others},"));
    assert_ne!(text, renumbered);
    fs::write(&file, renumbered).unwrap();
    // What has been its job so far must not be in the way.
    cluster.run_as(alice, &["scancel", &its.to_string()]).ok();

    let said = cluster.shlogin(alice, &["stop", "old"]).ok();
    let record = session.show();
    let reason = format!("its gateway was gone, and its job {others} is gone");
    assert_eq!((&record["state"], &record["reason"]), (&json!("ended"), &json!(reason)), "{said:?}");
    assert_eq!(cluster.wait_job(seconds(5), others, "RUNNING").id, others);
    cluster.run_as(alice, &["scancel", &others.to_string()]).ok();
    session.wait_until_nothing_is_left(seconds(15));
}

/// Nobody can end a job without the controller: the session ends, and says what is left.
pub(crate) fn stop_says_what_it_could_not_do(site: &Site) {
    let alice = &site.alice;
    let cluster = OwnCluster::new(SHORT);
    let held = start_bare(&cluster, alice, "held", &["--hold", "--no-wait"], &[]);
    let running = start_bare(&cluster, alice, "running", &["-w", "c1"], &[]);
    let jobs = [held.job(), running.job()];
    let paused = cluster.pause_controller();
    let stops = [&held, &running]
        .map(|session| Running::spawn(alice.shlogin_command(&["stop", "--grace", "1s", session.name()])));
    for (stop, (session, job)) in stops.into_iter().zip([&held, &running].into_iter().zip(jobs)) {
        stop.finish(seconds(40)).ok();
        let record = session.show();
        let reason = record["reason"].as_str().unwrap();
        assert!(
            reason.starts_with("it was stopped") && reason.contains(&format!("scancel {job}")),
            "{reason}"
        );
    }
    wait_until_clean(&cluster, Node::C1, alice, seconds(5));
    drop(paused);
    // What it tells her to do is enough.
    cluster.run_as(alice, &["scancel", &jobs[0].to_string()]).ok();
    cluster.wait_job(seconds(10), jobs[0], "CANCELLED");
    running.wait_until_job_ended(jobs[1]);
    running.wait_until_nothing_is_left(seconds(5));
}

pub(crate) fn a_full_disk_on_the_node_is_told_and_leaves_nothing(site: &Site) {
    let alice = &site.alice;
    let cluster = OwnCluster::new(&[]);
    let full = alice.home.join("full");
    alice.own_folder(&full, 0o700);
    // There is a disk, which is hers, and no room for one more folder.
    let options = format!("size=16k,nr_inodes=1,mode=0700,uid={},gid={}", alice.uid, alice.gid);
    let full = full.display().to_string();
    let mounted = cluster.inside_as_root(Node::C1, &["mount", "-t", "tmpfs", "-o", &options, "tmpfs", &full]);
    Running::spawn(mounted).finish(seconds(10)).ok();
    for image in [None, Some(place().image("tiny").display().to_string())] {
        let args = ["start", "--json", "--slurm", "--name", "full", "--network", "isolated", "-w", "c1"];
        let mut command = cluster.command_as(alice, place().program());
        command.args(args).env("SHLOGIN_SCRATCH", &full);
        match &image {
            Some(image) => command.arg(image),
            None => command.args(["--", "/usr/bin/python3", "-S", "-E"]).arg(place().app()),
        };
        let output = Running::spawn(command).finish(seconds(60));
        assert_ne!(output.code(), 0, "{output:#?}");
        let message = output.json()["error"]["message"].as_str().unwrap().to_owned();
        eprintln!("{message}");
        assert!(message.contains("No space left"), "{message}");
        wait_until_clean(&cluster, Node::C1, alice, seconds(5));
        alice.wait_until_nothing_is_left(seconds(5));
        let jobs = cluster.jobs(alice);
        assert!(jobs.iter().all(|job| job.state != "RUNNING" && job.state != "PENDING"), "{jobs:?}");
    }
    let left = cluster.root_of(Node::C1).join(full.trim_start_matches('/'));
    assert_eq!(fs::read_dir(left).unwrap().count(), 0);
}
