//! What the commands print, and what they end with.

use std::{
    ffi::OsString,
    fs::File,
    io::Read,
    os::fd::{AsFd, AsRawFd},
    path::Path,
};

use nix::{
    fcntl::OFlag,
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
    unistd::pipe2,
};
use shlogin::{
    sandbox::protocol::{send, to_file, wait_readable},
    session::control::{self, ExecSpec, Request},
};

use crate::harness::{
    Running, Site, heavy,
    place::place,
    program::{Output, bare},
    seconds,
    terminal::Terminal,
};

const ISOLATED: [&str; 2] = ["--network", "isolated"];

/// `start --json` with the small app.
fn try_start(site: &Site, name: &str, options: &[&str], words: &[&str]) -> Output {
    let mut args = vec!["start".to_owned(), "--json".to_owned()];
    args.extend(bare(name, &[&ISOLATED[..], options].concat(), words));
    site.alice.shlogin(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

pub(crate) fn start_and_show_print_what_programs_rely_on(site: &Site) {
    let session = site.alice.start_bare("first", &ISOLATED, &["+port=18340"]);
    for (what, json) in
        [("start", session.json.clone()), ("show", session.show()), ("list", site.alice.list().remove(0))]
    {
        assert_eq!(json["name"], "first", "{what}: {json:#}");
        assert_eq!(json["state"], "running", "{what}: {json:#}");
        assert_eq!(json["app_port"], 18340, "{what}: {json:#}");
        assert_eq!(
            (&json["runtime"], &json["network"], &json["isolation"]),
            (&"bare".into(), &"isolated".into(), &"namespace".into()),
            "{what}"
        );
        assert_eq!(json["id"].as_str().unwrap().len(), 36, "{what}: {json:#}");
        assert_eq!(json["image"], serde_json::Value::Null, "{what}: {json:#}");
        let pod = json["pod"].as_u64().unwrap();
        assert_eq!(json["gateway"]["port"].as_u64().unwrap(), 3001 + 10 * pod, "{what}: {json:#}");
        assert!(
            json["gateway"]["host"].is_string()
                && json["gateway"]["fingerprint"].as_str().unwrap().len() >= 64,
            "{what}: {json:#}"
        );
        assert_eq!(json["pid"].as_i64().unwrap(), i64::from(session.pid().as_raw()), "{what}: {json:#}");
        assert!(json["started_at"].as_str().unwrap().contains('T'), "{what}: {json:#}");
        assert!(std::path::Path::new(json["log"].as_str().unwrap()).is_file(), "{what}: {json:#}");
        assert_eq!(json.get("url").is_some(), what == "start", "{what}: {json:#}");
    }
    // People get the URL, and only that, on standard output.
    let url = site.alice.shlogin(&["url", "first"]).ok();
    assert_eq!(url.stdout.lines().count(), 1);
    assert!(url.stdout.starts_with("https://"), "{url:?}");
    assert_eq!(site.alice.shlogin(&["url", "--json", "first"]).ok().json()["name"], "first");
    assert!(session.pod() >= 1);
}

pub(crate) fn names_can_be_shortened_as_long_as_they_are_unique(site: &Site) {
    site.alice.start_bare("alpha", &ISOLATED, &[]);
    site.alice.start_bare("alpine", &ISOLATED, &[]);
    assert_eq!(site.alice.shlogin(&["show", "--json", "alph"]).ok().json()["name"], "alpha");
    site.alice.shlogin(&["show", "alp"]).ended_with(116).says("alpine");
    site.alice.shlogin(&["stop", "alpi"]).ok();
    assert_eq!(site.alice.shlogin(&["show", "--json", "alp"]).ok().json()["name"], "alpha");
    // Names are a user's own.
    site.mallory.start_bare("alpha", &ISOLATED, &[]);
    site.mallory.shlogin(&["show", "alpine"]).ended_with(116);
}

pub(crate) fn a_name_in_use_is_refused(site: &Site) {
    let session = site.alice.start_bare("taken", &ISOLATED, &[]);
    let processes = site.alice.processes().len();
    let output = try_start(site, "taken", &[], &[]).ended_with(120);
    assert!(output.json()["error"]["message"].as_str().unwrap().contains("taken"), "{output:?}");
    assert_eq!(site.alice.processes().len(), processes, "the refused one left something");
    assert_eq!(session.signed_in().get("/").text(), "tiny");
}

pub(crate) fn root_starts_no_session(_: &Site) {
    let mut command = std::process::Command::new(place().program());
    command.args(["start", "--network", "isolated", "--", "true"]);
    Running::spawn(command).finish(seconds(20)).ended_with(2).says("ordinary users");
}

pub(crate) fn a_missing_image_is_refused(site: &Site) {
    for image in ["nowhere.sif", "./nowhere", "/nonexistent/folder/x.sif"] {
        let output = site.alice.shlogin(&["start", "--json", image]).ended_with(121);
        assert!(
            output.json()["error"]["message"].as_str().unwrap().contains(image.trim_start_matches("./")),
            "{output:?}"
        );
    }
    let broken = site.alice.own_file("broken.sif", "this is no image", 0o644);
    site.alice.shlogin(&["start", broken.to_str().unwrap()]).ended_with(121);
    site.alice.wait_until_nothing_is_left(seconds(2));
}

pub(crate) fn a_session_that_does_not_exist_is_named(site: &Site) {
    for command in ["show", "url", "logs", "stop", "forget"] {
        site.alice.shlogin(&[command, "nobody"]).ended_with(116).says("nobody");
        let error = site.alice.shlogin(&[command, "--json", "nobody"]).ended_with(116).json();
        assert!(error["error"]["message"].is_string(), "{command}: {error:#}");
    }
    site.alice.shlogin(&["exec", "nobody", "--", "true"]).ended_with(116);
    site.alice.shlogin(&["start", "--no-such-option"]).ended_with(2);
}

pub(crate) fn a_port_that_never_opens_is_given_up(site: &Site) {
    let output = try_start(site, "never", &["--ready-timeout", "1s"], &["+say=still thinking", "+never"])
        .ended_with(123);
    assert!(output.stdout.contains("still thinking"), "its last lines are shown: {output:?}");
    site.alice.wait_until_nothing_is_left(seconds(2));
    assert!(site.alice.list().is_empty());
}

pub(crate) fn an_app_that_dies_at_once_shows_its_last_lines_and_its_status(site: &Site) {
    let output = try_start(site, "dies", &[], &["+say=on stdout", "+complain=what went wrong", "+exit=42"])
        .ended_with(122);
    let error = output.json();
    assert_eq!(error["error"]["status"], 42, "{error:#}");
    assert!(output.stdout.contains("what went wrong") && output.stdout.contains("on stdout"), "{error:#}");
    site.alice.wait_until_nothing_is_left(seconds(2));
    let record = site.alice.shlogin(&["show", "--json", "dies"]).ok().json();
    assert_eq!((&record["state"], &record["status"]), (&"ended".into(), &42.into()), "{record:#}");

    // People see the same.
    let mut args = vec!["start".to_owned()];
    args.extend(bare("dies-too", &ISOLATED, &["+complain=what went wrong", "+exit=3"]));
    let output = site.alice.shlogin(&args.iter().map(String::as_str).collect::<Vec<_>>()).ended_with(122);
    assert!(output.stderr.contains("what went wrong") && output.stderr.contains('3'), "{output:?}");
    assert_eq!(output.stdout, "", "no URL of what is not there");

    // A command that is not there at all.
    let output = site.alice.shlogin(&[
        "start",
        "--json",
        "--name",
        "ghost",
        "--network",
        "isolated",
        "--",
        "no-such-command",
    ]);
    assert!(matches!(output.code(), 122 | 125) && output.stdout.contains("no-such-command"), "{output:?}");
    site.alice.wait_until_nothing_is_left(seconds(2));
}

pub(crate) fn a_bad_configuration_is_refused(site: &Site) {
    site.alice.own_file(".config/shlogin/config.toml", "ready_timout = \"1s\"\n", 0o600);
    let output = try_start(site, "typo", &[], &[]).ended_with(117);
    let message = output.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("ready_timout") && message.contains("config.toml"), "{message}");
    site.alice.own_file(".config/shlogin/config.toml", "network = \"isolated\"\n", 0o600);
    let shown = site.alice.shlogin(&["config", "show"]).ok().stdout;
    assert!(shown.contains("isolated"), "{shown}");
    site.alice.shlogin(&["config", "path"]).ok().says("config.toml");
}

pub(crate) fn an_ended_session_is_remembered_until_it_is_forgotten(site: &Site) {
    let session = site.alice.start_bare("gone", &ISOLATED, &["+say=for the record"]);
    site.alice.shlogin(&["forget", "gone"]).ended_with(1);
    session.stop();
    assert!(site.alice.list().is_empty());
    let all = site.alice.shlogin(&["list", "--all", "--json"]).ok().json();
    assert_eq!((&all[0]["name"], &all[0]["state"]), (&"gone".into(), &"ended".into()), "{all:#}");
    site.alice.shlogin(&["logs", "gone"]).ok().says("for the record");
    site.alice.shlogin(&["forget", "gone"]).ok();
    site.alice.shlogin(&["show", "gone"]).ended_with(116);
    assert_eq!(site.alice.shlogin(&["list", "--all", "--json"]).ok().json(), serde_json::json!([]));

    // Or until it is too old, which the next start looks for.
    site.alice.start_bare("aged", &ISOLATED, &[]).stop();
    let args = bare("young", &ISOLATED, &[]);
    let mut start = site.alice.shlogin_command(&["start"]);
    start.args(&args).env("SHLOGIN_RECORDS_MAX_AGE", "1ms");
    Running::spawn(start).finish(seconds(20)).ok();
    let all = site.alice.shlogin(&["list", "--all", "--json"]).ok().json();
    assert_eq!((all.as_array().unwrap().len(), &all[0]["name"]), (1, &"young".into()), "{all:#}");
}

/// A site's own certificate: the gateway shows it, and says its fingerprint.
pub(crate) fn a_site_s_certificate_is_used(site: &Site) {
    let alice = &site.alice;
    let made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "30",
        "-subj",
        "/CN=login.example",
        "-keyout",
        "site.key",
        "-out",
        "site.pem",
    ];
    alice.run(&made).ok();
    let fingerprint =
        alice.run(&["openssl", "x509", "-in", "site.pem", "-noout", "-fingerprint", "-sha256"]).ok();
    let fingerprint = fingerprint.stdout.trim().rsplit('=').next().unwrap().to_owned();
    let mut start = alice.shlogin_command(&["start", "--json"]);
    start.args(bare("certified", &ISOLATED, &["+mark=behind it"]));
    start.env("SHLOGIN_GATEWAY_CERTIFICATE", alice.home.join("site.pem"));
    start.env("SHLOGIN_GATEWAY_KEY", alice.home.join("site.key"));
    let started = Running::spawn(start).finish(seconds(20)).ok().json();
    assert_eq!(started["gateway"]["fingerprint"], fingerprint);
    let port = started["gateway"]["port"].to_string();
    let shown = alice.run(&[
        "sh",
        "-c",
        "openssl s_client -connect 127.0.0.1:$0 </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256",
        &port,
    ]);
    shown.ok().says(&fingerprint);
}

