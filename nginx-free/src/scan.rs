//! Reads the raw heads of HTTP/1.1 requests, in whatever pieces they come, and says which rule they break. Only what
//! hyper would repair is looked for; `wire` has the list.

use crate::check::Refusal;

/// Reads heads, line by line, in whatever pieces they come.
#[derive(Default)]
pub(crate) struct Scanner {
    pub(crate) place: Place,
    line: Line,
    head: HeadSoFar,
    /// Heads that came.
    heads: usize,
}

#[derive(Default, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// Before or in the request line.
    #[default]
    Request,
    /// After it, in the head.
    Fields,
    /// In a body that has so many bytes left.
    Body(u64),
    /// Where nothing is looked at any more.
    Unseen,
}

/// How much of a line is kept where it comes in pieces: enough for the fields that count.
const KEPT: usize = 48;

/// The beginning of a line. `length` is that of the whole line.
struct Line {
    begin: [u8; KEPT],
    length: usize,
    last: u8,
}

impl Default for Line {
    fn default() -> Self {
        Self { begin: [0; KEPT], length: 0, last: 0 }
    }
}

#[derive(Default)]
struct HeadSoFar {
    content_length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

impl Scanner {
    /// Whether so many requests came, and not one byte of another.
    pub(crate) fn is_before_head(&self, heads: usize) -> bool {
        self.place == Place::Request && self.line.length == 0 && self.heads == heads
    }

