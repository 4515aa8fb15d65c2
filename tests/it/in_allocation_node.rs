//! Sessions in an allocation that is there already, typed on one of its nodes, in `srun --pty` or in a script: their gateway comes from a
//! login node.

use std::{fs, path::PathBuf};

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::{
    harness::{
        Running, Session, Site, User,
        cluster::{Cluster, Node},
        http::Gate,
        place::place,
        program::bare,
        seconds,
        terminal::Terminal,
        until,
    },
    in_allocation::{ISOLATED, gate_of, host_of_login, reason, show, wait_for, wait_until_clean},
    in_job::nothing_listens,
};

/// A shell that srun has brought to a node, in which sessions dial.
fn shell_on(cluster: &Cluster, alice: &User, node: Node, options: &[&str]) -> Terminal {
    let conf = format!("SLURM_CONF={}", cluster.slurm_conf().display());
    let srun = ["env", &conf, "SHLOGIN_SLURM_ALLOCATION=dial", "srun", "-Q", "-w", node.name()];
    Terminal::run(alice, &[&srun[..], options, &["--pty", "bash", "--norc"]].concat())
}

/// The words of a `start` on a node, for a shell there.
fn line_of_start(name: &str, options: &[&str], words: &[&str]) -> String {
    let program = place().program().display().to_string();
    let mut all = vec![program, "start".to_owned()];
    all.extend(bare(name, &[&ISOLATED[..], options].concat(), words));
    all.join(" ")
}

fn folder_on(alice: &User, node: &str, record: &Value) -> PathBuf {
    alice.state().join(node).join(record["id"].as_str().unwrap())
}

pub(crate) fn on_a_node_a_session_waits_for_a_gateway_from_a_login_node(site: &Site) {
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let before = cluster.listening_sockets(Node::C2);
    // One of the name has been here: it is not the one that is meant.
    let earlier = alice.start_bare("lab", &["--network", "isolated"], &[]);
    earlier.stop();
    let mut shell = shell_on(cluster, alice, Node::C2, &["--gres=gpu:1"]);
    shell.keys("export MINE=of-that-shell; echo rea''dy\r");
    shell.wait_for(seconds(20), "ready\r\n");
    shell.keys(&format!("{}; echo status-$?\r", line_of_start("lab", &[], &["+mark=lab"])));
    shell.wait_for(seconds(20), "lab waits for its gateway: on a login node, type `shlogin attach lab`");

    let waits = show(alice, "lab");
    assert_eq!(
        (&waits["state"], &waits["detached"], &waits["pod"]),
        (&"waiting".into(), &true.into(), &Value::Null)
    );
    assert_eq!((&waits["node"], &waits["job"]["lent"]), (&"c2".into(), &true.into()), "{waits:#}");
    alice.shlogin(&["list"]).ok().says("detached on c2");
    for words in [&["url", "lab"][..], &["exec", "lab", "--", "true"], &["verify", "lab"]] {
        alice.shlogin(words).ended_with(125).says("waits for its gateway");
    }
    // A second of the name would be taken for it; on the node itself, no gateway listens.
    shell.keys("\u{1a}");
    shell.wait_for(seconds(5), "Stopped");
    shell.keys(&format!("{}; echo second-$?\r", line_of_start("lab", &["--no-wait"], &[])));
    shell.wait_for(seconds(10), "second-120");
    shell.keys(&format!("{} attach lab; echo there-$?; fg; echo back-$?\r", place().program().display()));
    shell.wait_for(seconds(10), "type it on a login node");
    shell.wait_for(seconds(10), "there-125");

    let session =
        Session { user: alice, json: cluster.shlogin(alice, &["attach", "--json", "lab"]).ok().json() };
    assert_eq!(
        session.json["gateway"]["host"].as_str().unwrap().split('.').next(),
        host_of_login().split('.').next()
    );
    assert_eq!(Gate::to(session.url()).get("/").status, 401);
    assert_eq!(session.signed_in().get("/").text(), "lab");
    // Whoever knows this node's keys is not asked again.
    let keys = |record: &Value| (record["gateway"]["fingerprint"].clone(), record["ssh"]["host_key"].clone());
    assert_eq!(keys(&show(alice, "lab")), keys(&earlier.json));
    shell.wait_for(seconds(10), "lab answers; its URL was printed where its gateway is");
    shell.wait_for(seconds(10), "back-0");
    let env = session.report()["env"].clone();
    for (name, value) in [("MINE", "of-that-shell"), ("SLURMD_NODENAME", "c2"), ("CUDA_VISIBLE_DEVICES", "0")]
    {
        assert_eq!(env[name], value, "{name}: {env:#}");
    }
    nothing_listens(cluster, Node::C2, &before, alice, "no-such-name");
    // Once more, for the gateway that is killed: it is the same session.
    kill(gate_of(&session.show()), Signal::SIGKILL).unwrap();
    until(seconds(10), "it is detached", || (show(alice, "lab")["detached"] == true).then_some(()));
    cluster.shlogin(alice, &["attach", "lab"]).ok();
    alice.shlogin(&["exec", "lab", "--", "uname", "-n"]).ok().is("c2\n");
    alice.shlogin(&["logs", "lab"]).ok().says("tiny listens on");
    session.stop();
    wait_until_clean(cluster, Node::C2, alice, seconds(10));
    let jobs = cluster.live_jobs(alice);
    assert!(jobs.len() == 1 && jobs[0].state == "RUNNING", "{jobs:?}");
    shell.keys("exit\r");
    shell.finish(seconds(20));
    cluster.wait_until_nothing_is_left(seconds(30), alice);
}

