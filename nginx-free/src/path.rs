//! What a path must be, where requests are told apart by its first segments.
//!
//! A proxy that looks at `/pod/1/` and an app (or a second proxy) that resolves `/pod/1/../2/` see two different paths.
//! So in the *routed* part, the first [`Limits::routed_segments`](crate::Limits) segments, nothing may stand that
//! anyone could read otherwise; and no dot segment of the rest may climb back into it. All else of the path, and the
//! query, is the
//! app's own and goes to it byte for byte.

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
            match dots(segment) {
                Dots::Up if depth == 0 => return false,
                Dots::Up => depth -= 1,
                Dots::Here => {}
                Dots::None => depth += 1,
            }
        }
    }
    true
}

/// Whether a routed segment has nothing in it that decodes to a separator, a dot segment or a control character.
fn is_plain_segment(segment: &str) -> bool {
    if segment.contains(['\\', ';']) || dots(segment) != Dots::None {
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

#[derive(PartialEq, Eq)]
enum Dots {
    None,
    Here,
    Up,
}

/// Whether a segment is `.` or `..`, escaped or not. A `;parameter` is cut off first, as some servers do; a
/// separator within an escape (`..%2f`) counts as the end of a segment.
fn dots(segment: &str) -> Dots {
    let bytes = segment.as_bytes();
    let (mut at, mut count) = (0, 0);
    while let Some(&byte) = bytes.get(at) {
        let (value, length) = match byte {
            b'%' => escaped(bytes, at).map_or((b'%', 1), |value| (value, 3)),
            other => (other, 1),
        };
        match value {
            b'.' => count += 1,
            b';' | b'/' | b'\\' => break,
            _ => return Dots::None,
        }
        at += length;
    }
    match count {
        1 => Dots::Here,
        2 => Dots::Up,
        _ => Dots::None,
    }
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
            "/files/..%2fx/z/w/../v",
            "/a/b//c",
            "/a/b;v=1/c",
            "/a/x/%252e",
        ] {
            assert!(is_plain(path, 1) || path.contains("..%2f"), "{path}");
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
