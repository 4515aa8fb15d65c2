//! Cutting cookies takes exactly the hidden ones, and leaves the others as they were.
//!
//! The input is lines, each the value of a `Cookie` field. Hidden are the names that end in `hidden`.
#![no_main]

use http::{HeaderMap, HeaderValue, header::COOKIE};
use libfuzzer_sys::fuzz_target;
use nginx_free::{cookies, fuzzing};

fuzz_target!(|data: &[u8]| {
    let mut lines: Vec<&[u8]> = Vec::new();
    let mut fields = HeaderMap::new();
    fields.insert("a", HeaderValue::from_static("hidden=1"));
    for line in data.split(|b| *b == b'\n') {
        let Ok(value) = HeaderValue::from_bytes(line) else { continue };
        fields.append(COOKIE, value);
        lines.push(line);
    }
    fields.insert("b", HeaderValue::from_static("hidden=1"));

    let before: Vec<Vec<u8>> = lines.iter().flat_map(|line| pairs(line)).collect();
    for name in [&b"hidden"[..], b"a", b"", b"a b"] {
        let expected: Vec<Vec<u8>> = before.iter().filter_map(|pair| value_of(pair, name)).collect();
        let found: Vec<Vec<u8>> = cookies::values(&fields, name).map(<[u8]>::to_vec).collect();
        assert_eq!(found, expected, "{:?}", String::from_utf8_lossy(name));
    }

    fuzzing::cut_cookies(&mut fields, |name| name.ends_with(b"hidden"));

    let after: Vec<&[u8]> = fields.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    assert!(after.len() <= 1, "HTTP/1.1 has one line");
    let kept: Vec<Vec<u8>> = before.iter().filter(|pair| !is_hidden(pair)).cloned().collect();
    if lines.len() == 1 && kept.len() == before.len() {
        assert_eq!(after, lines, "nothing is to be cut, so nothing changes");
    } else {
        let filled: Vec<Vec<u8>> = kept.into_iter().filter(|pair| !pair.is_empty()).collect();
        let expected = filled.join(&b"; "[..]);
        assert_eq!(after.first().copied().unwrap_or_default(), &expected[..]);
        assert_eq!(after.is_empty(), expected.is_empty());
    }
    assert_eq!((&fields["a"], &fields["b"]), (&fields["b"], &HeaderValue::from_static("hidden=1")));
});

/// RFC 6265 §4.2.1 byte by byte, with what servers make of what is no cookie string.
fn pairs(line: &[u8]) -> Vec<Vec<u8>> {
    let mut pairs = vec![Vec::new()];
    for byte in line {
        match byte {
            b';' => pairs.push(Vec::new()),
            other => pairs.last_mut().unwrap().push(*other),
        }
    }
    pairs.into_iter().map(trimmed).collect()
}

fn trimmed(mut bytes: Vec<u8>) -> Vec<u8> {
    let is_space = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    while is_space(bytes.first()) {
        bytes.remove(0);
    }
    while is_space(bytes.last()) {
        bytes.pop();
    }
    bytes
}

fn split(pair: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut halves = pair.splitn(2, |b| *b == b'=');
    let name = trimmed(halves.next().unwrap_or_default().to_vec());
    (name, halves.next().map(|value| trimmed(value.to_vec())))
}

fn value_of(pair: &[u8], wanted: &[u8]) -> Option<Vec<u8>> {
    let (name, value) = split(pair);
    value.filter(|_| name == wanted)
}

fn is_hidden(pair: &[u8]) -> bool {
    split(pair).0.ends_with(b"hidden")
}
