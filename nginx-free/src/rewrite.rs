//! What an app's answer says of paths, put right where the app stands under a prefix.
//!
//! | field | prefix stripped | prefix kept |
//! |---|---|---|
//! | `Location`, `Content-Location` | a path of this host gets the prefix before it | untouched |
//! | `Set-Cookie` | `Path` gets the prefix before it | a `Path` outside the prefix becomes the prefix |
//! | `Service-Worker-Allowed` | gets the prefix before it | removed where outside the prefix |
//!
//! A path that has the prefix already (of an app that was told of it) stays as it is. So do other hosts, and bodies.

use http::{HeaderMap, HeaderName, HeaderValue, header, response};

use crate::{Host, Prefix, fields::Scheme};

const SERVICE_WORKER_ALLOWED: HeaderName = HeaderName::from_static("service-worker-allowed");

/// Under which prefix a request came, and for what.
pub(crate) struct Place<'p> {
    pub(crate) prefix: &'p Prefix,
    pub(crate) host: Host<'p>,
    pub(crate) scheme: Scheme,
    /// The path that the client asked for.
    pub(crate) asked: &'p str,
}

impl Place<'_> {
    /// Puts the head of an answer right.
    pub(crate) fn rewrite(&self, head: &mut response::Parts) {
        if self.prefix.as_str().is_empty() {
            return;
        }
        if self.prefix.is_added() {
            if head.status.is_redirection() && self.leads_back(&head.headers) {
                self.prefix.leave_bare();
            }
            for name in [header::LOCATION, header::CONTENT_LOCATION] {
                edit(&mut head.headers, &name, |value| Edit::from(self.reference(value)));
            }
        }
        edit(&mut head.headers, &header::SET_COOKIE, |cookie| self.cookie(cookie));
        edit(&mut head.headers, &SERVICE_WORKER_ALLOWED, |scope| match self.scope(scope) {
            Some(scope) => Edit::To(scope),
            None => Edit::Drop,
        });
    }

    /// Whether the app leads from `PREFIX/`, whereto we led, to `PREFIX`.
    fn leads_back(&self, fields: &HeaderMap) -> bool {
        let prefix = self.prefix.as_str();
        self.asked.strip_prefix(prefix) == Some("/")
            && fields.get(header::LOCATION).is_some_and(|value| {
                let value = value.as_bytes();
                let path = self.path_here(value).unwrap_or(value);
                until(path, b"?#") == prefix.as_bytes()
            })
    }

    /// A reference to this host with the prefix before its path; `None` where it may stay as it is.
    fn reference(&self, value: &[u8]) -> Option<Vec<u8>> {
        if value.contains(&b'\t') {
            // Browsers read on as if it were not there.
            let value: Vec<u8> = value.iter().copied().filter(|b| *b != b'\t').collect();
            return self.reference(&value);
        }
        if let Some(path) = self.path_here(value) {
            // An absolute one is shortened to its path: behind TLS, apps often get the scheme wrong.
            let path = if path.first().is_some_and(is_slash) { path.to_vec() } else { [b"/", path].concat() };
            return Some(self.resolved(&path).unwrap_or(path));
        }
        match value {
            [b'/', b'/', ..] => None,
            _ if has_scheme(value) => None,
            _ => self.resolved(value),
        }
    }

    /// What follows the host in an absolute reference to this host.
    fn path_here<'v>(&self, value: &'v [u8]) -> Option<&'v [u8]> {
        let (port, rest) = match value {
            [b'/', b'/', rest @ ..] => (self.scheme.port(), rest),
            _ => without_case(value, b"https://")
                .map(|rest| (443, rest))
                .or_else(|| without_case(value, b"http://").map(|rest| (80, rest)))?,
        };
        let authority = until(rest, b"/?#\\");
        let named = Host::parse(std::str::from_utf8(authority).ok()?)?;
        // An app that does not know of our TLS says `http://` before the Host that it was asked for.
        let alike = named.as_str().eq_ignore_ascii_case(self.host.as_str());
        let ours = self.host.port().unwrap_or(self.scheme.port());
        let same =
            named.name().eq_ignore_ascii_case(self.host.name()) && named.port().unwrap_or(port) == ours;
        (alike || same).then(|| &rest[authority.len()..])
    }

    /// An absolute path with the prefix before it; `None` where it has it already.
    fn prefixed(&self, path: &[u8]) -> Option<Vec<u8>> {
        let bare = std::str::from_utf8(until(path, b"?#")).ok();
        (!bare.is_some_and(|bare| self.prefix.covers(bare)))
            .then(|| [self.prefix.as_str().as_bytes(), path].concat())
    }

    /// A path, as the app meant it. One that climbs is made absolute (RFC 3986 §5.2): at the root, `..` stays there, while
    /// below the prefix it would leave it.
    fn resolved(&self, value: &[u8]) -> Option<Vec<u8>> {
        let path = until(value, b"?#");
        let is_absolute = path.first().is_some_and(is_slash);
        let climbs = path.split(is_slash).any(|segment| is_dots(segment, 2));
        if is_absolute && !climbs {
            return self.prefixed(value);
        }
        // The folder of PREFIX itself is the neighbours', while the app was asked for `/`.
        let is_beside = self.asked == self.prefix.as_str() && !path.is_empty();
        if !climbs && !is_beside {
            return None;
        }
        let below = self.asked.strip_prefix(self.prefix.as_str()).unwrap_or("/").as_bytes();
        let folder = below.iter().rposition(|b| *b == b'/').map_or(&b"/"[..], |end| &below[..=end]);
        let whole = if is_absolute { path.to_vec() } else { [folder, path].concat() };
        let mut segments: Vec<&[u8]> = Vec::new();
        let mut ends_in_folder = false;
        for segment in whole.split(is_slash).skip(1) {
            ends_in_folder = is_dots(segment, 1) || is_dots(segment, 2);
            if is_dots(segment, 2) {
                segments.pop();
            } else if !ends_in_folder {
                segments.push(segment);
            }
        }
        let mut out = Vec::with_capacity(value.len());
        for segment in &segments {
            out.push(b'/');
            out.extend_from_slice(segment);
        }
        if ends_in_folder {
            out.push(b'/');
        }
        out.extend_from_slice(&value[path.len()..]);
        Some(match is_absolute {
            true => self.prefixed(&out).unwrap_or(out),
            false => [self.prefix.as_str().as_bytes(), &out].concat(),
        })
    }

    /// A `Set-Cookie` that is sent to nobody but this app.
    fn cookie(&self, cookie: &[u8]) -> Edit {
        let name = until(cookie, b"=;").trim_ascii();
        if name.get(..7).is_some_and(|begin| begin.eq_ignore_ascii_case(b"__Host-")) {
            // Browsers take it with Path=/ only, and so would send it to the neighbours.
            return Edit::Drop;
        }
        let prefix = self.prefix.as_str().as_bytes();
        let mut out: Vec<u8> = Vec::with_capacity(cookie.len() + prefix.len() + 8);
        let (mut valid, mut changed) = (false, false);
        for (index, part) in cookie.split(|b| *b == b';').enumerate() {
            if index > 0 {
                out.push(b';');
            }
            let (key, value) = match part.iter().position(|b| *b == b'=') {
                Some(at) => (part[..at].trim_ascii(), part[at + 1..].trim_ascii()),
                None => (part.trim_ascii(), &b""[..]),
            };
            if index == 0 || !key.eq_ignore_ascii_case(b"path") {
                out.extend_from_slice(part);
                continue;
            }
            // RFC 6265 §5.2.4: another value counts as none, and of several the last counts.
            valid = value.starts_with(b"/");
            let text = std::str::from_utf8(value).ok();
            if !valid || text.is_some_and(|value| self.prefix.covers(value)) {
                out.extend_from_slice(part);
                continue;
            }
            changed = true;
            out.extend_from_slice(b" Path=");
            out.extend_from_slice(prefix);
            if self.prefix.is_added() && value != b"/" {
                out.extend_from_slice(value);
            }
        }
        // Without a path, a cookie is good for the folder of what was asked for (RFC 6265 §5.1.4); the folder of
        // PREFIX itself is the neighbours', too.
        if !valid && self.asked == self.prefix.as_str() {
            changed = true;
            out.extend_from_slice(b"; Path=");
            out.extend_from_slice(prefix);
        }
        if changed { Edit::from(Some(out)) } else { Edit::Keep }
    }

    /// The scope that the app may give a service worker; `None` for one that is the neighbours', too.
    fn scope(&self, value: &[u8]) -> Option<HeaderValue> {
        let text = std::str::from_utf8(value).ok()?;
        let out = match text.strip_prefix('/') {
            // A scope is a string, not a path: without a slash at its end, /pod/3 would be /pod/30 as well.
            Some(_) if text == self.prefix.as_str() => format!("{text}/"),
            Some(_) if self.prefix.covers(text) => text.to_owned(),
            Some(_) if self.prefix.is_added() && !text.starts_with("//") => {
                format!("{}{text}", self.prefix.as_str())
            }
            _ => return None,
        };
        // What climbs out is no scope of the app's. A browser looks at the path alone.
        let path = until(out.as_bytes(), b"?#");
        let climbs = path.split(is_slash).any(|segment| is_dots(segment, 2)) || out.contains(['\\', '\t']);
        HeaderValue::from_str(&out).ok().filter(|_| !climbs)
    }
}

