//! The one way in: who passes, and what is refused before it reaches the app.

use std::{fs, io::Write, path::PathBuf};

use serde_json::Value;

use crate::harness::{
    Running, Session, Site,
    http::{Gate, read_answer, split},
    program::bare,
    seconds, until,
};

const ISOLATED: [&str; 2] = ["--network", "isolated"];

fn token_of(url: &str) -> String {
    let (_, query) = url.split_once('?').unwrap_or_else(|| panic!("{url} has a token"));
    query.rsplit('=').next().unwrap().to_owned()
}

/// Threat 28.
pub(crate) fn a_token_works_once_and_leaves_no_trace(site: &Site) {
    let session = site.alice.start_bare("tokens", &ISOLATED, &[]);
    let url = session.url().to_owned();
    let token = token_of(&url);
    assert!(token.len() >= 22, "{token} has 128 bits at least");

    let mut gate = Gate::to(&url);
    let answer = gate.sign_in(&url);
    let location = answer.header("location").unwrap();
    assert!(!location.contains("token") && !location.contains(&token), "{answer:?}");
    assert!(location.starts_with('/') || location.starts_with(&gate.origin()), "{answer:?}");
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{answer:?}");
    assert!(answer.header("cache-control").unwrap().contains("no-store"), "{answer:?}");
    let cookie = answer.header("set-cookie").unwrap().to_owned();
    for part in ["__Host-", "HttpOnly", "Secure", "SameSite=", "Path=/"] {
        assert!(cookie.to_lowercase().contains(&part.to_lowercase()), "{part} is not in {cookie}");
    }
    assert!(!cookie.contains(&token), "the cookie is another secret");
    assert_eq!(gate.get("/").text(), "tiny");

    let again = Gate::to(&url).get(&split(&url).1);
    assert!(matches!(again.status, 401 | 403), "a used token: {again:?}");
    assert!(again.header("set-cookie").is_none(), "{again:?}");

    // It is in no file, no log, and the app never saw it.
    let cookie_value = gate.cookies[0].split_once('=').unwrap().1.to_owned();
    gate.get("/report?x=1");
    let head = gate.get("/head").text();
    for secret in [&token, &cookie_value] {
        assert!(!head.contains(secret.as_str()), "{head}");
        for file in files_below(&site.alice.home).into_iter().chain(files_below(&site.alice.runtime)) {
            let text = fs::read(&file).unwrap_or_default();
            let found = text.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!found, "a secret is in {}", file.display());
        }
    }
}

/// In the way that the site wants, and never with a query.
pub(crate) fn who_asked_for_what_is_written_down(site: &Site) {
    let log_of = |kind: &str| {
        let mut start = site.alice.shlogin_command(&["start", "--json"]);
        start.args(bare(kind, &ISOLATED, &[])).env("SHLOGIN_GATEWAY_ACCESS_LOG", kind);
        let json = Running::spawn(start).finish(seconds(20)).ok().json();
        let session = Session { user: &site.alice, json };
        let gate = session.signed_in();
        assert_eq!(gate.get("/asked%20for?by=SECRET").status, 200);
        session.stop();
        let log = session.show()["log"].as_str().unwrap().replace("/log", "/shlogin.log");
        // it is written by a thread of its own, which the session's end waits for
        let text = until(seconds(10), "the session has ended", || {
            (session.show()["state"] == "ended").then(|| fs::read_to_string(&log).unwrap())
        });
        assert!(!text.contains("SECRET"), "{text}");
        let lines: Vec<_> =
            text.lines().filter(|line| line.contains("/asked%20for")).map(str::to_owned).collect();
        (session.json["id"].as_str().unwrap().to_owned(), lines)
    };
    let (id, lines) = log_of("text");
    let [line] = &lines[..] else { panic!("{lines:?}") };
    let asked = format!(r#" app="{id}" peer="127.0.0.1:"#);
    assert!(
        line.contains(&asked) && line.contains(r#" method="GET" path="/asked%20for" status=200 "#),
        "{line}"
    );
    let (id, lines) = log_of("json");
    let [line] = &lines[..] else { panic!("{lines:?}") };
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["app"], &line["status"]), (&id.into(), &200.into()), "{line:#}");
    assert!(
        line["peer"].as_str().unwrap().starts_with("127.0.0.1:") && line["micros"].as_u64() > Some(0),
        "{line:#}"
    );
    assert_eq!(log_of("off").1, Vec::<String>::new());
}

