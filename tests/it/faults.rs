//! Whatever dies, however it dies, nothing stays behind.

use std::{collections::BTreeSet, fs, path::Path};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::harness::{
    Process, Running, Session, Site, User, census::Census, heavy, program::bare, seconds, until,
};

fn kill_each<'u>(user: &'u User, start: impl Fn() -> Session<'u>) {
    // All processes of such a session, each known by its role and its place among those of that role.
    let first = start();
    let mut roles = BTreeSet::new();
    let numbered = |processes: &[Process]| -> Vec<(String, usize, Pid)> {
        let mut counts = std::collections::HashMap::<String, usize>::new();
        let mut sorted: Vec<_> = processes.iter().collect();
        sorted.sort_by_key(|process| process.pid);
        sorted
            .into_iter()
            .map(|process| {
                let count = counts.entry(process.role().to_owned()).or_default();
                *count += 1;
                (process.role().to_owned(), *count, process.pid)
            })
            .collect()
    };
    for (role, number, _) in numbered(&user.processes()) {
        roles.insert((role, number));
    }
    assert!(roles.len() >= 4, "supervisor, keeper, init and app at least: {roles:?}");
    eprintln!("processes of a session: {roles:?}");
    first.stop();
    user.wait_until_nothing_is_left(seconds(2));

    for (role, number) in &roles {
        let session = start();
        let victim =
            numbered(&user.processes()).into_iter().find(|(its, count, _)| its == role && count == number);
        let (_, _, pid) = victim.unwrap_or_else(|| panic!("no {role} {number} in {}", Census::of(user)));
        kill(pid, Signal::SIGKILL).unwrap();
        let killed = std::time::Instant::now();
        loop {
            let census = Census::of(user);
            if census.is_empty() {
                break;
            }
            assert!(
                killed.elapsed() < seconds(2),
                "2 s after kill -9 of {role} {number} ({pid}) there is still:\n{census}"
            );
            std::thread::park_timeout(std::time::Duration::from_millis(10));
        }
        let record = session.show();
        assert_eq!(record["state"], "ended", "after kill -9 of {role}: {record:#}");
        user.shlogin(&["forget", session.name()]).ok();
    }
}

pub(crate) fn killing_any_process_of_a_bare_session_leaves_nothing(site: &Site) {
    kill_each(&site.alice, || site.alice.start_bare("victim", &[], &[]));
}

pub(crate) fn killing_any_process_of_an_image_s_session_leaves_nothing(site: &Site) {
    let _alone = heavy();
    kill_each(&site.alice, || site.alice.start_image("victim", &[], &[]));
}

pub(crate) fn killing_the_supervisor_at_any_moment_of_the_start_leaves_nothing(site: &Site) {
    let _alone = heavy();
    let alice = &site.alice;
    let image = crate::harness::place::place().image("tiny").display().to_string();
    // The moments: each time a process that was not there before appears.
    for moment in ["@supervise", "@keeper", "@init", "pas", "squashfuse", "python3"] {
        let start =
            Running::spawn(alice.shlogin_command(&["start", "--name", "victim", &image, "--", "+never"]));
        // pasta renames itself, to passt.avx2 for one, after which of its builds it is
        let seen = until(seconds(20), moment, || {
            let processes = alice.processes();
            processes.iter().find(|process| process.role().starts_with(moment)).cloned()
        });
        let supervisor =
            alice.processes().into_iter().find(|process| process.role() == "@supervise").unwrap();
        kill(supervisor.pid, Signal::SIGKILL).unwrap();
        let output = start.finish(seconds(10));
        assert_ne!(output.code(), 0, "killed when {seen} was there: {output:?}");
        alice.wait_until_nothing_is_left(seconds(2));
        assert!(alice.list().is_empty());
    }
}