pub(crate) fn exec_ends_with_the_command_s_own_status(site: &Site) {
    site.alice.start_bare("bare", &ISOLATED, &[]);
    site.alice.start_image("image", &ISOLATED, &[]);
    for name in ["bare", "image"] {
        let run = |words: &[&str]| site.alice.shlogin(&[&["exec", name, "--"], words].concat());
        run(&["true"]).ok();
        run(&["sh", "-c", "exit 37"]).ended_with(37);
        run(&["sh", "-c", "kill -9 $$"]).ended_with(137);
        let both = run(&["sh", "-c", "echo out; echo err >&2"]).ok();
        assert_eq!((both.stdout.as_str(), both.stderr.as_str()), ("out\n", "err\n"), "{name}");
        assert_eq!(
            run(&["printf", "%s|", "a b", "it's", "two\nlines", ""]).ok().stdout,
            "a b|it's|two\nlines||",
            "{name}"
        );
        // It is in the session: the same network, and the app's files.
        let fetch =
            "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8080/').read().decode())";
        assert_eq!(run(&["python3", "-c", fetch]).ok().stdout.trim(), "tiny", "{name}");
        let code = run(&["no-such-command"]).code();
        // the node's own way, or Apptainer's
        assert!(matches!(code, 125..=127 | 255), "{name}: {code}");
    }
    site.alice.shlogin(&["exec", "image", "--", "test", "-f", "/opt/tiny/app.py"]).ok();
    // Standard input goes in, and its end too.
    let mut command = site.alice.command("sh");
    command.args(["-c", &format!("printf 'a\\nb\\n' | {} exec bare -- wc -l", place().program().display())]);
    assert_eq!(Running::spawn(command).finish(seconds(20)).ok().stdout.trim(), "2");
}

