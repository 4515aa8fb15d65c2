//! Each app, opened in a browser, at work.

use std::fmt;

use serde_json::{Value, json};

use crate::{
    app::App,
    front::Routes,
    harness::{Site, browser::keep, http::Gate},
};

/// What Chromium says where a page with a certificate of its own making wants a service worker.
const UNKNOWN_CERTIFICATE: &str = "An SSL certificate error occurred when fetching the script";

/// Where an app stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    Prefix,
    Root,
}

impl At {
    /// Its path, with a slash at the end.
    fn base(self, app: App) -> String {
        match self {
            Self::Prefix => format!("/pod/3/{}/", app.name()),
            Self::Root => "/".to_owned(),
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prefix => "under_a_prefix",
            Self::Root => "at_the_root",
        })
    }
}

/// One app behind the proxy by itself.
pub(crate) fn through_routes(site: &Site, app: App, at: At) {
    let user = &site.alice;
    let base = at.base(app);
    let started = app.start(user, 1, &base);
    let routes = Routes::to(user, &[(base.as_str(), &started)]);
    let url = routes.url(&app.page(&base));
    let (saw, picture) = user.browse(app.name(), &words(&url, &flags(site, app, &base)));
    keep(&picture, &format!("{}-{at}", app.name()));
    judge(app, &saw, &routes.url(&base).replacen("https", "wss", 1));
    clean(&saw, |line| known(app, line));
    if let (App::Theia, At::Prefix) = (app, at) {
        // which the app had wanted to be sent to all of the host
        assert_eq!(cookie_paths(&saw), ["/pod/3/theia"], "{saw:#}");
    }
    routes.stop();
}

/// One app in a session of an ordinary user's, behind its gateway.
pub(crate) fn in_a_session(site: &Site, app: App) {
    let user = &site.alice;
    let command = app.words(user, ([127, 0, 0, 1], 8000).into(), "/");
    let mut start = vec!["--name", app.name(), "--port", "8000", "--"];
    start.extend(command.iter().map(String::as_str));
    let session = user.start(&start);
    let (saw, picture) = user.browse(app.name(), &words(session.url(), &["--below=/".to_owned()]));
    keep(&picture, &format!("{}-in-a-session", app.name()));
    let authority = crate::harness::http::split(session.url()).0;
    judge(app, &saw, &format!("wss://{authority}/"));
    clean(&saw, |line| known(app, line) || line.contains(UNKNOWN_CERTIFICATE));
    let token = session.url().split_once("token=").unwrap().1;
    assert!(!saw.to_string().contains(token), "the token is in {saw:#}");
    session.stop();
}

/// Two users' Theias would overwrite each other's cookie, were they sent to the whole host.
pub(crate) fn two_theias(site: &Site) {
    let prefixes = ["/pod/3/theia/", "/pod/12/theia/"];
    let first = App::Theia.start(&site.alice, 1, prefixes[0]);
    let second = App::Theia.start(&site.mallory, 1, prefixes[1]);
    let routes = Routes::to(&site.alice, &[(prefixes[0], &first), (prefixes[1], &second)]);
    let [one, other] = prefixes.map(|prefix| routes.url(prefix));
    let (saw, picture) = site.alice.browse("theia", &[&one, &other, &Routes::trust()]);
    keep(&picture, "two-theias");
    assert_eq!(saw["answers"], json!(["answer-42", "answer-42"]), "{saw:#}");
    assert_eq!(saw["again"], json!([true, true]), "{saw:#}");
    clean(&saw, |line| known(App::Theia, line));
    assert_eq!(cookie_paths(&saw), ["/pod/12/theia", "/pod/3/theia"], "{saw:#}");
    for base in prefixes {
        let asked = saw["websockets"].as_array().unwrap();
        assert!(asked.iter().any(|url| url.as_str().unwrap().contains(base)), "{base} in {saw:#}");
    }
    routes.stop();
}

/// Apps that let every page connect, wherever it is from, can be had by a page of somebody else's that their user opens.
pub(crate) fn foreign_pages_do_not_connect(site: &Site, app: App) {
    let base = At::Prefix.base(app);
    let started = app.start(&site.alice, 1, &base);
    let routes = Routes::to(&site.alice, &[(base.as_str(), &started)]);
    let gate = Gate::to(&routes.url("/"));
    let path = match app {
        App::Shiny => format!("{base}websocket/"),
        _ => format!("{base}websockify"),
    };
    let own = gate.origin();
    let connect = |origin: &str| gate.websocket(&path, &[("Origin", origin)]).map_err(|answer| answer.status);
    assert_eq!(connect("https://evil.example").err(), Some(403));
    assert_eq!(connect(&own).err(), None);
    routes.stop();
}

/// What the driver of an app is told besides.
fn flags(site: &Site, app: App, base: &str) -> Vec<String> {
    let mut flags = vec![Routes::trust(), format!("--below={base}")];
    if app == App::Desktop {
        flags.push(format!("--file={}", site.alice.home.join("answer").display()));
    }
    flags
}

fn words<'w>(url: &'w str, flags: &'w [String]) -> Vec<&'w str> {
    std::iter::once(url).chain(flags.iter().map(String::as_str)).collect()
}

/// The app did its work, over WebSockets below `base`.
fn judge(app: App, saw: &Value, base: &str) {
    let answers = match app {
        App::JupyterLab => json!(["111-222-333", "answer-42"]),
        App::Theia | App::CodeServer | App::Desktop => json!(["answer-42"]),
        App::Shiny | App::Streamlit => json!(["followed"]),
    };
    assert_eq!(saw["answers"], answers, "{saw:#}");
    let sockets = saw["websockets"].as_array().unwrap();
    assert!(!sockets.is_empty(), "{saw:#}");
    assert!(sockets.iter().all(|url| url.as_str().unwrap().starts_with(base)), "{base}: {saw:#}");
}

/// Nobody was asked for anything but the app, below its prefix, and what it was asked for was there.
fn clean(saw: &Value, known: impl Fn(&str) -> bool) {
    for kind in ["outside", "external", "failed", "refused", "console"] {
        let wrong: Vec<_> = saw[kind]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .filter(|line| !known(line))
            .collect();
        assert!(wrong.is_empty(), "{kind}: {wrong:#?} in {saw:#}");
    }
}

/// What an app does wrong without any proxy before it, too.
fn known(app: App, line: &str) -> bool {
    match app {
        // a module that only Microsoft's builds have; and its log, which is of extensions
        App::CodeServer => line.contains("/node_modules/vsda/") || line.starts_with("%c  ERR"),
        // Debian's package leaves it out
        App::Desktop => line.contains("/package.json") || line.contains("fetch package.json"),
        _ => false,
    }
}

/// The paths of the cookies that the browser has at the end.
fn cookie_paths(saw: &Value) -> Vec<&str> {
    let mut paths: Vec<_> =
        saw["cookies"].as_array().unwrap().iter().filter_map(|cookie| cookie["path"].as_str()).collect();
    paths.sort_unstable();
    paths
}