pub(crate) fn a_session_without_a_gateway_is_ended_from_either_side(site: &Site) {
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let mut shell = shell_on(cluster, alice, Node::C1, &[]);
    // By Ctrl-C where it was typed.
    shell.keys(&format!("{}; echo first-$?\r", line_of_start("first", &[], &[])));
    shell.wait_for(seconds(20), "first waits for its gateway");
    shell.keys("\u{3}");
    shell.wait_for(seconds(10), "first did not start: it was stopped");
    assert_eq!(reason(&wait_for(alice, "first", seconds(5), "ended")), "it was stopped");
    // By the command that the site has, which fails; then by `stop`, on the login node and on the node.
    let asked = alice.home.join("asked");
    let command = format!("sh,-c,echo {{submit_host}} {{name}} > {}; exit 3", asked.display());
    shell.keys(&format!("export SHLOGIN_SLURM_ATTACH_COMMAND='{command}'\r"));
    shell.keys(&format!("{}; echo second-$?\r", line_of_start("second", &[], &[])));
    shell.wait_for(seconds(20), "slurm.attach_command ended with exit status: 3");
    shell.wait_for(seconds(5), "second waits for its gateway");
    assert_eq!(fs::read_to_string(&asked).unwrap().trim(), format!("{} second", host_of_login()));
    let folder = folder_on(alice, "c1", &show(alice, "second"));
    assert!(folder.join("session.json").exists() && folder.join("link.json").exists());
    cluster.shlogin(alice, &["stop", "second"]).ok().is("second\n");
    shell.wait_for(seconds(10), "second did not start: it was stopped");
    shell.wait_for(seconds(10), "second-");
    assert!(!folder.join("session.json").exists() && !folder.join("link.json").exists());
    shell.keys("unset SHLOGIN_SLURM_ATTACH_COMMAND\r");
    shell.keys(&format!("{}; echo third-$?\r", line_of_start("third", &["--no-wait"], &[])));
    shell.wait_for(seconds(20), "third-0");
    // Who looks where /proc hides its host does not take it for dead.
    let list = format!(
        "set -e; mount -t proc -o hidepid=2 proc /proc; exec setpriv --reuid {} --regid {} --clear-groups {} list",
        alice.uid,
        alice.gid,
        place().program().display()
    );
    let words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", &list];
    let mut look = cluster.inside_as_root(Node::C1, &words);
    look.envs(alice.environment());
    Running::spawn(look).finish(seconds(20)).ok().says("third");
    assert_eq!(show(alice, "third")["state"], "waiting");
    shell.keys(&format!("{} stop third; echo stopped-$?\r", place().program().display()));
    shell.wait_for(seconds(20), "stopped-0");
    assert_eq!(reason(&show(alice, "third")), "it was stopped");
    wait_until_clean(cluster, Node::C1, alice, seconds(10));
    let jobs = cluster.live_jobs(alice);
    assert!(jobs.len() == 1 && jobs[0].state == "RUNNING", "{jobs:?}");
    // By the end of `start`, while it waits with her.
    shell.keys(&format!("{}; echo killed-$?\r", line_of_start("killed", &[], &[])));
    shell.wait_for(seconds(20), "killed waits for its gateway");
    let waiting =
        cluster.processes_of(Node::C1, alice).into_iter().find(|process| process.role() == "shlogin");
    let pid = waiting.expect("start is there").pid.to_string();
    Running::spawn(cluster.inside_as_root(Node::C1, &["kill", "-9", &pid])).finish(seconds(10)).ok();
    shell.wait_for(seconds(10), "killed-137");
    assert_eq!(reason(&wait_for(alice, "killed", seconds(10), "ended")), "it was stopped");
    wait_until_clean(cluster, Node::C1, alice, seconds(10));
    // By the end of what it was started in, of which nobody tells anybody.
    shell.keys(&format!("{}; echo fourth-$?\r", line_of_start("fourth", &["--no-wait"], &[])));
    shell.wait_for(seconds(20), "fourth-0");
    shell.keys("exit\r");
    shell.finish(seconds(20));
    let ended = wait_for(alice, "fourth", seconds(30), "ended");
    assert!(reason(&ended).starts_with("no gateway had come, and its job "), "{ended:#}");
    cluster.wait_until_nothing_is_left(seconds(30), alice);
}