fn files_below(folder: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found
}

pub(crate) fn nobody_gets_in_without_a_token_or_with_another_session_s_cookie(site: &Site) {
    let mine = site.alice.start_bare("mine", &ISOLATED, &["+mark=hers alone"]);
    let other = site.mallory.start_bare("other", &ISOLATED, &["+mark=his"]);
    let closed = |what: &str, gate: &Gate, path: &str| {
        let answer = gate.get(path);
        assert!(matches!(answer.status, 401 | 403), "{what}: {answer:?}");
        assert!(!answer.text().contains("hers alone"), "{what}: {answer:?}");
        let refused = gate.websocket("/ws", &[("Origin", &gate.origin())]).err();
        assert!(
            refused.is_some_and(|answer| matches!(answer.status, 401 | 403)),
            "{what}: a WebSocket was let in"
        );
    };
    closed("nothing", &mine.stranger(), "/");
    closed("nothing, deep", &mine.stranger(), "/report");
    closed("a wrong token", &mine.stranger(), "/?token=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    closed("an empty token", &mine.stranger(), "/?token=");

    let mut foreign = mine.stranger();
    foreign.cookies = other.signed_in().cookies;
    closed("another session's cookie", &foreign, "/");
    let own_name = mine.signed_in().cookies[0].split_once('=').unwrap().0.to_owned();
    foreign.cookies = vec![format!("{own_name}={}", foreign.cookies[0].split_once('=').unwrap().1)];
    closed("another session's cookie under this one's name", &foreign, "/");

    // Another session's token is no token here.
    let his = site.mallory.shlogin(&["url", "other"]).ok().stdout;
    closed("another session's token", &mine.stranger(), &split(his.trim()).1);
    assert_eq!(mine.signed_in().get("/").text(), "hers alone");
}

/// Threat 24.
pub(crate) fn websockets_of_other_origins_are_refused(site: &Site) {
    let session = site.alice.start_bare("origins", &ISOLATED, &[]);
    let gate = session.signed_in();
    let own = gate.origin();
    let host = gate.authority.rsplit_once(':').unwrap().0.to_owned();
    let others = [
        "https://evil.example".to_owned(),
        "null".to_owned(),
        format!("{own}.evil.example"),
        format!("https://evil-{}", gate.authority),
        format!("https://{host}:1"),
        format!("https://{host}"),
        own.replace("https:", "http:"),
        String::new(),
    ];
    for origin in &others {
        let refused = gate.websocket("/ws", &[("Origin", origin)]).err();
        assert!(refused.is_some_and(|answer| answer.status == 403), "{origin:?} was let in");
    }
    let refused = gate.websocket("/ws", &[("Origin", &own), ("Origin", "https://evil.example")]).err();
    assert!(refused.is_some_and(|answer| (400..500).contains(&answer.status)), "two origins were let in");
    assert_eq!(gate.websocket("/ws", &[("Origin", &own)]).ok().unwrap().ask(b"hello"), b"hello");
}

/// Threat 26.
pub(crate) fn other_hosts_are_misdirected(site: &Site) {
    let session = site.alice.start_bare("hosts", &ISOLATED, &[]);
    let signed_in = session.signed_in();
    let port = session.gateway_port();
    for host in [
        format!("evil.example:{port}"),
        "evil.example".to_owned(),
        format!("{}.evil.example:{port}", signed_in.authority),
        "x@localhost".to_owned(),
    ] {
        for mut gate in [signed_in.clone(), session.stranger()] {
            gate.authority.clone_from(&host);
            let head = format!(
                "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{}\r\n",
                gate.cookie_header()
            );
            gate.authority.clone_from(&signed_in.authority);
            let answer = gate.raw(head.as_bytes()).unwrap();
            assert!(matches!(answer.status, 400 | 421), "{host}: {answer:?}");
        }
    }
    for head in [
        "GET / HTTP/1.1\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nHost: {0}\r\nHost: {0}\r\n", signed_in.authority),
        format!("GET https://evil.example/ HTTP/1.1\r\nHost: {}\r\n", signed_in.authority),
        format!("GET / HTTP/1.1\r\nHost: {}.\r\n", signed_in.authority),
    ] {
        let answer = signed_in
            .raw(format!("{head}Connection: close\r\n{}\r\n", signed_in.cookie_header()).as_bytes())
            .unwrap();
        assert!(matches!(answer.status, 400 | 421), "{head}: {answer:?}");
    }
}