/// By the socket itself, for no command is quick enough to go before it has been told that what it asked for runs.
pub(crate) fn a_client_that_goes_at_once_leaves_no_command(site: &Site) {
    let session = site.alice.start_bare("box", &ISOLATED, &[]);
    let record = session.show();
    let folder = Path::new(record["footprint"]["session"].as_str().unwrap());
    let words = ["sleep", "1000"].map(OsString::from).to_vec();
    for request in [Request::Exec { terminal: false }, Request::Sftp] {
        let (input, _typing) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let (heard, output) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let spec = to_file(&ExecSpec { words: words.clone(), env: Vec::new() }).unwrap();
        let mut fds = vec![input.as_fd(), output.as_fd(), output.as_fd()];
        if matches!(request, Request::Exec { .. }) {
            fds.insert(0, spec.as_fd());
        }
        let client = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        connect(client.as_raw_fd(), &UnixAddr::new(&control::path_in(folder)).unwrap()).unwrap();
        send(client.as_fd(), &request, &fds).unwrap();
        drop((client, output));
        // Nobody has it open for writing any more.
        wait_readable(&heard, seconds(5)).unwrap_or_else(|error| panic!("{request:?}: {error}"));
        let mut said = Vec::new();
        File::from(heard).read_to_end(&mut said).unwrap();
        assert!(said.is_empty(), "{request:?}: {said:?}");
    }
}

