//! What a person sees in a real browser.

use crate::harness::{Site, browser::keep, heavy, place::place};

pub(crate) fn a_cell_run_in_a_real_browser_gives_its_result(site: &Site) {
    let _alone = heavy();
    let image = place().image("notebook").display().to_string();
    let session = site.alice.start(&["--name", "notebook", &image]);
    let (saw, picture) = site.alice.browse("notebook", &[session.url()]);
    keep(&picture, "notebook");
    assert_eq!(saw["result"], "111-222-333", "{saw:#}");
    let sockets = saw["websockets"].to_string();
    assert!(sockets.contains("wss://") && sockets.contains("/api/kernels/"), "{saw:#}");
    assert_eq!(saw["external"], serde_json::json!([]), "{saw:#}");
    session.stop();
}

pub(crate) fn the_starting_page_moves_on_to_the_app_by_itself(site: &Site) {
    let _alone = heavy();
    // The app waits until somebody tells it to listen, by a file in its home folder.
    let gate = site.alice.home.join("go");
    let app = place().app().display().to_string();
    let script = format!(
        "echo warming up; until [ -e {} ]; do read -t 0.1 _ <> <(:); done; exec python3 -S -E {app} +mark=arrived",
        gate.display()
    );
    let starting = crate::harness::Running::spawn(site.alice.shlogin_command(&[
        "start",
        "--name",
        "slow",
        "--network",
        "isolated",
        "--",
        "bash",
        "-c",
        &script,
    ]));
    crate::harness::until(crate::harness::seconds(20), "the session is listed", || {
        (!site.alice.list().is_empty()).then_some(())
    });
    let url = site.alice.shlogin(&["url", "slow"]).ok().stdout;
    let opener = std::thread::scope(|scope| {
        let page = scope.spawn(|| site.alice.browse("page", &[url.trim(), "--wait-for=arrived"]));
        // the page is there, with the log on it, before the app is
        site.alice.wait_for_process(crate::harness::seconds(60), "chrome_crashpad");
        std::fs::write(&gate, "").unwrap();
        page.join().unwrap()
    });
    keep(&opener.1, "starting");
    starting.finish(crate::harness::seconds(60)).ok();
    assert!(!opener.0["url"].as_str().unwrap().contains("token"), "{:#}", opener.0);
}

/// The terminal page as its owner and a guest have it, each in a browser of their own. Threat 10 in its true place: what
/// a program writes makes the page type nothing, and sets no clipboard.
pub(crate) fn threat_10_a_terminal_is_used_shared_and_taken_back_in_real_browsers(site: &Site) {
    let _alone = heavy();
    let session = site.alice.start_bare("notebook", &["--network", "isolated"], &[]);
    // The owner is in before anybody is let in to what she does.
    std::thread::scope(|scope| {
        let owner = scope.spawn(|| site.alice.browse("shell", &[session.url()]));
        let shared = crate::harness::until(crate::harness::seconds(60), "she is at her terminal", || {
            let list =
                site.alice.shlogin(&["share", "--json", session.name(), "--terminal", "1", "--as", "carol"]);
            (list.code() == 0).then(|| list.json())
        });
        let guest = site.mallory.browse("shell", &[shared["url"].as_str().unwrap(), "--guest"]);
        keep(&guest.1, "terminal-guest");
        let (_, picture) = owner.join().unwrap();
        keep(&picture, "terminal-owner");
    });
    assert!(!site.alice.home.join("typed-by-guest").exists());
}
