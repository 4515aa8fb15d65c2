//! `verify` and `doctor` where sessions run in Slurm jobs.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    time::Instant,
};

use serde_json::Value;

use crate::harness::{
    Running, Session, Site, User,
    cluster::{Cluster, Node, OwnCluster},
    heavy,
    place::place,
    program::{Output, bare},
    seconds,
};

fn shlogin(cluster: &Cluster, user: &User, words: &[&str]) -> Output {
    let mut command = cluster.command_as(user, place().program());
    command.args(words);
    Running::spawn(command).finish(seconds(90))
}

/// A session in a job, with the small app, and what `start` printed.
fn start<'u>(cluster: &Cluster, user: &'u User, name: &str, options: &[&str]) -> Session<'u> {
    let options = [&["--slurm", "--network", "isolated"], options].concat();
    let mut words = vec!["start".to_owned(), "--json".to_owned()];
    words.extend(bare(name, &options, &["+bind=0.0.0.0", "+port=18370"]));
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    Session { user, json: shlogin(cluster, user, &words).ok().json() }
}

fn findings(report: &Value) -> &Vec<Value> {
    report["findings"].as_array().unwrap()
}

fn with<'r>(report: &'r Value, mark: &str) -> Vec<&'r Value> {
    findings(report).iter().filter(|finding| finding[mark] == true).collect()
}

/// Those of which `what` begins so.
fn about<'r>(report: &'r Value, what: &str) -> Vec<&'r Value> {
    let found = findings(report).iter();
    found.filter(|finding| finding["what"].as_str().unwrap().starts_with(what)).collect()
}

pub(crate) fn verify_attacks_both_sides_of_a_session_in_a_job(site: &Site) {
    let _alone = heavy();
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let session = start(cluster, alice, "far", &["-w", "c1"]);
    let report = shlogin(cluster, alice, &["verify", "--json", "far"]).ok().json();
    assert!(with(&report, "got_through").is_empty(), "{report:#}");
    for finding in with(&report, "untried") {
        assert_eq!(finding["what"], "port 18370 on c1", "no name of this machine's leads there: {report:#}");
    }
    for (what, least) in [
        ("link", 8),
        ("gateway", 15),
        ("record folder", 1),
        ("job ", 1),
        ("on c1: port 18370 on 127.0.0.1", 1),
        ("on c1: port 18370 on 10.79.", 1),
        ("on c1: listeners of", 1),
        ("on c1: link", 6),
        ("on c1: gateway", 10),
        ("on c1: session folder", 1),
        ("on c1: process", 2),
    ] {
        assert!(about(&report, what).len() >= least, "{what}: {report:#}");
    }
    // The gate alone is a process of this machine.
    assert_eq!(about(&report, "process").len(), 1, "{report:#}");
    assert_eq!(about(&report, "port 18370").len(), 1, "{report:#}");
    assert!(report["notes"].to_string().contains("Its app is not on this machine"), "{report:#}");
    // None of it did the session any harm.
    assert_eq!(session.signed_in().get("/").status, 200);
    shlogin(cluster, alice, &["verify", "far"]).ok().says("could not be tried");
    shlogin(cluster, alice, &["stop", "far"]).ok();
}

/// An image, with pasta and a way out.
pub(crate) fn verify_attacks_an_image_on_a_node(site: &Site) {
    let _alone = heavy();
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let options = ["--name", "contained", "-w", "c2", "--port", "18371"];
    let session = cluster.start_image(alice, "tiny", &options, &["+bind=0.0.0.0", "+port=18371"]);
    let report = shlogin(cluster, alice, &["verify", "--json", "contained"]).ok().json();
    assert!(with(&report, "got_through").is_empty(), "{report:#}");
    for finding in with(&report, "untried") {
        assert_eq!(finding["what"], "port 18371 on c2", "{report:#}");
    }
    for (what, least) in [
        ("on c2: port 18371 on 127.0.0.1", 1),
        ("on c2: listeners of", 1),
        ("on c2: session folder", 1),
        ("on c2: process", 2),
    ] {
        assert!(about(&report, what).len() >= least, "{what}: {report:#}");
    }
    assert_eq!(session.signed_in().get("/").status, 200);
    shlogin(cluster, alice, &["stop", "contained"]).ok();
}

