//! What becomes of a session in a job when something breaks: its job, its node, the link, the controller, a process.
//!
//! Each test has a cluster of its own, in which it may break what it likes.

use std::{
    fs, io,
    io::{ErrorKind, Read, Write},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::harness::{
    Process, Running, Session, Site, User,
    cluster::{Cluster, Listener, Node, OwnCluster},
    http::{Answer, Gate, Wire},
    place::place,
    program::bare,
    seconds,
    terminal::Terminal,
    until,
};

const NETWORK: &[&str] = &["--network", "isolated"];

/// A session in a job of a cluster's.
struct InJob<'s> {
    cluster: &'s Cluster,
    alice: &'s User,
    session: Session<'s>,
}

/// Starts a session in a job and waits until it answers; with `--no-wait`, until there is a job.
fn start<'s>(cluster: &'s Cluster, alice: &'s User, args: &[&str]) -> InJob<'s> {
    let mut command = cluster.command_as(alice, place().program());
    command.args(["start", "--json", "--slurm"]).args(args);
    let json = Running::spawn(command).finish(seconds(60)).ok().json();
    InJob { cluster, alice, session: Session { user: alice, json } }
}

/// The small app without an image. `options` are those of `start`.
fn start_bare<'s>(
    cluster: &'s Cluster,
    alice: &'s User,
    name: &str,
    options: &[&str],
    words: &[&str],
) -> InJob<'s> {
    let args = bare(name, &[NETWORK, options].concat(), words);
    start(cluster, alice, &args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// An app that writes `asked` into its log when it is asked to end, and ends well.
fn polite() -> [String; 3] {
    let app = place().app();
    let script =
        format!("trap 'echo asked; exit 0' TERM; /usr/bin/python3 -S -E {} +say=up & wait", app.display());
    ["bash".to_owned(), "-c".to_owned(), script]
}

fn start_polite<'s>(cluster: &'s Cluster, alice: &'s User, options: &[&str]) -> InJob<'s> {
    let polite = polite();
    let mut args = vec!["--name", "job"];
    args.extend(options);
    args.push("--");
    args.extend(polite.iter().map(String::as_str));
    start(cluster, alice, &args)
}

impl InJob<'_> {
    fn name(&self) -> &str {
        self.session.name()
    }

    fn show(&self) -> Value {
        self.session.show()
    }

    /// The job's number.
    fn job(&self) -> u32 {
        let record = self.show();
        let id = record["job"]["id"].as_u64().unwrap_or_else(|| panic!("no job: {record:#}"));
        u32::try_from(id).unwrap()
    }

    /// Where it runs.
    fn node(&self) -> Node {
        let record = self.show();
        let name = record["job"]["node"].as_str().unwrap_or_else(|| panic!("no node: {record:#}"));
        Node::ALL.into_iter().find(|node| node.name() == name).unwrap()
    }

    /// What `show` and `list` say for a person.
    fn said(&self) -> String {
        let show = self.alice.shlogin(&["show", self.name()]).ok().stdout;
        show + &self.alice.shlogin(&["list"]).ok().stdout
    }

    fn wait_for_state(&self, within: Duration, state: &str) -> Value {
        let start = Instant::now();
        loop {
            let record = self.show();
            if record["state"] == state {
                return record;
            }
            assert!(
                start.elapsed() < within,
                "not {state} within {within:?}: {record:#}\n{}\n{}",
                self.diagnostics(),
                self.cluster.logs()
            );
            thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Waits for its end and returns the reason.
    fn ended(&self, within: Duration) -> String {
        let record = self.wait_for_state(within, "ended");
        record["reason"].as_str().unwrap_or_else(|| panic!("no reason: {record:#}")).to_owned()
    }

    /// What gate and host have logged.
    fn diagnostics(&self) -> String {
        let folder = self.folder();
        let files = fs::read_dir(&folder).into_iter().flatten().flatten();
        let logs = files.filter(|file| {
            let name = file.file_name().to_string_lossy().into_owned();
            name.starts_with("slurm-") || name == "shlogin.log"
        });
        logs.map(|file| {
            let text = fs::read_to_string(file.path()).unwrap_or_default();
            format!("--- {}\n{text}", file.file_name().display())
        })
        .collect()
    }

    /// The session's folder of records.
    fn folder(&self) -> std::path::PathBuf {
        let record = self.show();
        std::path::Path::new(record["log"].as_str().unwrap()).parent().unwrap().to_owned()
    }

    fn log(&self) -> String {
        self.alice.shlogin(&["logs", self.name()]).ok().stdout
    }

    /// Its one process of this role, as this machine counts.
    fn process(&self, role: &str) -> Pid {
        let all = self.alice.processes();
        let found = all.iter().find(|process| process.role().starts_with(role));
        found.unwrap_or_else(|| panic!("no {role} in {all:#?}")).pid
    }

    /// Asks for a page as a browser would, on the way to the app.
    fn page(gate: &Gate) -> Answer {
        gate.request("GET", "/", &[("Accept", "text/html")], b"")
    }

    /// Waits until the app itself answers.
    fn wait_for_app(&self, within: Duration, gate: &Gate, mark: &str) {
        let start = Instant::now();
        loop {
            let answer = Self::page(gate);
            if answer.status == 200 && answer.text() == mark {
                return;
            }
            assert!(start.elapsed() < within, "{answer:?}\n{:#}\n{}", self.show(), self.diagnostics());
            thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// Waits until Slurm has done with the job.
    fn wait_until_job_ended(&self, id: u32) {
        until(seconds(30), "the job's end", || {
            let job = self.cluster.jobs(self.alice).into_iter().find(|its| its.id == id)?;
            (!matches!(job.state.as_str(), "RUNNING" | "COMPLETING" | "PENDING")).then_some(())
        });
    }

    /// Nothing of hers is left on any node, and then nothing on the login node.
    fn wait_until_nothing_is_left(&self, within: Duration) {
        let start = Instant::now();
        for node in Node::ALL {
            wait_until_clean(self.cluster, node, self.alice, within.saturating_sub(start.elapsed()));
        }
        self.alice.wait_until_nothing_is_left(within.saturating_sub(start.elapsed()) + seconds(2));
    }
}

/// What a user has on a node while a session lives there.
fn left_on(cluster: &Cluster, node: Node, user: &User) -> Vec<String> {
    let mut left = alive_on(cluster, node, user);
    for path in cluster.files_of(node, user) {
        // The program's own folder may stay; what is in it may not.
        if path.ends_with(format!("shlogin-{}", user.uid)) {
            left.extend(
                fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| format!("{entry:?}")),
            );
        } else {
            left.push(path.display().to_string());
        }
    }
    left
}

/// The same without folders.
fn alive_on(cluster: &Cluster, node: Node, user: &User) -> Vec<String> {
    let mut left: Vec<_> =
        cluster.processes_of(node, user).iter().map(|process: &Process| process.to_string()).collect();
    let mounts = cluster.root_of(node).parent().map(|process| process.join("mountinfo")).unwrap();
    let hers = format!("user_id={},", user.uid);
    let mounts = fs::read_to_string(mounts).unwrap();
    left.extend(mounts.lines().filter(|line| line.contains(&hers)).map(str::to_owned));
    for listener in cluster.listening_sockets(node) {
        if matches!(&listener, Listener::Tcp(_, uid) | Listener::Udp(_, uid) if *uid == user.uid) {
            left.push(format!("{listener:?}"));
        }
    }
    left
}

fn wait_until_clean(cluster: &Cluster, node: Node, user: &User, within: Duration) {
    wait_until_gone(within, || left_on(cluster, node, user));
}

fn wait_until_gone(within: Duration, look: impl Fn() -> Vec<String>) {
    let start = Instant::now();
    loop {
        let left = look();
        if left.is_empty() {
            return;
        }
        assert!(start.elapsed() < within, "after {within:?} there is still {left:#?}");
        thread::park_timeout(Duration::from_millis(20));
    }
}

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

const SHORT: &[&str] = &["MessageTimeout=2", "SlurmdTimeout=5", "KillWait=2"];

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

/// An app that answers with a gibibyte, every 64 KiB of which are their own number.
const LARGE: &str = "
import http.server, os, struct
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        blocks = 16384 if self.path == '/large' else 0
        self.send_response(200)
        self.send_header('Content-Length', str(blocks * 65536))
        self.end_headers()
        for number in range(blocks): self.wfile.write(struct.pack('<Q', number) * 8192)
http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ.get('SHLOGIN_PORT') or 8080)), Handler).serve_forever()
";
const BLOCKS: usize = 16384;
const BLOCK: usize = 65536;

