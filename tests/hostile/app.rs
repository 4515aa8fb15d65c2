//! The app behind the gateway: this binary, run again in the session. It keeps its own calm under load, so that what is
//! measured is the gateway.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
};

/// The word in `argv[1]` for this role.
pub(crate) const ROLE: &str = "@app";

/// Where it listens, in its own network.
pub(crate) const PORT: u16 = 8000;

/// A page.
pub(crate) const PAGE: usize = 4 << 10;
/// What a page is made of.
pub(crate) const ASSET: usize = 20 << 10;
/// What nobody's buffers hold.
pub(crate) const LARGE: usize = 1 << 30;

/// The role.
pub(crate) fn run() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).unwrap();
    let let_go = Arc::new((Mutex::new(false), Condvar::new()));
    for stream in listener.incoming() {
        let (Ok(stream), let_go) = (stream, Arc::clone(&let_go)) else { continue };
        // A client that is gone is the end of its own connection only.
        thread::spawn(move || {
            let _ = serve(stream, &let_go);
        });
    }
}

fn serve(stream: TcpStream, let_go: &(Mutex<bool>, Condvar)) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut reader, mut stream) = (BufReader::new(stream.try_clone()?), stream);
    while let Some(head) = read_head(&mut reader)? {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let body = field(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        io::copy(&mut reader.by_ref().take(body), &mut io::sink())?;
        if head.starts_with("HEAD ") {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n")?;
            continue;
        }
        match path {
            "/large" => answer(&mut stream, LARGE)?,
            "/asset" => answer(&mut stream, ASSET)?,
            // A WebSocket whose app reads nothing, and ends it when it is told to.
            "/deaf" => {
                stream.write_all(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
                )?;
                let told = let_go.0.lock().unwrap();
                drop(let_go.1.wait_while(told, |told| !*told).unwrap());
                return Ok(());
            }
            "/let-go" => {
                *let_go.0.lock().unwrap() = true;
                let_go.1.notify_all();
                answer(&mut stream, 0)?;
            }
            _ => answer(&mut stream, PAGE)?,
        }
    }
    Ok(())
}

/// The head of a request; `None` where no more come.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(head))
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().filter_map(|line| line.split_once(": ")).find(|(found, _)| *found == name).map(|(_, v)| v)
}

fn answer(stream: &mut TcpStream, length: usize) -> io::Result<()> {
    let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    bytes.resize(bytes.len() + length.min(ASSET), b'x');
    stream.write_all(&bytes)?;
    let (chunk, mut left) = ([b'x'; 64 << 10], length - length.min(ASSET));
    while left > 0 {
        let part = left.min(chunk.len());
        stream.write_all(&chunk[..part])?;
        left -= part;
    }
    Ok(())
}
