//! A client that sends exactly the bytes it is given, over TLS to the one certificate it trusts, or in the clear, and
//! takes what comes back as it is. No client library lets one send what is meant to be refused.

use std::{io, time::Duration};

use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    VerifyError, pin,
    target::{Door, Place},
};

/// How long a connection may take.
pub(super) const CONNECT: Duration = Duration::from_secs(3);
/// How long a whole exchange may take. A stream that goes on is read for so long.
const EXCHANGE: Duration = Duration::from_secs(5);
/// More of an answer is not read.
const MOST: u64 = 256 * 1024;

/// What came back, as it came.
#[derive(Debug, Default)]
pub(super) struct Reply(Vec<u8>);

impl Reply {
    #[cfg(test)]
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The status, where it is HTTP/1.
    pub(super) fn status(&self) -> Option<u16> {
        let digits = self.0.strip_prefix(b"HTTP/1.1 ").or(self.0.strip_prefix(b"HTTP/1.0 "))?.get(..3)?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    /// What follows the head.
    pub(super) fn body(&self) -> &[u8] {
        self.end_of_head().map_or(&[], |end| &self.0[end..])
    }

    /// The value of a field.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let head = std::str::from_utf8(self.0.get(..self.end_of_head()?)?).ok()?;
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    fn end_of_head(&self) -> Option<usize> {
        self.0.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Runs it on a runtime of its own, in this thread.
///
/// # Errors
/// Where there can be none.
pub(super) fn block_on<F: Future>(what: F) -> Result<F::Output, VerifyError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(VerifyError::io("cannot run connections"))?.block_on(what))
}

/// `method` (with its target) for the gateway's own host, with these fields.
pub(super) fn request(method: &str, host: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("{method} HTTP/1.1\r\nHost: {host}\r\n");
    if !fields.iter().any(|(name, _)| *name == "Connection") {
        text += "Connection: close\r\n";
    }
    for (name, value) in fields {
        text += &format!("{name}: {value}\r\n");
    }
    (text + "\r\n").into_bytes()
}

/// Connects, and no more.
///
/// # Errors
/// As `connect(2)`; `TimedOut`.
pub(super) async fn reach(place: &Place) -> io::Result<()> {
    connect(place).await.map(drop)
}

/// A TLS handshake, and no more.
///
/// # Errors
/// As [`over_tls`].
pub(super) async fn handshake(door: &Door) -> io::Result<()> {
    secure(door).await.map(drop)
}

/// Sends `request` to a gateway over TLS and takes its answer.
///
/// # Errors
/// As `connect(2)`, and where the handshake fails: [`pin::is_foreign`] says whether for the certificate's sake. A
/// connection that is cut off afterwards is none: what came until then is the answer.
pub(super) async fn over_tls(door: &Door, request: &[u8]) -> io::Result<Reply> {
    Ok(exchange(&mut secure(door).await?, request).await)
}

async fn secure(door: &Door) -> io::Result<TlsStream<Box<dyn Stream>>> {
    let stream = connect(&door.place).await?;
    let config = pin::client(&door.fingerprint).map_err(io::Error::other)?;
    let name = ServerName::try_from(door.host.clone()).or_else(|_| ServerName::try_from("localhost"));
    let handshake = TlsConnector::from(config).connect(name.map_err(io::Error::other)?, stream);
    timeout(EXCHANGE, handshake).await?
}

/// Sends `request` to the same place in the clear.
///
/// # Errors
/// As `connect(2)`.
pub(super) async fn in_the_clear(place: &Place, request: &[u8]) -> io::Result<Reply> {
    Ok(exchange(&mut connect(place).await?, request).await)
}

async fn connect(place: &Place) -> io::Result<Box<dyn Stream>> {
    Ok(match place {
        Place::Tcp(address) => Box::new(timeout(CONNECT, TcpStream::connect(address)).await??),
        Place::Unix(path) => Box::new(timeout(CONNECT, UnixStream::connect(path)).await??),
    })
}

async fn exchange<S: Stream + ?Sized>(stream: &mut S, request: &[u8]) -> Reply {
    let mut reply = Reply::default();
    let talk = async {
        stream.write_all(request).await?;
        stream.flush().await?;
        let mut stream = stream.take(MOST);
        // An upgrade ends with its head: what would follow waits for us.
        while reply.status() != Some(101) || reply.end_of_head().is_none() {
            if stream.read_buf(&mut reply.0).await? == 0 {
                break;
            }
        }
        Ok::<_, io::Error>(())
    };
    // However it ends, what has come is what counts.
    let _ = timeout(EXCHANGE, talk).await;
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart_only_where_it_is_one() {
        let reply = Reply::new(b"HTTP/1.1 303 See Other\r\nset-COOKIE: a=b; Path=/\r\n\r\nbody");
        assert_eq!((reply.status(), reply.body()), (Some(303), &b"body"[..]));
        assert_eq!(reply.field("Set-Cookie"), Some("a=b; Path=/"));
        for bytes in [&b""[..], b"HTTP/1.1", b"\x15\x03\x01\x00\x02\x02\x16", b"SSH-2.0-x\r\n"] {
            assert_eq!(Reply::new(bytes).status(), None);
        }
        assert_eq!(Reply::new(b"HTTP/1.1 200 OK\r\nA: b").body(), b"");
    }

    #[test]
    fn a_request_has_the_fields_it_is_given_and_closes_unless_told_otherwise() {
        assert_eq!(
            request("GET /", "h:1", &[("Cookie", "a=b")]),
            b"GET / HTTP/1.1\r\nHost: h:1\r\nConnection: close\r\nCookie: a=b\r\n\r\n"
        );
        assert_eq!(
            request("GET /", "h", &[("Connection", "Upgrade")]),
            b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n\r\n"
        );
    }
}