/// A client with more patience than its socket: it reads on where nothing came for a while.
struct Patient(Box<dyn Wire>);

impl Patient {
    /// Asks for this, and leaves the answer to be read.
    fn ask(gate: &Gate, path: &str) -> io::Result<Self> {
        let mut wire = gate.connect()?;
        let (authority, cookie) = (&gate.authority, gate.cookie_header());
        write!(wire, "GET {path} HTTP/1.1\r\nHost: {authority}\r\n{cookie}\r\n")?;
        wire.flush()?;
        Ok(Self(wire))
    }
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                done => return done,
            }
        }
    }
}

/// Downloads all of it, and checks every byte. It waits after the first blocks until it is told to go on.
fn download(gate: &Gate, begun: &mpsc::Sender<()>, go_on: &mpsc::Receiver<()>) -> io::Result<Instant> {
    let mut wire = Patient::ask(gate, "/large")?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        wire.read_exact(&mut byte)?;
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    let mut block = vec![0; BLOCK];
    for number in 0..BLOCKS {
        if number == 256 {
            begun.send(()).unwrap();
            go_on.recv().unwrap();
        }
        wire.read_exact(&mut block)?;
        let own = u64::try_from(number).unwrap().to_le_bytes();
        assert!(block.chunks(8).all(|word| word == own), "block {number} is not what was sent");
    }
    Ok(Instant::now())
}

