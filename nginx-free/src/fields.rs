//! The rules for header fields on their way through: which end here, and which are ours to set.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{Peer, Prefix, host::HostText};

/// Fields for which a name with an underscore is taken by some apps (WSGI, CGI and PHP turn `-` and `_` into one).
const TWINNED: [&str; 14] = [
    "host",
    "cookie",
    "authorization",
    "origin",
    "referer",
    "content-length",
    "content-type",
    "content-encoding",
    "expect",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-protocol",
    "sec-websocket-accept",
    "sec-websocket-extensions",
];

/// Fields a `Connection` field must not name: it would cut out what the request is judged by.
const NOT_FOR_CONNECTION: [&str; 8] = [
    "host",
    "content-length",
    "content-type",
    "cookie",
    "authorization",
    "origin",
    "sec-websocket-key",
    "sec-websocket-version",
];

/// Whether a listener speaks TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    pub(crate) fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Fields of one connection only (RFC 9110 §7.6.1, with RFC 9113 §8.2.2 and what RFC 7540 called `HTTP2-Settings`).
fn is_hop_by_hop(name: &str) -> bool {
    // Nearly all that are asked about begin with another letter, and go no further.
    matches!(name.as_bytes(), [b'c' | b'k' | b'p' | b't' | b'h' | b'u', ..])
        && matches!(
            name,
            "connection"
                | "keep-alive"
                | "proxy-connection"
                | "proxy-authenticate"
                | "proxy-authorization"
                | "proxy-authentication-info"
                | "te"
                | "transfer-encoding"
                | "upgrade"
                | "http2-settings"
        )
}

/// Fields by which proxies tell apps of the client. Only ours may arrive.
fn is_forwarding(name: &str) -> bool {
    matches!(name.as_bytes(), [b'x' | b'f' | b'r' | b't' | b'c' | b'p', ..])
        && (name.starts_with("x-forwarded")
            || matches!(
                name,
                "forwarded"
                | "x-real-ip"
                | "x-client-ip"
                | "x-cluster-client-ip"
                | "x-original-forwarded-for"
                | "x-original-host"
                | "x-original-uri"
                | "x-original-url"
                | "x-rewrite-url"
                | "x-host"
                | "x-scheme"
                | "x-script-name"
                | "x-url-scheme"
                | "x-proxyuser-ip"
                | "x-rstudio-request"
                | "x-rstudio-root-path"
                | "x-remote-user"
                | "remote-user"
                | "true-client-ip"
                | "cf-connecting-ip"
                | "front-end-https"
                // Becomes HTTP_PROXY in the environment of a CGI program ("httpoxy").
                | "proxy"
            ))
}

/// Whether a client's field ends here: of this connection, ours to set, or the twin of one of these.
pub(crate) fn ends_here(name: &str) -> bool {
    // Names are short: to look at all of it takes less than to look for the first.
    if name.bytes().fold(false, |found, byte| found | (byte == b'_')) {
        let plain = name.replace('_', "-");
        return is_hop_by_hop(&plain) || is_forwarding(&plain) || TWINNED.contains(&plain.as_str());
    }
    is_hop_by_hop(name) || is_forwarding(name) || matches!(name, "expect" | "trailer")
}

/// Fields that count only in a head.
pub(crate) fn is_protected_in_trailers(name: &str) -> bool {
    is_hop_by_hop(name)
        || is_forwarding(name)
        || TWINNED.contains(&name)
        || matches!(
            name,
            "set-cookie" | "location" | "clear-site-data" | "strict-transport-security" | "alt-svc"
        )
        || name.starts_with("access-control-")
        || name.starts_with("content-")
}

