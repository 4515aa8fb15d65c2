//! Messages as raw bytes: written as planned, in pieces, and read without a library that would tidy up.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Fields in their order, names as they were sent.
pub(super) type Fields = Vec<(String, Bytes)>;

/// What was read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Message {
    pub(super) first: String,
    pub(super) fields: Fields,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Fields,
}

/// A body to be sent, and how.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) framing: Framing,
    pub(super) bytes: Blob,
    pub(super) trailers: Fields,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Framing {
    /// No body, and no word on it.
    None,
    Length,
    /// In chunks of these sizes in turn.
    Chunks(Vec<usize>),
    /// To the end of the connection: answers only.
    Close,
}

/// Bytes that print as how they are made.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    pub(super) length: usize,
    pub(super) seed: u32,
}

impl Blob {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut state = self.seed | 1;
        let next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[1]
        };
        std::iter::repeat_with(next).take(self.length).collect()
    }
}

impl Plan {
    /// The bytes of the body.
    pub(super) fn body(&self) -> Vec<u8> {
        if self.framing == Framing::None { Vec::new() } else { self.bytes.bytes() }
    }

    /// The fields that say how the body is framed.
    pub(super) fn fields(&self) -> Option<(&'static str, String)> {
        match &self.framing {
            Framing::None | Framing::Close => None,
            Framing::Length => Some(("Content-Length", self.bytes.length.to_string())),
            Framing::Chunks(_) => Some(("Transfer-Encoding", "chunked".to_owned())),
        }
    }

    /// The body in its chunks.
    pub(super) fn chunks(&self) -> Vec<Vec<u8>> {
        let Framing::Chunks(sizes) = &self.framing else { return vec![self.body()] };
        let (bytes, mut at, mut chunks) = (self.body(), 0, Vec::new());
        for size in sizes.iter().cycle() {
            if at == bytes.len() {
                break;
            }
            let end = (at + size).min(bytes.len());
            chunks.push(bytes[at..end].to_vec());
            at = end;
        }
        chunks
    }

    /// What follows the head.
    fn on_the_wire(&self) -> Vec<u8> {
        if !matches!(self.framing, Framing::Chunks(_)) {
            return self.body();
        }
        let mut out = Vec::new();
        for (index, chunk) in self.chunks().into_iter().enumerate() {
            let extension = if index == 1 { ";a=\"b\"" } else { "" };
            out.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
            out.extend_from_slice(&chunk);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"0\r\n");
        push_fields(&mut out, &self.trailers);
        out.extend_from_slice(b"\r\n");
        out
    }
}

fn push_fields(out: &mut Vec<u8>, fields: &Fields) {
    for (name, value) in fields {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
}

/// A whole message. `has_body` is whether the body itself is sent.
pub(super) fn message(first: &str, fields: &Fields, plan: &Plan, has_body: bool) -> Vec<u8> {
    let mut out = format!("{first}\r\n").into_bytes();
    push_fields(&mut out, fields);
    if let Some((name, value)) = plan.fields() {
        push_fields(&mut out, &vec![(name.to_owned(), value.into())]);
    }
    out.extend_from_slice(b"\r\n");
    if has_body {
        out.extend_from_slice(&plan.on_the_wire());
    }
    out
}

/// Writes bytes in pieces of these lengths in turn.
pub(super) async fn write_in_pieces(
    stream: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    lengths: &[usize],
) -> io::Result<()> {
    for length in lengths.iter().cycle() {
        let (piece, rest) = bytes.split_at(bytes.len().min(*length));
        stream.write_all(piece).await?;
        stream.flush().await?;
        bytes = rest;
        if bytes.is_empty() {
            break;
        }
        // The other side may read what is there.
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Reads a message; `None` where the connection ends before one. `bodiless` is whether it has no body whatever its head
/// says; an answer without a length goes on to the end of the connection.
pub(super) async fn read(
    stream: &mut (impl AsyncBufRead + Unpin),
    is_answer: bool,
    asked_by_head: bool,
) -> io::Result<Option<Message>> {
    let mut first = line(stream).await?;
    if first.is_empty() {
        return Ok(None);
    }
    let mut fields = read_fields(stream).await?;
    let mut code = status(&first);
    // Interim answers.
    while is_answer && (100..200).contains(&code) {
        first = line(stream).await?;
        fields = read_fields(stream).await?;
        code = status(&first);
    }
    let mut message = Message { first: text(first), fields, ..Message::default() };
    let bodiless = is_answer && (asked_by_head || code == 204 || code == 304);
    let value = |name: &str| {
        message.fields.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    if bodiless {
    } else if value("transfer-encoding").is_some() {
        loop {
            let size = text(line(stream).await?);
            let size = usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16)
                .map_err(|_| io::Error::other(format!("no chunk: {size:?}")))?;
            if size == 0 {
                break;
            }
            let begin = message.body.len();
            message.body.resize(begin + size, 0);
            stream.read_exact(&mut message.body[begin..]).await?;
            assert_eq!(line(stream).await?, b"", "a chunk ends with its line");
        }
        message.trailers = read_fields(stream).await?;
    } else if let Some(length) = value("content-length") {
        let length = text(length.to_vec()).parse().map_err(io::Error::other)?;
        message.body = vec![0; length];
        stream.read_exact(&mut message.body).await?;
    } else if is_answer {
        stream.read_to_end(&mut message.body).await?;
    }
    Ok(Some(message))
}

/// A line without its CRLF.
async fn line(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line).await?;
    if line.pop().is_some() && line.pop() != Some(b'\r') {
        return Err(io::Error::other("a line ends in a bare LF, or not at all"));
    }
    Ok(line)
}

async fn read_fields(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Fields> {
    let mut fields = Fields::new();
    loop {
        let line = line(stream).await?;
        if line.is_empty() {
            return Ok(fields);
        }
        let colon = line.iter().position(|b| *b == b':').ok_or(io::Error::other("a line without a colon"))?;
        fields.push((text(line[..colon].to_vec()), Bytes::copy_from_slice(line[colon + 1..].trim_ascii())));
    }
}

fn status(first: &[u8]) -> u16 {
    text(first.to_vec()).split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

fn text(bytes: Vec<u8>) -> String {
    bytes.into_iter().map(char::from).collect()
}