/// What becomes of one value.
enum Edit {
    Keep,
    To(HeaderValue),
    Drop,
}

impl From<Option<Vec<u8>>> for Edit {
    fn from(value: Option<Vec<u8>>) -> Self {
        match value.map(|bytes| HeaderValue::from_bytes(&bytes)) {
            None => Self::Keep,
            Some(Ok(value)) => Self::To(value),
            Some(Err(_)) => Self::Drop,
        }
    }
}

/// Edits each value of a field, in place.
fn edit(fields: &mut HeaderMap, name: &HeaderName, edit: impl Fn(&[u8]) -> Edit) {
    if !fields.contains_key(name) {
        return;
    }
    let edits: Vec<Edit> = fields.get_all(name).iter().map(|value| edit(value.as_bytes())).collect();
    if edits.iter().all(|edit| matches!(edit, Edit::Keep)) {
        return;
    }
    let old: Vec<HeaderValue> = fields.get_all(name).iter().cloned().collect();
    fields.remove(name);
    for (value, edit) in old.into_iter().zip(edits) {
        match edit {
            Edit::Keep => drop(fields.append(name, value)),
            Edit::To(value) => drop(fields.append(name, value)),
            Edit::Drop => {
                tracing::debug!(%name, "a field was dropped: it would have spoken for the neighbours")
            }
        }
    }
}

