//! Into a session by ssh, with the real OpenSSH client: programs, their streams, and how they end.

use std::{fs, time::Instant};

use super::harness::{Site, seconds, ssh::Ssh, terminal::Terminal, until};

pub(crate) fn the_owner_s_own_process_needs_no_key(site: &Site) {
    let session = site.alice.start_bare("box", &[], &[]);
    let said = site.alice.shlogin(&["ssh", "box", "echo", "$SHLOGIN_NAME"]).ok();
    assert_eq!(said.stdout, "box\n", "{said:?}");
    site.alice.shlogin(&["ssh", "bo", "exit 77"]).ended_with(77);
    let program = super::harness::place::place().program().display().to_string();
    let config = site.alice.shlogin(&["ssh-config", "--here", "box"]).ok().stdout;
    site.alice.own_file("config", &config, 0o600);
    let ssh = ["ssh", "-F", "config", "-o", "BatchMode=yes", "box.shlogin", "id -un"];
    assert_eq!(site.alice.run(&ssh).ok().stdout.trim(), site.alice.name);
    let proxy = format!("ProxyCommand={program} ssh --stdio box");
    let ssh = ["ssh", "-F", "config", "-o", &proxy, "-o", "ProxyUseFdpass=no", "box.shlogin", "echo two"];
    assert_eq!(site.alice.run(&ssh).ok().stdout, "two\n");
    site.alice.shlogin(&["ssh", "nothing", "true"]).ended_with(116);
    drop(session);
}

pub(crate) fn a_key_opens_the_port_and_everything_comes_back_exactly(site: &Site) {
    let session = site.alice.start_bare("box", &[], &[]);
    let ssh = Ssh::as_owner(&session, "");
    for status in [0, 1, 77, 255] {
        ssh.run(&[&format!("exit {status}")]).ended_with(status);
    }
    ssh.run(&["kill -9 $$"]).ended_with(255);
    let said = ssh.run(&["echo out; echo error >&2; exit 3"]).ended_with(3);
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("out\n", "error\n"));
    ssh.run(&["/nonexistent/program"]).ended_with(127);
    // With `ssh` and a port of one's own, the fingerprint is what `show` prints.
    let shown = site.alice.shlogin(&["show", "box"]).ok();
    let line = site.alice.shlogin(&["known-hosts", "box"]).ok().stdout;
    let file = site.alice.own_file("line", &line, 0o600).display().to_string();
    let print = site.alice.run(&["ssh-keygen", "-l", "-f", &file]).ok().stdout;
    shown.says(print.split(' ').nth(1).unwrap());
}

pub(crate) fn streams_go_through_to_their_end(site: &Site) {
    let session = site.alice.start_bare("box", &[], &[]);
    let ssh = Ssh::as_owner(&session, "");
    ssh.line("head -c 5000000 /dev/urandom > up; ssh $HOST 'tee copy | sha256sum' < up > sum; sha256sum < up | cmp - sum && cmp up copy").ok();
    ssh.line("head -c 50000000 /dev/urandom > up; ssh -o RekeyLimit=1M $HOST cat < up | cmp - up").ok();
    // A reader that takes its time, at the end of everything.
    ssh.line(
        "head -c 60000000 /dev/zero | ssh $HOST cat | (read -t 1 x < /dev/zero; wc -c) | grep -x 60000000",
    )
    .ok();
    // The end of input reaches the program, and what it says afterwards comes back.
    ssh.line("echo one | ssh $HOST 'cat; echo two' | tr '\\n' ' ' | grep -x 'one two '").ok();
    // A program that reads nothing does not keep the others on its connection from anything.
    ssh.line(
        "ssh -o ControlPath=~/c -M -N -f $HOST
         ssh -o ControlPath=~/c $HOST 'sleep 1000' < /dev/zero & sleeper=$!
         for n in 1 2 3; do ssh -o ControlPath=~/c $HOST 'head -c 20000000 /dev/zero' | wc -c; done
         kill $sleeper; ssh -o ControlPath=~/c -O exit $HOST",
    )
    .ok()
    .says("20000000\n20000000\n20000000");
}