/// The names that the `Connection` fields list, beside the usual ones. `Err` where one must not be listed.
pub(crate) fn named_by_connection(fields: &HeaderMap) -> Result<Vec<HeaderName>, BadConnection> {
    let mut named = Vec::new();
    for value in fields.get_all(header::CONNECTION) {
        let Ok(text) = value.to_str() else { return Err(BadConnection) };
        for token in text.split(',').map(str::trim).filter(|token| !token.is_empty()) {
            if token.eq_ignore_ascii_case("close")
                || token.eq_ignore_ascii_case("keep-alive")
                || token.eq_ignore_ascii_case("upgrade")
            {
                continue;
            }
            let name = HeaderName::from_bytes(token.as_bytes()).map_err(|_| BadConnection)?;
            if NOT_FOR_CONNECTION.contains(&name.as_str()) {
                return Err(BadConnection);
            }
            named.push(name);
        }
    }
    Ok(named)
}

/// A `Connection` field that is no list of names, or names what is not of one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BadConnection;

/// What is said of a client and its host to an app: the same for all requests of a connection for one host.
pub(crate) struct Word {
    host: Arc<HostText>,
    fields: [Option<(HeaderName, HeaderValue)>; 7],
}

impl Word {
    pub(crate) fn new(peer: &Peer, said: &Arc<HostText>, scheme: Scheme) -> Self {
        let host = said.host();
        let field = |name: &'static str, text: &str| {
            Some((HeaderName::from_static(name), HeaderValue::from_str(text).ok()?))
        };
        let port = host.port().unwrap_or(scheme.port());
        let ip = peer.ip().map(|ip| ip.to_string());
        let node = match (peer.ip(), &ip) {
            // RFC 7239 §6: an IPv6 address stands in brackets and quotes.
            (Some(IpAddr::V6(_)), Some(text)) => format!("\"[{text}]\""),
            (_, Some(text)) => text.clone(),
            _ => "unknown".to_owned(),
        };
        // Without the host, which is the Host: with its port it would have to be quoted (RFC 7239 §4), and code-server
        // takes the quotes for a part of it.
        let forwarded = format!("for={node};proto={}", scheme.as_str());
        let fields = [
            field("host", host.as_str()),
            field("x-forwarded-host", host.as_str()),
            field("x-forwarded-port", &port.to_string()),
            field("x-forwarded-proto", scheme.as_str()),
            ip.as_ref().and_then(|ip| field("x-forwarded-for", ip)),
            ip.as_ref().and_then(|ip| field("x-real-ip", ip)),
            field("forwarded", &forwarded),
        ];
        Self { host: Arc::clone(said), fields }
    }

    /// The host that it is said of.
    pub(crate) fn host(&self) -> &Arc<HostText> {
        &self.host
    }
}

/// Takes out of a request what ends here, and tells the app where the request came in; `stripped` is the prefix that is
/// taken off.
pub(crate) fn to_app(fields: &mut HeaderMap, ending: &[HeaderName], word: &Word, stripped: Option<&Prefix>) {
    for name in ending {
        fields.remove(name);
    }
    for (name, value) in word.fields.iter().flatten() {
        if *name == header::HOST && fields.get(name).is_some_and(|said| said == value) {
            continue;
        }
        fields.insert(name.clone(), value.clone());
    }
    if let Some(Ok(prefix)) = stripped.map(|prefix| HeaderValue::from_str(prefix.as_str())) {
        // What Traefik and others say, what WSGI apps read, and what RStudio reads.
        for name in ["x-forwarded-prefix", "x-script-name", "x-rstudio-root-path"] {
            fields.insert(HeaderName::from_static(name), prefix.clone());
        }
    }
}

/// Whether a client says that it would have a page: a browser that opens one does.
pub(crate) fn accepts_page(fields: &HeaderMap) -> bool {
    let Some(accepted) = fields.get(header::ACCEPT).map(HeaderValue::as_bytes) else { return false };
    memchr::memchr_iter(b'/', accepted).any(|slash| {
        let (before, after) = (&accepted[..slash], &accepted[slash + 1..]);
        let kind = before.last_chunk::<4>().is_some_and(|kind| kind.eq_ignore_ascii_case(b"text"));
        kind && after.first_chunk::<4>().is_some_and(|kind| kind.eq_ignore_ascii_case(b"html"))
    })
}

