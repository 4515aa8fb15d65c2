//! All ways into a session whose app runs in a Slurm job: what one does with a session of the login node, one does with it.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use serde_json::json;

use crate::harness::{
    Running, Session, Site, User, cluster::Cluster, http::Gate, page::Page, place::place, program::Output,
    seconds, ssh::Ssh, terminal::Terminal, until,
};

const ISOLATED: [&str; 4] = ["-w", "c1", "--network", "isolated"];

/// A shell line of hers in which `$S` is the program.
fn line(user: &User, line: &str) -> Output {
    let mut command = user.command("bash");
    command.args(["-c", line]).env("S", place().program());
    Running::spawn(command).finish(seconds(120))
}

pub(crate) fn every_command_reaches_a_session_in_a_job(site: &Site) {
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let bare = cluster.start_bare(alice, "bare", &ISOLATED, &["+say=one", "+complain=two"]);
    let image =
        cluster.start_image(alice, "tiny", &["--name", "image", "-w", "c2", "--network", "isolated"], &[]);
    let url = alice.shlogin(&["url", "bare"]).ok().stdout;
    assert_eq!(Gate::to(url.trim()).sign_in(url.trim()).status, 303);

    let follow = Running::spawn(alice.shlogin_command(&["logs", "-f", "bare"]));
    for said in ["one\n", "two\n", "tiny listens on"] {
        follow.wait_for(seconds(10), said);
        alice.shlogin(&["logs", "bare"]).ok().says(said);
    }
    for name in ["bare", "image"] {
        commands_end_as_they_do(alice, name);
    }
    alice.shlogin(&["exec", "image", "--", "test", "-f", "/opt/tiny/app.py"]).ok();
    assert_eq!(alice.shlogin(&["exec", "bare", "--", "uname", "-n"]).ok().stdout, "c1\n");
    streams_go_both_ways(alice);
    two_hundred_commands_end_each_with_its_own_status(alice);
    a_shell_has_a_terminal(alice);
    bare.stop();
    follow.finish(seconds(10)).ok();
    alice.shlogin(&["logs", "bare"]).ok().says("tiny listens on");
    alice.shlogin(&["exec", "bare", "--", "true"]).ended_with(116);
    image.stop();
    cluster.wait_until_nothing_is_left(seconds(15), alice);
}

fn commands_end_as_they_do(alice: &User, name: &str) {
    let run = |words: &[&str]| alice.shlogin(&[&["exec", name, "--"], words].concat());
    for status in [0, 1, 7, 126, 127, 255] {
        run(&["sh", "-c", &format!("exit {status}")]).ended_with(status);
    }
    run(&["sh", "-c", "kill -9 $$"]).ended_with(137);
    run(&["sh", "-c", "kill -TERM $$"]).ended_with(143);
    let both = run(&["sh", "-c", "echo out; echo err >&2; exit 3"]).ended_with(3);
    assert_eq!((both.stdout.as_str(), both.stderr.as_str()), ("out\n", "err\n"), "{name}");
    run(&["printf", "%s|", "a b", "it's", "two\nlines", ""]).ok().is("a b|it's|two\nlines||");
    let fetch =
        "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8080/').read().decode())";
    run(&["python3", "-c", fetch]).ok().is("tiny\n");
}

/// What is not there, and what cannot be run, as a shell would say it; from a file, from a pipe and to its end.
fn streams_go_both_ways(alice: &User) {
    alice.shlogin(&["exec", "bare", "--", "no-such-command"]).ended_with(127);
    alice.shlogin(&["exec", "bare", "--", "/etc/passwd"]).ended_with(126);
    line(alice, "head -c 50000000 /dev/urandom > data; sha256sum < data > sum").ok();
    for way in [
        "$S exec bare -- cat < data | sha256sum",
        "cat data | $S exec bare -- sha256sum",
        "$S exec bare -- cat data | sha256sum",
        "cat data | $S exec image -- cat | sha256sum",
        "$S exec bare -- sh -c 'cat >&2' < data 2>&1 >/dev/null | sha256sum",
    ] {
        line(alice, &format!("set -o pipefail; {way} | cmp - sum")).ok();
    }
    line(alice, "echo one | $S exec bare -- sh -c 'cat; echo two' | tr '\\n' ' '").ok().is("one two ");
    line(alice, "$S exec bare -- wc -c < /dev/null").ok().is("0\n");
    // A reader that goes early ends what writes for ever.
    line(alice, "$S exec bare -- yes | head -n 2").ok().is("y\ny\n");
    let running = |what: &str| alice.shlogin(&["exec", "bare", "--", "pgrep", "-x", what]).code() == 0;
    until(seconds(10), "what nobody reads any more has ended", || (!running("yes")).then_some(()));
}