pub(crate) fn a_program_whose_client_has_gone_is_hung_up(site: &Site) {
    let session = site.alice.start_bare("box", &[], &[]);
    let ssh = Ssh::as_owner(&session, "");
    let running = ssh
        .start(&["trap 'echo hung up > ended; exit' HUP; echo ready; while :; do sleep 1 & wait $!; done"]);
    running.wait_for(seconds(10), "ready");
    drop(running);
    until(seconds(10), "the program hears of it", || {
        fs::read(ssh.home("ended")).ok().filter(|text| !text.is_empty())
    });
    let stubborn = ssh.start(&["trap '' HUP; echo $$ > pid; echo ready; while :; do sleep 1; done"]);
    stubborn.wait_for(seconds(10), "ready");
    drop(stubborn);
    let count = || ssh.run(&["pgrep -f 'echo [$][$] > pid' | wc -l"]).ok().stdout;
    until(seconds(20), "the program is killed", || (count().trim() == "0").then_some(()));
}

pub(crate) fn a_terminal_is_one(site: &Site) {
    let session = site.alice.start_bare("box", &[], &[]);
    let ssh = Ssh::as_owner(&session, "");
    let words = ssh.words(&["-t", "tty; stty size; echo $TERM; until stty size | grep '30 100'; do sleep 0.02; done; read line; echo \"got $line\"; exit 5"]);
    let mut terminal = Terminal::run(&site.alice, &words.iter().map(String::as_str).collect::<Vec<_>>());
    terminal.wait_for(seconds(10), "/dev/pts/");
    terminal.wait_for(seconds(10), "24 80");
    terminal.wait_for(seconds(10), "xterm");
    terminal.resize(30, 100);
    terminal.wait_for(seconds(10), "30 100");
    terminal.keys("hello\r");
    terminal.wait_for(seconds(10), "got hello");
    assert_eq!(terminal.finish(seconds(10)), 5);
    // Its modes are those of the terminal in front of the person.
    let line =
        ssh.words(&["-t", "stty -a"]).iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let terminal = Terminal::run(&site.alice, &["bash", "-c", &format!("stty erase ^H -ixon; {line}")]);
    terminal.wait_for(seconds(10), "erase = ^H");
    terminal.wait_for(seconds(10), "-ixon");
    assert_eq!(terminal.finish(seconds(10)), 0);
    // A login shell, interrupted and left as a person does.
    let words = ssh.words(&[]);
    let mut terminal = Terminal::run(&site.alice, &words.iter().map(String::as_str).collect::<Vec<_>>());
    terminal.keys("shopt -q login_shell && echo login-$((6*7))\r");
    terminal.wait_for(seconds(10), "login-42");
    let begun = Instant::now();
    terminal.begin_and_interrupt();
    terminal.keys("exit 9\r");
    assert_eq!(terminal.finish(seconds(10)), 9);
    assert!(begun.elapsed() < seconds(5));
}

pub(crate) fn threat_38_the_environment_is_what_it_may_be(site: &Site) {
    let session = site.alice.start_bare("box", &[], &[]);
    let ssh = Ssh::as_owner(&session, "environment=\"FROM_KEY=yes\"");
    let said = ssh
        .run(&["-o", "SetEnv=LANG=C.UTF-8 LC_TIME=C LD_PRELOAD=/evil.so BASH_ENV=/evil PATH=/evil", "env"])
        .ok();
    for line in ["LANG=C.UTF-8", "LC_TIME=C", "SHLOGIN_NAME=box"] {
        assert!(said.stdout.lines().any(|its| its == line), "{line} in {said:?}");
    }
    assert!(!said.stdout.contains("evil"), "{said:?}");
    assert!(said.stdout.contains("SSH_CONNECTION=127.0.0.1 "), "{said:?}");
    let odd = ssh.with(&["-tt"]);
    let mut command = odd.command(&["echo T=$TERM"]);
    command.env("TERM", "../../evil");
    let said = super::harness::Running::spawn(command).finish(seconds(30));
    said.ok().says("T=xterm\r");
}

