//! Jobs on compute nodes.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use crate::harness::{
    Running, Site,
    cluster::{Cluster, Listener, Node, OwnCluster},
    place::place,
    seconds, until,
};

/// Without this, no test of a session in a job proves anything.
pub(crate) fn the_cluster_runs_apptainer_in_a_job(site: &Site) {
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let image = place().image("tiny").display().to_string();
    let mut submitted = Vec::new();
    for node in Node::ALL {
        let out = alice.home.join(node.name());
        let says = "import os; print(os.uname().nodename, os.getuid())";
        let line = format!("exec apptainer exec --userns {image} python3 -c '{says}'");
        let job = cluster.submit(alice, &["-w", node.name(), "-o", out.to_str().unwrap()], &line);
        submitted.push(job);
        let job = cluster.wait_job(seconds(30), job, "COMPLETED");
        assert_eq!(job.nodes, node.name(), "{job:?}");
        let said = fs::read_to_string(&out).unwrap();
        assert!(said.ends_with(&format!("{} {}\n", node.name(), alice.uid)), "{said}");
    }
    // Of the users of other tests, one may have had her number before.
    let hers: Vec<_> = cluster.jobs(alice).iter().map(|job| job.id).collect();
    assert!(submitted.iter().all(|job| hers.contains(job)), "{submitted:?} in {hers:?}");
    let there = cluster.run_as(alice, &["srun", "-Q", "-w", "c1", "touch", "/tmp/there"]);
    assert!(there.ok().stdout.is_empty());
    assert_eq!(cluster.files_of(Node::C1, alice), [cluster.root_of(Node::C1).join("tmp/there")]);
    assert!(cluster.files_of(Node::C2, alice).is_empty());
}

/// A node that is cut off or dead, and a controller that hangs, look as they do in real life, and are mended.
pub(crate) fn what_breaks_in_a_cluster_can_be_mended(site: &Site) {
    let alice = &site.alice;
    let cluster = OwnCluster::new(&["MessageTimeout=2", "SlurmdTimeout=5"]);
    let slurmd = SocketAddr::from((cluster.address(Node::C1), 6818));
    let connect = || TcpStream::connect_timeout(&slurmd, Duration::from_millis(300));
    let all = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 6818));
    assert!(cluster.listening_sockets(Node::C1).contains(&Listener::Tcp(all, 0)));
    let home = Running::spawn(cluster.inside(Node::C1, alice, &["getent", "hosts", "c2"])).finish(seconds(5));
    home.ok().says(&cluster.address(Node::C2).to_string());
    assert!(TcpStream::connect((cluster.login_address(), 6817)).is_ok());

    let paused = cluster.pause_controller();
    cluster.run_as(alice, &["squeue"]).ended_with(1).says("timed out");
    drop(paused);
    cluster.run_as(alice, &["squeue"]).ok();

    let job = cluster.submit(alice, &["--no-requeue", "-w", "c1", "-o", "/dev/null"], "exec sleep 600");
    cluster.wait_job(seconds(10), job, "RUNNING");
    let sleeps = || cluster.processes_of(Node::C1, alice).iter().any(|process| process.name == "sleep");
    until(seconds(5), "the job's process", || sleeps().then_some(()));

    assert!(connect().is_ok());
    let severed = cluster.cut(Node::C1);
    assert_eq!(connect().unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    drop(severed);
    assert!(connect().is_ok());

    cluster.kill_node(Node::C1);
    assert_eq!(connect().unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    assert!(alice.processes().is_empty());
    cluster.wait_node(seconds(30), Node::C1, "down*");
    let job = cluster.wait_job(seconds(10), job, "NODE_FAIL");
    assert_eq!((job.name.as_str(), job.reason.as_str()), ("wrap", "NodeDown"));
    cluster.revive(Node::C1);
    cluster.wait_node(seconds(10), Node::C1, "idle");
}