/// Counts into its output, fifty a second, until there is a file.
fn count_until(file: &std::path::Path) -> String {
    format!(
        "i=0; while [ ! -e {} ]; do i=$((i+1)); echo n$i; sleep 0.02; done; echo to''tal $i",
        file.display()
    )
}

/// How far it has counted.
///
/// # Panics
/// When a line is missing, or came twice.
fn counted(output: &str) -> usize {
    let whole = output.rfind('\n').map_or("", |end| &output[..end]);
    // A shell on a terminal hides its own modes before the first.
    let own = |line: &'_ str| line.trim_end().rsplit('\r').next().unwrap_or_default().to_owned();
    let lines = whole.split('\n').filter_map(|line| own(line).strip_prefix('n')?.parse::<usize>().ok());
    let mut last = 0;
    for number in lines {
        assert_eq!(number, last + 1, "something was lost or came twice");
        last = number;
    }
    last
}

pub(crate) fn a_link_that_is_cut_for_a_minute_loses_nothing_and_doubles_nothing(site: &Site) {
    let alice = &site.alice;
    // The node itself is to outlive it.
    let cluster = OwnCluster::new(&["SlurmdTimeout=300"]);
    let args = ["--name", "job", "--network", "isolated", "-w", "c1", "--", "/usr/bin/python3", "-c", LARGE];
    let session = start(&cluster, alice, &args);
    let gate = session.session.signed_in();
    let end = alice.home.join("end");
    let count = count_until(&end);
    let mut terminal = Terminal::shlogin(alice, &["ssh", "job"]);
    terminal.keys(&format!("{count}\r"));
    let exec = Running::spawn(alice.shlogin_command(&["exec", "job", "--", "bash", "-c", &count]));
    terminal.wait_for(seconds(20), "\nn20\r");
    exec.wait_for(seconds(20), "\nn20\n");

    thread::scope(|scope| {
        let (begun, has_begun) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let gate = &gate;
        let downloading = scope.spawn(move || download(gate, &begun, &told));
        has_begun.recv_timeout(seconds(60)).unwrap();
        let cut = cluster.cut(Node::C1);
        let since = Instant::now();
        tell.send(()).unwrap();
        until(seconds(40), "the cut is noticed", || (session.show()["job"]["linked"] == false).then_some(()));
        eprintln!("it was noticed after {:?}", since.elapsed());
        let before = (counted(&terminal.screen()), counted(&exec.stdout()));
        // What is asked meanwhile is not left without an answer.
        let asked = gate.get("/");
        eprintln!("{} after {:?}: {}", asked.status, since.elapsed(), asked.text());
        assert!(matches!(asked.status, 502 | 504), "{asked:?}");
        // It is the time itself that is tested: connections that are silent for a minute are given up in many places.
        thread::sleep(seconds(60).saturating_sub(since.elapsed()));
        assert!(!downloading.is_finished());
        assert_eq!((counted(&terminal.screen()), counted(&exec.stdout())), before, "nothing comes through");
        assert_ne!(session.show()["state"], "ended");
        let joined = Instant::now();
        drop(cut);
        eprintln!("joining took {:?}", joined.elapsed());
        let goes_on = |what: &str, counted: &dyn Fn() -> usize, before: usize| {
            until(seconds(60), what, || (counted() > before).then_some(()));
            eprintln!("{what} {:?} after the join", joined.elapsed());
        };
        goes_on("the command goes on", &|| counted(&exec.stdout()), before.1);
        goes_on("the terminal goes on", &|| counted(&terminal.screen()), before.0);
        assert_eq!(gate.get("/").status, 200);
        let done =
            downloading.join().unwrap().unwrap_or_else(|error| panic!("{error}\n{}", session.diagnostics()));
        eprintln!("the download was there {:?} after the join", done - joined);
    });
    assert_eq!(session.show()["job"]["linked"], true);

    alice.own_file("end", "", 0o600);
    terminal.wait_for(seconds(20), "total ");
    exec.wait_for(seconds(20), "total ");
    for output in [terminal.screen(), exec.finish(seconds(10)).ok().stdout] {
        let total = output.rsplit("total ").next().unwrap().split_whitespace().next().unwrap();
        assert_eq!(counted(&output).to_string(), total);
        // Twenty a second at the least, and it has gone on while it was not heard.
        assert!(counted(&output) > 60 * 20, "{total}");
    }
    session.session.stop();
    assert_ne!(terminal.finish(seconds(10)), 0);
    session.wait_until_nothing_is_left(seconds(10));
}

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