pub(crate) fn nobody_else_gets_in(site: &Site) {
    let session = site.alice.start_bare("box", &[], &[]);
    let alice = Ssh::as_owner(&session, "");
    alice.run(&["true"]).ok();
    // Another key, another name, another user of this node with hers.
    let mallory = Ssh::with_key(&site.mallory, &session);
    mallory.run(&["true"]).ended_with(255).says("Permission denied (publickey,password)");
    alice
        .under_the_name(&site.mallory.name)
        .run(&["true"])
        .ended_with(255)
        .says("Permission denied (publickey,password)");
    // Whoever tries again and again is kept away, and she is not.
    let mut kept_away = false;
    for _ in 0..6 {
        let said = mallory.under_the_name("root").run(&["true"]).ended_with(255);
        kept_away = !said.stderr.contains("Permission denied");
    }
    assert!(kept_away);
    let control = session.show()["footprint"]["session"].as_str().unwrap().to_owned() + "/control";
    site.mallory.run(&["test", "-e", &control]).ended_with(1);
    // Keys that others could have put there do not count (threat 38).
    site.alice.run(&["chmod", "g+w", ".ssh/authorized_keys"]).ok();
    alice.run(&["true"]).ended_with(255);
    site.alice.run(&["chmod", "g-w", ".ssh/authorized_keys"]).ok();
    alice.run(&["true"]).ok();
}

/// In an image: its programs, its shell, its exit statuses, on a terminal and without one.
pub(crate) fn an_image_s_session_is_entered_as_well(site: &Site) {
    let session = site.alice.start_image("box", &[], &[]);
    let ssh = Ssh::as_owner(&session, "");
    ssh.run(&["test -d /.singularity.d && echo in $SHLOGIN_NAME; exit 7"]).ended_with(7).is("in box\n");
    ssh.line("head -c 3000000 /dev/urandom > up; ssh $HOST cat < up | cmp - up").ok();
    ssh.run(&["kill -9 $$"]);
    let words = ssh.words(&[]);
    let mut terminal = Terminal::run(&site.alice, &words.iter().map(String::as_str).collect::<Vec<_>>());
    terminal.keys("test -d /.singularity.d && echo image-$((6*7)); stty size; tty\r");
    terminal.wait_for(seconds(20), "image-42");
    terminal.wait_for(seconds(10), "24 80");
    terminal.wait_for(seconds(10), "/dev/pts/");
    terminal.keys("exit 9\r");
    assert_eq!(terminal.finish(seconds(10)), 9);
}

/// ssh is where the gateway is: at one address, or, with a socket in a private folder, at no port at all.
pub(crate) fn it_listens_where_the_gateway_does(site: &Site) {
    let answers = |address: &str, port: u64| {
        use std::io::Read;
        let port = u16::try_from(port).unwrap();
        let Ok(mut stream) = std::net::TcpStream::connect((address, port)) else { return false };
        stream.set_read_timeout(Some(seconds(5))).unwrap();
        let mut banner = [0; 8];
        stream.read_exact(&mut banner).is_ok() && &banner == b"SSH-2.0-"
    };
    let one = site.alice.start_bare("one", &["--listen", "127.0.0.1"], &[]);
    let port = one.show()["ssh"]["port"].as_u64().unwrap();
    assert!(answers("127.0.0.1", port) && !answers("127.0.0.2", port));
    let private = site.alice.start_bare("private", &["--listen", "unix"], &[]);
    let record = private.show();
    assert!(record["ssh"]["port"].is_null(), "{record:#}");
    assert!(!answers("127.0.0.1", record["gateway"]["port"].as_u64().unwrap() - 1));
    assert_eq!(site.alice.shlogin(&["ssh", "private", "echo in"]).ok().stdout, "in\n");
}

