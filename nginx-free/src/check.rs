//! What a request must keep before anybody judges it. Stricter than hyper 1.12, which was measured to let pass: no `Host`
//! or two of them, an absolute URI that contradicts it, userinfo, `gzip, chunked`, raw `..`, `TRACE`, `OPTIONS *`.
//! What hyper
//! repairs before a service can see it is found by `wire`.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header, request};
use hyper::ext::Protocol;

use crate::{Host, Kind, fields, fields::Scheme, host::HostText, path};

/// Why a request is refused before anybody judges it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("there is no Host")]
    NoHost,
    #[error("there is more than one Host")]
    TwoHosts,
    #[error("the Host is not valid")]
    BadHost,
    #[error("the request target and the Host disagree")]
    HostContradicted,
    #[error("the request target is not valid")]
    BadTarget,
    #[error("the path is ambiguous")]
    BadPath,
    #[error("the Connection field is not valid")]
    BadConnection,
    #[error("the Transfer-Encoding is not chunked")]
    BadEncoding,
    #[error("the Content-Length is not valid")]
    BadLength,
    #[error("a line of the head is not valid")]
    BadLine,
    #[error("there are both Content-Length and Transfer-Encoding")]
    LengthAndEncoding,
    #[error("the expectation cannot be met")]
    BadExpectation,
    #[error("this method is not served here")]
    BadMethod,
    #[error("this upgrade is not served here")]
    BadUpgrade,
    #[error("the WebSocket handshake is not valid")]
    BadHandshake,
    #[error("this WebSocket version is not spoken here")]
    BadSocketVersion,
}

impl Refusal {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::BadExpectation => StatusCode::EXPECTATION_FAILED,
            Self::BadMethod | Self::BadUpgrade => StatusCode::NOT_IMPLEMENTED,
            Self::BadSocketVersion => StatusCode::UPGRADE_REQUIRED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// What was read of a request that kept the rules.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) host: Arc<HostText>,
    pub(crate) kind: Kind,
    /// It is the last on its connection: what follows it may be meant for others than us (see `wire`).
    pub(crate) is_last: bool,
    /// The fields that end here.
    pub(crate) ending: Vec<HeaderName>,
}

/// Reads a request's head, or says which rule it breaks. `usual` is the host that a request on this connection is for, as a
/// rule, which need not be read again.
pub(crate) fn check(
    head: &request::Parts,
    scheme: Scheme,
    segments: usize,
    usual: Option<&Arc<HostText>>,
) -> Result<Checked, Refusal> {
    let seen = Seen::of(&head.headers);
    let host = host(head, &seen, scheme, usual)?;
    let kind = kind(head, &seen)?;
    framing(&seen)?;
    if !path::is_plain(head.uri.path(), segments) {
        return Err(Refusal::BadPath);
    }
    if head.uri.query().is_some_and(|query| !query.bytes().all(|b| b.is_ascii_graphic())) {
        return Err(Refusal::BadTarget);
    }
    if seen.expects_more {
        return Err(Refusal::BadExpectation);
    }
    let is_last = seen.upgrade.is_there() || seen.encoding.is_there();
    let mut ending = seen.ending;
    if seen.connection {
        ending.extend(fields::named_by_connection(&head.headers).map_err(|_| Refusal::BadConnection)?);
    }
    Ok(Checked { host, kind, is_last, ending })
}

/// The fields that the rules are about, found in one pass: to ask the map for each takes longer than the rules do.
#[derive(Default)]
struct Seen<'h> {
    host: Times<'h>,
    encoding: Times<'h>,
    length: Times<'h>,
    upgrade: Times<'h>,
    connection: bool,
    /// There is another expectation than `100-continue`.
    expects_more: bool,
    /// The names of the fields that are not for the app.
    ending: Vec<HeaderName>,
}

/// How often a field is there.
#[derive(Clone, Copy, Default)]
enum Times<'h> {
    #[default]
    Never,
    Once(&'h HeaderValue),
    Often,
}

impl<'h> Times<'h> {
    fn see(&mut self, value: &'h HeaderValue) {
        *self = match self {
            Self::Never => Self::Once(value),
            Self::Once(_) | Self::Often => Self::Often,
        };
    }

    fn is_there(self) -> bool {
        !matches!(self, Self::Never)
    }
}

impl<'h> Seen<'h> {
    fn of(fields: &'h HeaderMap) -> Self {
        let mut seen = Self::default();
        for (name, value) in fields {
            match name.as_str() {
                "host" => seen.host.see(value),
                "transfer-encoding" => seen.encoding.see(value),
                "content-length" => seen.length.see(value),
                "upgrade" => seen.upgrade.see(value),
                "connection" => seen.connection = true,
                "expect" => seen.expects_more |= !value.as_bytes().eq_ignore_ascii_case(b"100-continue"),
                _ => {}
            }
            if fields::ends_here(name.as_str()) {
                seen.ending.push(name.clone());
            }
        }
        seen
    }
}