fn until<'v>(value: &'v [u8], ends: &[u8]) -> &'v [u8] {
    let end = value.iter().position(|b| ends.contains(b)).unwrap_or(value.len());
    &value[..end]
}

fn without_case<'v>(value: &'v [u8], begin: &[u8]) -> Option<&'v [u8]> {
    let (head, rest) = value.split_at_checked(begin.len())?;
    head.eq_ignore_ascii_case(begin).then_some(rest)
}

/// Browsers take a backslash for one.
fn is_slash(byte: &u8) -> bool {
    matches!(byte, b'/' | b'\\')
}

/// RFC 3986 §3.1.
fn has_scheme(value: &[u8]) -> bool {
    let name = until(value, b":/?#");
    let known = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    value.get(name.len()) == Some(&b':')
        && name.first().is_some_and(u8::is_ascii_alphabetic)
        && name.iter().all(known)
}

/// Whether a segment is so many dots, escaped or not.
fn is_dots(segment: &[u8], count: usize) -> bool {
    let (mut rest, mut dots) = (segment, 0);
    while let Some(after) = rest.strip_prefix(b".").or_else(|| without_case(rest, b"%2e")) {
        (rest, dots) = (after, dots + 1);
    }
    rest.is_empty() && dots == count
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    fn head(status: u16, fields: &[(&'static str, &str)]) -> response::Parts {
        let mut answer = http::Response::new(());
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in fields {
            answer.headers_mut().append(*name, value.parse().unwrap());
        }
        answer.into_parts().0
    }

    fn rewritten(prefix: &Prefix, asked: &str, field: (&'static str, &str)) -> Option<String> {
        let host = Host::parse("node.example:3011").unwrap();
        let place = Place { prefix, host, scheme: Scheme::Https, asked };
        let mut head = head(302, &[field]);
        place.rewrite(&mut head);
        head.headers.get(field.0).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_path_of_this_host_gets_the_prefix() {
        let prefix = Prefix::stripped("/pod/3").unwrap();
        for (said, told) in [
            ("/lab?next=/x#y", "/pod/3/lab?next=/x#y"),
            ("/", "/pod/3/"),
            ("/pod/30", "/pod/3/pod/30"),
            ("/pod/3", "/pod/3"),
            ("/pod/3/lab", "/pod/3/lab"),
            ("/pod/3?x", "/pod/3?x"),
            ("https://node.example:3011/lab", "/pod/3/lab"),
            ("HTTP://NODE.example:3011/lab", "/pod/3/lab"),
            ("https://node.example:3011", "/pod/3/"),
            ("https://node.example:3011?x", "/pod/3/?x"),
            ("https://node.example:3011/pod/3/x", "/pod/3/x"),
            ("//node.example:3011/lab", "/pod/3/lab"),
            ("//evil/lab", "//evil/lab"),
            ("https://evil/lab", "https://evil/lab"),
            ("https://node.example:3021/lab", "https://node.example:3021/lab"),
            ("https://node.example:3011@evil/", "https://node.example:3011@evil/"),
            ("https://node.example:3011.evil/", "https://node.example:3011.evil/"),
            ("mailto:a@b", "mailto:a@b"),
            ("javascript:alert(1)", "javascript:alert(1)"),
            ("lab", "lab"),
            ("./lab", "./lab"),
            ("?x", "?x"),
            ("", ""),
            ("a:b/../c", "a:b/../c"),
            ("../x", "/pod/3/a/x"),
            ("../../../../x?y=../z", "/pod/3/x?y=../z"),
            ("%2e%2E/x", "/pod/3/a/x"),
            ("..", "/pod/3/a/"),
            ("c/../..", "/pod/3/a/"),
            ("/../x", "/pod/3/x"),
            ("/pod/3/../../x?y", "/pod/3/x?y"),
            ("/a/..//evil/", "/pod/3//evil/"),
            ("https://node.example:3011/%2e%2e/x", "/pod/3/x"),
            ("\\x", "/pod/3\\x"),
            ("..\\..\\..\\x", "/pod/3/x"),
            (".\t./x", "/pod/3/a/x"),
        ] {
            assert_eq!(
                rewritten(&prefix, "/pod/3/a/b/c", ("location", said)).as_deref(),
                Some(told),
                "{said}"
            );
        }
        assert_eq!(rewritten(&prefix, "/pod/3", ("location", "x?y")).as_deref(), Some("/pod/3/x?y"));
        assert_eq!(rewritten(&prefix, "/pod/3/", ("content-location", "/a")).as_deref(), Some("/pod/3/a"));
        let kept = Prefix::kept("/pod/3").unwrap();
        assert_eq!(rewritten(&kept, "/pod/3/", ("location", "/a")).as_deref(), Some("/a"));
        let root = Prefix::stripped("/").unwrap();
        assert_eq!(rewritten(&root, "/", ("location", "/a")).as_deref(), Some("/a"));
    }

    #[test]
    fn an_app_that_leads_back_is_left_alone() {
        let target = "/wetty?x".parse().unwrap();
        let prefix = Prefix::stripped("/wetty").unwrap();
        assert_eq!(prefix.with_slash(&target).as_deref(), Some("/wetty/?x"));
        rewritten(&prefix, "/wetty/", ("location", "/login"));
        assert!(prefix.with_slash(&target).is_some());
        rewritten(&prefix, "/wetty/", ("location", "http://node.example:3011/wetty?y"));
        assert_eq!(prefix.with_slash(&target), None);
    }

    #[test]
    fn a_cookie_goes_to_nobody_but_this_app() {
        let prefix = Prefix::stripped("/pod/3").unwrap();
        let cookie = |said: &str| rewritten(&prefix, "/pod/3/x", ("set-cookie", said));
        for (said, told) in [
            ("a=1", "a=1"),
            ("a=1; Path=/", "a=1; Path=/pod/3"),
            ("a=1;path = /x ; HttpOnly", "a=1; Path=/pod/3/x; HttpOnly"),
            ("a=1; Path=/pod/3/x; Secure", "a=1; Path=/pod/3/x; Secure"),
            ("a=1; Path=/pod/30", "a=1; Path=/pod/3/pod/30"),
            ("a=1; Path=/pod/3/; Path=/", "a=1; Path=/pod/3/; Path=/pod/3"),
            ("a=1; Path=x", "a=1; Path=x"),
            ("path=/", "path=/"),
            ("a=\"Path=/\"", "a=\"Path=/\""),
        ] {
            assert_eq!(cookie(said).as_deref(), Some(told), "{said}");
        }
        assert_eq!(cookie("__host-a=1; Secure; Path=/"), None);
        assert_eq!(
            rewritten(&prefix, "/pod/3", ("set-cookie", "a=1")).as_deref(),
            Some("a=1; Path=/pod/3"),
            "its folder would be the neighbours'"
        );
        let kept = Prefix::kept("/pod/3").unwrap();
        for (said, told) in [
            ("a=1; Path=/", "a=1; Path=/pod/3"),
            ("a=1; Path=/pod/4", "a=1; Path=/pod/3"),
            ("a=1; Path=/pod/3/", "a=1; Path=/pod/3/"),
        ] {
            assert_eq!(rewritten(&kept, "/pod/3/x", ("set-cookie", said)).as_deref(), Some(told), "{said}");
        }
    }

    #[test]
    fn a_service_worker_does_not_serve_the_neighbours() {
        let scope =
            |prefix: &Prefix, said| rewritten(prefix, "/pod/3/sw.js", ("service-worker-allowed", said));
        let stripped = Prefix::stripped("/pod/3").unwrap();
        assert_eq!(scope(&stripped, "/").as_deref(), Some("/pod/3/"));
        assert_eq!(scope(&stripped, "/pod/3").as_deref(), Some("/pod/3/"), "and not /pod/30");
        for outside in [
            "/..",
            "/.\t./",
            "//",
            "https://node.example:3011/",
            "/%2e%2E/",
            "../",
            "/\\..",
            "/..?",
            "/x/../..#",
        ] {
            assert_eq!(scope(&stripped, outside), None, "{outside}");
        }
        let kept = Prefix::kept("/pod/3").unwrap();
        assert_eq!(scope(&kept, "/"), None);
        assert_eq!(scope(&kept, "/pod/3/..?"), None);
        assert_eq!(scope(&kept, "/pod/3/").as_deref(), Some("/pod/3/"));
    }
}
