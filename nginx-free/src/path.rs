//! What a path must be, where requests are told apart by its first segments.
//!
//! A proxy that looks at `/pod/1/` and an app (or a second proxy) that resolves `/pod/1/../2/` see two different paths.
//! So in the *routed* part, the first [`Limits::routed_segments`](crate::Limits) segments, nothing may stand that
//! anyone could read otherwise; and no dot segment of the rest may climb back into it. All else of the path, and the
//! query, is the
//! app's own and goes to it byte for byte.

use std::borrow::Cow;

/// Whether everybody reads the routed part of `path` alike.
pub fn is_plain(path: &str, routed_segments: usize) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    // RFC 3986 knows no other characters; hyper lets UTF-8 pass.
    if !path.bytes().all(|b| b.is_ascii_graphic()) {
        return false;
    }
    let mut depth = 0_usize;
    for (index, segment) in rest.split('/').enumerate() {
        if index < routed_segments {
            let last = index + 1 == rest.split('/').count();
            // An empty segment is only the end of a path: `//x` is a host to some, and `/x` to others.
            if !is_plain_segment(segment) || (segment.is_empty() && !last) {
                return false;
            }
        } else {
            match at_worst(segment) {
                Step::Up if depth == 0 => return false,
                Step::Up => depth -= 1,
                Step::Here => {}
                Step::Down => depth += 1,
                Step::Unclear => return false,
            }
        }
    }
    true
}

/// Whether a routed segment has nothing in it that decodes to a separator, a dot segment or a control character.
fn is_plain_segment(segment: &str) -> bool {
    if segment.contains(['\\', ';']) || matches!(segment, "." | "..") {
        return false;
    }
    let bytes = segment.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte == b'%' {
            let Some(value) = escaped(bytes, at) else { return false };
            if matches!(value, b'/' | b'\\' | b'%' | b'.' | b';') || value.is_ascii_control() {
                return false;
            }
            at += 3;
        } else {
            at += 1;
        }
    }
    true
}

/// Where a segment leads.
enum Step {
    Down,
    Here,
    Up,
    /// Down to one server, up to another.
    Unclear,
}

/// How little a segment leads down, whoever reads it: some servers decode escapes, once or twice, before they look for
/// separators and dots, some take `\` for `/`, some cut `;parameters` off, and some count `//` as one `/`.
fn at_worst(segment: &str) -> Step {
    let mut bytes = Cow::Borrowed(segment.as_bytes());
    for _ in 0..2 {
        if bytes.contains(&b'%') {
            bytes = Cow::Owned(decoded(&bytes));
        }
    }
    let mut names = bytes
        .split(|b| matches!(b, b'/' | b'\\'))
        .map(|part| part.split(|b| *b == b';').next().unwrap_or_default());
    let first = names.next().unwrap_or_default();
    if names.any(|name| name == b"..") {
        return Step::Unclear;
    }
    match first {
        b".." => Step::Up,
        b"." | b"" => Step::Here,
        _ => Step::Down,
    }
}

/// Escapes as what they stand for; what is none stays.
fn decoded(bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        let value = escaped(bytes, at).filter(|_| byte == b'%');
        out.push(value.unwrap_or(byte));
        at += if value.is_some() { 3 } else { 1 };
    }
    out
}

/// The byte that the escape at `at` stands for.
fn escaped(bytes: &[u8], at: usize) -> Option<u8> {
    let hex = |b: u8| char::from(b).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(hex(*bytes.get(at + 1)?)? * 16 + hex(*bytes.get(at + 2)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_apps_of_the_field_ask_for_passes() {
        for path in [
            "/",
            "/lab",
            "/lab/",
            "/api/contents/a%20b.ipynb",
            "/-/starting/log",
            "/static/%E2%82%AC",
            "/a/b/../c",
            "/files/x%2Fy",
            "/files/x/..%2fz/w/../v",
            "/a/b//c",
            "/a/b;v=1/c",
            "/a/b//../c",
            "/a/x/%252e",
        ] {
            assert!(is_plain(path, 1), "{path}");
        }
    }

    #[test]
    fn the_routed_part_has_one_reading() {
        for path in [
            "",
            "*",
            "a",
            "//evil",
            "//pod/2",
            "/..",
            "/../x",
            "/%2e%2e/x",
            "/.%2E",
            "/.",
            "/%2fx",
            "/a%5cb",
            "/a\\b",
            "/%00",
            "/a%0d",
            "/a;x/b",
            "/%3bx",
            "/%252e%252e",
            "/%zz",
            "/%2",
            "/a/..",
            "/a/../-/x",
            "/a/b/../../c",
            "/a/%2e%2e/c",
            "/a/..%2f/c",
            "/a/..;/c",
            "/a/..\\c",
            "/a/b//../../c",
            "/a/b/;x/../../c",
            "/a/b/%2f/../../c",
            "/a/b%2f../../c",
            "/a/b%2f..%2f..%2fc",
            "/a/b\\..\\..\\c",
            "/a/b;x%5c..;y%5c..",
            "/a/%252e%252e/c",
            "/a/b%252f..%252f..",
            "/é",
        ] {
            assert!(!is_plain(path, 1), "{path}");
        }
        for path in [
            "/pod/1/../2",
            "/pod/%2e%2e",
            "/pod/..%2f2",
            "/pod/1;x",
            "/pod//2",
            "//pod/2",
            "/pod/1/x/../../2",
        ] {
            assert!(!is_plain(path, 2), "{path}");
        }
    }
}
