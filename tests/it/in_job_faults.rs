//! What becomes of a session in a job when Slurm ends it, a node fails, or the controller is away.
//!
//! Each test has a cluster of its own, in which it may break what it likes.

use std::{thread, time::Instant};

use crate::harness::{
    Running, Site,
    cluster::{Node, OwnCluster},
    seconds,
    terminal::Terminal,
    until,
    watched_job::{InJob, SHORT, start_bare, start_polite, wait_until_clean},
};

pub(crate) fn a_cancelled_job_s_app_is_asked_and_its_session_ends(site: &Site) {
    let alice = &site.alice;
    let cluster = OwnCluster::new(&[]);
    // With its default network, so that there is a pasta for Slurm's signals to meet.
    let session = start_polite(&cluster, alice, &[]);
    let job = session.job();
    cluster.run_as(alice, &["scancel", &job.to_string()]).ok();
    let reason = session.ended(seconds(20));
    assert!(reason.contains(&format!("job {job} was cancelled")), "{reason}");
    assert!(session.log().contains("asked"), "{}", session.log());
    assert_eq!(cluster.wait_job(seconds(10), job, "CANCELLED").id, job);
    session.wait_until_nothing_is_left(seconds(5));

    // One that has never begun.
    let session = start_polite(&cluster, alice, &["--hold", "--no-wait"]);
    let job = session.job();
    assert_eq!(session.wait_for_state(seconds(5), "waiting")["job"]["state"], "pending");
    cluster.run_as(alice, &["scancel", &job.to_string()]).ok();
    let reason = session.ended(seconds(20));
    assert!(reason.contains(&format!("job {job} was cancelled")), "{reason}");
    session.wait_until_nothing_is_left(seconds(5));
}

/// Two minutes are the least that can be asked for: Slurm gives its notice up to a minute early.
pub(crate) fn a_job_s_time_is_told_and_its_app_is_asked_before_it_is_over(site: &Site) {
    let alice = &site.alice;
    let cluster = OwnCluster::new(&[]);
    let session = start_polite(&cluster, alice, &["--network", "isolated", "-t", "2"]);
    let job = session.job();
    // The gate looks every five seconds: by now it has found that it is time to tell, and nobody to tell it to.
    thread::sleep(seconds(6));
    let terminal = Terminal::shlogin(alice, &["ssh", session.name()]);
    terminal.wait_for(seconds(20), "left of this job's time");
    assert!(terminal.screen().contains("[shlogin: 1 min left"), "{}", terminal.screen());
    let reason = session.ended(seconds(130));
    assert!(reason.contains("time was over"), "{reason}");
    assert!(session.log().contains("asked"), "{}", session.log());
    // It was in time: the job has ended by itself, and was not ended by Slurm.
    cluster.wait_job(seconds(10), job, "COMPLETED");
    assert_ne!(terminal.finish(seconds(10)), 0);
    session.wait_until_nothing_is_left(seconds(5));
}

pub(crate) fn a_node_s_failure_ends_a_session_that_is_not_to_run_again(site: &Site) {
    let alice = &site.alice;
    let cluster = OwnCluster::new(SHORT);
    let session = start_bare(&cluster, alice, "job", &["--no-requeue", "-w", "c1"], &[]);
    assert_eq!(session.node(), Node::C1);
    let job = session.job();
    let killed = Instant::now();
    cluster.kill_node(Node::C1);
    let reason = session.ended(seconds(60));
    eprintln!("the end was noticed {:?} after the node's", killed.elapsed());
    assert!(reason.contains("c1 failed") && reason.contains(&job.to_string()), "{reason}");
    wait_until_clean(&cluster, Node::C2, alice, seconds(5));
    alice.wait_until_nothing_is_left(seconds(5));
}

