//! Of the fields that a client or an app sends, exactly those end here that are said to; all others go on byte for byte,
//! and of one name in the order that they came in.
//!
//! The input is a first line, of which `t` means TLS, `u` a unix socket and `s` a stripped prefix, and lines of
//! `name: value`. The lists here are written down once more on purpose.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use nginx_free::{Host, Peer, Prefix, fuzzing};

/// RFC 9110 §7.6.1 and what else is of one connection.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// What an app may believe of its client, beside all that begins with `x-forwarded`.
const FORWARDING: [&str; 22] = [
    "cf-connecting-ip",
    "forwarded",
    "front-end-https",
    "proxy",
    "remote-user",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-host",
    "x-original-forwarded-for",
    "x-original-host",
    "x-original-uri",
    "x-original-url",
    "x-proxyuser-ip",
    "x-real-ip",
    "x-remote-user",
    "x-rewrite-url",
    "x-rstudio-request",
    "x-rstudio-root-path",
    "x-scheme",
    "x-script-name",
    "x-url-scheme",
];

/// What would be read for another field by an app that takes `_` for `-`.
const TWINNED: [&str; 14] = [
    "authorization",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "origin",
    "referer",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
];

type Fields = Vec<(String, Vec<u8>)>;

fuzz_target!(|data: &[u8]| {
    let mut lines = data.split(|b| *b == b'\n');
    let Some(first) = lines.next() else { return };
    let (tls, unix, strips) = (first.contains(&b't'), first.contains(&b'u'), first.contains(&b's'));
    let mut map = HeaderMap::new();
    let mut sent = Fields::new();
    for line in lines {
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        let (Ok(name), Ok(value)) = (name, value) else { continue };
        sent.push((name.as_str().to_owned(), value.as_bytes().to_vec()));
        map.append(name, value);
    }
    to_client(map.clone(), &sent);
    // Two are refused before this.
    if sent.iter().filter(|(name, _)| name == "host").count() > 1 {
        return;
    }
    to_app(map, &sent, tls, unix, strips);
});

fn to_app(mut map: HeaderMap, sent: &Fields, tls: bool, unix: bool, strips: bool) {
    let address = "[2001:db8::7]:4711".parse().unwrap();
    let peer = if unix { Peer::Unix { uid: Some(7) } } else { Peer::tcp(address) };
    let prefix = Prefix::stripped("/pod/3").unwrap();
    let host = Host::parse("node.example:3011").unwrap();
    let named = named(sent);
    let passed = fuzzing::to_app(&mut map, &peer, host, tls, strips.then_some(&prefix));
    assert_eq!(passed, named.is_some(), "of the Connection field");
    let Some(named) = named else { return };

    let scheme = if tls { "https" } else { "http" };
    let node = if unix { "unknown" } else { "\"[2001:db8::7]\"" };
    let mut ours: Fields = [
        ("host", "node.example:3011"),
        ("x-forwarded-host", "node.example:3011"),
        ("x-forwarded-port", "3011"),
        ("x-forwarded-proto", scheme),
        ("forwarded", &format!("for={node};proto={scheme}")),
    ]
    .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
    .to_vec();
    if !unix {
        ours.push(("x-forwarded-for".to_owned(), b"2001:db8::7".to_vec()));
        ours.push(("x-real-ip".to_owned(), b"2001:db8::7".to_vec()));
    }
    if strips {
        for name in ["x-forwarded-prefix", "x-rstudio-root-path", "x-script-name"] {
            ours.push((name.to_owned(), b"/pod/3".to_vec()));
        }
    }
    let ends = |name: &str| {
        let plain = name.replace('_', "-");
        HOP_BY_HOP.contains(&&*plain)
            || FORWARDING.contains(&&*plain)
            || plain.starts_with("x-forwarded")
            || matches!(name, "expect" | "trailer" | "host")
            || (name.contains('_') && TWINNED.contains(&&*plain))
            || named.iter().any(|named| named == name)
    };
    let theirs = sent.iter().filter(|(name, _)| !ends(name)).cloned();
    assert_same(&map, ours.into_iter().chain(theirs).collect());
}

fn to_client(mut map: HeaderMap, sent: &Fields) {
    fuzzing::to_client(&mut map);
    let named = named(sent).unwrap_or_default();
    let ends = |name: &str| HOP_BY_HOP.contains(&name) || named.iter().any(|named| named == name);
    assert_same(&map, sent.iter().filter(|(name, _)| !ends(name)).cloned().collect());
}

/// The names in the `Connection` fields. `None` where one is no name, or may not be named.
fn named(sent: &Fields) -> Option<Vec<String>> {
    let mut named = Vec::new();
    for (_, value) in sent.iter().filter(|(name, _)| name == "connection") {
        // RFC 9110 §5.6.2: tokens. Anything beyond ASCII is none.
        if !value.iter().all(|b| b.is_ascii_graphic() || matches!(b, b' ' | b'\t')) {
            return None;
        }
        for token in value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty()) {
            let token = String::from_utf8(token.to_ascii_lowercase()).unwrap();
            let is_token =
                token.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
            let judged_by = [
                "authorization",
                "content-length",
                "content-type",
                "cookie",
                "host",
                "origin",
                "sec-websocket-key",
                "sec-websocket-version",
            ];
            if !is_token || judged_by.contains(&&*token) {
                return None;
            }
            if !["close", "keep-alive", "upgrade"].contains(&&*token) {
                named.push(token);
            }
        }
    }
    Some(named)
}

/// RFC 9110 §5.3: the order of fields counts among those of one name.
fn assert_same(map: &HeaderMap, mut expected: Fields) {
    let mut left: Fields =
        map.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect();
    left.sort_by(|a, b| a.0.cmp(&b.0));
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    let show = |fields: &Fields| -> Vec<String> {
        fields.iter().map(|(name, value)| format!("{name}: {}", value.escape_ascii())).collect()
    };
    assert_eq!(show(&left), show(&expected));
}
