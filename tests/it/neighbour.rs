//! The other user of the node: what she sees, reads and reaches of a session, and what an app sees of us.

use std::{
    collections::BTreeSet,
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use serde_json::{Value, json};

use crate::harness::{
    Session, Site, heavy,
    place::place,
    scan::{Targets, pids_of},
    seconds,
    terminal::Terminal,
};

/// Threats 1 and 2.
fn reach_nothing(site: &Site, session: &Session<'_>, mark: &str, hidden: &str) {
    let alice = &site.alice;
    assert_eq!(session.signed_in().get("/").text(), mark, "its owner gets there");
    let mut paths =
        vec![alice.home.clone(), alice.runtime.clone(), alice.runtime.join("shlogin"), alice.state()];
    paths.extend(session.json.pointer("/log").and_then(Value::as_str).map(Into::into));
    let prefix = format!("shlogin-{}-", alice.uid);
    let scratch = fs::read_dir("/var/tmp").unwrap().flatten().map(|entry| entry.path());
    paths.extend(scratch.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(&prefix)));
    let targets = Targets { mark: mark.to_owned(), pids: pids_of(alice), paths, ports: Vec::new() };
    assert!(targets.pids.len() >= 4, "{:?}", targets.pids);
    let found = site.mallory.scan(&targets);

    assert!(found.addresses.len() >= 2 && found.tried >= 2 * 65535, "{:?}: {}", found.addresses, found.tried);
    assert_eq!(found.reached, Vec::<String>::new(), "the app was reached");
    assert_eq!(found.processes, Vec::<String>::new(), "processes were looked into");
    assert_eq!(found.files, Vec::<String>::new(), "files were opened");
    assert!(!found.abstract_sockets.iter().any(|name| name.contains(hidden)), "{:?}", found.abstract_sockets);
    // What does answer of this session's is its gateway, and nothing else.
    let own: BTreeSet<u16> = found.open.iter().map(std::net::SocketAddr::port).collect();
    assert!(own.contains(&session.gateway_port()), "the scan sees what is open: {own:?}");
    assert!(!own.contains(&session.app_port()), "the app's port is open: {own:?}");
}

pub(crate) fn another_user_reaches_nothing_of_a_bare_session(site: &Site) {
    let _alone = heavy();
    let mark = format!("{} bare", site.alice.name);
    let hidden = format!("hidden-{}", site.alice.name);
    let words = [
        format!("+mark={mark}"),
        "+bind=0.0.0.0".to_owned(),
        "+port=18321".to_owned(),
        format!("+abstract={hidden}"),
    ];
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let session = site.alice.start_bare("open", &["--network", "isolated"], &words);
    reach_nothing(site, &session, &mark, &hidden);
}

pub(crate) fn another_user_reaches_nothing_of_an_image_s_session(site: &Site) {
    let _alone = heavy();
    let mark = format!("{} image", site.alice.name);
    let hidden = format!("hidden-{}", site.alice.name);
    let words = [
        format!("+mark={mark}"),
        "+bind=0.0.0.0".to_owned(),
        "+port=18322".to_owned(),
        format!("+abstract={hidden}"),
    ];
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let session = site.alice.start_image("open", &["--network", "outbound"], &words);
    reach_nothing(site, &session, &mark, &hidden);
}

/// Threat 3.
pub(crate) fn no_process_ever_shows_a_secret(site: &Site) {
    let alice = &site.alice;
    let over = AtomicBool::new(false);
    let (seen, secrets) = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !over.load(Ordering::Relaxed) {
                for process in alice.processes() {
                    seen.insert(process.words.join(" "));
                    // Root can read it, and so could anybody who became this user.
                    let environment = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
                    seen.insert(String::from_utf8_lossy(&environment).into_owned());
                }
            }
            seen
        });
        let session = alice.start_bare("secret", &["--network", "isolated"], &[]);
        let mut urls = vec![session.url().to_owned()];
        urls.push(alice.shlogin(&["url", "secret"]).ok().stdout.trim().to_owned());
        let gate = session.signed_in();
        alice.shlogin(&["exec", "secret", "--", "true"]).ok();
        alice.shlogin(&["list"]).ok();
        session.stop();
        over.store(true, Ordering::Relaxed);
        let mut secrets: Vec<String> =
            urls.iter().map(|url| url.rsplit('=').next().unwrap().to_owned()).collect();
        secrets.push(gate.cookies[0].split_once('=').unwrap().1.to_owned());
        (watch.join().unwrap(), secrets)
    });
    assert!(seen.iter().any(|text| text.contains("@supervise")), "the watch saw our processes");
    for secret in secrets {
        assert!(secret.len() >= 22 && !seen.iter().any(|text| text.contains(&secret)), "{secret} was shown");
    }
}

