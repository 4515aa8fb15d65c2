//! The table of README.md ("What is changed on the way") once more, as a function: what of a straight connection's message
//! arrives over the proxy. All that is not here goes through byte for byte.

use std::collections::HashSet;

use bytes::Bytes;

use super::messages::{Fields, Message};

/// Of one connection only: removed both ways.
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

/// What a client says of forwarding, of its address or for CGI: removed, and some of it said anew.
const FORWARDING: [&str; 23] = [
    "cf-connecting-ip",
    "forwarded",
    "front-end-https",
    "proxy",
    "remote-user",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-forwarded-*",
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

/// Removed where they are written with `_` for `-`, or where they hold a name that is read so.
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

/// The rest of the table: towards the app, and towards the client.
const ON_THE_WAY_IN: [&str; 4] = ["host", "cookie", "expect", "trailer"];
const ON_THE_WAY_OUT: [&str; 7] = [
    "content-length",
    "trailer",
    "date",
    "location",
    "content-location",
    "set-cookie",
    "service-worker-allowed",
];
/// Where a prefix is taken off.
const OF_A_PREFIX: [&str; 3] = ["x-forwarded-prefix", "x-script-name", "x-rstudio-root-path"];

/// How a message went.
pub(super) struct Way {
    pub(super) host: &'static str,
    pub(super) port: &'static str,
    /// HTTP/1.1 without TLS, or HTTP/2 with it.
    pub(super) version: u8,
    /// The prefix that is taken off.
    pub(super) stripped: Option<&'static str>,
    /// The name of the cookie that is cut out.
    pub(super) hidden: Option<&'static str>,
}

/// What the app receives, of what it would have received straight. Names are in lower case, and the fields of different
/// names in no order.
pub(super) fn at_the_app(straight: &Message, way: &Way) -> Message {
    let named = named(&straight.fields);
    let mut fields = kept(&straight.fields, |name| {
        let plain = name.replace('_', "-");
        is_in(&HOP_BY_HOP, &plain)
            || is_in(&FORWARDING, &plain)
            || (name.contains('_') && is_in(&TWINNED, &plain))
            || is_in(&ON_THE_WAY_IN, name)
            || named.contains(name)
    });
    let scheme = if way.version == 2 { "https" } else { "http" };
    let mut say =
        |name: &str, value: &str| fields.push((name.to_owned(), Bytes::copy_from_slice(value.as_bytes())));
    say("host", way.host);
    say("x-forwarded-host", way.host);
    say("x-forwarded-port", way.port);
    say("x-forwarded-proto", scheme);
    say("x-forwarded-for", "127.0.0.1");
    say("x-real-ip", "127.0.0.1");
    say("forwarded", &format!("for=127.0.0.1;proto={scheme}"));
    for name in OF_A_PREFIX {
        way.stripped.iter().for_each(|prefix| say(name, prefix));
    }
    fields.extend(cookies(&straight.fields, way.hidden).map(|value| ("cookie".to_owned(), value)));
    Message { fields: in_order(fields), trailers: Fields::new(), ..straight.clone() }
}

/// What the client receives, of what it would have received straight.
pub(super) fn at_the_client((request, straight): &(Message, Message), way: &Way) -> Message {
    let named = named(&straight.fields);
    let code = straight.first.split(' ').nth(1).unwrap_or_default().to_owned();
    let no_content = matches!(&*code, "204" | "304");
    let no_body = way.version == 1 && (no_content || request.first.starts_with("HEAD "));
    let mut fields = kept(&straight.fields, |name| {
        is_in(&HOP_BY_HOP, name)
            || named.contains(name)
            || (no_content && name == "content-length")
            || (no_body && name == "trailer")
    });
    if let Some(prefix) = way.stripped {
        for (name, value) in &mut fields {
            match name.as_str() {
                "location" | "content-location" | "service-worker-allowed" if value.starts_with(b"/") => {
                    *value = [prefix.as_bytes(), value].concat().into();
                }
                "set-cookie" => {
                    let text = String::from_utf8_lossy(value).replace("Path=/", &format!("Path={prefix}/"));
                    *value = text.replace(&format!("Path={prefix}/;"), &format!("Path={prefix};")).into();
                }
                _ => {}
            }
        }
    }
    let lists = |fields: &Fields, list: &str, name: &str| {
        let lines = fields.iter().filter(|(found, _)| found.eq_ignore_ascii_case(list));
        lines
            .flat_map(|(_, value)| value.split(|b| *b == b','))
            .any(|item| item.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
    };
    let wanted = way.version == 2 || lists(&request.fields, "te", "trailers");
    let trailers = kept(&straight.trailers, |name| {
        is_for_heads(name) || !wanted || (way.version == 1 && !lists(&straight.fields, "trailer", name))
    });
    Message { first: code, fields: in_order(fields), trailers: in_order(trailers), ..straight.clone() }
}

/// A message as it arrived, to be compared: what frames it is its connection's own.
pub(super) fn arrived(message: &Message, is_answer: bool, straight: &Message) -> Message {
    let first = match is_answer {
        true => message.first.split(' ').nth(1).unwrap_or_default().to_owned(),
        false => message.first.clone(),
    };
    let no_content = is_answer && matches!(&*first, "204" | "304");
    let mut fields = kept(&message.fields, |name| {
        matches!(name, "connection" | "transfer-encoding") || (no_content && name == "content-length")
    });
    if is_answer && !straight.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("date")) {
        let before = fields.len();
        fields.retain(|(name, _)| name != "date");
        assert_eq!(before - fields.len(), 1, "Date is added where there is none");
    }
    let trailers = kept(&message.trailers, |_| false);
    Message { first, fields: in_order(fields), trailers: in_order(trailers), ..message.clone() }
}

/// RFC 9110 §6.5.1: what counts in a head only.
fn is_for_heads(name: &str) -> bool {
    let also = ["set-cookie", "location", "clear-site-data", "strict-transport-security", "alt-svc"];
    is_in(&HOP_BY_HOP, name)
        || is_in(&FORWARDING, name)
        || is_in(&TWINNED, name)
        || is_in(&also, name)
        || name.starts_with("access-control-")
        || name.starts_with("content-")
}

fn is_in(list: &[&str], name: &str) -> bool {
    list.iter().any(|one| match one.strip_suffix("-*") {
        Some(begin) => name.starts_with(begin),
        None => *one == name,
    })
}

fn kept(fields: &Fields, ends: impl Fn(&str) -> bool) -> Fields {
    let lower = fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
    lower.filter(|(name, _)| !ends(name)).collect()
}

/// RFC 9110 §5.3: among fields of one name, order counts. `Trailer` is one line.
fn in_order(mut fields: Fields) -> Fields {
    let is_trailer = |(name, _): &(String, Bytes)| name == "trailer";
    let lines: Vec<Bytes> =
        fields.extract_if(.., |field| is_trailer(field)).map(|(_, value)| value).collect();
    if !lines.is_empty() {
        fields.push(("trailer".to_owned(), lines.join(&b", "[..]).into()));
    }
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields
}

fn named(fields: &Fields) -> HashSet<String> {
    let lines = fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("connection"));
    lines
        .flat_map(|(_, value)| {
            String::from_utf8_lossy(value).split(',').map(str::to_owned).collect::<Vec<_>>()
        })
        .map(|token| token.trim().to_ascii_lowercase())
        .collect()
}

