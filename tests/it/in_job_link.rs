//! What becomes of a session in a job when the link between its node and its gateway stands still.

use std::{
    io,
    io::{ErrorKind, Read, Write},
    sync::mpsc,
    thread,
    time::Instant,
};

use nix::sys::signal::{Signal, kill};

use crate::harness::{
    Running, Site,
    cluster::{Node, OwnCluster},
    http::{Gate, Wire},
    seconds,
    terminal::Terminal,
    until,
    watched_job::{start, start_bare},
};

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
