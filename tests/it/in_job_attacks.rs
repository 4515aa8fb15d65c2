//! Who stands between a session's gateway and its job, or looks into Slurm: another user of the same cluster.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::{Value, json};
use shlogin::link::Identity;

use crate::harness::{
    Running, Session, Site, User, census,
    cluster::{Cluster, Node},
    http::client_config,
    in_job::job_of,
    place::place,
    program::bare,
    seconds, until,
};

const ISOLATED: [&str; 4] = ["-w", "c1", "--network", "isolated"];
/// A host's run, as nobody has it.
const RUN: &str = "11111111-2222-4333-8444-555555555555";

/// Where a session's gateway waits for its host, as everybody who is in the way can learn.
struct Link {
    session: String,
    job: u32,
    address: SocketAddr,
    /// The rendezvous.
    meet: Value,
}

impl Link {
    fn of(session: &Session<'_>) -> Self {
        let meet: Value =
            serde_json::from_slice(&fs::read(session.folder().join("link.json")).unwrap()).unwrap();
        let port = u16::try_from(meet["port"].as_u64().unwrap()).unwrap();
        let address = SocketAddr::from((Cluster::shared().login_address(), port));
        Self { session: session.id().to_owned(), job: session.job(), address, meet }
    }

    /// A connection by somebody with a key of his own, who does not care whose gateway it is.
    fn call(&self) -> Caller {
        let gateway = self.meet["gateway"].as_str().unwrap().parse().unwrap();
        self.call_with(Identity::make().unwrap().client(gateway).unwrap())
    }

    fn call_with(&self, config: Arc<ClientConfig>) -> Caller {
        let name = rustls::pki_types::ServerName::try_from("gateway").unwrap();
        let mut wire = self.connect();
        let mut session = ClientConnection::new(config, name).unwrap();
        session.complete_io(&mut wire).unwrap();
        Caller(StreamOwned::new(session, wire))
    }

    fn connect(&self) -> TcpStream {
        let wire = TcpStream::connect(self.address).unwrap();
        wire.set_read_timeout(Some(seconds(20))).unwrap();
        wire
    }

    /// What the host of this job would say.
    fn hello(&self, job: u32, credential: Option<&str>) -> Value {
        let run = json!({ "id": RUN, "job": job, "restarts": 0, "node": "c1" });
        json!({ "version": 1, "session": self.session, "run": run, "credential": credential, "stream": null })
    }

    /// What the host of this job would have signed, over this connection.
    fn statement(&self, job: u32, owner: &User, caller: &Caller) -> String {
        format!("shlogin-link-1 {} {RUN} {job}.0 {} {}", self.session, owner.uid, caller.number())
    }

    /// A user's MUNGE credential for this text.
    fn credential(&self, user: &User, text: &str) -> String {
        let socket = self.meet["munge_socket"].as_str().unwrap();
        user.run(&["munge", "-S", socket, "-s", text]).ok().stdout.trim().to_owned()
    }
}

/// Somebody at the link's port, behind TLS.
struct Caller(StreamOwned<ClientConnection, TcpStream>);