/// RFC 9112 §3.2, RFC 9113 §8.3.1: one host, said once or twice alike.
fn host(
    head: &request::Parts,
    seen: &Seen<'_>,
    scheme: Scheme,
    usual: Option<&Arc<HostText>>,
) -> Result<Arc<HostText>, Refusal> {
    let read = |text| match usual.map(|usual| usual.host()) {
        Some(host) if host.as_str() == text => Some(host),
        _ => Host::parse(text),
    };
    let line = match seen.host {
        Times::Often => return Err(Refusal::TwoHosts),
        Times::Once(value) => Some(value.to_str().ok().and_then(read).ok_or(Refusal::BadHost)?),
        Times::Never => None,
    };
    let target = match head.uri.authority() {
        Some(authority) => Some(read(authority.as_str()).ok_or(Refusal::BadTarget)?),
        None => None,
    };
    if head.uri.scheme_str().is_some_and(|said| !matches!(said, "http" | "https")) {
        return Err(Refusal::BadTarget);
    }
    let version_2 = head.version == Version::HTTP_2;
    let host = match (line, target) {
        (Some(line), Some(target)) if line.same_as(&target, scheme.port()) => target,
        (Some(_), Some(_)) => return Err(Refusal::HostContradicted),
        (Some(line), None) => line,
        (None, Some(target)) if version_2 => target,
        (None, _) => return Err(Refusal::NoHost),
    };
    Ok(match usual {
        Some(usual) if usual.host() == host => Arc::clone(usual),
        _ => Arc::new(host.into()),
    })
}

/// RFC 9112 §6: how the body's length is said.
fn framing(seen: &Seen<'_>) -> Result<(), Refusal> {
    if seen.encoding.is_there() && seen.length.is_there() {
        return Err(Refusal::LengthAndEncoding);
    }
    match seen.encoding {
        Times::Never => {}
        Times::Once(value) if value.as_bytes().eq_ignore_ascii_case(b"chunked") => {}
        Times::Once(_) | Times::Often => return Err(Refusal::BadEncoding),
    }
    match seen.length {
        Times::Never => Ok(()),
        Times::Once(value) if !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit) => Ok(()),
        Times::Once(_) | Times::Often => Err(Refusal::BadLength),
    }
}

/// Plain or WebSocket; nothing else is served: no tunnel, no h2c, no other upgrade.
fn kind(head: &request::Parts, seen: &Seen<'_>) -> Result<Kind, Refusal> {
    let fields = &head.headers;
    match head.method {
        // RFC 8441 §4.
        Method::CONNECT => match head.extensions.get::<Protocol>() {
            Some(protocol) if protocol.as_str() == "websocket" => {
                one(head, &header::SEC_WEBSOCKET_VERSION)
                    .filter(|v| *v == b"13")
                    .ok_or(Refusal::BadSocketVersion)?;
                return Ok(Kind::WebSocket);
            }
            _ => return Err(Refusal::BadMethod),
        },
        Method::TRACE => return Err(Refusal::BadMethod),
        Method::OPTIONS if head.uri.path() == "*" => return Err(Refusal::BadMethod),
        _ => {}
    }
    let asks = seen.connection && fields::has_token(fields, &header::CONNECTION, "upgrade");
    // RFC 6455 §4.2.1.
    match seen.upgrade {
        Times::Never if !asks => return Ok(Kind::Plain),
        Times::Once(protocol) if asks && protocol.as_bytes().eq_ignore_ascii_case(b"websocket") => {}
        _ => return Err(Refusal::BadUpgrade),
    }
    let has_body = seen.encoding.is_there()
        || fields.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
    if head.method != Method::GET || head.version != Version::HTTP_11 || has_body {
        return Err(Refusal::BadHandshake);
    }
    if one(head, &header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != b"13") {
        return Err(Refusal::BadSocketVersion);
    }
    if one(head, &header::SEC_WEBSOCKET_KEY).is_none_or(|key| !crate::websocket::is_key(key)) {
        return Err(Refusal::BadHandshake);
    }
    Ok(Kind::WebSocket)
}

