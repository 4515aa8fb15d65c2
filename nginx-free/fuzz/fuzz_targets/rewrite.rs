//! What an app under a prefix says of paths: resolved as browsers do (by the `url` crate), it stays under the prefix, or
//! is where the app itself pointed to outside of this host. Cookies and service workers stay under the prefix.
//!
//! The input is a line that says how the prefix stands (`k` kept, else stripped; `p` plain HTTP, else TLS), a line with
//! what was asked for below the prefix, and lines of values, told apart by their first letter: `L`ocation,
//! `C`ontent-Location, `S`et-Cookie, service `W`orker.
#![no_main]

use http::{HeaderValue, Response, StatusCode, header, response};
use libfuzzer_sys::fuzz_target;
use nginx_free::{Host, Prefix, fuzzing, path};
use url::Url;

const HOST: &str = "node.example:3011";
const PREFIX: &str = "/pod/3";

fuzz_target!(|data: &[u8]| {
    let mut lines = data.splitn(3, |b| *b == b'\n');
    let (Some(how), Some(below), Some(rest)) = (lines.next(), lines.next(), lines.next()) else { return };
    let Ok(below) = std::str::from_utf8(below) else { return };
    let asked = format!("{PREFIX}{below}");
    // Anything else is refused before the app hears of it.
    if !path::is_plain(&asked, 2) || !asked.starts_with(PREFIX) || asked.contains(['?', '#']) {
        return;
    }
    if !below.is_empty() && !below.starts_with('/') {
        return;
    }
    let tls = !how.contains(&b'p');
    let kept = how.contains(&b'k');
    let place = Place { kept, tls, asked: &asked };
    for line in rest.split(|b| *b == b'\n') {
        // As hyper reads it: without the blanks around it.
        let value = line.get(1..).unwrap_or_default().trim_ascii();
        match line.first() {
            Some(b'L') => place.location(header::LOCATION, value),
            Some(b'C') => place.location(header::CONTENT_LOCATION, value),
            Some(b'S') => place.cookie(value),
            Some(b'W') => place.service_worker(value),
            _ => {}
        }
    }
});

struct Place<'p> {
    kept: bool,
    tls: bool,
    asked: &'p str,
}

impl Place<'_> {
    /// The values of a field after the rewrite, of one value before it.
    fn rewritten(&self, name: &header::HeaderName, value: &[u8]) -> Option<Vec<Vec<u8>>> {
        let prefix = match self.kept {
            true => Prefix::kept(PREFIX),
            false => Prefix::stripped(PREFIX),
        };
        let mut head = head();
        head.headers.insert("x-before", HeaderValue::from_static("1"));
        head.headers.insert(name, HeaderValue::from_bytes(value).ok()?);
        head.headers.insert("x-after", HeaderValue::from_static("/2"));
        fuzzing::rewrite(&prefix.unwrap(), Host::parse(HOST).unwrap(), self.tls, self.asked, &mut head);
        let values: Vec<Vec<u8>> =
            head.headers.get_all(name).iter().map(|value| value.as_bytes().to_vec()).collect();
        assert_eq!(head.headers.len(), 2 + values.len(), "a field came or went");
        assert!(values.len() <= 1, "one value became many");
        for value in &values {
            assert!(!value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
        }
        Some(values)
    }

    fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// What the browser resolves references against.
    fn public(&self) -> Url {
        Url::parse(&format!("{}://{HOST}{}", self.scheme(), self.asked)).unwrap()
    }

    /// What the app believes the browser resolves references against.
    fn believed(&self) -> Url {
        let below = &self.asked[PREFIX.len()..];
        let path = if below.is_empty() { "/" } else { below };
        Url::parse(&format!("{}://{HOST}{path}", self.scheme())).unwrap()
    }

    fn location(&self, name: header::HeaderName, value: &[u8]) {
        let Some(values) = self.rewritten(&name, value) else { return };
        let [told] = &values[..] else { panic!("a location was lost: {:?}", value.escape_ascii()) };
        let show = || format!("{:?} of {} became {:?}", latin1(value), self.asked, latin1(told));
        if self.kept {
            assert_eq!(told, value, "of an app that knows its prefix");
            return;
        }
        let (said, told) = (latin1(value), latin1(told));
        // A reference that no browser follows.
        let (Ok(meant), Ok(led)) = (self.believed().join(&said), self.public().join(&told)) else {
            return assert!(self.believed().join(&said).is_err() || self.public().join(&told).is_ok());
        };
        let here = self.public().origin();
        if led.origin() == here {
            if spells_this_host_otherwise(&said) {
                return;
            }
            assert!(covers(led.path()), "{} and leads to {led}, outside the prefix", show());
            // A browser would have sent `\\` or `.` in another way, and so would read references in another way.
            let is_sent_so = self.public().path() == self.asked;
            if meant.origin() == here && is_sent_so && ![self.asked, &said].into_iter().any(has_drive_letter)
            {
                // Where the app meant, below the prefix; or just there, where the app was told of it.
                let is_below = led.path().strip_prefix(PREFIX) == Some(meant.path());
                let is_there = led.path() == meant.path();
                let is_root = led.path() == PREFIX && meant.path() == "/";
                assert!(is_below || is_there || is_root, "{} and leads to {led}, for {meant}", show());
                assert_eq!((led.query(), led.fragment()), (meant.query(), meant.fragment()), "{}", show());
            }
            return;
        }
        assert_eq!(meant.as_str(), led.as_str(), "{}", show());
        assert_eq!(told, said, "another host's: it is to stay as it is");
    }

    fn cookie(&self, value: &[u8]) {
        let Some(values) = self.rewritten(&header::SET_COOKIE, value) else { return };
        let is_host = begins(value.split(|b| *b == b'=').next().unwrap_or_default().trim_ascii(), b"__host-");
        let [told] = &values[..] else {
            return assert!(is_host, "a cookie was lost: {:?}", value.escape_ascii());
        };
        let path = effective_path(told, self.asked.as_bytes());
        let path = String::from_utf8_lossy(&path);
        assert!(
            covers(&path),
            "{:?} of {} became {:?}, good for {path}",
            latin1(value),
            self.asked,
            latin1(told)
        );
        // All but paths stays byte for byte.
        let rest = |cookie: &[u8]| -> Vec<Vec<u8>> {
            let parts = cookie.split(|b| *b == b';').enumerate();
            parts
                .filter(|(index, part)| *index == 0 || !is_path(part))
                .map(|(_, part)| part.to_vec())
                .collect()
        };
        assert_eq!(rest(told), rest(value));
        // What the app asked for is still within: a cookie for a folder is not made one for another.
        let wanted = effective_path(value, self.believed().path().as_bytes());
        if !self.kept && is_path_given(value) && !covers(&String::from_utf8_lossy(&wanted)) {
            let expected = [PREFIX.as_bytes(), &wanted].concat();
            let expected = if wanted == b"/" { PREFIX.as_bytes() } else { &expected };
            assert_eq!(path.as_bytes(), String::from_utf8_lossy(expected).as_bytes());
        }
    }

    /// Service Workers §"Update": the field is a reference whose path is what a scope has to begin with, as a string.
    fn service_worker(&self, value: &[u8]) {
        let name = header::HeaderName::from_static("service-worker-allowed");
        let Some(values) = self.rewritten(&name, value) else { return };
        let [told] = &values[..] else { return };
        let Ok(scope) = self.public().join(&latin1(told)) else { return };
        assert!(
            scope.path().strip_prefix(PREFIX).is_some_and(|rest| rest.starts_with('/')),
            "{:?} became {:?}: scopes that begin with {}",
            latin1(value),
            latin1(told),
            scope.path()
        );
    }
}