/// In place of a key: her own password, asked of PAM in a process of its own; or a token of the session's, once.
pub(crate) fn a_password_or_a_token_opens_as_well(site: &Site) {
    let session = site.alice.start_bare("box", &[], &[]);
    let by = |password: &str| Ssh::with_key(&site.alice, &session).with_password(password).run(&["echo in"]);
    let set = format!("echo '{}:a password of hers' | chpasswd", site.alice.name);
    super::harness::sh(&["sh", "-c", &set]);
    by("a password of hers").ok().is("in\n");
    by("another password").ended_with(255).says("Permission denied");
    let url = site.alice.shlogin(&["url", "box"]).ok().stdout;
    let token = url.trim().split("token=").nth(1).unwrap();
    by(token).ok().is("in\n");
    by(token).ended_with(255).says("Permission denied");
    // Hers does not do for another name, nor does another's for hers.
    let set = format!("echo '{}:of another' | chpasswd", site.mallory.name);
    super::harness::sh(&["sh", "-c", &set]);
    let other = Ssh::with_key(&site.mallory, &session);
    other.with_password("of another").run(&["true"]).ended_with(255);
    let named = other.with_password("of another").under_the_name(&site.mallory.name);
    named.run(&["true"]).ended_with(255);
    let log = session.show()["log"].as_str().unwrap().replace("/log", "/shlogin.log");
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("lets the owner in: by her password") && log.contains("by a token"), "{log}");
    for secret in ["a password of hers", "another password", token] {
        assert!(!log.contains(secret), "{log}");
    }
}

/// A certificate that a key in her `authorized_keys` has signed, for her name, and no other.
pub(crate) fn a_certificate_opens_what_it_is_for(site: &Site) {
    let session = site.alice.start_bare("box", &[], &[]);
    let ssh = Ssh::with_key(&site.alice, &session);
    let alice = &site.alice;
    alice.run(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "authority"]).ok();
    let authority = fs::read_to_string(alice.home.join("authority.pub")).unwrap();
    alice.own_file(".ssh/authorized_keys", &format!("cert-authority {authority}"), 0o600);
    ssh.run(&["true"]).ended_with(255);
    let sign = |options: &[&str]| {
        let words =
            [&["ssh-keygen", "-q", "-s", "authority", "-I", "an id"], options, &[".ssh/id_ed25519.pub"]]
                .concat();
        alice.run(&words).ok();
    };
    sign(&["-n", "somebody"]);
    ssh.run(&["true"]).ended_with(255);
    sign(&["-n", &alice.name, "-V", "-2h:-1h"]);
    ssh.run(&["true"]).ended_with(255);
    sign(&["-n", &alice.name, "-V", "+1h"]);
    ssh.run(&["echo in"]).ok().is("in\n");
    sign(&["-n", &alice.name, "-O", "force-command=echo forced", "-O", "no-port-forwarding"]);
    ssh.run(&["echo in"]).ok().is("forced\n");
    ssh.with(&["-W", &format!("127.0.0.1:{}", session.app_port())]).run(&[]).ended_with(255);
}

pub(crate) fn what_a_key_is_for_is_all_it_does(site: &Site) {
    let session = site.alice.start_bare("box", &[], &[]);
    let ssh = Ssh::as_owner(&session, "restrict,command=\"echo forced [$SSH_ORIGINAL_COMMAND]\"");
    let said = ssh.run(&["rm -rf /"]).ok();
    assert_eq!(said.stdout, "forced [rm -rf /]\n");
    ssh.with(&["-tt"]).run(&["true"]).says("PTY allocation request failed");
    let app = session.app_port();
    ssh.with(&["-W", &format!("127.0.0.1:{app}")]).run(&[]).ended_with(255);
    ssh.with(&["-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1"]).run(&["true"]).ended_with(255);
}

pub(crate) fn files_are_copied_by_all_that_stands_on_ssh(site: &Site) {
    let session = site.alice.start_bare("box", &[], &[]);
    let ssh = Ssh::as_owner(&session, "");
    let program = ssh.program();
    ssh.line("head -c 5000000 /dev/urandom > data; mkdir -p tree/a/b; echo text > tree/a/b/file; ln -s file tree/a/b/link").ok();
    for copy in [
        "scp -q -S ~/as-ssh data 127.0.0.1:/tmp/data && scp -q -S ~/as-ssh 127.0.0.1:/tmp/data back",
        "scp -q -O -S ~/as-ssh data 127.0.0.1:/tmp/data && scp -q -O -S ~/as-ssh 127.0.0.1:/tmp/data back",
        "echo 'put data /tmp/other\nget /tmp/other back' | sed 's/\\\\n/\\n/' | sftp -q -S ~/as-ssh -b - 127.0.0.1",
        "rsync -e ~/as-ssh data 127.0.0.1:/tmp/third && rsync -e ~/as-ssh 127.0.0.1:/tmp/third back",
    ] {
        ssh.line(&format!("rm -f back; {copy} && cmp data back")).ok();
    }
    ssh.line("rsync -a -e ~/as-ssh tree 127.0.0.1:/tmp/ && rsync -a -e ~/as-ssh 127.0.0.1:/tmp/tree/ again && diff -r tree again").ok();
    ssh.line(
        "git init -q repo && cd repo && git config user.email a@b && git config user.name a && cp ../data . && git add . &&
         git commit -qm one && cd .. && GIT_SSH_COMMAND=~/as-ssh git clone -q ssh://127.0.0.1$PWD/repo clone && cmp data clone/data",
    )
    .ok();
    drop(program);
}