pub(crate) fn a_requeued_session_runs_again_at_its_url(site: &Site) {
    let alice = &site.alice;
    let cluster = OwnCluster::new(SHORT);
    let session = start_bare(&cluster, alice, "job", &["--requeue", "-w", "c1"], &["+mark=here"]);
    let job = session.job();
    let gate = session.session.signed_in();
    session.wait_for_app(seconds(5), &gate, "here");

    let terminal = Terminal::shlogin(alice, &["ssh", session.name()]);
    let command = ["exec", session.name(), "--", "bash", "-c", "echo begun; exec sleep infinity"];
    let exec = Running::spawn(alice.shlogin_command(&command));
    exec.wait_for(seconds(20), "begun");

    // Its node is cut off, and lives.
    let cut = cluster.cut(Node::C1);
    let waiting = session.wait_for_state(seconds(60), "waiting");
    assert!(waiting["reason"].is_null() && waiting["ended_at"].is_null(), "{waiting:#}");
    let page = InJob::page(&gate);
    assert!(page.status == 200 && page.text().contains("waits for a node"), "{page:?}");
    // Slurm would wait two minutes; and the node it was to have is not there.
    let update = |what: &str| cluster.slurm(&["scontrol", "update", &format!("JobId={job}"), what]);
    update("ReqNodeList=c2");
    update("StartTime=now");
    session.wait_for_state(seconds(30), "running");
    assert_eq!((session.job(), session.node()), (job, Node::C2));
    session.wait_for_app(seconds(5), &gate, "here");
    // What ran there is no more, for all that can be known.
    assert_ne!(exec.finish(seconds(5)).code(), 0);
    assert_ne!(terminal.finish(seconds(5)), 0);

    // The one that was cut off comes back, and nobody but the gate tells it.
    let paused = cluster.pause_controller();
    assert!(!cluster.processes_of(Node::C1, alice).is_empty(), "it has lived on");
    drop(cut);
    wait_until_clean(&cluster, Node::C1, alice, seconds(60));
    assert!(session.diagnostics().contains("the job was started anew since"), "{}", session.diagnostics());
    drop(paused);
    session.wait_for_app(seconds(5), &gate, "here");
    assert_eq!(session.node(), Node::C2);

    // And by hand.
    cluster.run_as(alice, &["scontrol", "requeue", &job.to_string()]).ok();
    session.wait_for_state(seconds(30), "waiting");
    let page = InJob::page(&gate);
    assert!(page.status == 200 && page.text().contains("waits for a node"), "{page:?}");
    until(seconds(30), "the job can be started", || {
        let job = cluster.jobs(alice).into_iter().find(|its| its.id == job)?;
        (job.state == "PENDING").then_some(())
    });
    // A node that has just revoked the job's credential takes none that is of the same second.
    update("StartTime=now+2");
    session.wait_for_state(seconds(30), "running");
    session.wait_for_app(seconds(5), &gate, "here");
    assert_eq!(session.show()["job"]["restarts"], 2);
    session.session.stop();
    session.wait_until_nothing_is_left(seconds(10));
}

pub(crate) fn a_controller_that_hangs_ends_nothing(site: &Site) {
    let alice = &site.alice;
    let cluster = OwnCluster::new(&["MessageTimeout=2"]);
    let running = start_bare(&cluster, alice, "running", &[], &["+mark=here"]);
    let held = start_bare(&cluster, alice, "held", &["--hold", "--no-wait"], &["+mark=later"]);
    let gate = running.session.signed_in();
    let mut terminal = Terminal::shlogin(alice, &["ssh", "running"]);
    terminal.keys("echo be''fore\r");
    terminal.wait_for(seconds(20), "before");

    let paused = cluster.pause_controller();
    let began = Instant::now();
    let mut silent = [false; 2];
    until(seconds(120), "both say that Slurm does not answer", || {
        running.wait_for_app(seconds(5), &gate, "here");
        for (session, silent) in [&running, &held].into_iter().zip(&mut silent) {
            let said = session.said();
            assert!(!said.contains("ended") && session.show()["state"] != "ended", "{said}");
            *silent |= said.contains("Slurm does not answer");
        }
        silent.iter().all(|silent| *silent).then_some(())
    });
    eprintln!("it was noticed after {:?} that the controller hangs", began.elapsed());
    alice.shlogin(&["exec", "running", "--", "echo", "still"]).ok().is("still\n");
    terminal.keys("echo mean''while\r");
    terminal.wait_for(seconds(10), "meanwhile");
    drop(paused);

    let began = Instant::now();
    until(seconds(90), "all is right again", || {
        let right = running.said().contains("is running on") && held.said().contains("waits for a node");
        right.then_some(())
    });
    eprintln!("it was noticed after {:?} that it goes on", began.elapsed());
    terminal.keys("echo af''ter\r");
    terminal.wait_for(seconds(10), "after");
    cluster.run_as(alice, &["scontrol", "release", &held.job().to_string()]).ok();
    held.wait_for_state(seconds(30), "running");
    held.wait_for_app(seconds(5), &held.session.signed_in(), "later");
    for session in [&running, &held] {
        session.session.stop();
    }
    assert_ne!(terminal.finish(seconds(10)), 0);
    held.wait_until_nothing_is_left(seconds(10));
}
