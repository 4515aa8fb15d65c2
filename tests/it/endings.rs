//! How sessions end, and that nothing of them stays.

use nix::sys::signal::Signal;

use crate::harness::{Running, Site, place::place, program::bare, seconds, terminal::Terminal, until};

pub(crate) fn the_session_ends_with_its_app_and_its_status(site: &Site) {
    let session = site.alice.start_bare("ends", &["--network", "isolated"], &["+say=last words"]);
    let asked = session.signed_in();
    // The app is gone before it can answer.
    let answer = asked.raw(
        format!("GET /exit?7 HTTP/1.1\r\nHost: {}\r\n{}\r\n", asked.authority, asked.cookie_header())
            .as_bytes(),
    );
    assert!(answer.is_none_or(|answer| answer.status == 502), "an app that is gone answers nothing");
    let record = session.wait_until_ended();
    assert_eq!(record["status"], 7, "{record:#}");
    assert!(record["reason"].is_string() && record["ended_at"].is_string(), "{record:#}");
    site.alice.wait_until_nothing_is_left(seconds(2));
    site.alice.shlogin(&["logs", "ends"]).ok().says("last words");
}

fn foreground(site: &Site, name: &str, words: &[&str]) -> Vec<String> {
    let mut args = vec!["start".to_owned(), "--foreground".to_owned()];
    args.extend(bare(name, &["--network", "isolated"], words));
    let _ = site;
    args
}

pub(crate) fn the_foreground_ends_with_the_app_s_status(site: &Site) {
    let args = foreground(site, "front", &["+say=hello from the app"]);
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let running = Running::spawn(site.alice.shlogin_command(&args));
    running.wait_for(seconds(20), "tiny listens on");
    running.wait_for(seconds(5), "hello from the app");
    // until the session has seen it listen, its page is the one that says so
    until(seconds(10), "the session runs", || (site.alice.list()[0]["state"] == "running").then_some(()));
    let url = site.alice.shlogin(&["url", "front"]).ok().stdout;
    let mut gate = crate::harness::http::Gate::to(url.trim());
    gate.sign_in(url.trim());
    let head = format!("GET /exit?9 HTTP/1.1\r\nHost: {}\r\n{}\r\n", gate.authority, gate.cookie_header());
    let answer = gate.raw(head.as_bytes());
    assert!(answer.as_ref().is_none_or(|answer| answer.status == 502), "{answer:?}");
    running.finish(seconds(10)).ended_with(9);

    // Also where it never answered: then its output has been shown, and there is nothing else to say.
    let words = ["start", "--foreground", "--network", "isolated", "--", "sh", "-c", "echo too soon; exit 7"];
    site.alice.shlogin(&words).ended_with(7).says("too soon");
    site.alice.wait_until_nothing_is_left(seconds(2));
}

pub(crate) fn ctrl_c_in_the_foreground_leaves_nothing(site: &Site) {
    let args = foreground(site, "front", &[]);
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let mut terminal = Terminal::shlogin(&site.alice, &args);
    terminal.wait_for(seconds(20), "tiny listens on");
    terminal.keys("\u{3}");
    let status = terminal.finish(seconds(15));
    assert_ne!(status, 0, "an app that was interrupted did not end well");
    site.alice.wait_until_nothing_is_left(seconds(2));
}

pub(crate) fn a_hang_up_of_the_terminal_leaves_nothing(site: &Site) {
    let args = foreground(site, "front", &[]);
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let terminal = Terminal::shlogin(&site.alice, &args);
    terminal.wait_for(seconds(20), "tiny listens on");
    let front = site
        .alice
        .processes()
        .into_iter()
        .find(|process| process.words.get(1).is_some_and(|word| word == "start"));
    nix::sys::signal::kill(front.unwrap().pid, Signal::SIGHUP).unwrap();
    assert_ne!(terminal.finish(seconds(15)), 0);
    site.alice.wait_until_nothing_is_left(seconds(15));
}

pub(crate) fn stop_takes_a_fork_bomb_and_its_daemons_with_it(site: &Site) {
    let other = site.alice.start_bare("bystander", &["--network", "isolated"], &["+mark=unharmed"]);
    let before = site.alice.processes().len();
    let bomb =
        site.alice.start_bare("bomb", &["--network", "isolated"], &["+deaf", "+children=20", "+swarm=300"]);
    assert!(site.alice.processes().len() > before + 300);
    let asked = std::time::Instant::now();
    site.alice.shlogin(&["stop", "--grace", "1s", bomb.name()]).ok();
    until(seconds(5).saturating_sub(asked.elapsed()), "the bomb is gone", || {
        (site.alice.processes().len() <= before).then_some(())
    });
    assert_eq!(other.signed_in().get("/").text(), "unharmed");
}

pub(crate) fn stop_asks_before_it_kills(site: &Site) {
    let polite = site.alice.home.join("polite");
    let script = format!(
        "trap 'echo asked > {}; exit 0' TERM; {} -S -E {} & wait",
        polite.display(),
        "/usr/bin/python3",
        place().app().display()
    );
    let session =
        site.alice.start(&["--name", "polite", "--network", "isolated", "--", "bash", "-c", &script]);
    session.stop();
    site.alice.wait_until_nothing_is_left(seconds(2));
    assert_eq!(std::fs::read_to_string(&polite).unwrap().trim(), "asked");

    let session = site.alice.start_bare("deaf", &["--network", "isolated"], &["+deaf"]);
    let asked = std::time::Instant::now();
    site.alice.shlogin(&["stop", "--grace", "1s", session.name()]).ok();
    assert!(asked.elapsed() >= seconds(1), "it had its second");
    site.alice.wait_until_nothing_is_left(seconds(2));
}

pub(crate) fn a_background_session_outlives_its_terminal(site: &Site) {
    let mut args = vec!["start".to_owned()];
    args.extend(bare("stays", &["--network", "isolated"], &["+mark=still here"]));
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let terminal = Terminal::shlogin(&site.alice, &args);
    assert_eq!(terminal.finish(seconds(30)), 0);
    let url = site.alice.shlogin(&["url", "stays"]).ok().stdout;
    let mut gate = crate::harness::http::Gate::to(url.trim());
    gate.sign_in(url.trim());
    assert_eq!(gate.get("/").text(), "still here");
}
