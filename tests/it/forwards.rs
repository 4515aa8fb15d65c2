//! What ssh forwards: into the session's network and to its sockets, out of it, and the agent.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use super::harness::{Site, seconds, ssh::Ssh, until};

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn wait_for(port: u16) {
    until(seconds(10), "the port is listened on", || TcpStream::connect(("127.0.0.1", port)).ok());
}

pub(crate) fn the_app_is_reached_by_every_kind_of_forward(site: &Site) {
    let session = site.alice.start_bare("box", &[], &[]);
    let ssh = Ssh::as_owner(&session, "");
    let app = session.app_port();
    let port = free_port();
    let running = ssh.with(&["-N", "-L", &format!("{port}:localhost:{app}")]).start(&[]);
    wait_for(port);
    site.alice.run(&["curl", "-sf", &format!("http://127.0.0.1:{port}/report")]).ok();
    drop(running);
    let port = free_port();
    let _running = ssh.with(&["-N", "-D", &port.to_string()]).start(&[]);
    wait_for(port);
    let (proxy, url) = (format!("socks5h://127.0.0.1:{port}"), format!("http://localhost:{app}/report"));
    site.alice.run(&["curl", "-sf", "-x", &proxy, &url]).ok();
    // What listens on the node is not reached: the session has a loopback of its own.
    let node = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = format!("127.0.0.1:{}", node.local_addr().unwrap().port());
    ssh.with(&["-W", &elsewhere]).run(&[]).ended_with(255).says("Connection refused");
    ssh.line(&format!(
        "printf 'GET /report HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' | ssh -W localhost:{app} $HOST | head -1"
    ))
    .ok()
    .says("200");
}

pub(crate) fn a_program_inside_reaches_the_client(site: &Site) {
    let session = site.alice.start_bare("box", &[], &[]);
    let ssh = Ssh::as_owner(&session, "");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut said = String::new();
            // Half of the connection ends before the other half begins.
            stream.read_to_string(&mut said).unwrap();
            stream.write_all(format!("heard {said}").as_bytes()).unwrap();
        }
    });
    let client = "import socket,sys\ns=socket.create_connection((sys.argv[1],int(sys.argv[2])))\ns.sendall(b'you')\ns.shutdown(1)\nprint(s.recv(99).decode())";
    site.alice.own_file("client.py", client, 0o600);
    let inside = ssh.with(&["-R", &format!("4711:127.0.0.1:{port}"), "-o", "ExitOnForwardFailure=yes"]);
    inside
        .run(&["python3 client.py 127.0.0.1 4711; python3 client.py ::1 4711"])
        .ok()
        .says("heard you\nheard you");
    // A port of the server's choice, said to the client; it is gone with the connection.
    let chosen = ssh.with(&["-R", &format!("0:127.0.0.1:{port}")]).run(&["sleep 0"]).ok();
    chosen.says("Allocated port ");
    ssh.run(&["python3 client.py 127.0.0.1 4711"]).ended_with(1).says("refused");
    assert!(TcpStream::connect("127.0.0.1:4711").is_err(), "on the node there is nothing");
}

pub(crate) fn unix_sockets_go_both_ways_and_leave_nothing(site: &Site) {
    let session = site.alice.start_bare("box", &[], &[]);
    let ssh = Ssh::as_owner(&session, "");
    let serve = "import socket\ns=socket.socket(socket.AF_UNIX)\ns.bind('/tmp/inside')\ns.listen()\nprint('ready',flush=True)\nwhile True:\n c,_=s.accept()\n c.sendall(b'from inside')\n c.close()";
    site.alice.own_file("serve.py", serve, 0o600);
    let ask = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\nprint(s.recv(99).decode())";
    site.alice.own_file("ask.py", ask, 0o600);
    let outside = ssh.home("outside").display().to_string();
    let server = ssh.with(&["-L", &format!("{outside}:/tmp/inside")]).start(&["python3 -u serve.py"]);
    server.wait_for(seconds(10), "ready");
    site.alice.run(&["python3", "ask.py", &outside]).ok().says("from inside");
    let back = ssh.with(&["-R", &format!("/tmp/back:{outside}"), "-o", "ExitOnForwardFailure=yes"]);
    back.run(&["python3 ask.py /tmp/back; stat -c %a /tmp/back"]).ok().says("from inside\n600");
    ssh.run(&["test -e /tmp/back"]).ended_with(1);
}