fn two_hundred_commands_end_each_with_its_own_status(alice: &User) {
    line(
        alice,
        "seq 200 | xargs -P 8 -I {} sh -c \
         '$S exec bare -- sh -c \"echo {}; exit $(({} % 256))\" > said-{}; \
          test $? = $(({} % 256)) && test \"$(cat said-{})\" = {} || echo wrong {}'; echo done",
    )
    .ok()
    .is("done\n");
}

fn a_shell_has_a_terminal(alice: &User) {
    let terminal = Terminal::shlogin(alice, &["exec", "bare", "--", "sh", "-c", "tty; stty size; exit 5"]);
    terminal.wait_for(seconds(15), "24 80");
    assert!(!terminal.screen().contains("not a tty"), "{}", terminal.screen());
    assert_eq!(terminal.finish(seconds(10)), 5);
    for name in ["bare", "image"] {
        let mut terminal = Terminal::shlogin(alice, &["shell", name]);
        terminal.keys("echo $((6 * 7))-$(uname -n)\r");
        terminal.wait_for(seconds(15), if name == "bare" { "42-c1" } else { "42-c2" });
        terminal.resize(30, 100);
        terminal.keys("until stty size | grep '30 100'; do sleep 0.02; done\r");
        terminal.wait_for(seconds(10), "30 100\r\n");
        terminal.begin_and_interrupt();
        terminal.keys("exit 6\r");
        assert_eq!(terminal.finish(seconds(10)), 6, "{name}");
    }
}

pub(crate) fn ssh_and_all_that_stands_on_it_reach_a_session_in_a_job(site: &Site) {
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let session = cluster.start_bare(alice, "box", &ISOLATED, &[]);
    alice.shlogin(&["ssh", "box", "echo", "$SLURMD_NODENAME"]).ok().is("c1\n");
    let ssh = Ssh::as_owner(&session, "");
    for status in [0, 1, 77, 255] {
        ssh.run(&[&format!("exit {status}")]).ended_with(status);
    }
    ssh.run(&["kill -9 $$"]).ended_with(255);
    let said = ssh.run(&["echo out; echo error >&2; exit 3"]).ended_with(3);
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("out\n", "error\n"));
    ssh.run(&["/nonexistent/program"]).ended_with(127);
    ssh.line("head -c 20000000 /dev/urandom > up; ssh $HOST cat < up | cmp - up").ok();
    ssh.line("echo one | ssh $HOST 'cat; echo two' | tr '\\n' ' ' | grep -x 'one two '").ok();
    a_terminal_is_resized_and_interrupted(alice, &ssh);
    files_are_copied(&ssh);
    forwards_go_every_way(alice, &session, &ssh);
    ssh.line(
        "ssh -o ControlPath=~/c -M -N -f $HOST
         for n in 0 3 7 255; do ssh -o ControlPath=~/c $HOST \"exit $n\"; test $? = $n || echo wrong $n; done
         ssh -o ControlPath=~/c $HOST 'sleep 1000' < /dev/zero & sleeper=$!
         for n in 1 2; do ssh -o ControlPath=~/c $HOST 'head -c 5000000 /dev/zero' | wc -c; done
         kill $sleeper; ssh -o ControlPath=~/c -O exit $HOST",
    )
    .ok()
    .is("5000000\n5000000\n");
    session.stop();
    cluster.wait_until_nothing_is_left(seconds(15), alice);
}