pub(crate) fn killing_start_itself_leaves_nothing(site: &Site) {
    let alice = &site.alice;
    for signal in [Signal::SIGKILL, Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut args = vec!["start".to_owned()];
        args.extend(bare("victim", &["--network", "isolated"], &["+say=up", "+never"]));
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let start = Running::spawn(alice.shlogin_command(&args));
        alice.wait_for_process(seconds(20), "python3");
        start.signal(signal);
        let output = start.finish(seconds(15));
        assert_ne!(output.code(), 0, "{signal}: {output:?}");
        // After a polite signal the app has its grace; it takes none of it.
        alice.wait_until_nothing_is_left(seconds(2));
    }
}

/// Where the session's record lies.
fn record_of(user: &User, id: &str) -> std::path::PathBuf {
    fn search(folder: &Path, id: &str) -> Option<std::path::PathBuf> {
        fs::read_dir(folder).ok()?.flatten().find_map(|entry| {
            if entry.file_name() == id {
                Some(entry.path().join("record.json"))
            } else {
                search(&entry.path(), id)
            }
        })
    }
    search(&user.state(), id).unwrap_or_else(|| panic!("no record of {id} below {}", user.state().display()))
}

pub(crate) fn after_a_reboot_the_list_is_clean_and_the_name_is_free(site: &Site) {
    let alice = &site.alice;
    let session = alice.start_bare("before", &["--network", "isolated"], &[]);
    // A power cut: all processes end in one moment, and what is on disk stays as it was.
    let kept = alice.home.join("kept");
    let runtime = alice.runtime.join("shlogin");
    crate::harness::sh(&["cp", "-a", runtime.to_str().unwrap(), kept.to_str().unwrap()]);
    let scratch = fs::read_dir("/var/tmp").unwrap().flatten().map(|entry| entry.path());
    let scratch: Vec<_> =
        scratch.filter(|path| path.to_string_lossy().contains(&format!("shlogin-{}-", alice.uid))).collect();
    assert_eq!(scratch.len(), 1, "one session has one folder on disk: {scratch:?}");
    let record = record_of(alice, session.id());
    let written = fs::read(&record).unwrap();
    kill(session.pid(), Signal::SIGKILL).unwrap();
    alice.wait_until_nothing_is_left(seconds(2));
    let _ = fs::remove_dir_all(&runtime);
    crate::harness::sh(&["cp", "-a", kept.to_str().unwrap(), runtime.to_str().unwrap()]);
    alice.own_folder(&scratch[0], 0o700);
    alice.own_folder(&scratch[0].join("tmp"), 0o700);
    alice.own_file("later", "", 0o600);
    fs::write(&record, written).unwrap();
    fs::remove_dir_all(&kept).unwrap();
    assert!(!Census::of(alice).is_empty(), "the stage is set");

    assert_eq!(alice.list(), Vec::<Value>::new());
    let record = session.show();
    assert_eq!(record["state"], "ended", "{record:#}");
    let again = alice.start_bare("before", &["--network", "isolated"], &["+mark=after"]);
    assert_eq!(again.signed_in().get("/").text(), "after");
    again.stop();
    alice.wait_until_nothing_is_left(seconds(2));
}

pub(crate) fn a_reused_process_number_is_not_signalled(site: &Site) {
    let alice = &site.alice;
    let session = alice.start_bare("stale", &["--network", "isolated"], &[]);
    let record = record_of(alice, session.id());
    let written = fs::read_to_string(&record).unwrap();
    kill(session.pid(), Signal::SIGKILL).unwrap();
    alice.wait_until_nothing_is_left(seconds(2));

    // The kernel gives the dead supervisor's number to somebody else of hers.
    let innocent = Running::spawn({
        let mut command = alice.command("tail");
        command.args(["-f", "/dev/null"]);
        command
    });
    fs::write(
        &record,
        written.replace(&format!("\"pid\": {}", session.pid()), &format!("\"pid\": {}", innocent.pid())),
    )
    .unwrap();
    assert!(fs::read_to_string(&record).unwrap().contains(&innocent.pid().to_string()));
    alice.shlogin(&["stop", "stale"]).ended_with(116);
    alice.shlogin(&["stop", "--all"]);
    alice.shlogin(&["list"]).ok();
    kill(innocent.pid(), None).expect("it lives");
    drop(innocent);
    alice.wait_until_nothing_is_left(seconds(2));
}