/// It is not killed by the answer of the app that it has brought a gateway to, nor by a `start` that does not wait.
pub(crate) fn the_command_that_brings_a_gateway_comes_to_its_end(site: &Site) {
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let mut shell = shell_on(cluster, alice, Node::C1, &[]);
    let go = alice.home.join("go");
    alice.run(&["mkfifo", &go.display().to_string()]).ok();
    let command = format!("sh,-c,read word < {}; echo the-url-of-{{name}}-$word", go.display());
    shell.keys(&format!("export SHLOGIN_SLURM_ATTACH_COMMAND='{command}'; echo rea''dy\r"));
    shell.wait_for(seconds(20), "ready\r\n");
    let say = |word: &str| alice.run(&["sh", "-c", &format!("echo {word} > go")]).ok();

    shell.keys(&format!("{}; echo first-$?\r", line_of_start("first", &[], &[])));
    until(seconds(20), "it waits", || alice.list().into_iter().find(|record| record["name"] == "first"));
    cluster.shlogin(alice, &["attach", "first"]).ok();
    shell.wait_for(seconds(10), "first answers");
    say("came");
    shell.wait_for(seconds(10), "the-url-of-first-came\r\n");
    shell.wait_for(seconds(10), "first-0");

    shell.keys(&format!("{}; echo second-$?\r", line_of_start("second", &["--no-wait"], &[])));
    shell.wait_for(seconds(20), "second-0");
    say("late");
    shell.wait_for(seconds(10), "the-url-of-second-late\r\n");
    cluster.shlogin(alice, &["stop", "first", "second"]).ok();
    shell.keys("exit\r");
    shell.finish(seconds(20));
    cluster.wait_until_nothing_is_left(seconds(30), alice);
}

pub(crate) fn a_script_s_own_session_ends_with_its_status_or_with_its_job(site: &Site) {
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let start = |name: &str, variable: &str| {
        // Slurm tells the script of its end, and what the script has become.
        let start = line_of_start(name, &["--foreground"], &[]);
        let line = format!("SHLOGIN_SLURM_ALLOCATION=dial {variable} exec {start}");
        let options = ["-w", "c2", "-o", &format!("{name}.out"), "-D", alice.home.to_str().unwrap()];
        let job = cluster.submit(alice, &options, &line);
        until(seconds(30), &format!("{name} waits"), || {
            alice.list().into_iter().find(|record| record["name"] == name && record["detached"] == true)
        });
        cluster.shlogin(alice, &["attach", name]).ok();
        job
    };
    // The script goes on when the session has ended, with its app's status.
    let job = start("script", "");
    assert_eq!(show(alice, "script")["job"]["id"], job);
    cluster.shlogin(alice, &["stop", "script"]).ok();
    wait_for(alice, "script", seconds(10), "ended");
    until(seconds(20), "the script is over", || cluster.live_jobs(alice).is_empty().then_some(()));
    let said = fs::read_to_string(alice.home.join("script.out")).unwrap();
    assert!(said.contains("tiny listens on") && said.contains("script has ended: it was stopped"), "{said}");

    // What is another node's is forgotten here as well.
    cluster.shlogin(alice, &["forget", "script"]).ok().is("script\n");
    cluster.shlogin(alice, &["show", "script"]).ended_with(116);

    // Without MUNGE, its key is what the two ends know each other by; it goes with the session.
    let job = start("cancelled", "SHLOGIN_SLURM_MUNGE=off");
    let key = folder_on(alice, "c2", &show(alice, "cancelled")).join("host.pem");
    assert!(key.exists());
    cluster.run_as(alice, &["scancel", &job.to_string()]).ok();
    let ended = wait_for(alice, "cancelled", seconds(40), "ended");
    let why = format!("its job {job} was cancelled; its app ended with ");
    assert!(reason(&ended).starts_with(&why), "{ended:#}");
    cluster.wait_until_nothing_is_left(seconds(30), alice);
    assert!(!key.exists());
}
