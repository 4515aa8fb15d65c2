//! One request and its answer, or one message and its echo: made once, sent many times, and checked each time.

use std::io;

use bytes::{Buf, BytesMut};
use proxy_bench::{
    LARGE, Result,
    http1::{self, Answer},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::connect::{Connection, Stream};

/// What is sent and what has to come back.
#[derive(Clone)]
pub(crate) struct Exchange {
    /// What opens a connection for the messages, where they are of a WebSocket.
    opening: Option<Vec<u8>>,
    /// What is sent, but for a large body.
    message: Vec<u8>,
    /// How many bytes of body are sent behind it.
    upload: usize,
    expected: Expected,
}

#[derive(Clone)]
enum Expected {
    /// 200 and a body of this length.
    Length(usize),
    /// 200 and this body.
    Body(Vec<u8>),
    /// What was sent.
    Echo,
}

impl Exchange {
    /// A GET whose answer has a body of `length`.
    pub(crate) fn get(path: &str, length: usize, fields: &[String]) -> Self {
        let message = head("GET", path, fields);
        Self { opening: None, message, upload: 0, expected: Expected::Length(length) }
    }

    /// A POST of `length` bytes, whose answer says how many came.
    pub(crate) fn post(path: &str, length: usize, fields: &[String]) -> Self {
        let mut fields = fields.to_vec();
        fields.push(format!("Content-Length: {length}"));
        let expected = Expected::Body(length.to_string().into_bytes());
        Self { opening: None, message: head("POST", path, &fields), upload: length, expected }
    }

    /// A WebSocket's masked binary message of 64 bytes, and its echo.
    pub(crate) fn echo(path: &str, fields: &[String]) -> Self {
        let mut fields = fields.to_vec();
        fields.extend(
            [
                "Connection: Upgrade",
                "Upgrade: websocket",
                "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            ]
            .map(str::to_owned),
        );
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let mut message = vec![0x82, 0x80 | 64];
        message.extend(mask);
        message.extend((0..64_u8).zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
        Self { opening: Some(head("GET", path, &fields)), message, upload: 0, expected: Expected::Echo }
    }

    /// What is sent, but for a large body.
    pub(crate) fn message(&self) -> &[u8] {
        &self.message
    }

    /// Whether its answer is so large that a client may [count](crate::count) it.
    pub(crate) fn has_large_answer(&self) -> bool {
        matches!(self.expected, Expected::Length(length) if length >= LARGE)
    }

    /// Bytes of body that one exchange carries.
    pub(crate) fn payload(&self) -> usize {
        match &self.expected {
            Expected::Length(length) => *length,
            Expected::Body(_) => self.upload,
            Expected::Echo => 64,
        }
    }

    /// Makes a new connection ready for the first exchange.
    pub(crate) async fn open(&self, connection: &mut Connection) -> Result<()> {
        let Some(opening) = &self.opening else { return Ok(()) };
        let Connection { stream, buffer } = connection;
        send(stream, opening, 0).await?;
        let end = answer_head(stream, buffer).await?;
        let head = buffer.split_to(end);
        let accepted = memchr::memmem::find(&head, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=").is_some();
        match Answer::parse(&head)?.status {
            101 if accepted => Ok(()),
            status => Err(format!("{status} instead of a WebSocket").into()),
        }
    }

    /// Does it once; returns how many bytes came.
    pub(crate) async fn once(&self, connection: &mut Connection) -> Result<usize> {
        let Connection { stream, buffer } = connection;
        send(stream, &self.message, self.upload).await?;
        match &self.expected {
            Expected::Echo => {
                while buffer.len() < self.message.len() {
                    more(stream, buffer).await?;
                }
                if buffer[..] != self.message[..] {
                    return Err("not the message that was sent".into());
                }
                buffer.clear();
                Ok(self.message.len())
            }
            Expected::Length(length) => {
                let (head, found) = begin(stream, buffer).await?;
                if found != *length {
                    return Err(format!("a body of {found} bytes").into());
                }
                skip(stream, buffer, found).await?;
                Ok(head + found)
            }
            Expected::Body(body) => {
                let (head, found) = begin(stream, buffer).await?;
                while buffer.len() < found {
                    more(stream, buffer).await?;
                }
                if buffer[..] != body[..] {
                    return Err(format!("not the body expected: {}", buffer.escape_ascii()).into());
                }
                buffer.clear();
                Ok(head + found)
            }
        }
    }
}

fn head(method: &str, path: &str, fields: &[String]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    for field in fields {
        head.push_str(field);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

async fn send(stream: &mut Stream, message: &[u8], mut upload: usize) -> io::Result<()> {
    static PART: [u8; 64 * 1024] = [b'u'; 64 * 1024];
    stream.write_all(message).await?;
    while upload > 0 {
        let part = upload.min(PART.len());
        stream.write_all(&PART[..part]).await?;
        upload -= part;
    }
    stream.flush().await
}

async fn more(stream: &mut Stream, buffer: &mut BytesMut) -> io::Result<()> {
    buffer.reserve(4096);
    match stream.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

async fn answer_head(stream: &mut Stream, buffer: &mut BytesMut) -> Result<usize> {
    Ok(http1::read_head(stream, buffer).await?.ok_or("the connection ended")?)
}

/// Reads the head of a 200; returns its length and that of its body.
async fn begin(stream: &mut Stream, buffer: &mut BytesMut) -> Result<(usize, usize)> {
    let end = answer_head(stream, buffer).await?;
    let Answer { status, length } = Answer::parse(&buffer[..end])?;
    if status != 200 {
        return Err(format!("status {status}: {}", buffer.escape_ascii()).into());
    }
    buffer.advance(end);
    Ok((end, length))
}

/// Reads a body of `length` bytes, not one more, and forgets it.
async fn skip(stream: &mut Stream, buffer: &mut BytesMut, mut length: usize) -> Result<()> {
    loop {
        length = length.checked_sub(buffer.len()).ok_or("more bytes than the body has")?;
        buffer.clear();
        if length == 0 {
            return Ok(());
        }
        if length > 64 * 1024 {
            buffer.reserve(256 * 1024);
        }
        more(stream, buffer).await?;
    }
}