/// What an editor's remote part does: a script on a shell's input puts a server in place that outlives it, and the editor
/// reaches it through the same connection, with many channels.
pub(crate) fn an_editor_s_server_lives_on_and_is_reached(site: &Site) {
    let session = site.alice.start_bare("box", &[], &[]);
    let ssh = Ssh::as_owner(&session, "");
    site.alice.own_file("install.sh", "mkdir -p ~/.editor\nnohup python3 -u ~/serve.py > ~/.editor/log 2>&1 < /dev/null &\nuntil test -S /tmp/editor; do :; done\necho listening\n", 0o600);
    site.alice.own_file("serve.py", "import socket\ns=socket.socket(socket.AF_UNIX)\ns.bind('/tmp/editor')\ns.listen(64)\nwhile True:\n c,_=s.accept()\n c.sendall(c.recv(99)[::-1])\n c.close()", 0o600);
    site.alice.own_file("ask.py", "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\ns.sendall(b'abc')\nprint(s.recv(99).decode())", 0o600);
    ssh.line("ssh -T $HOST bash < install.sh").ok().says("listening");
    let outside = ssh.home("editor").display().to_string();
    let _running = ssh.with(&["-N", "-L", &format!("{outside}:/tmp/editor")]).start(&[]);
    until(seconds(10), "the socket is forwarded", || fs::symlink_metadata(&outside).ok());
    let said =
        site.alice.run(&["bash", "-c", "for n in $(seq 50); do python3 ask.py editor & done; wait"]).ok();
    assert_eq!(said.stdout.matches("cba").count(), 50, "{said:?}");
}

/// Threat 36: strangers who say nothing, too much, or nonsense.
pub(crate) fn threat_36_strangers_are_cut_off(site: &Site) {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };
    site.alice.own_file(".config/shlogin/config.toml", "[ssh]\nlogin_grace = \"2s\"\n", 0o600);
    let session = site.alice.start_bare("box", &[], &[]);
    let ssh = Ssh::as_owner(&session, "");
    let port = u16::try_from(session.show()["ssh"]["port"].as_u64().unwrap()).unwrap();
    let memory = || super::harness::census::resident(session.pid());
    let before = memory();
    let ends = |what: &str, mut stream: TcpStream| {
        stream.set_read_timeout(Some(seconds(10))).unwrap();
        let mut answer = Vec::new();
        // Closed, in order or not.
        if let Err(error) = stream.read_to_end(&mut answer) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{what}");
        }
        assert!(answer.len() < 4096, "{what}");
    };
    let connect = || TcpStream::connect(("127.0.0.1", port)).unwrap();
    let idle: Vec<_> = (0..500).map(|_| connect()).collect();
    let mut endless = connect();
    // It is cut off long before it has said all that.
    let _ = (0..10_000).try_for_each(|_| endless.write_all(&[b'x'; 1024]));
    ends("an endless banner", endless);
    let mut huge = connect();
    let _ = huge.write_all(b"SSH-2.0-x\r\n\xff\xff\xff\xff");
    ends("a huge packet", huge);
    // Meanwhile the owner gets in.
    let begun = Instant::now();
    ssh.run(&["true"]).ok();
    assert!(begun.elapsed() < seconds(5));
    idle.into_iter().for_each(|stream| ends("silence", stream));
    assert!(memory() < before + 64 * 1024 * 1024, "{} after {before}", memory());
}
