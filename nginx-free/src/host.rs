//! The host that a request is for: one syntax, one parse.

use std::{fmt, net::IpAddr};

/// A host and, where it was given, its port, as in a `Host` field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Host<'h> {
    text: &'h str,
    name: &'h str,
    port: Option<u16>,
}

impl<'h> Host<'h> {
    /// Reads `name`, `name:port`, `[v6]` or `[v6]:port`. Narrower than RFC 3986: no escapes, no userinfo, no sub-delims,
    /// no empty port, no port 0, no number that is not an IPv4 address in full.
    pub fn parse(text: &'h str) -> Option<Self> {
        let (name, port) = if text.starts_with('[') {
            let end = text.find(']')? + 1;
            text[1..end - 1].parse::<std::net::Ipv6Addr>().ok()?;
            (&text[..end], &text[end..])
        } else {
            let end = text.find(':').unwrap_or(text.len());
            let name = &text[..end];
            let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
            if name.is_empty() || name.len() > 255 || !name.bytes().all(known) || name.starts_with('.') {
                return None;
            }
            if ends_in_a_number(name) && name.parse::<std::net::Ipv4Addr>().is_err() {
                return None;
            }
            (name, &text[end..])
        };
        let port = match port.strip_prefix(':') {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(digits.parse().ok().filter(|port| *port != 0)?)
            }
            Some(_) => return None,
            None if port.is_empty() => None,
            None => return None,
        };
        Some(Self { text, name, port })
    }

    /// As it was sent.
    pub fn as_str(&self) -> &'h str {
        self.text
    }

    /// The name or address, without the port; IPv6 in its brackets.
    pub fn name(&self) -> &'h str {
        self.name
    }

    /// The port, where one was given.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The address, where the name is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.name.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }

    /// Whether both name the same host and port; `default` is the port of one that names none.
    pub fn same_as(&self, other: &Host<'_>, default: u16) -> bool {
        self.name.eq_ignore_ascii_case(other.name)
            && self.port.unwrap_or(default) == other.port.unwrap_or(default)
    }
}

/// A host that owns its text, so that what it was read from can be changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct HostText {
    text: Box<str>,
    name_length: usize,
    port: Option<u16>,
}

impl HostText {
    /// The same, parsed already.
    pub(crate) fn host(&self) -> Host<'_> {
        Host { text: &self.text, name: &self.text[..self.name_length], port: self.port }
    }
}

impl From<Host<'_>> for HostText {
    fn from(host: Host<'_>) -> Self {
        Self { text: host.text.into(), name_length: host.name.len(), port: host.port }
    }
}

/// Whether browsers take a name for an IPv4 address, or for a broken one (WHATWG URL, "ends in a number"): `0x7f.1` is
/// 127.0.0.1 to them.
fn ends_in_a_number(name: &str) -> bool {
    let last = name.strip_suffix('.').unwrap_or(name).rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or(last.strip_prefix("0X"));
    let is_decimal = !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit());
    is_decimal || hex.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_and_addresses_with_and_without_port() {
        let host = Host::parse("Node-1.example.org:3011").unwrap();
        assert_eq!((host.name(), host.port(), host.ip()), ("Node-1.example.org", Some(3011), None));
        let host = Host::parse("[::1]:8443").unwrap();
        assert_eq!((host.name(), host.port()), ("[::1]", Some(8443)));
        assert_eq!(host.ip(), Some("::1".parse().unwrap()));
        assert_eq!(Host::parse("127.0.0.1").unwrap().ip(), Some("127.0.0.1".parse().unwrap()));
        assert!(Host::parse("a").unwrap().same_as(&Host::parse("A:443").unwrap(), 443));
        assert!(!Host::parse("a").unwrap().same_as(&Host::parse("a:444").unwrap(), 443));
        for text in ["a", "a:1", "[::1]", "[::1]:8443"] {
            let host = Host::parse(text).unwrap();
            assert_eq!(HostText::from(host).host(), host);
        }
    }

    #[test]
    fn refuses_what_two_parsers_could_read_in_two_ways() {
        for text in [
            "",
            ":80",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "a:-1",
            "a:0x50",
            "a b",
            "a@b",
            "u:p@b",
            "a/b",
            "a,b",
            "a%2eb",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]:",
            "[x]",
            "a\\b",
            "a?b",
            "a#b",
            ".a",
            "é",
            "a:1:2",
            "[127.0.0.1]",
            "0x7f.1",
            "127.1",
            "2130706433",
            "127.0.0.01",
            "127.0.0.1.",
            "a.0X",
            "a.1",
        ] {
            assert_eq!(Host::parse(text), None, "{text:?}");
        }
    }
}