fn a_terminal_is_resized_and_interrupted(alice: &User, ssh: &Ssh<'_>) {
    let words = ssh.words(&[
        "-t",
        "tty; until stty size | grep '30 100'; do sleep 0.02; done; read line; echo \"got $line\"; exit 5",
    ]);
    let mut terminal = Terminal::run(alice, &words.iter().map(String::as_str).collect::<Vec<_>>());
    terminal.wait_for(seconds(10), "/dev/pts/");
    terminal.resize(30, 100);
    terminal.wait_for(seconds(10), "30 100");
    terminal.keys("hello\r");
    terminal.wait_for(seconds(10), "got hello");
    assert_eq!(terminal.finish(seconds(10)), 5);
    let words = ssh.words(&[]);
    let mut terminal = Terminal::run(alice, &words.iter().map(String::as_str).collect::<Vec<_>>());
    terminal.keys("shopt -q login_shell && echo login-$((6*7))\r");
    terminal.wait_for(seconds(10), "login-42");
    terminal.begin_and_interrupt();
    terminal.keys("exit 9\r");
    assert_eq!(terminal.finish(seconds(10)), 9);
}

/// `/tmp` is the session's own, on the node: what comes back was there.
fn files_are_copied(ssh: &Ssh<'_>) {
    ssh.program();
    ssh.line("head -c 5000000 /dev/urandom > data; mkdir -p tree/a/b; echo text > tree/a/b/file; ln -s file tree/a/b/link").ok();
    for copy in [
        "scp -q -S ~/as-ssh data 127.0.0.1:/tmp/data && scp -q -S ~/as-ssh 127.0.0.1:/tmp/data back",
        "printf 'put data /tmp/other\\nget /tmp/other back\\n' | sftp -q -S ~/as-ssh -b - 127.0.0.1",
        "rsync -e ~/as-ssh data 127.0.0.1:/tmp/third && rsync -e ~/as-ssh 127.0.0.1:/tmp/third back",
    ] {
        ssh.line(&format!("rm -f back; {copy} && cmp data back")).ok();
    }
    ssh.line("rsync -a -e ~/as-ssh tree 127.0.0.1:/tmp/ && rsync -a -e ~/as-ssh 127.0.0.1:/tmp/tree/ again && diff -r tree again").ok();
    ssh.run(&["ls /tmp/data /tmp/other /tmp/third"]).ok();
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn wait_for(port: u16) {
    until(seconds(10), "the port is listened on", || TcpStream::connect(("127.0.0.1", port)).ok());
}

fn forwards_go_every_way(alice: &User, session: &Session<'_>, ssh: &Ssh<'_>) {
    let app = session.app_port();
    let (local, socks) = (free_port(), free_port());
    let forward = format!("{local}:localhost:{app}");
    let running = ssh.with(&["-N", "-L", &forward, "-D", &socks.to_string()]).start(&[]);
    wait_for(local);
    wait_for(socks);
    alice
        .run(&["curl", "-sf", &format!("http://127.0.0.1:{local}/report")])
        .ok()
        .says("\"SLURMD_NODENAME\": \"c1\"");
    let (proxy, url) = (format!("socks5h://127.0.0.1:{socks}"), format!("http://localhost:{app}/report"));
    alice.run(&["curl", "-sf", "-x", &proxy, &url]).ok().says("\"SLURMD_NODENAME\": \"c1\"");
    drop(running);
    // Neither the login node's loopback nor the compute node's is there.
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    ssh.with(&["-W", &elsewhere.to_string()]).run(&[]).ended_with(255).says("Connection refused");
    ssh.with(&["-W", "127.0.0.1:6818"]).run(&[]).ended_with(255).says("Connection refused");

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut said = String::new();
            stream.read_to_string(&mut said).unwrap();
            stream.write_all(format!("heard {said}").as_bytes()).unwrap();
        }
    });
    let client = "import socket,sys\ns=socket.create_connection((sys.argv[1],int(sys.argv[2])))\ns.sendall(b'you')\ns.shutdown(1)\nprint(s.recv(99).decode())";
    alice.own_file("client.py", client, 0o600);
    let inside = ssh.with(&["-R", &format!("4711:127.0.0.1:{port}"), "-o", "ExitOnForwardFailure=yes"]);
    inside.run(&["python3 client.py 127.0.0.1 4711"]).ok().is("heard you\n");
    ssh.run(&["python3 client.py 127.0.0.1 4711"]).ended_with(1).says("refused");

    let serve = "import socket\ns=socket.socket(socket.AF_UNIX)\ns.bind('/tmp/inside')\ns.listen()\nprint('ready',flush=True)\nwhile True:\n c,_=s.accept()\n c.sendall(b'from inside')\n c.close()";
    alice.own_file("serve.py", serve, 0o600);
    let ask = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\nprint(s.recv(99).decode())";
    alice.own_file("ask.py", ask, 0o600);
    let outside = ssh.home("outside").display().to_string();
    let server = ssh.with(&["-L", &format!("{outside}:/tmp/inside")]).start(&["python3 -u serve.py"]);
    server.wait_for(seconds(10), "ready");
    alice.run(&["python3", "ask.py", &outside]).ok().says("from inside");
    let back = ssh.with(&["-R", &format!("/tmp/back:{outside}"), "-o", "ExitOnForwardFailure=yes"]);
    back.run(&["python3 ask.py /tmp/back; stat -c %a /tmp/back"]).ok().says("from inside\n600");
    ssh.run(&["test -e /tmp/back"]).ended_with(1);

    let said = ssh.line(
        "eval $(ssh-agent) >/dev/null; ssh-add -q .ssh/id_ed25519
         ssh -A $HOST 'ssh-add -l; echo at $SSH_AUTH_SOCK; stat -c %a $SSH_AUTH_SOCK'; kill $SSH_AGENT_PID",
    );
    let said = said.ok();
    assert!(said.stdout.contains("ED25519") && said.stdout.ends_with("600\n"), "{said:?}");
    let at = said.stdout.lines().find_map(|line| line.strip_prefix("at ")).unwrap();
    until(seconds(10), "the agent goes with its connection", || {
        (ssh.run(&[&format!("test -e {at}")]).code() == 1).then_some(())
    });
}

