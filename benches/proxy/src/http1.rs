//! Reading heads of HTTP/1.1, and no more of them than the benchmark needs.

use std::io;

use bytes::BytesMut;
use memchr::memmem;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::Result;

/// Reads until a head is complete; returns its length, or `None` where the other side ended before it began.
///
/// # Errors
/// Where the connection breaks, or ends inside the head.
pub async fn read_head<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
) -> io::Result<Option<usize>> {
    loop {
        if let Some(end) = memmem::find(buffer, b"\r\n\r\n") {
            return Ok(Some(end + 4));
        }
        buffer.reserve(4096);
        if stream.read_buf(buffer).await? == 0 {
            return if buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
}

/// What counts in the head of a response.
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The length of the body.
    pub length: usize,
}

impl Answer {
    /// Reads a response's head.
    ///
    /// # Errors
    /// Where it is none, or has no `Content-Length` though its status means a body: the proxies have no reason to
    /// send anything else.
    pub fn parse(head: &[u8]) -> Result<Self> {
        let mut fields = [httparse::EMPTY_HEADER; 48];
        let mut parsed = httparse::Response::new(&mut fields);
        if !parsed.parse(head)?.is_complete() {
            return Err("half a head".into());
        }
        let status = parsed.code.unwrap_or_default();
        let length = match length(parsed.headers)? {
            Some(length) => length,
            None if status == 101 => 0,
            None => return Err(format!("an answer {status} without Content-Length").into()),
        };
        Ok(Self { status, length })
    }
}

/// The `Content-Length`, where there is one.
///
/// # Errors
/// Where it is no number.
pub fn length(fields: &[httparse::Header<'_>]) -> Result<Option<usize>> {
    match field(fields, "content-length") {
        Some(value) => Ok(Some(std::str::from_utf8(value)?.trim().parse()?)),
        None => Ok(None),
    }
}

/// The first field of this name.
pub fn field<'f>(fields: &'f [httparse::Header<'_>], name: &str) -> Option<&'f [u8]> {
    fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
}