pub(crate) fn the_agent_is_there_for_the_connection_and_for_its_owner_alone(site: &Site) {
    let session = site.alice.start_bare("box", &[], &[]);
    let ssh = Ssh::as_owner(&session, "");
    let script = "ssh -A $HOST 'ssh-add -l; echo at $SSH_AUTH_SOCK; stat -c %a $SSH_AUTH_SOCK $(dirname $SSH_AUTH_SOCK)'";
    let said = ssh
        .line(&format!(
            "eval $(ssh-agent) >/dev/null; ssh-add -q .ssh/id_ed25519; {script}; kill $SSH_AGENT_PID"
        ))
        .ok();
    assert!(said.stdout.contains("ED25519") && said.stdout.ends_with("600\n700\n"), "{said:?}");
    let at = said.stdout.lines().find_map(|line| line.strip_prefix("at ")).unwrap();
    ssh.run(&[&format!("test -e $(dirname {at})")]).ended_with(1);
    // Not for whom it was not asked for, or not allowed.
    assert!(!ssh.run(&["echo at $SSH_AUTH_SOCK"]).ok().stdout.contains("/tmp/ssh-"));
    let ssh = Ssh::as_owner(&session, "no-agent-forwarding");
    let said = ssh
        .line("eval $(ssh-agent) >/dev/null; ssh -A $HOST 'echo at $SSH_AUTH_SOCK'; kill $SSH_AGENT_PID")
        .ok();
    assert!(!said.stdout.contains("/tmp/ssh-"), "{said:?}");
}

/// Twenty channels of one connection with a hundred megabytes each, at once; and a thousand commands, each with its status.
pub(crate) fn many_channels_share_a_connection(site: &Site) {
    let session = site.alice.start_bare("box", &[], &[]);
    let ssh = Ssh::as_owner(&session, "");
    ssh.line(
        "head -c 100000000 /dev/urandom > data; sum=$(sha256sum < data)
         ssh -o ControlPath=~/c -M -N -f $HOST
         for n in $(seq 10); do
           (test \"$(ssh -o ControlPath=~/c $HOST 'cat data' | sha256sum)\" = \"$sum\" || echo wrong down) & jobs+=($!)
           (test \"$(ssh -o ControlPath=~/c $HOST 'sha256sum' < data)\" = \"$sum\" || echo wrong up) & jobs+=($!)
         done
         wait \"${jobs[@]}\"; ssh -o ControlPath=~/c -O exit $HOST; echo done",
    )
    .ok()
    .is("done\n");
    ssh.line(
        "ssh -o ControlPath=~/d -M -N -f $HOST
         for n in $(seq 1000); do
           ssh -o ControlPath=~/d $HOST \"exit $((n%256))\"; test $? = $((n%256)) || echo wrong $n
         done
         ssh -o ControlPath=~/d -O exit $HOST; echo done",
    )
    .ok()
    .is("done\n");
}

pub(crate) fn without_a_network_of_its_own_nothing_is_forwarded_over_tcp(site: &Site) {
    let words = [
        "-c",
        "import os,socket\ns=socket.socket(socket.AF_UNIX)\ns.bind(os.environ['SHLOGIN_SOCKET'])\ns.listen()\nwhile True:\n c,_=s.accept()\n c.recv(999)\n c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n')\n c.close()",
    ];
    let session = site.alice.start(&[
        "--name",
        "box",
        "--isolation",
        "socket",
        "--",
        "/usr/bin/python3",
        words[0],
        words[1],
    ]);
    let ssh = Ssh::as_owner(&session, "");
    ssh.run(&["echo in"]).ok().says("in");
    ssh.with(&["-W", "127.0.0.1:22"]).run(&[]).ended_with(255).says("no network of its own");
    ssh.with(&["-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1"]).run(&["true"]).ended_with(255);
}