/// Threat 22.
pub(crate) fn tunnels_are_refused(site: &Site) {
    let session = site.alice.start_bare("tunnels", &ISOLATED, &["+mark=the app"]);
    let gate = session.signed_in();
    let port = session.app_port();
    for line in [
        format!("CONNECT 127.0.0.1:{port}"),
        "CONNECT example.org:443".to_owned(),
        "TRACE /".to_owned(),
        "OPTIONS *".to_owned(),
    ] {
        let head = format!(
            "{line} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{}\r\n",
            gate.authority,
            gate.cookie_header()
        );
        let answer = gate.raw(head.as_bytes()).unwrap();
        assert!((400..=501).contains(&answer.status), "{line}: {answer:?}");
        assert!(!answer.text().contains("the app"), "{line}: {answer:?}");
    }
    // An upgrade to HTTP/2 in the clear is not followed: neither by us nor, through us, by the app.
    let head = format!(
        "GET /head HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n{}\r\n",
        gate.authority,
        gate.cookie_header()
    );
    let answer = gate.raw(head.as_bytes()).unwrap();
    assert_ne!(answer.status, 101, "{answer:?}");
    if answer.status == 200 {
        let seen = answer.text().to_lowercase();
        assert!(!seen.contains("h2c") && !seen.contains("http2-settings"), "{seen}");
    }
}

pub(crate) fn the_app_never_sees_our_cookie_and_cannot_set_it(site: &Site) {
    let session = site.alice.start_bare("cookies", &ISOLATED, &[]);
    let mut gate = session.signed_in();
    let ours = gate.cookies[0].split_once('=').unwrap().0.to_owned();
    gate.cookies.push("theme=dark".to_owned());
    let head = gate.get("/head").text();
    assert!(head.contains("theme=dark") && !head.contains(&ours), "{head}");

    let forged = [
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Real-IP", "6.6.6.6"),
        ("Forwarded", "for=6.6.6.6"),
        ("X-Forwarded-Proto", "gopher"),
        ("X_Forwarded_For", "6.6.6.6"),
        ("X-Forwarded-Host", "evil.example"),
    ];
    let seen = gate.request("GET", "/head", &forged, b"").text();
    let seen_over_websocket = {
        let origin = gate.origin();
        let mut headers = forged.to_vec();
        headers.push(("Origin", &origin));
        String::from_utf8(gate.websocket("/ws", &headers).ok().unwrap().ask(b"head")).unwrap()
    };
    for head in [seen, seen_over_websocket] {
        assert!(
            !head.contains("6.6.6.6") && !head.contains("gopher") && !head.contains("evil.example"),
            "{head}"
        );
        assert!(!head.contains(&ours), "{head}");
    }

    let raw = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: {ours}=stolen; Secure; Path=/\r\nSet-Cookie: own=fine\r\n\
        Clear-Site-Data: \"*\"\r\nStrict-Transport-Security: max-age=99\r\nAlt-Svc: h3=\":1\"\r\n\r\nok"
    );
    let hex: String = raw.bytes().map(|byte| format!("{byte:02x}")).collect();
    let answer = gate.get(&format!("/raw?{hex}"));
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{answer:?}");
    let set: Vec<_> =
        answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie")).collect();
    assert!(set.iter().all(|(_, value)| !value.contains(&ours)), "{answer:?}");
    assert!(set.iter().any(|(_, value)| value.starts_with("own=fine")), "{answer:?}");
    for name in ["clear-site-data", "strict-transport-security", "alt-svc"] {
        assert_eq!(answer.header(name), None, "{answer:?}");
    }
}

