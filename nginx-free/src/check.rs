//! What a request must keep before anybody judges it. Stricter than hyper 1.12, which was measured to let pass: no `Host`
//! or two of them, an absolute URI that contradicts it, userinfo, `gzip, chunked`, raw `..`, `TRACE`, `OPTIONS *`.
//! What hyper
//! repairs before a service can see it is found by `wire`.

use http::{HeaderName, Method, StatusCode, Version, header, request};
use hyper::ext::Protocol;

use crate::{Host, Kind, fields, fields::Scheme, path};

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
    pub(crate) host: String,
    pub(crate) kind: Kind,
    /// The fields that the client's `Connection` names.
    pub(crate) named: Vec<HeaderName>,
}

/// Reads a request's head, or says which rule it breaks.
pub(crate) fn check(head: &request::Parts, scheme: Scheme, segments: usize) -> Result<Checked, Refusal> {
    let host = host(head, scheme)?;
    let kind = kind(head)?;
    framing(head)?;
    if !path::is_plain(head.uri.path(), segments) {
        return Err(Refusal::BadPath);
    }
    if head.uri.query().is_some_and(|query| !query.bytes().all(|b| b.is_ascii_graphic())) {
        return Err(Refusal::BadTarget);
    }
    let expect = head.headers.get_all(header::EXPECT);
    if expect.iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Refusal::BadExpectation);
    }
    let named = fields::named_by_connection(&head.headers).map_err(|_| Refusal::BadConnection)?;
    Ok(Checked { host, kind, named })
}

/// RFC 9112 §3.2, RFC 9113 §8.3.1: one host, said once or twice alike.
fn host(head: &request::Parts, scheme: Scheme) -> Result<String, Refusal> {
    let mut lines = head.headers.get_all(header::HOST).iter();
    let line = lines.next();
    if lines.next().is_some() {
        return Err(Refusal::TwoHosts);
    }
    let line = match line {
        Some(value) => Some(value.to_str().ok().and_then(Host::parse).ok_or(Refusal::BadHost)?),
        None => None,
    };
    let target = match head.uri.authority() {
        Some(authority) => Some(Host::parse(authority.as_str()).ok_or(Refusal::BadTarget)?),
        None => None,
    };
    if head.uri.scheme_str().is_some_and(|said| !matches!(said, "http" | "https")) {
        return Err(Refusal::BadTarget);
    }
    let version_2 = head.version == Version::HTTP_2;
    match (line, target) {
        (Some(line), Some(target)) if line.same_as(&target, scheme.port()) => Ok(target.as_str().to_owned()),
        (Some(_), Some(_)) => Err(Refusal::HostContradicted),
        (Some(line), None) => Ok(line.as_str().to_owned()),
        (None, Some(target)) if version_2 => Ok(target.as_str().to_owned()),
        (None, _) => Err(Refusal::NoHost),
    }
}

/// RFC 9112 §6: how the body's length is said.
fn framing(head: &request::Parts) -> Result<(), Refusal> {
    let mut encodings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    let (encoding, length) = (encodings.next(), lengths.next());
    if encoding.is_some() && length.is_some() {
        return Err(Refusal::LengthAndEncoding);
    }
    if encodings.next().is_some() || encoding.is_some_and(|v| !v.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Err(Refusal::BadEncoding);
    }
    let digits = |v: &http::HeaderValue| !v.is_empty() && v.as_bytes().iter().all(u8::is_ascii_digit);
    if lengths.next().is_some() || length.is_some_and(|v| !digits(v)) {
        return Err(Refusal::BadLength);
    }
    Ok(())
}

/// Plain or WebSocket; nothing else is served: no tunnel, no h2c, no other upgrade.
fn kind(head: &request::Parts) -> Result<Kind, Refusal> {
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
    let asks = fields::has_token(fields, &header::CONNECTION, "upgrade");
    if !fields.contains_key(header::UPGRADE) {
        return if asks { Err(Refusal::BadUpgrade) } else { Ok(Kind::Plain) };
    }
    // RFC 6455 §4.2.1.
    let protocol = one(head, &header::UPGRADE).ok_or(Refusal::BadUpgrade)?;
    if !protocol.eq_ignore_ascii_case(b"websocket") || !asks {
        return Err(Refusal::BadUpgrade);
    }
    let has_body = fields.contains_key(header::TRANSFER_ENCODING)
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
        check(&head, Scheme::Https, 1).map(|checked| (checked.host, checked.kind))
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