pub(crate) fn exec_on_a_terminal_gets_one(site: &Site) {
    site.alice.start_bare("tty", &ISOLATED, &[]);
    let terminal =
        Terminal::shlogin(&site.alice, &["exec", "tty", "--", "sh", "-c", "tty; stty size; exit 5"]);
    terminal.wait_for(seconds(15), "24 80");
    assert!(!terminal.screen().contains("not a tty"), "{}", terminal.screen());
    assert_eq!(terminal.finish(seconds(10)), 5);

    let mut terminal = Terminal::shlogin(&site.alice, &["shell", "tty"]);
    terminal.keys("echo $((6 * 7))\n");
    terminal.wait_for(seconds(15), "42");
    terminal.keys("exit 6\n");
    assert_eq!(terminal.finish(seconds(10)), 6);
}

pub(crate) fn logs_follow_until_the_session_ends(site: &Site) {
    let session = site.alice.start_bare("talks", &ISOLATED, &["+say=one", "+complain=two"]);
    let follow = Running::spawn(site.alice.shlogin_command(&["logs", "-f", "talks"]));
    follow.wait_for(seconds(10), "one");
    follow.wait_for(seconds(10), "two");
    session.stop();
    follow.finish(seconds(10)).ok();
}

pub(crate) fn doctor_prints_a_line_for_each_thing(site: &Site) {
    let output = site.alice.shlogin(&["doctor"]);
    assert!(matches!(output.code(), 0 | 1), "{output:?}");
    for word in ["user namespaces", "/dev/fuse", "pasta", "slurm", "munge", "runtime"] {
        assert!(output.stdout.to_lowercase().contains(word), "{word}: {}", output.stdout);
    }
    assert!(
        site.alice.shlogin(&["doctor", "--json"]).json().is_array()
            || site.alice.shlogin(&["doctor", "--json"]).json().is_object()
    );
}

pub(crate) fn verify_finds_nothing_open(site: &Site) {
    let _alone = heavy();
    site.alice.start_bare("checked", &ISOLATED, &["+bind=0.0.0.0"]);
    site.alice.shlogin(&["verify", "checked"]).ok();
    site.alice.shlogin(&["verify", "nobody"]).ended_with(116);
}

pub(crate) fn verify_as_another_user_holds_and_finds_what_was_opened(site: &Site) {
    let _alone = heavy();
    let session = site.alice.start_bare("checked", &ISOLATED, &["+bind=0.0.0.0"]);
    let verify = || {
        let mut command = std::process::Command::new(place().program());
        command.args([
            "verify",
            "--json",
            "--owner",
            &site.alice.name,
            "--as",
            &site.mallory.name,
            "checked",
        ]);
        Running::spawn(command).finish(seconds(60))
    };
    let held = verify().ok().json();
    let findings = held["findings"].as_array().unwrap();
    assert!(
        findings.len() > 20 && findings.iter().all(|finding| finding["got_through"] == false),
        "{held:#}"
    );

    let scratch = session.show()["footprint"]["scratch"].as_str().unwrap().to_owned();
    std::fs::set_permissions(&scratch, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let opened = verify().ended_with(1).json();
    let through: Vec<_> = opened["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["got_through"] == true)
        .collect();
    assert!(through.iter().any(|finding| finding.to_string().contains(&scratch)), "{opened:#}");
}
