//! The app behind the proxies, as cheap as one can be: answers made beforehand, each sent in one write.
//!
//! `GET /1k`, `GET /10m`, `GET /1g`; `POST /up` drops the body and says how long it was; `/ws` is a WebSocket that sends back
//! every byte as it came, masked as it was. Serves TCP on a port it prints, and TLS as well where it has a certificate.
#![forbid(unsafe_code)]

use std::{io, path::PathBuf, sync::Arc};

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Buf, BytesMut};
use proxy_bench::{LARGE, Result, SMALL, arguments::Arguments, http1, tls};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpSocket},
};
use tokio_rustls::TlsAcceptor;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = Arguments::parse(std::env::args().skip(1))?;
    let (certificate, key) = (arguments.optional::<PathBuf>("cert")?, arguments.optional::<PathBuf>("key")?);
    arguments.end()?;
    let answers = Arc::new(Answers::new());
    let acceptor = match (certificate, key) {
        (Some(certificate), Some(key)) => {
            Some(TlsAcceptor::from(tls::server(&certificate, &key, &[b"http/1.1"])?))
        }
        _ => None,
    };
    let listener = listen()?;
    println!("port {}", listener.local_addr()?.port());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (acceptor, answers) = (acceptor.clone(), Arc::clone(&answers));
        tokio::spawn(async move {
            // Clients and proxies that go away are no event.
            let _ = match acceptor {
                None => serve(stream, &answers).await,
                Some(acceptor) => match acceptor.accept(BufReader::with_capacity(64 * 1024, stream)).await {
                    Ok(stream) => serve(stream, &answers).await,
                    Err(error) => Err(error),
                },
            };
        });
    }
}

fn listen() -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    socket.listen(4096)
}

/// The answers that are the same each time, heads included.
struct Answers {
    small: Vec<u8>,
    large: Vec<u8>,
    /// The head alone: the body is in pieces.
    huge: Vec<u8>,
    piece: Vec<u8>,
}

/// How many bytes `/1g` answers with.
const HUGE: usize = 1 << 30;
/// How many of them are written at once.
const PIECE: usize = 1 << 20;

impl Answers {
    fn new() -> Self {
        Self {
            small: answer("200 OK", &vec![b'x'; SMALL]),
            large: answer("200 OK", &vec![b'y'; LARGE]),
            huge: head("200 OK", HUGE).into_bytes(),
            piece: vec![b'z'; PIECE],
        }
    }
}

fn answer(status: &str, body: &[u8]) -> Vec<u8> {
    [head(status, body.len()).as_bytes(), body].concat()
}

/// The head of an answer with the fields that apps send.
fn head(status: &str, length: usize) -> String {
    format!(
        "HTTP/1.1 {status}\r\nServer: origin/1.0\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
         Content-Type: text/html; charset=UTF-8\r\nX-Content-Type-Options: nosniff\r\n\
         Etag: \"d41d8cd98f00b204e9800998ecf8427e1f0c4a3b\"\r\nCache-Control: no-cache\r\n\
         Set-Cookie: seen=1; HttpOnly; Path=/\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// What a request asks for.
enum Wish {
    Small,
    Large,
    Huge,
    Upload { length: usize },
    WebSocket { accept: String },
    Unknown,
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, answers: &Answers) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(8192);
    while let Some(end) = http1::read_head(&mut stream, &mut buffer).await? {
        let (wish, last) = understand(&buffer[..end]).unwrap_or((Wish::Unknown, true));
        buffer.advance(end);
        match wish {
            Wish::Small => stream.write_all(&answers.small).await?,
            Wish::Large => stream.write_all(&answers.large).await?,
            Wish::Huge => {
                stream.write_all(&answers.huge).await?;
                for _ in 0..HUGE / PIECE {
                    stream.write_all(&answers.piece).await?;
                }
            }
            Wish::Upload { length } => {
                take(&mut stream, &mut buffer, length).await?;
                stream.write_all(&answer("200 OK", length.to_string().as_bytes())).await?;
            }
            Wish::WebSocket { accept } => return echo(stream, buffer, &accept).await,
            Wish::Unknown => stream.write_all(&answer("400 Bad Request", b"what?")).await?,
        }
        stream.flush().await?;
        if last {
            return stream.shutdown().await;
        }
    }
    stream.shutdown().await
}

/// Reads a request's head; returns with its wish whether it is the last on its connection.
fn understand(head: &[u8]) -> Result<(Wish, bool)> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut fields);
    parsed.parse(head)?;
    let connection = http1::field(parsed.headers, "connection");
    let last = connection.is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
    let wish = match (parsed.method, parsed.path) {
        (Some("GET"), Some("/1k")) => Wish::Small,
        (Some("GET"), Some("/10m")) => Wish::Large,
        (Some("GET"), Some("/1g")) => Wish::Huge,
        (Some("POST"), Some("/up")) => match http1::length(parsed.headers)? {
            Some(length) => Wish::Upload { length },
            None => return Err("an upload without Content-Length".into()),
        },
        (Some("GET"), Some("/ws")) => match http1::field(parsed.headers, "sec-websocket-key") {
            Some(key) => Wish::WebSocket { accept: accept_for(key) },
            None => Wish::Unknown,
        },
        _ => Wish::Unknown,
    };
    Ok((wish, last))
}

/// Drops `length` bytes of a body, of which `buffer` may have the first.
async fn take<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
    mut length: usize,
) -> io::Result<()> {
    let mut scratch = BytesMut::with_capacity(256 * 1024);
    let early = buffer.len().min(length);
    buffer.advance(early);
    length -= early;
    while length > 0 {
        scratch.clear();
        match stream.read_buf(&mut scratch).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            // Nobody here sends another request before the answer to this one.
            read => length = length.checked_sub(read).ok_or(io::ErrorKind::InvalidData)?,
        }
    }
    Ok(())
}

/// The `Sec-WebSocket-Accept` for a key (RFC 6455 §4.2.2).
fn accept_for(key: &[u8]) -> String {
    let text = [key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
    STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &text))
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    mut buffer: BytesMut,
    accept: &str,
) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    loop {
        stream.write_all(&buffer).await?;
        stream.flush().await?;
        buffer.clear();
        buffer.reserve(4096);
        if stream.read_buf(&mut buffer).await? == 0 {
            return stream.shutdown().await;
        }
    }
}
