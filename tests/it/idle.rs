//! Sessions that end when nobody uses them: what keeps them, and what does not.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::harness::{
    Running, Session, Site, browser::keep, cluster::Cluster, heavy, http::Gate, page::Page, place::place,
    program::bare, seconds, ssh::Ssh, terminal::Terminal, until, until_at,
};

/// What a session may be idle for here, in seconds: little above the least.
const AFTER: u64 = 6;
/// How much later than that it may end on a busy machine: a look, the app's own end, and what has to be tidied up.
const SLACK: u64 = 12;

fn options(more: &[&'static str]) -> Vec<&'static str> {
    [&["--network", "isolated", "--idle-timeout", "6s"], more].concat()
}

/// Waits for its end, which must have come because nobody used it since `last`.
fn ends_idle(session: &Session<'_>, last: Instant) -> Value {
    let record = until(seconds(AFTER + SLACK), "its end", || {
        Some(session.show()).filter(|record| record["state"] == "ended")
    });
    assert_eq!(record["reason"], "nobody used it for 6 s", "{record:#}");
    // What was too little to count at the last look before is not waited for.
    assert!(last.elapsed() >= seconds(AFTER - 1), "{:?}", last.elapsed());
    record
}

/// Does something for so long, at a person's pace, while the session has to live.
fn lives_while(session: &Session<'_>, time: Duration, mut does: impl FnMut()) -> Instant {
    let begun = Instant::now();
    while begun.elapsed() < time {
        does();
        thread::sleep(Duration::from_millis(400));
    }
    let record = session.show();
    assert_eq!(record["state"], "running", "{record:#}");
    Instant::now()
}

/// Waits until it is judged to be in this state, and to have been used last for this.
fn judged(session: &Session<'_>, state: &str, last: &str) -> Value {
    until(seconds(10), &format!("{state} with {last:?}: {:#}", session.show()["idle"]), || {
        let idle = session.show()["idle"].clone();
        let says = idle["last"]["what"].as_str().is_some_and(|said| said.contains(last));
        (idle["state"] == state && says).then_some(idle)
    })
}

/// What a forgotten tab does: the same few requests, time in the query and all.
///
/// # Errors
/// Where the gateway has gone meanwhile.
fn polls(gate: &Gate, turn: u64) -> std::io::Result<()> {
    for path in ["/api/contents", "/api/sessions"] {
        gate.try_request("GET", &format!("{path}?content=1&{turn}"), &[], b"")?;
    }
    gate.try_request("PUT", "/echo", &[], b"always the same layout").map(drop)
}

pub(crate) fn a_session_that_nobody_uses_ends_though_its_page_polls(site: &Site) {
    let session = site.alice.start_bare("forgotten", &options(&[]), &[]);
    assert_eq!(session.show()["idle_timeout"], AFTER);
    let gate = session.signed_in();
    polls(&gate, 0).unwrap();
    let last = Instant::now();
    let page = &gate;
    let record = thread::scope(|scope| {
        // The tab's own rhythm, until the session ends and nobody answers.
        let tab = scope.spawn(move || {
            (1..=120)
                .take_while(|turn| polls(page, *turn).is_ok())
                .inspect(|_| thread::sleep(Duration::from_millis(200)))
                .count()
        });
        let idle = judged(&session, "idle", "a request (PUT /echo)");
        assert_eq!(idle["after"], AFTER, "{idle:#}");
        assert!(idle["ends_at"].is_string() && idle["cpu"].is_number() && idle["gpu"] == "none", "{idle:#}");
        let said = site.alice.shlogin(&["show", "forgotten"]).ok();
        let record = ends_idle(&session, last);
        let turns = tab.join().unwrap();
        assert!(turns > 10 && turns < 120, "it polled to the end: {turns}");
        for line in ["idle ", "; ends after 6 s, at ", "last used ", "of a core (counts from 5 %)"] {
            assert!(said.stdout.contains(line), "{line:?} in {}", said.stdout);
        }
        assert!(!said.stdout.contains("content=1"), "a query may hold a secret: {}", said.stdout);
        record
    });
    assert_eq!(record["exit"]["signal"], 15, "it was asked to end: {record:#}");
    site.alice.wait_until_nothing_is_left(seconds(5));
    site.alice.shlogin(&["show", "forgotten"]).ok().says("nobody used it for 6 s");
    let listed = site.alice.shlogin(&["list", "--all", "--json"]).ok().json();
    assert_eq!(listed[0]["reason"], "nobody used it for 6 s", "{listed:#}");
}

pub(crate) fn a_session_that_computes_does_not_end_and_one_without_a_timeout_neither(site: &Site) {
    let free = site.alice.start_bare("free", &["--network", "isolated"], &[]);
    let stop = site.alice.home.join("stop");
    let script = format!(
        "(until [ -e {} ]; do :; done) & exec /usr/bin/python3 -S -E {}",
        stop.display(),
        place().app().display()
    );
    let args = [&["--name", "busy"], &options(&[])[..], &["--", "bash", "-c", &script]].concat();
    let busy = site.alice.start(&args);
    lives_while(&busy, seconds(2 * AFTER), || {});
    let used = judged(&busy, "used", "computing (cpu ");
    assert!(used["cpu"].as_f64().unwrap() > 20.0, "{used:#}");
    site.alice.shlogin(&["show", "busy"]).ok().says("no: computing (cpu ");
    let last = Instant::now();
    std::fs::write(&stop, "").unwrap();
    ends_idle(&busy, last);
    let record = free.show();
    assert_eq!((&record["state"], &record["idle"]), (&"running".into(), &Value::Null), "{record:#}");
}

pub(crate) fn a_slow_download_holds_a_session_and_its_end_does_not(site: &Site) {
    let session = site.alice.start_bare("loads", &options(&[]), &[]);
    let gate = session.signed_in();
    // Once before: its path alone shows nothing any more.
    gate.get("/drip?1");
    let answer = gate.get("/drip?60");
    let last = Instant::now();
    assert_eq!(answer.body.len(), 60 * 8192);
    let idle = &session.show()["idle"];
    assert_eq!(idle["last"]["evidence"], "moved", "{idle:#}");
    ends_idle(&session, last);
}

pub(crate) fn keys_hold_a_session_and_output_does_not(site: &Site) {
    let session = site.alice.start_bare("typed", &options(&[]), &[]);
    let gate = session.signed_in();
    let mut page = Page::open(&gate, 1);
    page.keys("echo he''re\r");
    page.wait_for("here");
    lives_while(&session, seconds(AFTER + 4), || page.keys("\r"));
    assert_eq!(session.show()["idle"]["last"]["what"], "somebody typed");
    // What a terminal answers by itself is not typed, and what a program writes is not read.
    let mut watch = Page::attach(
        &gate,
        &serde_json::json!({ "type": "attach", "client": crate::harness::page::client(2), "terminal": null, "new": true,
            "have": null, "size": { "cols": 80, "rows": 24 } }),
    );
    watch.keys("while :; do date; read -t 0.2 x; done\r");
    let last = Instant::now();
    let notice = page.hear_of("notice");
    assert!(
        notice["text"].as_str().unwrap().starts_with("nobody uses this session: it ends in "),
        "{notice}"
    );
    watch.keys("\u{1b}[24;80R");
    ends_idle(&session, last);
}

pub(crate) fn typing_over_ssh_and_in_a_shell_holds_a_session(site: &Site) {
    let session = site.alice.start_bare("shells", &options(&[]), &[]);
    let ssh = Ssh::as_owner(&session, "");
    let words = ssh.words(&["-tt"]);
    let mut terminal = Terminal::run(&site.alice, &words.iter().map(String::as_str).collect::<Vec<_>>());
    terminal.keys("echo he''re\r");
    terminal.wait_for(seconds(20), "here");
    let last = lives_while(&session, seconds(AFTER + 4), || terminal.keys("\r"));
    assert_eq!(session.show()["idle"]["last"]["what"], "somebody typed");
    ends_idle(&session, last);

    // The bytes of `shlogin shell` do not pass the session's gateway; the kernel notes every eight seconds that some were read.
    let args = ["--network", "isolated", "--idle-timeout", "20s"];
    let session = site.alice.start_bare("shell", &args, &[]);
    let mut terminal = Terminal::shlogin(&site.alice, &["shell", "shell"]);
    terminal.keys("echo he''re\r");
    terminal.wait_for(seconds(20), "here");
    let last = lives_while(&session, seconds(26), || terminal.keys("\r"));
    let record = until(seconds(20 + SLACK), "its end", || {
        Some(session.show()).filter(|record| record["state"] == "ended")
    });
    assert_eq!(record["reason"], "nobody used it for 20 s", "{record:#}");
    assert!(last.elapsed() >= seconds(8), "it was held to the last key: {:?}", last.elapsed());
}

pub(crate) fn a_busy_gpu_holds_a_session_and_one_that_cannot_be_read_does_not(site: &Site) {
    let alice = &site.alice;
    let (bin, percent) = (place().root().join("gpu-bin"), alice.home.join("percent"));
    fs::create_dir(&bin).unwrap();
    let tool =
        format!("#!/bin/sh\necho \"0, GPU-5f, 100\"; echo \"1, GPU-7a, $(cat {})\"\n", percent.display());
    fs::write(bin.join("nvidia-smi"), &tool).unwrap();
    fs::set_permissions(bin.join("nvidia-smi"), fs::Permissions::from_mode(0o755)).unwrap();
    // One that an app could have put there is passed over: it would run outside of the sandbox.
    let hers = alice.home.join("bin");
    alice.own_folder(&hers, 0o755);
    let false_one = format!("#!/bin/sh\ntouch {}/escaped; echo 1, GPU-7a, 100\n", alice.home.display());
    alice.own_file("bin/nvidia-smi", &false_one, 0o755);
    let path = format!("{}:{}:/usr/bin:/bin", hers.display(), bin.display());
    let start = |name: &str| {
        let args = [&["start".to_owned(), "--json".to_owned()][..], &bare(name, &options(&[]), &[])].concat();
        let mut command = alice.shlogin_command(&args.iter().map(String::as_str).collect::<Vec<_>>());
        command.env("PATH", &path).env("CUDA_VISIBLE_DEVICES", "1");
        Session { user: alice, json: Running::spawn(command).finish(seconds(60)).ok().json() }
    };
    alice.own_file("percent", "97", 0o644);
    let session = start("gpu");
    lives_while(&session, seconds(AFTER + 4), || {});
    let used = judged(&session, "used", "computing (gpu 97 %)");
    assert_eq!(used["gpu"]["busy"], 97, "{used:#}");
    let last = Instant::now();
    alice.own_file("percent", "[N/A]", 0o644);
    judged(&session, "idle", "");
    alice.shlogin(&["show", "gpu"]).ok().says("not readable: its use does not count");
    ends_idle(&session, last);
    assert!(!alice.home.join("escaped").exists());
}

pub(crate) fn what_is_no_time_is_refused_and_who_has_settled_it_can_change_it(site: &Site) {
    let said = site.alice.shlogin(&["start", "--idle-timeout", "1s", "--", "true"]).ended_with(2);
    assert!(said.stderr.contains("at least 5 seconds"), "{said:?}");
    site.alice.own_folder(&site.alice.home.join(".config/shlogin"), 0o700);
    site.alice.own_file(".config/shlogin/config.toml", "idle_timeout = '6s'\n", 0o600);
    let session = site.alice.start_bare("settled", &["--network", "isolated"], &[]);
    assert_eq!(session.show()["idle_timeout"], AFTER);
    let freed = site.alice.start_bare("freed", &["--network", "isolated", "--idle-timeout", "off"], &[]);
    assert_eq!(freed.show()["idle_timeout"], Value::Null);
    ends_idle(&session, Instant::now().checked_sub(seconds(AFTER)).unwrap());
    assert_eq!(freed.show()["state"], "running");
}

pub(crate) fn a_session_in_a_job_gives_its_node_back(site: &Site) {
    let (cluster, alice) = (Cluster::shared(), &site.alice);
    let session = cluster.start_bare(alice, "node", &options(&["-w", "c1"]), &[]);
    let gate = session.signed_in();
    let job = session.job();
    let mut turn = 0;
    let mut socket = gate.websocket("/ws", &[("Origin", &gate.origin())]).unwrap();
    let mut work = || socket.ask("a line of a program ".repeat(60).as_bytes());
    // Somebody works with the app, over a WebSocket alone, and thinks in between, as no heartbeat does.
    lives_while(&session, seconds(AFTER + 4), || {
        turn += 1;
        if turn % 4 == 0 {
            work();
        }
    });
    work();
    let last = Instant::now();
    let idle = judged(&session, "idle", "");
    assert!(["sent", "moved"].contains(&idle["last"]["evidence"].as_str().unwrap()), "{idle:#}");
    assert!(idle["cpu"].is_number(), "read on its node: {idle:#}");
    drop(socket);
    ends_idle(&session, last);
    cluster.wait_job(seconds(15), job, "COMPLETED");
    cluster.wait_until_nothing_is_left(seconds(15), alice);
}

pub(crate) fn a_forgotten_tab_of_jupyterlab_s_does_not_hold_a_session(site: &Site) {
    let _alone = heavy();
    let image = place().image("notebook").display().to_string();
    let session = site.alice.start(&["--name", "notebook", "--idle-timeout", "40s", &image]);
    let until_then = format!("--until={}", site.alice.home.join("ended").display());
    let (saw, record) = thread::scope(|scope| {
        let tab = scope
            .spawn(|| site.alice.browse("left", &[session.url(), "--after=5", "--for=150", &until_then]));
        let record = until_at(seconds(1), seconds(180), "its end, or the tab's", || {
            Some(session.show()).filter(|record| record["state"] == "ended" || tab.is_finished())
        });
        let open = !tab.is_finished();
        site.alice.own_file("ended", "", 0o644);
        let (saw, picture) = tab.join().unwrap();
        keep(&picture, "notebook-left");
        assert!(open, "the tab was open when the session ended: {saw:#}");
        (saw, record)
    });
    assert_eq!(record["reason"], "nobody used it for 40 s", "{record:#}");
    let polled = saw["requests"].as_object().unwrap().values().filter_map(Value::as_u64).sum::<u64>();
    assert!(polled > 10, "the tab polled: {saw:#}");
}