/// The terminal page, and a colleague who watches, types, and is sent away.
pub(crate) fn a_terminal_in_a_job_is_used_and_shared(site: &Site) {
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let session = cluster.start_bare(alice, "shared", &ISOLATED, &[]);
    let mut owner = Page::open(&session.signed_in(), 1);
    owner.keys("PS1='$ '; echo on-$(uname -n); stty size\r");
    owner.wait_for("on-c1");
    owner.wait_for("30 100");
    owner.say(&json!({ "type": "resize", "size": { "cols": 70, "rows": 20 } }));
    owner.hear_of("size");
    // The size goes its own way, and may come after what is typed.
    owner.keys("until stty size | grep '20 70'; do sleep 0.02; done\r");
    owner.wait_for("20 70\r\n");

    let share = |options: &[&str]| {
        let shared = alice.shlogin(&[&["share", "--json", "shared"], options].concat()).ok().json();
        let url = shared["url"].as_str().unwrap();
        let mut gate = Gate::to(url);
        gate.sign_in(url);
        gate
    };
    let watcher = share(&["--as", "bob"]);
    let mut watches = Page::open(&watcher, 2);
    assert_eq!(watches.attached["access"], "view");
    watches.wait_for("on-c1");
    watches.keys("touch by-bob\r");
    let mut types = Page::open(&share(&["--type", "--yes", "--as", "carol"]), 3);
    types.keys("echo by-carol-$((6*7))\r");
    owner.wait_for("by-carol-42");
    watches.wait_for("by-carol-42");
    assert!(!owner.text().contains("by-bob"), "{}", owner.text());
    assert_eq!(watcher.get("/").status, 403);
    alice.shlogin(&["share", "shared", "--revoke", "--all"]).ok();
    assert!(types.until_closed() < seconds(5) && watches.until_closed() < seconds(5));

    owner.keys("exit 7\r");
    assert_eq!(owner.hear_of("ended")["summary"], "It ended with status 7.");
    assert!(!alice.home.join("by-bob").exists());
    // What is shown when the session ends is why.
    let mut last = Page::open(&session.signed_in(), 4);
    last.keys("echo st''ill\r");
    last.wait_for("still");
    session.stop();
    last.until_closed();
    assert!(fs::read_to_string(session.folder().join("log")).unwrap().contains("tiny listens on"));
    cluster.wait_until_nothing_is_left(seconds(15), alice);
}
