//! Sessions whose app runs in a Slurm job: their gateway is on the login node, and nothing listens where they run.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use crate::harness::{
    Running, Session, Site, User,
    browser::keep,
    cluster::{Cluster, Listener, Node},
    heavy,
    in_job::job_of,
    place::place,
    seconds,
};

/// A port that nothing else on a node has.
const PORT: u16 = 18_461;

/// Two sessions on two nodes at once: each answers through the gateway, nobody else reaches it, and nothing stays.
pub(crate) fn two_nodes_serve_two_sessions_and_are_left_as_they_were(site: &Site) {
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let before = Node::ALL.map(|node| cluster.listening_sockets(node));
    let hidden = format!("hidden-{}", alice.name);
    let (port, secret) = (format!("+port={PORT}"), format!("+abstract={hidden}"));
    let words = ["+bind=0.0.0.0", &port, &secret];
    let one = cluster.start_image(
        alice,
        "tiny",
        &["--name", "one", "-w", "c1"],
        &[&["+mark=one"], &words[..]].concat(),
    );
    let two = cluster.start_bare(
        alice,
        "two",
        &["-w", "c2", "--network", "isolated"],
        &[&["+mark=two"], &words[..]].concat(),
    );
    for (session, node) in [(&one, "c1"), (&two, "c2")] {
        answers_from(session, node);
    }
    let listed = alice.list();
    assert_eq!(listed.len(), 2, "{listed:#?}");
    assert!(listed.iter().all(|session| session["state"] == "running"), "{listed:#?}");
    for ((node, before), port) in Node::ALL.into_iter().zip(before).zip([one.app_port(), two.app_port()]) {
        assert_eq!(port, PORT);
        nothing_listens(cluster, node, &before, alice, &hidden);
        nobody_reaches(site, node, &hidden);
    }
    one.stop();
    assert_eq!(two.signed_in().get("/").text(), "two", "the other goes on");
    assert_eq!(cluster.live_jobs(alice).len(), 1);
    two.stop();
    cluster.wait_until_nothing_is_left(seconds(15), alice);
    let ended = one.show();
    assert_eq!((&ended["state"], &ended["job"]["node"]), (&"ended".into(), &"c1".into()), "{ended:#}");
}

fn answers_from(session: &Session<'_>, node: &str) {
    let gate = session.signed_in();
    assert_eq!(gate.get("/").text(), session.name());
    let report = session.report();
    assert_eq!(report["env"]["SLURMD_NODENAME"], node, "{report:#}");
    assert_eq!(report["env"]["SLURM_JOB_ID"], session.job().to_string(), "{report:#}");
    assert_eq!(report["uid"], session.user.uid);
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    assert!(gate.request("POST", "/echo", &[], &body).body == body, "3 MB come back as they went");
    let events = gate.get("/stream?3");
    assert_eq!(events.text(), "data: 0\n\ndata: 1\n\ndata: 2\n\n");
    let mut socket = gate.websocket("/ws", &[("Origin", &gate.origin())]).unwrap();
    for text in ["hello", &"long ".repeat(2000)] {
        assert_eq!(socket.ask(text.as_bytes()), text.as_bytes());
    }
    assert_eq!(session.stranger().get("/").status, 401);
    let shown = session.show();
    assert_eq!(
        (&shown["state"], &shown["job"]["node"], &shown["job"]["linked"]),
        (&"running".into(), &node.into(), &true.into()),
        "{shown:#}"
    );
    let said = session.user.shlogin(&["show", session.name()]).ok().stdout;
    let line = |key: &str| {
        said.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key}: {said}"))
    };
    assert!(line("job ").contains(&format!("is running on {node}, ")), "{said}");
    assert!(line("job ").contains(" left"), "{said}");
    assert!(line("link ").ends_with(" up"), "{said}");
}

/// Of all that listens in a node's network, nothing is the session's; but for sockets in folders nobody else enters.
pub(crate) fn nothing_listens(
    cluster: &Cluster,
    node: Node,
    before: &[Listener],
    alice: &User,
    hidden: &str,
) {
    for listener in cluster.listening_sockets(node) {
        match &listener {
            Listener::Tcp(_, uid) | Listener::Udp(_, uid) => assert_ne!(*uid, alice.uid, "{listener:?}"),
            _ if before.contains(&listener) => {}
            Listener::Unix(name) if name.starts_with('@') => {
                assert!(!name.contains("shlogin") && !name.contains(hidden), "{name}");
            }
            Listener::Unix(path) => {
                let path = Path::new(path).strip_prefix("/").unwrap_or(Path::new(""));
                let inside = cluster.root_of(node).join(path);
                let hers = fs::symlink_metadata(&inside).is_ok_and(|meta| meta.uid() == alice.uid);
                assert!(!hers || is_private(&inside, alice), "{listener:?}");
            }
        }
    }
}

