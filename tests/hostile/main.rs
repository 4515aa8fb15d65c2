//! Attackers with the tools of their trade, against the gateway of a real session, while its owner works on: connections
//! that hang, floods, clients that read nothing, scanners of TLS. They come from a network of their own, so that they are
//! somebody else than the owner to the gateway.
//!
//! A binary of its own beside `it`: these tests mostly wait, so all of them run at once but those that want both cores.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking; all of this binary is tests"
)]

mod app;
mod browse;
mod deaf;
mod flood;
#[path = "../../nginx-free/tests/it/frames.rs"]
#[allow(dead_code, reason = "the proxy's own tests use the rest")]
mod frames;
#[path = "../it/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the other test binaries use the rest")]
mod harness;
mod scan;
mod slow;
mod stage;
mod wire;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use harness::{
    Site,
    http::Gate,
    needs::{Need::Root, absent},
    place,
};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match words[..] {
        [app::ROLE] => app::run(),
        [browse::ROLE, url, address, pages] => browse::run(url, address, pages),
        [deaf::ROLE, address, cookie] => deaf::run(address, cookie),
        [deaf::TUNNEL, address, cookie] => deaf::tunnel(address, cookie),
        [flood::ROLE, address] => flood::run(address),
        [stage::SIGN_IN, url, address] => {
            let mut gate = Gate::at(address.parse().unwrap(), url);
            gate.sign_in(url);
            println!("{}", gate.cookies.join("; "));
        }
        _ => {
            let mut arguments = Arguments::from_args();
            arguments.test_threads.get_or_insert(16);
            let conclusion = libtest_mimic::run(&arguments, proofs());
            place::remove();
            return conclusion.exit_code();
        }
    }
    ExitCode::SUCCESS
}

fn proofs() -> Vec<Trial> {
    vec![
        proof("scan::testssl", &["testssl"], scan::testssl),
        trial("scan::sslyze", scan::no_scanners(), scan::sslyze),
        trial("scan::ssh_audit", scan::no_scanners(), scan::ssh_audit),
        // the longest first: the others run beside it
        proof("deaf::for_a_minute", &[], deaf::for_a_minute),
        proof("deaf::apps_hold_their_websockets_back", &[], deaf::apps_hold_their_websockets_back),
        proof("slow::heads", &["slowhttptest"], slow::heads),
        proof("slow::bodies", &["slowhttptest"], slow::bodies),
        proof("slow::ranges", &["slowhttptest"], slow::ranges),
        proof("slow::readers", &["slowhttptest"], slow::readers),
        proof("flood::of_frames", &[], flood::of_frames),
        proof("flood::of_requests", &["h2load"], flood::of_requests),
        proof("flood::of_connections", &["h2load"], flood::of_connections),
        proof("flood::of_tiny_windows", &["h2load"], flood::of_tiny_windows),
    ]
}

/// What is missing is a failure in CI, and to be seen by a person.
fn proof(name: &'static str, commands: &[&str], prove: fn(&Site)) -> Trial {
    trial(name, absent(commands), prove)
}

fn trial(name: &'static str, missing: Option<String>, prove: fn(&Site)) -> Trial {
    let missing = Root.missing().or_else(|| absent(&["ip"])).or(missing);
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    match missing {
        Some(why) if ci => Trial::test(name, move || Err(Failed::from(why))),
        Some(why) => {
            Trial::test(name, || Ok(())).with_kind(format!("SKIPPED, {why}")).with_ignored_flag(true)
        }
        None => Trial::test(name, move || {
            prove(&Site::new());
            Ok(())
        }),
    }
}