/// Whether a segment is a letter and a colon: the `url` crate keeps it from `..` in any URL, and browsers in `file:` alone.
fn has_drive_letter(reference: &str) -> bool {
    let mut segments = reference.split(['/', '\\', '?', '#']).map(|segment| segment.replace('\t', ""));
    segments
        .any(|segment| matches!(segment.as_bytes(), [letter, b':' | b'|'] if letter.is_ascii_alphabetic()))
}

/// A reference with a scheme that is not the usual `scheme://HOST`, or with `//` and not this very host: browsers find
/// this host in more spellings (`https:/x`, `https:\\HOST`, `u@HOST`, `n%6fde.example`) than are looked for. What an app
/// means by them is nobody's guess, and a redirect proves nothing.
fn spells_this_host_otherwise(said: &str) -> bool {
    let said: String = said.chars().filter(|c| *c != '\t').collect();
    let said = said.to_ascii_lowercase();
    let rest = match said.split_once(':') {
        Some((scheme, rest)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) => {
            rest
        }
        _ => &said,
    };
    let usual =
        rest.strip_prefix("//").map(|rest| rest.split(['/', '?', '#', '\\']).next().unwrap_or_default());
    let absolute = rest.len() < said.len() || rest.replace('\\', "/").starts_with("//");
    absolute && usual != Some(HOST)
}

fn head() -> response::Parts {
    let mut answer = Response::new(());
    *answer.status_mut() = StatusCode::FOUND;
    answer.into_parts().0
}

/// Bytes as browsers take them from a head.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|b| char::from(*b)).collect()
}

fn covers(path: &str) -> bool {
    path.strip_prefix(PREFIX).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn begins(bytes: &[u8], with: &[u8]) -> bool {
    bytes.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with))
}

/// A part of a `Set-Cookie`, RFC 6265 §5.2.
fn attribute(part: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut halves = part.splitn(2, |b| *b == b'=');
    let name = halves.next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    (name, halves.next().unwrap_or_default().trim_ascii().to_vec())
}

fn is_path(part: &[u8]) -> bool {
    attribute(part).0 == b"path"
}

/// The path in force, of several the last (RFC 6265 §5.2.4 and §5.3 step 7).
fn effective_path(cookie: &[u8], asked: &[u8]) -> Vec<u8> {
    let paths = cookie.split(|b| *b == b';').skip(1).map(attribute).filter(|(name, _)| name == b"path");
    match paths.last() {
        Some((_, path)) if path.first() == Some(&b'/') => path,
        _ => default_path(asked),
    }
}

fn is_path_given(cookie: &[u8]) -> bool {
    let paths = cookie.split(|b| *b == b';').skip(1).map(attribute).filter(|(name, _)| name == b"path");
    paths.last().is_some_and(|(_, path)| path.first() == Some(&b'/'))
}

/// RFC 6265 §5.1.4.
fn default_path(asked: &[u8]) -> Vec<u8> {
    match asked.iter().rposition(|b| *b == b'/') {
        None | Some(0) => b"/".to_vec(),
        Some(last) => asked[..last].to_vec(),
    }
}
