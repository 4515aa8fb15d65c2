//! What a person gives to `start` reaches the app as it is.

use serde_json::json;

use crate::harness::{Site, place::place};

const AWKWARD: [&str; 9] =
    ["a b", "it's", "say \"hi\"", "two\nlines", "tab\there", "$HOME `id` \\", "", "--port", "é ☃ *"];

pub(crate) fn arguments_reach_the_start_script_unchanged(site: &Site) {
    let session = site.alice.start_image("args", &["--network", "isolated"], &AWKWARD);
    let report = session.report();
    assert_eq!(report["args"], json!(AWKWARD));
    assert_eq!(
        report["env"]["STARTED_BY"], "start",
        "the image's start script does something, so it is the one to run"
    );
}

pub(crate) fn arguments_are_the_command_with_exec_and_without_an_image(site: &Site) {
    let words: Vec<_> = AWKWARD.to_vec();
    let session = site.alice.start_bare("bare", &["--network", "isolated"], &words);
    assert_eq!(session.report()["args"], json!(AWKWARD));

    let image = place().image("tiny").display().to_string();
    let mut args = vec![
        "--name",
        "exec",
        "--network",
        "isolated",
        "--exec",
        &image,
        "--",
        "python3",
        "-S",
        "-E",
        "/opt/tiny/app.py",
    ];
    args.extend(AWKWARD);
    let session = site.alice.start(&args);
    let report = session.report();
    assert_eq!(report["args"], json!(AWKWARD));
    assert_eq!(report["env"].get("STARTED_BY"), None, "no script of the image's ran");
}

pub(crate) fn the_environment_that_was_asked_for_reaches_the_app(site: &Site) {
    let odd = "a b 'c' \"d\" $E, f=g";
    let variable = format!("ODD={odd}");
    for (name, image) in [("bare", false), ("image", true)] {
        let options = ["--network", "isolated", "--env", &variable, "--env", "PLAIN=1"];
        let session = if image {
            site.alice.start_image(name, &options, &[])
        } else {
            site.alice.start_bare(name, &options, &[])
        };
        let report = session.report();
        let env = &report["env"];
        assert_eq!((&env["ODD"], &env["PLAIN"]), (&json!(odd), &json!("1")), "{name}");
        assert_eq!(env["SHLOGIN_SESSION"], session.id());
        assert_eq!(env["SHLOGIN_BASE_PATH"], "/");
        let url = env["SHLOGIN_URL"].as_str().unwrap();
        assert!(session.url().starts_with(url) && !url.contains("token"), "{url} of {}", session.url());
        assert_eq!(env["HOME"], site.alice.home.display().to_string());
        assert_eq!(report["uid"], site.alice.uid, "a user stays herself inside");
        assert_eq!(report["gid"], site.alice.gid);
    }
}

pub(crate) fn what_is_bound_is_seen_and_the_home_can_be_kept_out(site: &Site) {
    let alice = &site.alice;
    alice.own_file("data/answer", "forty-two", 0o600);
    let bind = format!("{}:/mnt:ro", alice.home.join("data").display());
    let session = alice.start_image(
        "bound",
        &["--network", "isolated", "--no-home", "--bind", &bind, "--pwd", "/mnt"],
        &[],
    );
    assert_eq!(session.report()["cwd"], "/mnt");
    assert_eq!(alice.shlogin(&["exec", "bound", "--", "cat", "/mnt/answer"]).ok().stdout, "forty-two");
    alice.shlogin(&["exec", "bound", "--", "sh", "-c", "! touch /mnt/new"]).ok();
    let home = alice.home.join("data").display().to_string();
    alice.shlogin(&["exec", "bound", "--", "test", "!", "-e", &home]).ok();
}

pub(crate) fn a_home_an_overlay_and_a_port_of_one_s_own(site: &Site) {
    let alice = &site.alice;
    alice.own_file("other/in-home", "other", 0o600);
    let layer = alice.home.join("layer");
    alice.own_folder(&layer, 0o700);
    let home = format!("{}:{}", alice.home.join("other").display(), alice.home.display());
    let options = [
        "--network",
        "isolated",
        "--home",
        &home,
        "--overlay",
        &layer.display().to_string(),
        "--port",
        "18440",
        "--runtime-arg=--cleanenv",
    ];
    let session = alice.start_image("options", &options, &[]);
    assert_eq!(session.app_port(), 18440);
    assert_eq!(
        session.report()["env"]["SHLOGIN_PORT"],
        "18440",
        "it is told its port, in a clean environment, too"
    );
    alice.shlogin(&["exec", "options", "--", "cat", "in-home"]).ok().says("other");
    alice.shlogin(&["exec", "options", "--", "sh", "-c", "echo kept > /kept"]).ok();
    session.stop();
    let again = alice.start_image("options", &options, &[]);
    alice.shlogin(&["exec", "options", "--", "cat", "/kept"]).ok().says("kept");
    again.stop();
}