/// Takes out of an answer what ends here.
pub(crate) fn to_client(fields: &mut HeaderMap) {
    while let Some(name) = fields.keys().find(|name| is_hop_by_hop(name.as_str())).cloned() {
        if name == header::CONNECTION {
            for named in named_by_connection(fields).unwrap_or_default() {
                fields.remove(named);
            }
        }
        fields.remove(&name);
    }
}

/// Whether a list field such as `Connection` or `Upgrade` has `token`.
pub(crate) fn has_token(fields: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    fields
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|text| text.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Host;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap()))
            .collect()
    }

    #[test]
    fn a_page_is_for_who_accepts_one() {
        let accepts = |value| accepts_page(&map(&[("accept", value)]));
        assert!(accepts("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"));
        assert!(accepts("application/json, Text/HTML;level=1"));
        for other in
            ["", "*/*", "text/plain", "html", "ext/html", "text/htm", "text/", "/html", "application/json"]
        {
            assert!(!accepts(other), "{other}");
        }
        assert!(!accepts_page(&HeaderMap::new()));
    }

    #[test]
    fn only_our_word_on_the_client_reaches_the_app() {
        let mut fields = map(&[
            ("x-forwarded-for", "6.6.6.6"),
            ("X_Forwarded_For", "6.6.6.6"),
            ("x-forwarded_host", "evil"),
            ("forwarded", "for=6.6.6.6"),
            ("x-real-ip", "6.6.6.6"),
            ("x_real_ip", "6.6.6.6"),
            ("content_length", "5"),
            ("proxy", "http://evil"),
            ("connection", "close, x-secret"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("my_own", "stays"),
            ("accept", "*/*"),
            ("host", "h:1"),
        ]);
        let mut ending = named_by_connection(&fields).unwrap();
        ending.extend(fields.keys().filter(|name| ends_here(name.as_str())).cloned());
        let peer = Peer::tcp("[2001:db8::1]:5".parse().unwrap());
        let host = Arc::new(HostText::from(Host::parse("node:3011").unwrap()));
        to_app(&mut fields, &ending, &Word::new(&peer, &host, Scheme::Https), None);
        let mut left: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        left.sort();
        assert_eq!(
            left,
            [
                "accept: */*",
                "forwarded: for=\"[2001:db8::1]\";proto=https",
                "host: node:3011",
                "my_own: stays",
                "x-forwarded-for: 2001:db8::1",
                "x-forwarded-host: node:3011",
                "x-forwarded-port: 3011",
                "x-forwarded-proto: https",
                "x-real-ip: 2001:db8::1",
            ]
        );
    }

    #[test]
    fn no_name_is_passed_over_for_its_first_letter() {
        for name in ["connection", "keep-alive", "proxy-connection", "te", "upgrade", "http2-settings"] {
            assert!(ends_here(name), "{name}");
        }
        for name in ["x-host", "forwarded", "remote-user", "true-client-ip", "cf-connecting-ip", "proxy"] {
            assert!(ends_here(name), "{name}");
        }
        for name in
            ["front-end-https", "x_scheme", "transfer-encoding", "expect", "trailer", "sec_websocket_key"]
        {
            assert!(ends_here(name), "{name}");
        }
        assert!(!ends_here("accept") && !ends_here("content-type") && !ends_here("") && !ends_here("x_y"));
    }

    #[test]
    fn connection_cannot_cut_out_what_a_request_is_judged_by() {
        for name in ["Host", "cookie", "Content-Length", "origin"] {
            assert_eq!(named_by_connection(&map(&[("connection", name)])), Err(BadConnection));
        }
        assert_eq!(named_by_connection(&map(&[("connection", "a b")])), Err(BadConnection));
    }
}
