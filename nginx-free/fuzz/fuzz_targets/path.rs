//! A path that passes as plain is read alike by everybody; a prefix is found by whole segments, and taken off without a
//! trace.
//!
//! The input is a digit, how many segments are routed by, and a path with its query.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nginx_free::{Prefix, Routes, fuzzing, path};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(routed) = text.chars().next().and_then(|c| c.to_digit(10)).filter(|n| *n <= 4) else { return };
    let target = &text[1..];
    if let Ok(prefix) = Prefix::kept(target) {
        one_reading(target.trim_end_matches('/'), prefix.segments());
        assert!(prefix.covers(target) || target == "/");
    }
    let asked = target.split('?').next().unwrap_or_default();
    if path::is_plain(asked, routed as usize) {
        one_reading(asked, routed as usize);
        let Ok(uri) = target.parse::<http::Uri>() else { return };
        routes(target, &uri);
    }
});

/// How a server may make segments of a path.
#[derive(Clone, Copy)]
struct Reader {
    /// How often it decodes escapes.
    decodes: usize,
    /// Whether it does so before it cuts the path into segments.
    decodes_first: bool,
    backslash: bool,
    /// Whether it cuts `;parameters` off, before or after it decodes.
    parameters: Option<Order>,
    /// Whether empty segments count for nothing.
    merges: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Before,
    After,
}

impl Reader {
    fn all() -> impl Iterator<Item = Self> {
        let bools = [false, true];
        (0..=2).flat_map(move |decodes| {
            bools.into_iter().flat_map(move |decodes_first| {
                bools.into_iter().flat_map(move |backslash| {
                    [None, Some(Order::Before), Some(Order::After)].into_iter().flat_map(move |parameters| {
                        bools.into_iter().map(move |merges| Self {
                            decodes,
                            decodes_first,
                            backslash,
                            parameters,
                            merges,
                        })
                    })
                })
            })
        })
    }

    /// The segments that this reader sees, dot segments resolved (RFC 3986 §5.2.4).
    fn read(self, path: &[u8]) -> Vec<Vec<u8>> {
        let decoded = |bytes: &[u8]| (0..self.decodes).fold(bytes.to_vec(), |bytes, _| decode(&bytes));
        let cut = |bytes: &[u8]| bytes.split(|b| *b == b';').next().unwrap_or_default().to_vec();
        let split = |path: &[u8]| -> Vec<Vec<u8>> {
            let is_end = |b: &u8| *b == b'/' || (self.backslash && *b == b'\\');
            path.split(is_end).skip(1).map(<[u8]>::to_vec).collect()
        };
        let before = |segments: Vec<Vec<u8>>| -> Vec<Vec<u8>> {
            let cuts = self.parameters == Some(Order::Before);
            segments.into_iter().map(|segment| if cuts { cut(&segment) } else { segment }).collect()
        };
        let segments = if self.decodes_first {
            let rejoined: Vec<u8> =
                before(split(path)).iter().flat_map(|segment| [b"/", &segment[..]].concat()).collect();
            split(&decoded(&rejoined))
        } else {
            before(split(path)).iter().map(|segment| decoded(segment)).collect()
        };
        let mut read: Vec<Vec<u8>> = Vec::new();
        let count = segments.len();
        for (index, segment) in segments.into_iter().enumerate() {
            let segment = if self.parameters == Some(Order::After) { cut(&segment) } else { segment };
            match &segment[..] {
                b".." => drop(read.pop()),
                b"." => {}
                b"" if self.merges && index + 1 < count => {}
                _ => read.push(segment),
            }
        }
        read
    }
}

/// Escapes taken for what they stand for; what is none stays.
fn decode(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        match digits.filter(|_| *first == b'%') {
            Some(digits) => {
                out.push(u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap());
                rest = &after[2..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

/// Whether all readers see the routed segments that stand there. A segment itself may be shown decoded: it is the same
/// one, and it has no separator in it.
fn one_reading(path: &str, routed: usize) {
    let raw: Vec<&[u8]> = path.as_bytes().split(|b| *b == b'/').skip(1).collect();
    let routed = routed.min(raw.len());
    for reader in Reader::all() {
        let read = reader.read(path.as_bytes());
        for (index, segment) in raw[..routed].iter().enumerate() {
            let shown = (0..reader.decodes).fold(segment.to_vec(), |bytes, _| decode(&bytes));
            let seen = read.get(index).map_or(&b""[..], |segment| segment);
            assert_eq!(
                String::from_utf8_lossy(seen),
                String::from_utf8_lossy(&shown),
                "segment {index} of {path:?}: decoded {} times{}, backslash {}, parameters {}, merged {}",
                reader.decodes,
                if reader.decodes_first { " before it is cut" } else { "" },
                reader.backslash,
                reader.parameters.map_or("kept", |order| match order {
                    Order::Before => "cut before",
                    Order::After => "cut after",
                }),
                reader.merges,
            );
        }
    }
}

/// The prefixes that are there, the root apart.
const PREFIXES: [&str; 6] = ["/a", "/a/b", "/a/b/c", "/ab", "/pod/3", "/pod/3/x"];

fn routes(target: &str, uri: &http::Uri) {
    let asked = uri.path();
    let mut routes = Routes::default();
    for (index, prefix) in PREFIXES.iter().enumerate() {
        routes.add(Prefix::stripped(prefix).unwrap(), index).unwrap();
    }
    let covers = |prefix: &str| asked.split('/').take(prefix.split('/').count()).eq(prefix.split('/'));
    let expected = PREFIXES.iter().filter(|prefix| covers(prefix)).max_by_key(|prefix| prefix.len());
    let found = routes.find(asked);
    assert_eq!(found.map(|(_, index)| PREFIXES[*index]), expected.copied(), "{asked}");

    for prefix in PREFIXES {
        let kept = fuzzing::target(&Prefix::kept(prefix).unwrap(), uri.clone());
        let stripped = fuzzing::target(&Prefix::stripped(prefix).unwrap(), uri.clone());
        if !covers(prefix) {
            assert_eq!((kept, stripped), (None, None), "{prefix} {target}");
            continue;
        }
        let fragment = target.find('#').unwrap_or(target.len());
        let whole = &target[..fragment];
        assert_eq!(kept.unwrap().to_string(), whole);
        let rest = &whole[prefix.len()..];
        let slash = if rest.starts_with('/') { "" } else { "/" };
        assert_eq!(stripped.unwrap().to_string(), format!("{slash}{rest}"), "{prefix} {target}");
    }
    let root = fuzzing::target(&Prefix::stripped("/").unwrap(), uri.clone());
    assert_eq!(root.unwrap().path(), asked);
}