pub(crate) fn verify_finds_what_was_opened_on_either_side(site: &Site) {
    let _alone = heavy();
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let session = start(cluster, alice, "open", &["-w", "c2"]);
    let folder = alice.state().join(host()).join(session.id());
    fs::set_permissions(folder.join("gateway.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    // Whoever relays the app's port to the node opens it to everybody there.
    let listens = "import socket,sys,time; s=socket.create_server(('0.0.0.0',18370)); print('up',flush=True); time.sleep(600)";
    let relay = Running::spawn(cluster.inside(Node::C2, alice, &["python3", "-c", listens]));
    relay.wait_for(seconds(10), "up");
    let report = shlogin(cluster, alice, &["verify", "--json", "open"]).ended_with(1).json();
    let through = |what: &str| about(&report, what).iter().any(|finding| finding["got_through"] == true);
    assert!(through("link's key, the gateway's") && through("record folder"), "{report:#}");
    assert!(through("on c2: port 18370 on 127.0.0.1"), "{report:#}");
    assert!(!through("on c2: listeners of"), "it is no process of the session's: {report:#}");
    drop(relay);
    shlogin(cluster, alice, &["stop", "open"]).ok();
}

fn host() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned()
}

pub(crate) fn what_verify_cannot_try_on_a_node_does_not_count_as_held(site: &Site) {
    let _alone = heavy();
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    start(cluster, alice, "far", &["-w", "c1"]);
    let untried = |report: &Value, why: &str| {
        let all = with(report, "untried");
        let found = all.iter().any(|finding| {
            finding["tried"] == "all of it, by srun" && finding["result"].as_str().unwrap().contains(why)
        });
        assert!(found, "{why}: {report:#}");
        assert_eq!(report["untried"], all.len(), "{report:#}");
        assert!(about(report, "on c1: ").is_empty(), "{report:#}");
    };
    // Root as another user stays on the login node.
    let mut command = std::process::Command::new(place().program());
    command.env("SLURM_CONF", cluster.slurm_conf());
    command.args(["verify", "--json", "--owner", &alice.name, "--as", &site.mallory.name, "far"]);
    let report = Running::spawn(command).finish(seconds(60)).ok().json();
    untried(&report, "only its owner's own verify gets there");
    assert!(about(&report, "link").len() >= 10 && !about(&report, "process").is_empty(), "{report:#}");

    // A login node without srun.
    let programs = alice.home.join("programs");
    alice.own_folder(&programs, 0o755);
    for name in ["sbatch", "squeue", "scancel", "scontrol", "sinfo"] {
        symlink(format!("/usr/bin/{name}"), programs.join(name)).unwrap();
    }
    let mut command = cluster.command_as(alice, place().program());
    command.env("SHLOGIN_SLURM_PROGRAMS", &programs).args(["verify", "--json", "far"]);
    untried(&Running::spawn(command).finish(seconds(60)).ok().json(), "there is no srun");
    shlogin(cluster, alice, &["stop", "far"]).ok();

    // A job that has no node yet.
    start(cluster, alice, "later", &["--no-wait", "--sbatch=--hold"]);
    let report = shlogin(cluster, alice, &["verify", "--json", "later"]).ok().json();
    untried(&report, "waits for a node");
    assert!(about(&report, "link").len() >= 8, "{report:#}");
    shlogin(cluster, alice, &["stop", "later"]).ok();
}

fn line<'o>(output: &'o Output, what: &str) -> &'o str {
    let found = output.stdout.lines().find(|line| line.get(5..).is_some_and(|rest| rest.starts_with(what)));
    found.unwrap_or_else(|| panic!("no line of {what}: {output:#?}"))
}

pub(crate) fn doctor_looks_at_slurm_where_it_is_and_at_the_job_it_is_in(site: &Site) {
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let said = shlogin(cluster, alice, &["doctor"]);
    assert!(line(&said, "Slurm's controller").contains("answers; cluster shlogin"), "{said:#?}");
    let partitions = line(&said, "Slurm's partitions");
    assert!(partitions.contains("debug* (up") && partitions.contains("short"), "{said:#?}");
    assert!(line(&said, "MUNGE").contains("made a credential and read it, at "), "{said:#?}");
    assert!(line(&said, "link ports").contains("3012-13002"), "{said:#?}");
    let address = cluster.login_address().to_string();
    assert!(line(&said, "link host").contains(&address), "{said:#?}");
    for what in ["program on nodes", "records on nodes"] {
        assert!(line(&said, what).contains("/var/lib/shlogin-tests/"), "{said:#?}");
    }
    assert!(!said.stdout.contains("this job"), "{said:#?}");

    let program = place().program().display().to_string();
    let there = cluster.run_as(alice, &["srun", "-Q", "-w", "c1", "-t", "5", &program, "doctor"]);
    let job = line(&there, "this job");
    assert!(job.contains(" on c1, ") && job.contains(" min left; namespaces work here"), "{there:#?}");

    let mut command = cluster.command_as(alice, place().program());
    command.env("SHLOGIN_SLURM_PROGRAMS", "/nonexistent").args(["doctor", "--json"]);
    let missing = Running::spawn(command).finish(seconds(20)).ended_with(1).json();
    let slurm = missing.as_array().unwrap().iter().find(|finding| finding["what"] == "Slurm").unwrap();
    assert_eq!(slurm["verdict"], "blocked", "{missing:#}");
}

pub(crate) fn doctor_does_not_wait_long_for_a_controller(site: &Site) {
    let cluster = OwnCluster::new(&[]);
    let _paused = cluster.pause_controller();
    let before = Instant::now();
    let said = shlogin(&cluster, &site.alice, &["doctor"]);
    assert!(before.elapsed() < seconds(15), "{:?}", before.elapsed());
    let controller = line(&said, "Slurm's controller");
    assert!(controller.starts_with("some") && controller.contains('→'), "{said:#?}");
}
