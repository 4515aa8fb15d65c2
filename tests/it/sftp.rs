//! A session's files over SFTP, by OpenSSH's client: `sftp -D` speaks to a server without any ssh in between.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Stdio};

use nix::{fcntl::OFlag, sys::signal::Signal, unistd::pipe2};

use crate::harness::{Running, Site, User, place::place, program::Output, seconds, until};

const ISOLATED: [&str; 2] = ["--network", "isolated"];

fn sftp_words(session: &str) -> [String; 4] {
    let server = format!("{} sftp-server {session}", place().program().display());
    ["sftp".into(), "-q".into(), "-D".into(), server]
}

impl User {
    /// Does these commands of `sftp(1)` in a session, up to the first that fails.
    fn sftp(&self, session: &str, commands: &[&str]) -> Output {
        let batch = self.own_file("batch", &commands.join("\n"), 0o600).display().to_string();
        let [sftp, quiet, direct, server] = sftp_words(session);
        self.run(&[&sftp, &quiet, "-b", &batch, &direct, &server])
    }

    /// A client that waits for commands, until the descriptor is closed.
    fn waiting_sftp(&self, session: &str) -> (Running, std::os::fd::OwnedFd) {
        let words = sftp_words(session);
        let (input, keep) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let mut command = self.command(&words[0]);
        command.args(&words[1..]).stdin(Stdio::from(input));
        let running = Running::spawn(command);
        until(seconds(5), "its server", || (self.sftp_servers() == 1).then_some(()));
        (running, keep)
    }

    fn sftp_servers(&self) -> usize {
        self.processes().iter().filter(|process| process.role() == "@sftp").count()
    }
}

pub(crate) fn files_go_in_and_out_of_a_session(site: &Site) {
    let alice = &site.alice;
    alice.start_bare("files", &ISOLATED, &[]);
    let random: Vec<u8> =
        (0..5_000_011_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let local = alice.own_file("local", "", 0o640);
    fs::write(&local, &random).unwrap();
    let name = &local.display().to_string();
    alice
        .sftp(
            "files",
            &[
                "mkdir /tmp/d",
                &format!("put -p {name} /tmp/d/there"),
                "chmod 600 /tmp/d/there",
                "rename /tmp/d/there /tmp/d/renamed",
                "ln -s renamed /tmp/d/link",
                "ln /tmp/d/renamed /tmp/d/hard",
                &format!("get -p /tmp/d/link {name}.back"),
                "copy /tmp/d/renamed /tmp/d/copied",
            ],
        )
        .ok();
    assert!(!Path::new("/tmp/d").exists(), "the session's /tmp is its own");
    let stat = alice
        .shlogin(&["exec", "files", "--", "stat", "-c", "%a %h %s %N", "/tmp/d/renamed", "/tmp/d/link"])
        .ok();
    assert_eq!(stat.stdout, "600 2 5000011 '/tmp/d/renamed'\n777 1 7 '/tmp/d/link' -> 'renamed'\n");
    assert!(fs::read(alice.home.join("local.back")).unwrap() == random, "what came back");
    alice.shlogin(&["exec", "files", "--", "cmp", name, "/tmp/d/copied"]).ok();
    let modified = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    let whole = |path| modified(path).duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(whole(&local), whole(&alice.home.join("local.back")));

    // What was broken off half-way goes on where it stopped.
    fs::write(alice.home.join("local.back"), &random[..1_234_567]).unwrap();
    alice.sftp("files", &[&format!("reget /tmp/d/renamed {name}.back")]).ok();
    assert!(fs::read(alice.home.join("local.back")).unwrap() == random, "what was got in two parts");

    // A new file has the person's umask, and a name that is taken is taken over.
    fs::set_permissions(&local, fs::Permissions::from_mode(0o666)).unwrap();
    let listed =
        alice.sftp("files", &[&format!("put {name} n"), "rename n n2", "ls -l n2", "df -h /tmp"]).ok();
    assert!(listed.stdout.contains("-rw-r--r--") && listed.stdout.contains(&alice.name), "{listed:?}");
    assert!(listed.stdout.contains("%Capacity"), "{listed:?}");
    alice.sftp("files", &["rm /tmp/d/*", "rmdir /tmp/d"]).ok();
    alice.shlogin(&["exec", "files", "--", "test", "!", "-e", "/tmp/d"]).ok();
}

pub(crate) fn what_cannot_be_done_is_told(site: &Site) {
    let alice = &site.alice;
    alice.start_bare("told", &ISOLATED, &[]);
    alice.own_file("batch", "", 0o600);
    for (command, why) in [
        ("get /nowhere/to/be/found", "not found"),
        ("ls /nowhere", "not found"),
        ("put batch /etc/of-root", "Permission denied"),
        ("mkdir /etc/of-root", "Permission denied"),
        ("rm /etc/passwd", "Permission denied"),
        ("chown 0 batch", "Permission denied"),
        ("rmdir /tmp/none", "No such file"),
        ("rmdir /", "Failure"),
        ("rename batch /nowhere/x", "No such file"),
        ("ln -s x batch", "Failure"),
        ("cd batch", "not a directory"),
    ] {
        alice.sftp("told", &[command]).ended_with(1).says(why);
    }
    alice.shlogin(&["sftp-server", "nobody"]).ended_with(116);
    site.mallory.shlogin(&["sftp-server", "told"]).ended_with(116);
}

pub(crate) fn a_large_folder_is_listed_and_any_name_is_a_name(site: &Site) {
    use std::os::unix::ffi::OsStringExt;
    let alice = &site.alice;
    alice.start_bare("large", &ISOLATED, &[]);
    let folder = alice.home.join("many");
    alice.own_folder(&folder, 0o700);
    for number in 0..5_000 {
        fs::write(folder.join(format!("file-{number}")), "").unwrap();
    }
    let listed = alice.sftp("large", &["ls -1 many"]).ok();
    let names: std::collections::HashSet<_> =
        listed.stdout.lines().filter(|line| line.starts_with("many/file-")).collect();
    assert_eq!(names.len(), 5_000);

    // One that is not UTF-8, beside the one that it would become as text.
    let odd = folder.join(std::ffi::OsString::from_vec(b"odd-\xff".to_vec()));
    fs::write(&odd, "odd").unwrap();
    fs::write(folder.join("odd-\u{fffd}"), "text").unwrap();
    alice.sftp("large", &["rm many/odd-?"]).ok();
    assert!(!odd.exists(), "what a pattern found is what is removed");
}

pub(crate) fn an_image_s_files_are_served_and_the_node_s_are_not(site: &Site) {
    let alice = &site.alice;
    alice.own_file("data/answer", "forty-two", 0o600);
    let bind = format!("{}:/mnt", alice.home.join("data").display());
    alice.start_image("sealed", &[&ISOLATED[..], &["--bind", &bind]].concat(), &[]);
    alice.shlogin(&["exec", "sealed", "--", "sh", "-c", "echo inside > /tmp/of-app"]).ok();
    let seen = alice
        .sftp(
            "sealed",
            &[
                "pwd",
                "ls /.singularity.d",
                "ls /opt/tiny",
                "get /mnt/answer got",
                "get /tmp/of-app app",
                "put got /tmp/of-client",
            ],
        )
        .ok();
    assert!(seen.stdout.contains(&alice.home.display().to_string()), "{seen:?}");
    assert!(seen.stdout.contains("/.singularity.d/startscript"), "{seen:?}");
    assert_eq!(fs::read_to_string(alice.home.join("got")).unwrap(), "forty-two");
    assert_eq!(fs::read_to_string(alice.home.join("app")).unwrap(), "inside\n");
    alice.shlogin(&["exec", "sealed", "--", "cat", "/tmp/of-client"]).ok().says("forty-two");
    let node = place().program().display().to_string();
    assert!(Path::new(&node).exists());
    alice.sftp("sealed", &[&format!("ls {node}")]).ended_with(1).says("not found");
    alice.sftp("sealed", &["put got /opt/tiny/new"]).ended_with(1).says("dest open");
    // It joined with every capability over the container, and kept none.
    let (client, keep) = alice.waiting_sftp("sealed");
    let server = alice.processes().into_iter().find(|process| process.role() == "@sftp").unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid)).unwrap();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(status.contains(&format!("{set}:\t0000000000000000")), "{status}");
    }
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    drop(keep);
    client.finish(seconds(5));
}

