//! Real apps through the proxy, in a real browser: each does some work of its kind, under a prefix and at the root.
//!
//! A binary of its own beside `it`: what it needs takes minutes to install, and its `main` makes what has to go at the end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking; all of this binary is tests"
)]

mod app;
mod front;
#[path = "../it/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the other test binary uses the rest")]
mod harness;
mod large;
mod opened;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use app::App;
use harness::{
    Site,
    needs::Need::{Browser, Pasta, Root},
    place,
};
use opened::At;

fn main() -> ExitCode {
    let conclusion = libtest_mimic::run(&Arguments::from_args(), proofs());
    place::remove();
    conclusion.exit_code()
}

fn proofs() -> Vec<Trial> {
    let missing = [Root, Browser, Pasta]
        .iter()
        .find_map(|need| need.missing())
        .or_else(app::missing)
        .or_else(front::missing);
    let mut all = Vec::new();
    let mut proof = |name: String, prove: Box<dyn Fn(&Site) + Send>| {
        all.push(trial(name, prove, missing.as_deref()));
    };
    // the longest first: the others run beside it
    proof("large::a_gibibyte_by_the_browser_under_a_prefix".to_owned(), Box::new(large::by_the_browser));
    proof("large::a_gibibyte_in_a_session".to_owned(), Box::new(large::in_a_session));
    for app in App::ALL {
        for at in [At::Prefix, At::Root] {
            let prove = move |site: &Site| opened::through_routes(site, app, at);
            proof(format!("{}::works_{at}", app.name()), Box::new(prove));
        }
    }
    for app in [App::Theia, App::CodeServer, App::JupyterLab] {
        let prove = move |site: &Site| opened::in_a_session(site, app);
        proof(format!("{}::works_in_a_session", app.name()), Box::new(prove));
    }
    for app in [App::Shiny, App::Desktop] {
        let prove = move |site: &Site| opened::foreign_pages_do_not_connect(site, app);
        proof(format!("{}::foreign_pages_do_not_connect", app.name()), Box::new(prove));
    }
    proof("theia::two_on_one_host_do_not_collide".to_owned(), Box::new(opened::two_theias));
    all
}

/// What is missing is a failure in CI, and to be seen by a person.
fn trial(name: String, prove: Box<dyn Fn(&Site) + Send>, missing: Option<&str>) -> Trial {
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    match missing.map(str::to_owned) {
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
