//! Cuts single cookies out of a request, and leaves the others byte for byte as they were.

use http::{HeaderMap, HeaderValue, header};

/// Makes the `Cookie` fields one (RFC 9113 §8.2.3: HTTP/2 may split it, HTTP/1.1 may not), without the cookies whose
/// names `hidden` picks.
pub(crate) fn cut(fields: &mut HeaderMap, hidden: impl Fn(&[u8]) -> bool) {
    let lines = fields.get_all(header::COOKIE);
    let length: usize = lines.iter().map(|line| line.len() + 2).sum();
    let mut kept = Vec::with_capacity(length);
    let (mut count, mut hid) = (0, false);
    for line in lines {
        count += 1;
        for pair in pairs(line.as_bytes()) {
            if hidden(name(pair)) {
                hid = true;
            } else if !pair.is_empty() {
                if !kept.is_empty() {
                    kept.extend_from_slice(b"; ");
                }
                kept.extend_from_slice(pair);
            }
        }
    }
    if count == 0 || (count == 1 && !hid) {
        return;
    }
    match HeaderValue::from_maybe_shared(bytes::Bytes::from(kept)) {
        Ok(value) if !value.is_empty() => drop(fields.insert(header::COOKIE, value)),
        _ => drop(fields.remove(header::COOKIE)),
    }
}

/// All cookies named `wanted`, in the order they were sent.
pub fn values<'f>(fields: &'f HeaderMap, wanted: &'f [u8]) -> impl Iterator<Item = &'f [u8]> {
    fields
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|line| pairs(line.as_bytes()))
        .filter(move |pair| name(pair) == wanted)
        .filter_map(|pair| memchr::memchr(b'=', pair).map(|at| pair[at + 1..].trim_ascii()))
}

fn pairs(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let end = memchr::memchr(b';', line);
        rest = end.map(|end| &line[end + 1..]);
        Some(line[..end.unwrap_or(line.len())].trim_ascii())
    })
}

fn name(pair: &[u8]) -> &[u8] {
    pair[..memchr::memchr(b'=', pair).unwrap_or(pair.len())].trim_ascii_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut_lines(lines: &[&str]) -> Option<String> {
        let mut fields = HeaderMap::new();
        for line in lines {
            fields.append(header::COOKIE, line.parse().unwrap());
        }
        cut(&mut fields, |name| name == b"ours");
        assert!(fields.get_all(header::COOKIE).iter().count() <= 1);
        fields.get(header::COOKIE).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn cuts_ours_and_nothing_else() {
        assert_eq!(cut_lines(&["ours=1"]), None);
        assert_eq!(cut_lines(&["a=1; ours=x; b=2"]).as_deref(), Some("a=1; b=2"));
        assert_eq!(cut_lines(&["a=1;ours = x;b=\"2;3\""]).as_deref(), Some("a=1; b=\"2; 3\""));
        assert_eq!(cut_lines(&["a=1", "ours=2", "b=ours"]).as_deref(), Some("a=1; b=ours"));
        assert_eq!(cut_lines(&["a= 1;b=2;; c"]).as_deref(), Some("a= 1;b=2;; c"), "untouched byte for byte");
        assert_eq!(cut_lines(&["ours", "ours=a=b"]), None);
    }
}