/// Threat 11.
pub(crate) fn the_environment_makes_nothing_run_with_other_rights(site: &Site) {
    let alice = &site.alice;
    let library = alice.own_file("evil.so", "this is no library", 0o755).display().to_string();
    let script = alice
        .own_file("evil.sh", &format!("id -u >> {}/ran\n", alice.home.display()), 0o755)
        .display()
        .to_string();
    let image = place().image("tiny").display().to_string();
    let mut command =
        alice.shlogin_command(&["start", "--json", "--name", "env", "--network", "isolated", &image]);
    command
        .env("LD_PRELOAD", &library)
        .env("BASH_ENV", &script)
        .env("ENV", &script)
        .env("PATH", format!("{}:/usr/bin:/bin", alice.home.display()));
    command
        .env("APPTAINERENV_LD_PRELOAD", &library)
        .env("SINGULARITY_BIND", "/etc/shadow:/mnt")
        .env("APPTAINERENV_FROM_OUTSIDE", "1");
    let started = crate::harness::Running::spawn(command).finish(seconds(60));
    // The user's own wishes may stop her own session; they reach nobody else's rights.
    if started.code() == 0 {
        for process in alice.processes() {
            assert!(
                process.uids().iter().all(|uid| *uid == alice.uid),
                "{process} runs as {:?}",
                process.uids()
            );
            let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap_or_default();
            let effective =
                status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap_or("0").to_owned();
            let own_namespace = fs::read_link(format!("/proc/{}/ns/user", process.pid)).ok()
                == fs::read_link("/proc/self/ns/user").ok();
            assert!(
                !own_namespace || effective.chars().all(|c| c == '0'),
                "{process} has capabilities on the node: {effective}"
            );
        }
        alice.shlogin(&["exec", "env", "--", "sh", "-c", "! cat /mnt"]).ok();
    }
    let ran = fs::read_to_string(alice.home.join("ran")).unwrap_or_default();
    assert!(ran.lines().all(|uid| uid == alice.uid.to_string()), "{ran}");
}

/// Threat 10.
pub(crate) fn an_app_cannot_type_on_the_terminal_it_was_started_from(site: &Site) {
    let alice = &site.alice;
    // The old trick, tried on every descriptor that may be the launching terminal, and on the controlling one.
    let attack = alice.own_file(
        "inject.py",
        "import fcntl, termios, os\n\
         fds = [0, 1, 2]\n\
         try: fds.append(os.open('/dev/tty', os.O_RDWR))\n\
         except OSError: pass\n\
         for fd in fds:\n\
         \x20   for c in b'touch injected\\n':\n\
         \x20       try: fcntl.ioctl(fd, termios.TIOCSTI, bytes([c]))\n\
         \x20       except OSError: pass\n\
         \x20   print(fd, os.isatty(fd), flush=True)\n\
         print('attack over', flush=True)\n",
        0o644,
    );
    let program = place().program().display().to_string();
    let line = format!(
        "{program} start --foreground --name tty --network isolated -- python3 {}; cat > typed\n",
        attack.display()
    );
    let mut terminal = Terminal::run(alice, &["sh"]);
    terminal.keys(&line);
    terminal.wait_for(seconds(30), "attack over");
    terminal.keys("\u{4}");
    terminal.keys("exit\n");
    terminal.finish(seconds(20));
    let typed = fs::read_to_string(alice.home.join("typed")).unwrap_or_default();
    assert!(
        !typed.contains("injected") && !alice.home.join("injected").exists(),
        "{typed:?} was typed for her"
    );
}

pub(crate) fn the_app_holds_no_descriptor_and_no_capability_of_ours(site: &Site) {
    // Whoever starts a session may have files open that its programs inherit: a job's, a shell's. A session has none.
    let program = place().program().display().to_string();
    let app = place().app().display().to_string();
    let image = place().image("tiny").display().to_string();
    let start = |words: &[&str]| {
        let with_more = [
            "sh",
            "-c",
            "exec 9</etc/hostname 8>&1; exec \"$@\"",
            "sh",
            &program,
            "start",
            "--json",
            "--network",
            "isolated",
        ];
        Session { user: &site.alice, json: site.alice.run(&[&with_more, words].concat()).ok().json() }
    };
    let sessions = [
        start(&["--name", "bare", "--", "/usr/bin/python3", "-S", "-E", &app]),
        start(&["--name", "image", &image]),
    ];
    for session in sessions {
        let report = session.report();
        let status = &report["status"];
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(status[set], "0000000000000000", "{}: {status:#}", session.name());
        }
        assert_eq!(status["NoNewPrivs"], "1", "{}: {status:#}", session.name());
        // Its three streams, the listener, this connection, and the folder it is just reading.
        let fds: Vec<u64> = report["fds"].as_array().unwrap().iter().filter_map(Value::as_u64).collect();
        assert!(
            fds.len() <= 6 && fds.starts_with(&[0, 1, 2]),
            "{}: {fds:?}, of which three are streams",
            session.name()
        );
        let variables = report["env"].as_object().unwrap();
        let token = session.url().rsplit('=').next().unwrap();
        assert!(variables.values().all(|value| value != &json!(token)), "{variables:?}");
        // No way to our control socket from inside.
        let runtime = site.alice.runtime.join("shlogin").display().to_string();
        let look = format!("for f in $(find {runtime} /tmp /run -type s 2>/dev/null); do echo $f; done");
        let seen = site.alice.shlogin(&["exec", session.name(), "--", "sh", "-c", &look]).ok().stdout;
        assert!(!seen.contains("control") && !seen.contains("gateway"), "{}: {seen}", session.name());
    }
}