/// A session without namespaces ends with an app that hides what it has open. A server that has joined the image does.
pub(crate) fn a_client_does_not_end_a_session_without_namespaces(site: &Site) {
    let alice = &site.alice;
    let runtime = alice.runtime.display().to_string();
    let options = ["--isolation", "socket", "--bind", &runtime];
    let session = alice.start_image("open", &options, &["+unix=$SHLOGIN_SOCKET"]);
    let (client, keep) = alice.waiting_sftp("open");
    // The session is looked at four times a second, and these take longer than that.
    for _ in 0..12 {
        alice.sftp("open", &["ls /.singularity.d/startscript", "get /opt/tiny/app.py got"]).ok();
    }
    drop(keep);
    client.finish(seconds(5)).ok();
    let node = place().program().display().to_string();
    alice.sftp("open", &[&format!("ls {node}")]).ended_with(1).says("not found");
    assert_eq!(session.show()["state"], "running");
}

pub(crate) fn without_a_home_in_the_image_a_client_starts_at_its_root(site: &Site) {
    site.alice.start_image("homeless", &[&ISOLATED[..], &["--no-home", "--pwd", "/opt"]].concat(), &[]);
    let seen = site.alice.sftp("homeless", &["pwd", "ls opt"]).ok();
    assert!(
        seen.stdout.contains("Remote working directory: /\n") && seen.stdout.contains("opt/tiny"),
        "{seen:?}"
    );
}

pub(crate) fn a_client_that_goes_takes_its_server_with_it(site: &Site) {
    let alice = &site.alice;
    alice.start_bare("ends", &ISOLATED, &[]);
    let gone = || until(seconds(5), "its server's end", || (alice.sftp_servers() == 0).then_some(()));

    let (client, keep) = alice.waiting_sftp("ends");
    drop(keep);
    client.finish(seconds(5)).ok();
    gone();

    let (client, _keep) = alice.waiting_sftp("ends");
    client.signal(Signal::SIGKILL);
    client.finish(seconds(5)).ended_with(137);
    gone();

    // The one in between goes, which holds none of the streams that count.
    let (client, keep) = alice.waiting_sftp("ends");
    let between =
        alice.processes().into_iter().find(|process| process.words.iter().any(|word| word == "sftp-server"));
    nix::sys::signal::kill(between.unwrap().pid, Signal::SIGKILL).unwrap();
    gone();
    drop(keep);
    client.finish(seconds(5));
}
