//! What an attacker found once, each as it was found, so that it stays mended.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream},
    os::unix::fs::{PermissionsExt, chown},
    time::Duration,
};

use nix::sys::signal::{Signal, kill};

use crate::harness::{Running, Session, Site, heavy, place::place, program::bare, seconds, until};

const ISOLATED: [&str; 2] = ["--network", "isolated"];

/// For a shell: so much that is said little by little that the news of it fill a socket which nobody reads.
pub(crate) const NOISE: &str =
    "/usr/bin/python3 -S -E -c 'import time\nfor _ in range(1500): print(1, flush=True); time.sleep(0.002)'";

/// Connections of strangers once took the supervisor's last descriptor, and the next dial ended the session.
pub(crate) fn strangers_connections_do_not_end_a_session(site: &Site) {
    let _alone = heavy();
    let session = site.alice.start_bare("flooded", &ISOLATED, &["+mark=still here"]);
    let owner = session.signed_in();
    let from = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let port = session.gateway_port();
    let flood: Vec<TcpStream> = from
        .iter()
        .cycle()
        .take(1200)
        .filter_map(|ip| TcpStream::connect_timeout(&(*ip, port).into(), Duration::from_secs(2)).ok())
        .collect();
    assert!(flood.len() > 500, "only {} connections", flood.len());
    drop(owner);
    drop(flood);
    assert_eq!(session.signed_in().get("/").text(), "still here");
    assert_eq!(session.show()["state"], "running");
}

/// With `hidepid`, /proc shows an owner neither init nor pasta, and sessions once did not end.
pub(crate) fn a_session_ends_where_proc_hides_processes(site: &Site) {
    let alice = &site.alice;
    let shlogin = place().program().display().to_string();
    let start: Vec<String> = bare("hidden", &["--network", "outbound"], &[]);
    let inside = format!(
        "set -e; mount -t proc -o hidepid=2 proc /proc; exec setpriv --reuid {uid} --regid {gid} --clear-groups \
         sh -c 'set -e; s=$1; shift; \"$s\" start \"$@\" >/dev/null; \"$s\" stop hidden' sh \"$@\"",
        uid = alice.uid,
        gid = alice.gid
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &inside, "sh", &shlogin]).args(&start);
    command.env_clear().envs(alice.environment()).current_dir(&alice.home);
    Running::spawn(command).finish(seconds(30)).ok().says("hidden");
    alice.wait_until_nothing_is_left(seconds(2));
}

/// With `hidepid`, /proc does not show the host of a session, either: who looks for it there sees nothing, which is no end.
pub(crate) fn a_host_that_proc_hides_is_not_gone(site: &Site) {
    let alice = &site.alice;
    let look = |mount: &str| {
        let inside = format!(
            "set -e; {mount}; exec setpriv --reuid {} --regid {} --clear-groups {} @host-in-job /no/such/folder",
            alice.uid,
            alice.gid,
            place().program().display()
        );
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &inside]);
        Running::spawn(command).finish(seconds(10)).ok().stdout
    };
    assert_eq!(look("true"), "gone");
    for hidepid in ["1", "2"] {
        assert_eq!(look(&format!("mount -t proc -o hidepid={hidepid} proc /proc")), "hidden");
    }
}

/// `list` once took sessions for dead, and removed their /tmp, where it was asked with another environment or inside one.
pub(crate) fn a_list_with_other_eyes_harms_nothing(site: &Site) {
    let session = site.alice.start_bare("seen", &ISOLATED, &[]);
    let scratch = session.show()["footprint"]["scratch"].as_str().unwrap().to_owned();
    let mut elsewhere = site.alice.shlogin_command(&["list"]);
    elsewhere.env_remove("XDG_RUNTIME_DIR");
    Running::spawn(elsewhere).finish(seconds(20)).ok().says("running");
    let program = place().program().display().to_string();
    site.alice.shlogin(&["exec", "seen", "--", &program, "list"]).ok().says("running");
    assert_eq!(session.show()["state"], "running");
    assert!(fs::exists(&scratch).unwrap());
    session.report();
}

/// Somebody else's runtime folder in the place of one that is gone was once believed by all commands but `start`.
pub(crate) fn another_user_s_runtime_folder_is_not_believed(site: &Site) {
    let (alice, mallory) = (&site.alice, &site.mallory);
    let session = alice.start_bare("gone", &ISOLATED, &[]);
    let runtime = alice.runtime.join("shlogin");
    kill(session.pid(), Signal::SIGKILL).unwrap();
    alice.wait_until_nothing_is_left(seconds(2));
    fs::remove_dir_all(&runtime).unwrap();

    // As after a restart, where the folder is one that anybody may make: /tmp/shlogin-UID.
    mallory.own_folder(&runtime, 0o755);
    mallory.own_folder(&runtime.join("gone"), 0o755);
    let fifo = runtime.join("gone.lock");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    chown(&fifo, Some(mallory.uid), Some(mallory.gid)).unwrap();
    fs::set_permissions(&fifo, fs::Permissions::from_mode(0o666)).unwrap();
    alice.shlogin(&["list", "--json"]).ok();
    alice.shlogin(&["url", "gone"]).ended_with(116);
    alice.shlogin(&["exec", "gone", "--", "true"]).ended_with(116);
    alice.shlogin(&["start", "--network", "isolated", "--", "true"]).ended_with(125).says("belongs to");
    fs::remove_dir_all(&runtime).unwrap();
}