/// One line, without the hidden ones; a single line with nothing to hide stays as it is.
fn cookies(fields: &Fields, hidden: Option<&str>) -> Option<Bytes> {
    let lines: Vec<&Bytes> = fields
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("cookie"))
        .map(|(_, value)| value)
        .collect();
    let pairs: Vec<&[u8]> =
        lines.iter().flat_map(|line| line.split(|b| *b == b';')).map(<[u8]>::trim_ascii).collect();
    let is_hidden = |pair: &&[u8]| {
        let name = pair.split(|b| *b == b'=').next().unwrap_or_default().trim_ascii();
        hidden.is_some_and(|hidden| name == hidden.as_bytes())
    };
    if lines.len() == 1 && !pairs.iter().any(is_hidden) {
        return Some(lines[0].clone());
    }
    let left: Vec<&[u8]> = pairs.into_iter().filter(|pair| !pair.is_empty() && !is_hidden(pair)).collect();
    (!left.is_empty()).then(|| left.join(&b"; "[..]).into())
}

#[test]
fn the_readme_names_every_field_that_is_changed() {
    let readme = include_str!("../../../README.md");
    let (_, table) = readme.split_once("## What is changed on the way").expect("the heading of the table");
    let rows = table.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let rows: Vec<&str> = rows.take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 5, "the table is there");
    let shown: Vec<String> = rows
        .iter()
        .filter_map(|row| row.split('|').nth(1))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(str::to_ascii_lowercase)
        .collect();
    let names = |name: &&&str| {
        !shown.iter().any(|shown| match shown.strip_suffix('*') {
            Some(begin) => name.starts_with(begin),
            None => shown == **name,
        })
    };
    let all = [&HOP_BY_HOP[..], &FORWARDING, &TWINNED, &ON_THE_WAY_IN, &ON_THE_WAY_OUT, &OF_A_PREFIX];
    let missing: Vec<&&str> = all.iter().copied().flatten().filter(names).collect();
    assert!(missing.is_empty(), "README.md's table does not name {missing:?}");
}