pub(crate) fn bodies_and_events_stream_both_ways(site: &Site) {
    let session = site.alice.start_bare("streams", &ISOLATED, &[]);
    let gate = session.signed_in();
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1] ^ n.to_le_bytes()[0]).collect();
    let answer = gate.request("POST", "/echo", &[], &body);
    assert_eq!(answer.status, 200);
    assert!(answer.body == body, "3 MB came back changed");

    // Events come one by one, not when the last is there.
    let mut wire = gate.connect().unwrap();
    let started = std::time::Instant::now();
    let head = format!("GET /stream?10 HTTP/1.1\r\nHost: {}\r\n{}\r\n", gate.authority, gate.cookie_header());
    wire.write_all(head.as_bytes()).unwrap();
    wire.flush().unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"data: 1\n\n") {
        let mut byte = [0];
        wire.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    assert!(
        started.elapsed().as_millis() < 1500,
        "the second of ten events, 0.2 s apart, came after {:?}",
        started.elapsed()
    );
    // Two requests on one connection.
    let mut wire = gate.connect().unwrap();
    for _ in 0..2 {
        wire.write_all(
            format!("GET / HTTP/1.1\r\nHost: {}\r\n{}\r\n", gate.authority, gate.cookie_header()).as_bytes(),
        )
        .unwrap();
        wire.flush().unwrap();
        assert_eq!(read_answer(&mut wire, false).unwrap().unwrap().text(), "tiny");
    }
}

pub(crate) fn a_websocket_echoes(site: &Site) {
    let session = site.alice.start_bare("sockets", &ISOLATED, &[]);
    let gate = session.signed_in();
    let origin = gate.origin();
    let mut socket = gate.websocket("/ws", &[("Origin", &origin)]).ok().unwrap();
    for text in [&b"hello"[..], &[b'x'; 5000], b"again"] {
        assert_eq!(socket.ask(text), text);
    }
}

pub(crate) fn the_gateway_can_be_a_socket_in_a_private_folder(site: &Site) {
    let mut args = crate::harness::program::bare(
        "hidden",
        &["--network", "isolated", "--listen", "unix"],
        &["+mark=behind a socket"],
    );
    args.insert(0, "start".to_owned());
    let words: Vec<_> = args.iter().map(String::as_str).collect();
    let output = site.alice.shlogin(&words).ok();
    assert!(
        output.stderr.contains("ssh -L") || output.stdout.contains("ssh -L"),
        "it says how to get there: {output:#?}"
    );
    let record = site.alice.shlogin(&["show", "--json", "hidden"]).ok().json();
    let socket = PathBuf::from(record["gateway"]["socket"].as_str().unwrap());
    let url = site.alice.shlogin(&["url", "hidden"]).ok().stdout;
    let mut gate = Gate::behind(socket.clone(), url.trim());
    gate.sign_in(url.trim());
    assert_eq!(gate.get("/").text(), "behind a socket");
    let scan = site.mallory.scan(&crate::harness::scan::Targets {
        mark: "behind a socket".to_owned(),
        paths: vec![socket.parent().unwrap().to_owned(), socket],
        ports: vec![u16::try_from(record["gateway"]["port"].as_u64().unwrap()).unwrap()],
        ..Default::default()
    });
    assert!(scan.open.is_empty() && scan.files.is_empty() && scan.reached.is_empty(), "{scan:?}");
    let session = Session { user: &site.alice, json: record };
    session.stop();
}