/// Some sites remove from /tmp what nobody has touched for days, and some people all they find there.
pub(crate) fn a_session_whose_runtime_folder_was_removed_is_still_stopped(site: &Site) {
    let (alice, mallory) = (&site.alice, &site.mallory);
    let runtime = alice.runtime.join("shlogin");
    for made_by_another in [false, true] {
        let session = alice.start_bare("lost", &ISOLATED, &[]);
        fs::remove_dir_all(&runtime).unwrap();
        if made_by_another {
            mallory.own_folder(&runtime, 0o755);
            mallory.own_folder(&runtime.join("lost"), 0o755);
        } else {
            alice
                .shlogin(&["exec", "lost", "--", "true"])
                .ended_with(125)
                .says("`shlogin stop lost` ends it");
            // There are not to be two of one name, of which nobody knows which one is meant.
            alice
                .shlogin(&["start", "--name", "lost", "--network", "isolated", "--", "true"])
                .ended_with(120)
                .says("in use");
        }
        assert_eq!(session.show()["state"], "running");
        session.stop();
        let record = session.show();
        assert_eq!(record["reason"], "it was stopped; its app ended with signal 15 (SIGTERM)", "{record:#}");
        if made_by_another {
            fs::remove_dir_all(&runtime).unwrap();
        }
        alice.wait_until_nothing_is_left(seconds(2));
        alice.shlogin(&["forget", "lost"]).ok();
    }
}

/// A supervisor that is stopped once kept `stop` waiting for ever.
pub(crate) fn a_stopped_supervisor_is_killed_by_stop(site: &Site) {
    let session = site.alice.start_bare("stuck", &ISOLATED, &[]);
    kill(session.pid(), Signal::SIGSTOP).unwrap();
    site.alice.shlogin(&["stop", "stuck"]).ok();
    site.alice.wait_until_nothing_is_left(seconds(2));
}

/// A `start` that does not read what it is told (Ctrl-Z) once held the whole session up.
pub(crate) fn a_stopped_start_does_not_hold_its_session_up(site: &Site) {
    let alice = &site.alice;
    alice.run(&["mkfifo", "go"]).ok();
    let app = format!(
        "/usr/bin/python3 -S -E {} & read x < go; yes noise | head -n 100000; wait",
        place().app().display()
    );
    let words =
        ["start", "--foreground", "--name", "chatty", "--network", "isolated", "--", "sh", "-c", &app];
    let start = Running::spawn(alice.shlogin_command(&words));
    start.wait_for(seconds(20), "runs as pod");
    start.signal(Signal::SIGSTOP);
    alice.run(&["sh", "-c", "echo > go"]).ok();
    let log = alice.shlogin(&["show", "--json", "chatty"]).ok().json()["log"].as_str().unwrap().to_owned();
    until(seconds(20), "all of the noise is in the log", || {
        fs::metadata(&log).is_ok_and(|log| log.len() > 600_000).then_some(())
    });
    alice.shlogin(&["stop", "chatty"]).ok();
    start.signal(Signal::SIGCONT);
    start.finish(seconds(20));
    alice.wait_until_nothing_is_left(seconds(2));

    // Stopped before its app answers, it finds its URL when it goes on; but the session does not wait for that.
    let app = format!("read x < go; {NOISE}; exec /usr/bin/python3 {}", place().app().display());
    let words = ["start", "--name", "early", "--network", "isolated", "--", "sh", "-c", &app];
    let start = Running::spawn(alice.shlogin_command(&words));
    let session = Session { user: alice, json: until(seconds(20), "it starts", || alice.list().pop()) };
    start.signal(Signal::SIGSTOP);
    alice.run(&["sh", "-c", "echo > go"]).ok();
    session.wait_until(seconds(20), "running");
    let url = alice.shlogin(&["url", "early"]).ok().stdout;
    assert_eq!(session.signed_in().get("/").text(), "tiny", "{url}");
    alice.shlogin(&["stop", "early"]).ok();
    start.signal(Signal::SIGCONT);
    start.finish(seconds(20));
    alice.wait_until_nothing_is_left(seconds(2));
}