/// Whether a folder on the way to it is closed to everybody else.
fn is_private(path: &Path, owner: &User) -> bool {
    path.ancestors().skip(1).any(|folder| {
        fs::metadata(folder)
            .is_ok_and(|meta| meta.uid() == owner.uid && meta.permissions().mode() & 0o077 == 0)
    })
}

/// Somebody on the login node, on the other node and on this very node, at every address this node has.
fn nobody_reaches(site: &Site, node: Node, hidden: &str) {
    let cluster = Cluster::shared();
    let script = "import socket, sys\n\
        for host in sys.argv[3:]:\n\
        \x20try: socket.create_connection((host, int(sys.argv[1])), 3); print('reached', host)\n\
        \x20except OSError as error: print('refused', error)\n\
        try: s = socket.socket(socket.AF_UNIX); s.connect('\\0' + sys.argv[2]); print('reached', 'abstract')\n\
        except OSError as error: print('refused', error)\n";
    let (address, port) = (cluster.address(node).to_string(), PORT.to_string());
    let words = ["python3", "-c", script, &port, hidden, &address];
    let mut tries = vec![site.mallory.command(words[0])];
    tries[0].args(&words[1..]);
    for from in Node::ALL {
        let here = if from == node { &["127.0.0.1", "127.0.0.2", "::1"][..] } else { &[] };
        tries.push(cluster.inside(from, &site.mallory, &[&words[..], here].concat()));
    }
    for command in tries {
        let said = Running::spawn(command).finish(seconds(30)).ok().stdout;
        assert!(said.contains("refused") && !said.contains("reached"), "{said}");
    }
}

/// A notebook on a compute node, in a real browser.
pub(crate) fn a_cell_run_on_a_node_gives_its_result(site: &Site) {
    let _alone = heavy();
    let cluster = Cluster::shared();
    let session =
        cluster.start_image(&site.alice, "notebook", &["--name", "notebook", "-w", "c2", "--mem=2G"], &[]);
    let (saw, picture) = site.alice.browse("notebook", &[session.url()]);
    keep(&picture, "notebook-in-a-job");
    assert_eq!(saw["result"], "111-222-333", "{saw:#}");
    assert!(saw["websockets"].to_string().contains("/api/kernels/"), "{saw:#}");
    assert_eq!(session.show()["job"]["node"], "c2");
    session.stop();
    cluster.wait_until_nothing_is_left(seconds(15), &site.alice);
}

/// The app is asked before it is killed, and its job ends with it.
pub(crate) fn stop_asks_before_it_kills_on_a_node_as_well(site: &Site) {
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let polite = alice.home.join("polite");
    let script = format!(
        "trap 'echo asked on $SLURMD_NODENAME > {}; exit 0' TERM; /usr/bin/python3 -S -E {} & wait",
        polite.display(),
        place().app().display()
    );
    let start = |name: &str, words: &[&str]| {
        let options =
            ["start", "--json", "--slurm", "-w", "c1", "--network", "isolated", "--name", name, "--"];
        cluster.shlogin(alice, &[&options, words].concat()).ok()
    };
    let started = start("polite", &["bash", "-c", &script]).json();
    alice.shlogin(&["stop", "polite"]).ok();
    cluster.wait_job(seconds(10), job_of(&started), "COMPLETED");
    // Nor has one failed that is ended by the signal: nobody gets a mail of that who has stopped it herself.
    let started =
        start("plain", &["/usr/bin/python3", "-S", "-E", &place().app().display().to_string()]).json();
    alice.shlogin(&["stop", "plain"]).ok();
    assert_eq!(alice.shlogin(&["show", "--json", "plain"]).ok().json()["status"], 143);
    cluster.wait_job(seconds(10), job_of(&started), "COMPLETED");
    assert_eq!(fs::read_to_string(&polite).unwrap(), "asked on c1\n");
    let app = place().app().display().to_string();
    start("deaf", &["/usr/bin/python3", "-S", "-E", &app, "+deaf"]);
    let asked = std::time::Instant::now();
    alice.shlogin(&["stop", "--grace", "1s", "deaf"]).ok();
    assert!(asked.elapsed() >= seconds(1), "it had its second");
    cluster.wait_until_nothing_is_left(seconds(15), alice);
    // One that ends by itself takes its job with it, too.
    let started = start("leaves", &["/usr/bin/python3", "-S", "-E", &app]);
    let session = Session { user: alice, json: started.json() };
    let gate = session.signed_in();
    let request = format!("GET /exit?7 HTTP/1.1\r\nHost: {}\r\n{}\r\n", gate.authority, gate.cookie_header());
    let _ = gate.raw(request.as_bytes());
    let record = session.wait_until_ended();
    assert_eq!(record["status"], 7, "{record:#}");
    cluster.wait_until_nothing_is_left(seconds(15), alice);
}