impl Caller {
    /// The connection's own number (RFC 8446, section 7.5).
    fn number(&self) -> String {
        let number =
            self.0.conn.export_keying_material([0_u8; 32], b"EXPORTER-shlogin-link-1", None).unwrap();
        number.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn say(&mut self, message: &Value) {
        let text = message.to_string();
        let len = u32::try_from(text.len()).unwrap().to_be_bytes();
        let _ = self.0.write_all(&[&len, text.as_bytes()].concat()).and_then(|()| self.0.flush());
    }

    /// All that comes until it is cut off.
    fn hear(&mut self) -> Vec<u8> {
        let mut heard = Vec::new();
        if let Err(error) = self.0.read_to_end(&mut heard) {
            assert!(!is_timeout(&error), "nobody cut it off");
        }
        heard
    }

    /// The one answer, after which nothing comes.
    fn answered(&mut self) -> Value {
        let heard = self.hear();
        serde_json::from_slice(heard.get(4..).unwrap_or_default())
            .unwrap_or_else(|error| panic!("{error} in {heard:?}"))
    }

    /// The refusal, after which nothing comes.
    fn refused(&mut self) -> String {
        let reply = self.answered();
        reply["Refused"]["why"].as_str().unwrap_or_else(|| panic!("let through: {reply}")).to_owned()
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Threat 41. Whoever is not the host of this session's own job is told no, and its owner's log tells why.
pub(crate) fn threat_41_nobody_but_the_session_s_own_job_is_let_through(site: &Site) {
    let (cluster, alice, mallory) = (Cluster::shared(), &site.alice, &site.mallory);
    let session = cluster.start_bare(alice, "held", &ISOLATED, &["+mark=unharmed"]);
    let gate = session.signed_in();
    let mut witness = gate.websocket("/ws", &[("Origin", &gate.origin())]).unwrap();
    let link = Link::of(&session);
    let before = census::resident(session.pid());

    let mut refuse = |what: &str, job: u32, credential: &dyn Fn(&Caller) -> Option<String>, logged: &str| {
        let mut caller = link.call();
        let credential = credential(&caller);
        caller.say(&link.hello(job, credential.as_deref()));
        let why = caller.refused();
        assert!(!why.contains(&alice.uid.to_string()), "{what}: a stranger learns nothing: {why}");
        session.wait_for_diagnostics(seconds(5), logged);
        assert_eq!(witness.ask(b"still"), b"still", "{what}");
        why
    };
    let job = link.job;
    let own = |caller: &Caller| Some(link.credential(mallory, &link.statement(job, alice, caller)));
    let logged = format!("its credential is of user {}, not of {}", mallory.uid, alice.uid);
    refuse("his own credential", job, &own, &logged);
    refuse("none", job, &|_| None, "it has no MUNGE credential");
    refuse("no credential at all", job, &|_| Some("MUNGE:AwQFAAA=:".to_owned()), "nobody was let through");
    // Hers, made for another connection: as it would be by whoever has it from there.
    let other = link.call();
    let caught = link.credential(alice, &link.statement(job, alice, &other));
    let elsewhere = "its credential is of another connection, session or job";
    refuse("a caught one", job, &|_| Some(caught.clone()), elsewhere);
    let mut itself = other;
    itself.say(&link.hello(job + 1, Some(&caught)));
    itself.refused();
    // All is right but the job: so it was the credential before.
    let another = |caller: &Caller| Some(link.credential(alice, &link.statement(job + 1, alice, caller)));
    let why = refuse("another job of hers", job + 1, &another, &format!("job {} is not {job}", job + 1));
    assert_eq!(why, "this is not the session's job");

    let mut caller = link.call();
    let mut hello = link.hello(job, Some(&link.credential(alice, &link.statement(job, alice, &caller))));
    hello["session"] = json!("01234567-89ab-4cde-8f01-23456789abcd");
    caller.say(&hello);
    assert_eq!(caller.refused(), "this is not your session's gateway");
    let mut caller = link.call();
    let mut hello = link.hello(job, None);
    hello["version"] = json!(2);
    caller.say(&hello);
    // A gateway of its own version may take over yet: till then it is not let in.
    assert_eq!(caller.answered(), json!("Later"));
    session.wait_for_diagnostics(seconds(5), "another version");

    what_is_no_host_at_all_is_cut_off(&link);
    assert_eq!(witness.ask(b"still"), b"still");
    assert_eq!(session.signed_in().get("/").text(), "unharmed");
    alice.shlogin(&["exec", "held", "--", "true"]).ok();
    assert_eq!(session.show()["job"]["linked"], true);
    assert!(!session.diagnostics().contains("was lost"), "{}", session.diagnostics());
    let after = census::resident(session.pid());
    assert!(after < before + 32 * 1024 * 1024, "{after} bytes after {before}");
    session.stop();
    cluster.wait_until_nothing_is_left(seconds(15), alice);
}

fn what_is_no_host_at_all_is_cut_off(link: &Link) {
    // No TLS.
    let mut plain = link.connect();
    let _ = plain.write_all(b"GET / HTTP/1.1\r\n\r\n");
    let mut heard = Vec::new();
    if let Err(error) = plain.read_to_end(&mut heard) {
        assert!(!is_timeout(&error), "plain text was not cut off");
    }
    // An old TLS.
    let address = link.address.to_string();
    let words = ["openssl", "s_client", "-tls1_2", "-connect", &address];
    let mut old = std::process::Command::new(words[0]);
    old.args(&words[1..]).stdin(std::process::Stdio::null());
    Running::spawn(old).finish(seconds(20)).ended_with(1).says("alert protocol version");
    // Nobody's key.
    let mut nobody = link.call_with(Arc::new(client_config(&[b"shlogin-link/1"])));
    nobody.say(&link.hello(link.job, None));
    assert_eq!(nobody.hear(), b"");
    // Another protocol above it.
    let name = rustls::pki_types::ServerName::try_from("gateway").unwrap();
    let mut web = ClientConnection::new(Arc::new(client_config(&[b"h2"])), name).unwrap();
    assert!(web.complete_io(&mut link.connect()).is_err());
    // A hello without an end, and others that are none.
    let mut huge = link.call();
    let _ = huge.0.write_all(&100_000_000_u32.to_be_bytes());
    let _ = (0..100).try_for_each(|_| huge.0.write_all(&vec![b'x'; 1_000_000]));
    assert_eq!(huge.hear(), b"");
    for text in ["", "{}", "null", "[[[[[[[[", "\"\\ud800\"", &"[".repeat(60_000)] {
        let mut strange = link.call();
        let len = u32::try_from(text.len()).unwrap().to_be_bytes();
        let _ = strange.0.write_all(&[&len, text.as_bytes()].concat());
        assert_eq!(strange.hear(), b"", "{:?}", text.get(..20));
    }
}

/// Threat 41. Whoever says nothing, in however many connections, keeps no host out and no session from its work.
pub(crate) fn threat_41_strangers_who_say_nothing_keep_nobody_out(site: &Site) {
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let options = [&ISOLATED[..], &["--no-wait", "--hold"]].concat();
    let session = cluster.start_bare(alice, "besieged", &options, &["+mark=got in"]);
    let link = Link::of(&session);
    let idle: Vec<_> = (0..200).map(|_| link.connect()).collect();
    // Others hold forty connections from where the host comes, and come again for each that is cut off.
    let script = "import socket, sys\n\
        held = []\n\
        while True:\n\
        \x20held.append(socket.create_connection((sys.argv[1], int(sys.argv[2]))))\n\
        \x20if len(held) == 40: print('ready', flush=True)\n\
        \x20if len(held) >= 40: held[-40].recv(1); held[-40].close()\n";
    let (host, port) = (link.address.ip().to_string(), link.address.port().to_string());
    let words = ["python3", "-u", "-c", script, &host, &port];
    let again = Running::spawn(cluster.inside(Node::C1, &site.mallory, &words));
    again.wait_for(seconds(10), "ready");
    let begun = Instant::now();
    cluster.slurm(&["scontrol", "release", &link.job.to_string()]);
    session.wait_until(seconds(30), "running");
    assert!(begun.elapsed() < seconds(15), "the host was kept out for {:?}", begun.elapsed());
    again.signal(nix::sys::signal::Signal::SIGKILL);
    assert_eq!(session.signed_in().get("/").text(), "got in");
    let begun = Instant::now();
    for mut stream in idle {
        let mut heard = Vec::new();
        if let Err(error) = stream.read_to_end(&mut heard) {
            assert!(!is_timeout(&error), "silence is borne");
        }
    }
    assert!(begun.elapsed() < seconds(15), "the last was cut off after {:?}", begun.elapsed());
    assert_eq!(session.show()["job"]["linked"], true);
    session.stop();
    cluster.wait_until_nothing_is_left(seconds(15), alice);
}

/// Threat 42. What answers in the gateway's place gets nothing from a host but its own bad certificate's refusal.
pub(crate) fn threat_42_a_host_tells_nothing_to_a_false_gateway(site: &Site) {
    let (cluster, alice, mallory) = (Cluster::shared(), &site.alice, &site.mallory);
    let words = [&["start", "--json", "--slurm"], &ISOLATED[..], &["--no-wait", "--hold"]].concat();
    let mut start = cluster.shlogin_command(alice, &words);
    start.args(bare("deceived", &[], &[])).env("MY_API_KEY", "to the true one alone");
    // Where c2 is the gateway, its hosts come to whoever listens there.
    start.env("SHLOGIN_SLURM_LINK_HOST", cluster.address(Node::C2).to_string());
    start.env("SHLOGIN_SLURM_STARTUP_TIMEOUT", "3s");
    let session = Session { user: alice, json: Running::spawn(start).finish(seconds(30)).ok().json() };
    let link = Link::of(&session);

    let made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
                -subj /CN=shlogin-link -keyout false.key -out false.pem";
    mallory.run(&["sh", "-c", made]).ok();
    let script = "import socket, ssl, sys\n\
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); tls.load_cert_chain('false.pem', 'false.key')\n\
        tls.set_alpn_protocols(['shlogin-link/1'])\n\
        server = socket.create_server(('0.0.0.0', int(sys.argv[1]))); print('ready', flush=True)\n\
        while True:\n\
        \x20peer = server.accept()[0]; peer.settimeout(10)\n\
        \x20try:\n\
        \x20 with tls.wrap_socket(peer, server_side=True) as wire: print('heard', wire.recv(9999), flush=True)\n\
        \x20except OSError as error: print('was turned down:', error, flush=True)\n";
    let port = link.address.port().to_string();
    let false_gateway =
        Running::spawn(cluster.inside(Node::C2, mallory, &["python3", "-u", "-c", script, &port]));
    false_gateway.wait_for(seconds(10), "ready");
    cluster.slurm(&["scontrol", "release", &link.job.to_string()]);
    let record = session.wait_until(seconds(40), "ended");
    let heard = false_gateway.stdout();
    assert!(heard.contains("was turned down") && !heard.contains("heard"), "{heard}");
    let (_, said) = session.job_output();
    assert!(said.contains("no gateway answered within 3 s") && said.contains("certificate"), "{said}");
    let reason = record["reason"].as_str().unwrap();
    assert!(reason.contains(&format!("job {}", link.job)), "{reason}");
    cluster.wait_until_nothing_is_left(seconds(15), alice);
}

/// Threat 42. Who has a pod's port before its session has it is passed over; who comes later does not get it.
pub(crate) fn threat_42_nobody_takes_the_port_that_hosts_dial(site: &Site) {
    let (cluster, alice, mallory) = (Cluster::shared(), &site.alice, &site.mallory);
    let script = "import signal, socket, sys\n\
        s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n\
        s.bind((sys.argv[1], int(sys.argv[2]))); s.listen(); print('has it', flush=True); signal.pause()\n";
    let squat = |address: Ipv4Addr, port: u16| {
        let mut command = mallory.command("python3");
        command.args(["-u", "-c", script, &address.to_string(), &port.to_string()]);
        Running::spawn(command)
    };
    let start = |name: &str, count: &str| {
        let words = [&["start", "--json", "--slurm"], &ISOLATED[..], &["--no-wait", "--hold"]].concat();
        let mut command = cluster.shlogin_command(alice, &words);
        command.args(bare(name, &[], &[]));
        command.env("SHLOGIN_PODS_BASE", "28000").env("SHLOGIN_PODS_COUNT", count);
        Running::spawn(command).finish(seconds(30))
    };
    let (everywhere, bridge) = (squat(Ipv4Addr::UNSPECIFIED, 28_012), squat(cluster.login_address(), 28_022));
    for squatter in [&everywhere, &bridge] {
        squatter.wait_for(seconds(10), "has it");
    }
    start("none", "2").ended_with(118).says("no pod is free");
    let session = Session { user: alice, json: start("third", "3").ok().json() };
    assert_eq!((session.pod(), Link::of(&session).address.port()), (3, 28_032));
    for address in [Ipv4Addr::UNSPECIFIED, cluster.login_address(), Ipv4Addr::LOCALHOST] {
        squat(address, 28_032).finish(seconds(10)).ended_with(1).says("in use");
    }
    session.stop();
    cluster.wait_until_nothing_is_left(seconds(15), alice);
}

/// Threat 40. Nothing that Slurm keeps, prints or passes on has a secret in it, and nothing that a session keeps in files is
/// anybody else's to read.
pub(crate) fn threat_40_nothing_of_slurm_s_holds_a_secret(site: &Site) {
    let (cluster, alice, mallory) = (Cluster::shared(), &site.alice, &site.mallory);
    let secrets = [format!("key-of-{}", alice.name), format!("flag-of-{}", alice.name)];
    let over = AtomicBool::new(false);
    let (session, seen) = thread::scope(|scope| {
        let watch = scope.spawn(|| watch_words(alice, &over));
        let mut command = alice.command("bash");
        let flag = format!("SECRET={}", secrets[1]);
        command.args(["-c", "umask 022; exec \"$@\"", "bash"]).arg(place().program());
        command.args(["start", "--json", "--slurm"]).args(ISOLATED).args(bare(
            "secret",
            &["--env", &flag],
            &[],
        ));
        command.env("SLURM_CONF", cluster.slurm_conf()).env("MY_API_KEY", &secrets[0]);
        let started = Running::spawn(command).finish(seconds(60)).ok().json();
        over.store(true, Ordering::Relaxed);
        (Session { user: alice, json: started }, watch.join().unwrap())
    });
    let env = session.report()["env"].clone();
    assert_eq!(
        (&env["MY_API_KEY"], &env["SECRET"]),
        (&secrets[0].as_str().into(), &secrets[1].as_str().into())
    );
    let token = session.url().rsplit('=').next().unwrap().to_owned();
    let key = fs::read_to_string(session.folder().join("gateway.pem")).unwrap();
    let key = key.lines().rev().nth(1).unwrap().to_owned();
    assert!(token.len() >= 22 && key.len() >= 22, "{token} {key}");
    let secrets = [&secrets[..], &[token, key]].concat();

    assert!(seen.contains("@host") && seen.contains("@gate"), "{seen}");
    let job = session.job().to_string();
    let mut said = vec![("the process lists".to_owned(), seen)];
    for words in [
        &["scontrol", "show", "job", "-dd", &job][..],
        &["scontrol", "write", "batch_script", &job, "-"],
        &["squeue", "-j", &job, "-o", "%all"],
    ] {
        said.push((words.join(" "), cluster.run_as(alice, words).ok().stdout));
    }
    said.push((
        "another user's squeue".to_owned(),
        cluster.run_as(mallory, &["squeue", "-o", "%all"]).ok().stdout,
    ));
    let slurm = cluster.slurm_conf().parent().unwrap().parent().unwrap().to_owned();
    for folder in ["state/slurmctld", "nodes/c1/spool"] {
        let files = files_below(&slurm.join(folder));
        assert!(files.iter().any(|(path, _)| path.contains("script")), "{folder} has the job's script");
        said.extend(files);
    }
    let (output, text) = session.job_output();
    said.push((output.display().to_string(), text));
    for (what, text) in &said {
        for secret in &secrets {
            assert!(!text.contains(secret), "{secret} is in {what}");
        }
    }
    is_hers_alone(&session, mallory);
    assert!(!session.folder().join("host.pem").exists(), "with MUNGE, there is no key for the host");
    session.stop();
    a_key_in_a_file_is_hers_alone_as_well(site);
    cluster.wait_until_nothing_is_left(seconds(15), alice);
}

/// Every word of every process of hers, on the login node and on the compute node, until it is over.
fn watch_words(alice: &User, over: &AtomicBool) -> String {
    let mut seen = std::collections::BTreeSet::new();
    let there = Cluster::shared().root_of(Node::C1).join("proc");
    while !over.load(Ordering::Relaxed) {
        let all = [alice.processes(), census::processes_in(&there, alice.uid)].concat();
        // Her own words to `start` are hers to choose.
        let ours = all.into_iter().filter(|process| !process.words.iter().any(|word| word == "start"));
        seen.extend(ours.map(|process| process.words.join(" ")));
    }
    seen.into_iter().collect::<Vec<_>>().join("\n")
}

fn files_below(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files_below(&path)),
            Ok(kind) if kind.is_file() => {
                let text = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
                found.push((path.display().to_string(), text));
            }
            _ => {}
        }
    }
    found
}