/// The value of a field that is there exactly once.
fn one<'h>(head: &'h request::Parts, name: &HeaderName) -> Option<&'h [u8]> {
    let mut values = head.headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn verdict(method: &str, uri: &str, fields: &[(&str, &str)]) -> Result<(String, Kind), Refusal> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let usual = |host| Arc::new(HostText::from(Host::parse(host).unwrap()));
        let verdict = |usual: Option<&Arc<HostText>>| {
            let checked = check(&head, Scheme::Https, 1, usual)?;
            Ok((checked.host.host().as_str().to_owned(), checked.kind))
        };
        let anew = verdict(None);
        for usual in ["a", "a:1", "A:443", "other"].map(usual) {
            assert_eq!(verdict(Some(&usual)), anew, "what is usual changes nothing");
        }
        anew
    }

    #[test]
    fn the_usual_host_is_not_read_again() {
        let usual = Arc::new(HostText::from(Host::parse("a:1").unwrap()));
        let host = |said: &str| {
            let (head, ()) = Request::builder().header("host", said).body(()).unwrap().into_parts();
            check(&head, Scheme::Https, 1, Some(&usual)).unwrap().host
        };
        assert!(Arc::ptr_eq(&host("a:1"), &usual));
        assert!(!Arc::ptr_eq(&host("a"), &usual) && !Arc::ptr_eq(&host("A:1"), &usual));
    }

    #[test]
    fn one_host_said_once() {
        let ok = |host: &str| Ok((host.to_owned(), Kind::Plain));
        assert_eq!(verdict("GET", "/", &[("host", "a:1")]), ok("a:1"));
        assert_eq!(verdict("GET", "https://a/", &[("host", "A:443")]), ok("a"));
        assert_eq!(verdict("GET", "/", &[]), Err(Refusal::NoHost));
        assert_eq!(verdict("GET", "https://a/", &[]), Err(Refusal::NoHost));
        assert_eq!(verdict("GET", "/", &[("host", "a"), ("host", "a")]), Err(Refusal::TwoHosts));
        assert_eq!(verdict("GET", "/", &[("host", "")]), Err(Refusal::BadHost));
        assert_eq!(verdict("GET", "/", &[("host", "a, b")]), Err(Refusal::BadHost));
        assert_eq!(verdict("GET", "https://b/", &[("host", "a")]), Err(Refusal::HostContradicted));
        assert_eq!(verdict("GET", "https://u:p@a/", &[("host", "a")]), Err(Refusal::BadTarget));
        assert_eq!(verdict("GET", "ftp://a/", &[("host", "a")]), Err(Refusal::BadTarget));
    }

    #[test]
    fn one_framing() {
        let with = |fields: &[(&str, &str)]| {
            let fields: Vec<_> = [("host", "a")].iter().chain(fields).copied().collect();
            verdict("POST", "/", &fields).map(drop)
        };
        assert_eq!(with(&[("transfer-encoding", "Chunked")]), Ok(()));
        assert_eq!(with(&[("content-length", "3")]), Ok(()));
        for value in ["gzip, chunked", "identity", "chunked, chunked", "xchunked", "", "chunked;q=1"] {
            assert_eq!(with(&[("transfer-encoding", value)]), Err(Refusal::BadEncoding), "{value}");
        }
        let twice = [("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        assert_eq!(with(&twice), Err(Refusal::BadEncoding));
        for value in ["3, 3", "+3", "-1", "0x3", "", "3 3"] {
            assert_eq!(with(&[("content-length", value)]), Err(Refusal::BadLength), "{value}");
        }
        let both = [("content-length", "3"), ("transfer-encoding", "chunked")];
        assert_eq!(with(&both), Err(Refusal::LengthAndEncoding));
    }

    #[test]
    fn nothing_but_requests_and_websockets() {
        let host = ("host", "a");
        assert_eq!(verdict("TRACE", "/", &[host]), Err(Refusal::BadMethod));
        assert_eq!(verdict("OPTIONS", "*", &[host]), Err(Refusal::BadMethod));
        assert_eq!(verdict("CONNECT", "a:1", &[("host", "a:1")]), Err(Refusal::BadMethod));
        let h2c =
            [host, ("connection", "upgrade, http2-settings"), ("upgrade", "h2c"), ("http2-settings", "")];
        assert_eq!(verdict("GET", "/", &h2c), Err(Refusal::BadUpgrade));
        let socket = |key: &str, version: &str, more: &[(&str, &str)]| {
            let mut fields = vec![host, ("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")];
            fields.extend([("sec-websocket-key", key), ("sec-websocket-version", version)]);
            fields.extend(more);
            verdict("GET", "/", &fields).map(|(_, kind)| kind)
        };
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        assert_eq!(socket(key, "13", &[]), Ok(Kind::WebSocket));
        assert_eq!(socket(key, "8", &[]), Err(Refusal::BadSocketVersion));
        assert_eq!(socket("x", "13", &[]), Err(Refusal::BadHandshake));
        assert_eq!(socket(key, "13", &[("content-length", "1")]), Err(Refusal::BadHandshake));
        assert_eq!(socket(key, "13", &[("upgrade", "websocket")]), Err(Refusal::BadUpgrade));
    }
}