pub(crate) fn a_host_that_is_stopped_for_a_while_goes_on(site: &Site) {
    let alice = &site.alice;
    let cluster = OwnCluster::new(&[]);
    let session = start_bare(&cluster, alice, "job", &[], &["+mark=here"]);
    let gate = session.session.signed_in();
    let end = alice.home.join("end");
    let exec =
        Running::spawn(alice.shlogin_command(&["exec", "job", "--", "bash", "-c", &count_until(&end)]));
    exec.wait_for(seconds(20), "\nn20\n");
    let host = session.process("@host");
    kill(host, Signal::SIGSTOP).unwrap();
    let stopped = Instant::now();
    until(seconds(60), "the silence is noticed", || (session.show()["job"]["linked"] == false).then_some(()));
    eprintln!("the silence was noticed after {:?}", stopped.elapsed());
    let before = counted(&exec.stdout());
    kill(host, Signal::SIGCONT).unwrap();
    let goes_on = Instant::now();
    until(seconds(30), "the command goes on", || (counted(&exec.stdout()) > before).then_some(()));
    eprintln!("it goes on {:?} after SIGCONT", goes_on.elapsed());
    session.wait_for_app(seconds(5), &gate, "here");
    alice.own_file("end", "", 0o600);
    let output = exec.finish(seconds(20)).ok().stdout;
    assert!(output.ends_with(&format!("total {}\n", counted(&output))), "{output}");
    session.session.stop();
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