/// The session's folder and all in it.
fn is_hers_alone(session: &Session<'_>, mallory: &User) {
    let folder = session.folder();
    assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
    let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(names.iter().any(|path| path.extension().is_some_and(|end| end == "out")), "{names:?}");
    for path in names {
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600, "{}", path.display());
        let words = ["cat", path.to_str().unwrap()];
        mallory.run(&words).ended_with(1);
        let there = Cluster::shared().inside(Node::C1, mallory, &words);
        Running::spawn(there).finish(seconds(20)).ended_with(1);
    }
}

/// Where MUNGE is not to be used, a key in a file does its work, and another key does not.
fn a_key_in_a_file_is_hers_alone_as_well(site: &Site) {
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let words = [&["start", "--json", "--slurm"], &ISOLATED[..]].concat();
    let mut start = cluster.shlogin_command(alice, &words);
    start.args(bare("by-key", &[], &["+mark=by key"])).env("SHLOGIN_SLURM_MUNGE", "off");
    let session = Session { user: alice, json: Running::spawn(start).finish(seconds(60)).ok().json() };
    assert!(session.folder().join("host.pem").exists());
    is_hers_alone(&session, &site.mallory);
    let link = Link::of(&session);
    let mut caller = link.call();
    caller.say(&link.hello(link.job, None));
    assert_eq!(caller.refused(), "you are not this session's host");
    session.wait_for_diagnostics(seconds(5), "it does not have the session's key");
    assert_eq!(session.signed_in().get("/").text(), "by key");
    assert_eq!(job_of(&session.show()), link.job);
    until(seconds(5), "it is linked", || (session.show()["job"]["linked"] == true).then_some(()));
    session.stop();
}