    pub(crate) fn scan(&mut self, mut bytes: &[u8]) -> Result<(), Refusal> {
        while !bytes.is_empty() {
            match &mut self.place {
                Place::Unseen => return Ok(()),
                Place::Body(left) => {
                    let now = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= now as u64;
                    bytes = &bytes[now..];
                    if *left == 0 {
                        self.place = Place::Request;
                    }
                }
                Place::Request | Place::Fields => {
                    let end = memchr::memchr(b'\n', bytes);
                    let (part, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
                    bytes = rest;
                    if self.place == Place::Request && memchr::memchr(b'#', part).is_some() {
                        return Err(Refusal::BadTarget);
                    }
                    let is_whole = self.line.length == 0 && end.is_some();
                    match part.strip_suffix(b"\r\n").filter(|_| is_whole) {
                        Some(line) => self.end_of_line(line, line.len())?,
                        None => {
                            self.line.push(part, end.is_some())?;
                            if end.is_some() {
                                let line = std::mem::take(&mut self.line);
                                self.end_of_line(line.kept(), line.length)?;
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes a line of `length` bytes, of which the first are there at least: as many as a [`Line`] keeps.
    fn end_of_line(&mut self, line: &[u8], length: usize) -> Result<(), Refusal> {
        match (length, &self.place) {
            // RFC 9112 §2.2: an empty line before a request is skipped.
            (0, Place::Request) => {}
            (0, _) => {
                self.heads += 1;
                self.place = std::mem::take(&mut self.head).end()?;
            }
            (_, Place::Request) => self.place = Place::Fields,
            _ => self.head.field(line, length)?,
        }
        Ok(())
    }
}

impl Line {
    /// Takes a part of a line; the last one ends in LF.
    fn push(&mut self, part: &[u8], is_last: bool) -> Result<(), Refusal> {
        let content = if is_last { &part[..part.len() - 1] } else { part };
        if is_last && content.last().copied().unwrap_or(self.last) != b'\r' {
            return Err(Refusal::BadLine);
        }
        if let Some(room) = self.begin.get_mut(self.length..) {
            let count = room.len().min(content.len());
            room[..count].copy_from_slice(&content[..count]);
        }
        self.length += content.len();
        self.last = content.last().copied().unwrap_or(self.last);
        if is_last {
            // Without its CR.
            self.length -= 1;
        }
        Ok(())
    }

    /// The beginning of it.
    fn kept(&self) -> &[u8] {
        &self.begin[..self.length.min(self.begin.len())]
    }
}

impl HeadSoFar {
    /// Takes a field whose line is `length` bytes, of which `line` are the first.
    fn field(&mut self, line: &[u8], length: usize) -> Result<(), Refusal> {
        match line.first() {
            // A line that goes on with the one before (obs-fold, RFC 9112 §5.2).
            Some(b' ' | b'\t') => return Err(Refusal::BadLine),
            Some(b'c' | b'C' | b't' | b'T' | b'u' | b'U') => {}
            _ => return Ok(()),
        }
        if let Some(value) = value_of(line, b"content-length") {
            if self.content_length.is_some() || length > KEPT {
                return Err(Refusal::BadLength);
            }
            let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            let number =
                std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
            self.content_length = Some(number.ok_or(Refusal::BadLength)?);
        }
        self.chunked |= value_of(line, b"transfer-encoding").is_some();
        self.upgrade |= value_of(line, b"upgrade").is_some();
        Ok(())
    }

    /// What follows the head.
    fn end(self) -> Result<Place, Refusal> {
        match self.content_length {
            Some(_) if self.chunked => Err(Refusal::LengthAndEncoding),
            _ if self.chunked || self.upgrade => Ok(Place::Unseen),
            Some(length @ 1..) => Ok(Place::Body(length)),
            _ => Ok(Place::Request),
        }
    }
}

/// The value of the field that a line says, where it is called so.
fn value_of<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let (said, value) = line.split_at_checked(name.len())?;
    let value = value.strip_prefix(b":")?;
    said.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scans the bytes in one piece, in single bytes and in two pieces at each place: all must agree.
    fn scan(text: &str) -> Result<Place, Refusal> {
        let run = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let mut scanner = Scanner::default();
            for piece in pieces {
                scanner.scan(piece)?;
            }
            Ok(scanner.place)
        };
        let bytes = text.as_bytes();
        let whole = run(&mut std::iter::once(bytes));
        assert_eq!(run(&mut bytes.chunks(1)), whole);
        for at in 0..bytes.len() {
            assert_eq!(run(&mut [&bytes[..at], &bytes[at..]].into_iter()), whole);
        }
        whole
    }

    #[test]
    fn knows_where_the_next_head_begins() {
        assert_eq!(scan("GET / HTTP/1.1\r\nHost: a\r\n"), Ok(Place::Fields));
        assert_eq!(scan("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(Place::Request));
        assert_eq!(scan("\r\nPOST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab\n"), Ok(Place::Body(2)));
        assert_eq!(scan("POST / HTTP/1.1\r\ncontent-length:2\r\n\r\n\n\nGET / H"), Ok(Place::Request));
        assert_eq!(scan("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\n#"), Ok(Place::Unseen));
        assert_eq!(scan("GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n\n#"), Ok(Place::Unseen));
        let long = format!("GET / HTTP/1.1\r\nX-Long: {}\r\n\r\n", "content-length: 5 ".repeat(9));
        assert_eq!(scan(&long), Ok(Place::Request));
    }

    #[test]
    fn notes_what_hyper_would_repair() {
        let post = |fields: &str| scan(&format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n")).map(drop);
        let (length, chunked) = ("Content-Length: 3", "Transfer-Encoding: chunked");
        assert_eq!(post(&format!("{length}\r\n{chunked}")), Err(Refusal::LengthAndEncoding));
        assert_eq!(post(&format!("{chunked}\r\n{length}")), Err(Refusal::LengthAndEncoding));
        assert_eq!(post(&format!("{length}\r\n{length}")), Err(Refusal::BadLength));
        for value in ["3, 3", "+3", "-3", "", "0x3", "3 3", "99999999999999999999", "3\u{b}"] {
            assert_eq!(post(&format!("Content-Length: {value}")), Err(Refusal::BadLength), "{value}");
        }
        assert_eq!(post(&format!("Content-Length: {}3", " ".repeat(60))), Err(Refusal::BadLength));
        assert_eq!(post("A: 1\nB: 2"), Err(Refusal::BadLine));
        assert_eq!(post("A: 1\r\n folded"), Err(Refusal::BadLine));
        assert_eq!(scan("GET / HTTP/1.1\nHost: a\r\n\r\n"), Err(Refusal::BadLine));
        assert_eq!(scan("\n"), Err(Refusal::BadLine));
        assert_eq!(scan("GET /a#b HTTP/1.1\r\n"), Err(Refusal::BadTarget));
    }
}
