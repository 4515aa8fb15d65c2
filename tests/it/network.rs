//! What a session reaches, and what reaches it: threat 6, and the ways out.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::{
    Running, Site, User,
    http::Gate,
    net::{Internet, METADATA, NAME, NODE, Resolver, SAYS, WORLD},
    place::place,
    program::bare,
    seconds, sh,
};

/// Starts the small app on the node of a small internet, its gateway behind a socket (which no network namespace
/// hides from us), and asks it for its report.
fn report_from(internet: &Internet, user: &User, options: &[&str], image: bool, words: &[&str]) -> Value {
    let tiny;
    let mut args: Vec<String> = ["start", "--json", "--listen", "unix"].map(str::to_owned).into();
    if image {
        tiny = place().image("tiny").display().to_string();
        args.extend(["--name", "out"].map(str::to_owned));
        args.extend(options.iter().map(|&option| option.to_owned()));
        args.extend([tiny.as_str(), "--"].map(str::to_owned));
        args.extend(words.iter().map(|&word| word.to_owned()));
    } else {
        args.extend(bare("out", options, words));
    }
    let words: Vec<_> = args.iter().map(String::as_str).collect();
    let started = internet.shlogin(user, &words).ok().json();
    let socket = PathBuf::from(started["gateway"]["socket"].as_str().unwrap());
    let mut gate = Gate::behind(socket, started["url"].as_str().unwrap());
    gate.sign_in(started["url"].as_str().unwrap());
    let answer = gate.get("/report");
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap()
}

fn fetches_by_name(site: &Site, resolver: Resolver, image: bool) {
    let internet = Internet::new(resolver);
    let url = format!("http://{NAME}/");
    let fetch = format!("+fetch={url}");
    let report = report_from(&internet, &site.alice, &["--network", "outbound"], image, &[&fetch]);
    assert_eq!(report["found"][&url], SAYS, "{:#}", report["found"]);
    site.close();
}

pub(crate) fn outbound_works_by_name_at_the_first_instruction(site: &Site) {
    fetches_by_name(site, Resolver::Direct, false);
}

pub(crate) fn outbound_works_behind_a_resolver_on_loopback(site: &Site) {
    fetches_by_name(site, Resolver::Loopback, false);
}

pub(crate) fn outbound_works_from_an_image(site: &Site) {
    fetches_by_name(site, Resolver::Loopback, true);
}

pub(crate) fn nothing_comes_in_and_the_node_s_loopback_is_out_of_reach(site: &Site) {
    let internet = Internet::new(Resolver::Loopback);
    // A service of the node's, on all its addresses: another user's app, say.
    let service = Running::spawn(internet.on_node(
        &site.mallory,
        &[
            "python3",
            "-S",
            "-E",
            place().app().to_str().unwrap(),
            "+bind=0.0.0.0",
            "+port=18330",
            "+mark=mallory's",
        ],
    ));
    service.wait_for(seconds(10), "tiny listens on");
    let metadata = ["bash", "-c", &format!("exec 3<>/dev/tcp/{METADATA}/80")];
    Running::spawn(internet.on_node(&site.mallory, &metadata)).finish(seconds(20)).ok();
    let closed = ["127.0.0.1:18330", &format!("{WORLD}:18330"), &format!("{METADATA}:80"), "[::1]:18330"];
    // A socket bound to a device is routed by that device's routes alone.
    let mut targets: Vec<String> = closed.iter().map(|target| (*target).to_owned()).collect();
    targets.extend(closed.iter().map(|target| format!("{target}@eth0")));
    targets.push(format!("{WORLD}:80"));
    let words: Vec<_> = targets
        .iter()
        .map(|target| format!("+connect={target}"))
        .chain(["+bind=0.0.0.0".to_owned(), "+port=18331".to_owned(), "+mark=alice's".to_owned()])
        .collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let report = report_from(&internet, &site.alice, &["--network", "outbound"], false, &words);
    let found = &report["found"];
    let (world, closed) = targets.split_last().unwrap();
    assert_eq!(found[world], "connected", "the world is within reach: {found:#}");
    for target in closed {
        assert_ne!(found[target], "connected", "{target}: {found:#}");
    }
    // From the node itself and from the world: nobody gets to the app.
    for (from, address) in [("node", "127.0.0.1"), ("node", NODE), ("world", NODE)] {
        let probe = format!("exec 3<>/dev/tcp/{address}/18331");
        let words = ["bash", "-c", &probe];
        let command = if from == "node" {
            internet.on_node(&site.mallory, &words)
        } else {
            internet.in_world(&site.mallory, &words)
        };
        assert_ne!(Running::spawn(command).finish(seconds(20)).code(), 0, "{address} from the {from}");
    }
    drop(service);
    site.close();
}

pub(crate) fn isolated_reaches_nothing(site: &Site) {
    let internet = Internet::new(Resolver::Direct);
    let url = format!("http://{NAME}/");
    let targets = [format!("{WORLD}:80"), format!("{NODE}:53"), format!("{WORLD}:53")];
    let words: Vec<_> = std::iter::once(format!("+fetch={url}"))
        .chain(targets.iter().map(|target| format!("+connect={target}")))
        .collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let report = report_from(&internet, &site.alice, &["--network", "isolated"], false, &words);
    let found = &report["found"];
    assert!(found[&url].as_str().unwrap().starts_with("failed"), "{found:#}");
    for target in &targets {
        assert_ne!(found[target], json!("connected"), "{found:#}");
    }
    let interfaces =
        internet.shlogin(&site.alice, &["exec", "out", "--", "cat", "/proc/net/dev"]).ok().stdout;
    let names: Vec<_> =
        interfaces.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim).collect();
    assert_eq!(names, ["lo"]);
    assert!(sh(&["ip", "netns", "list"]).contains("shlt-"));
    site.close();
}
