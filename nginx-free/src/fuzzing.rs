//! What the fuzz targets need to see of the inside. Compiled for them alone (`cfg(fuzzing)`, which `cargo fuzz` sets):
//! nothing of it is part of the API.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use http::{HeaderMap, Uri, response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    Host, Peer, Prefix, cookies, fields,
    fields::{Scheme, Word},
    lasting::{
        LastingLimits, lasting,
        session::{Parting, Session, Tell},
    },
    rewrite,
    scan::{Place, Scanner},
};

fn scheme(tls: bool) -> Scheme {
    if tls { Scheme::Https } else { Scheme::Http }
}

/// Makes a request's fields the app's. `false` where the request would be refused for its `Connection` field.
pub fn to_app(
    fields: &mut HeaderMap,
    peer: &Peer,
    host: Host<'_>,
    tls: bool,
    stripped: Option<&Prefix>,
) -> bool {
    let Ok(mut ending) = fields::named_by_connection(fields) else { return false };
    ending.extend(fields.keys().filter(|name| fields::ends_here(name.as_str())).cloned());
    let word = Word::new(peer, &Arc::new(host.into()), scheme(tls));
    fields::to_app(fields, &ending, &word, stripped);
    true
}

/// Makes an answer's fields the client's.
pub fn to_client(fields: &mut HeaderMap) {
    fields::to_client(fields);
}

/// Cuts cookies out.
pub fn cut_cookies(fields: &mut HeaderMap, hidden: impl Fn(&[u8]) -> bool) {
    cookies::cut(fields, hidden);
}

/// What the app under `prefix` is asked for.
pub fn target(prefix: &Prefix, uri: Uri) -> Option<Uri> {
    prefix.target(uri)
}

/// Puts an answer's head right, as the path `asked` was asked for.
pub fn rewrite(prefix: &Prefix, host: Host<'_>, tls: bool, asked: &str, head: &mut response::Parts) {
    rewrite::Place { prefix, host, scheme: scheme(tls), asked }.rewrite(head);
}

/// Where the look at a connection's bytes has got to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// Before a head, or in its first line.
    Request,
    /// In a head.
    Fields,
    /// In a body that has so many bytes left.
    Body(u64),
    /// Where nothing is looked at any more.
    Unseen,
}

/// Looks at a connection's bytes, piece by piece.
#[derive(Default)]
pub struct Look(Scanner);

impl Look {
    /// Looks at one piece more. `Err` says which rule was broken.
    pub fn at(&mut self, piece: &[u8]) -> Result<Seen, String> {
        self.0.scan(piece).map_err(|refusal| refusal.to_string())?;
        Ok(match self.0.place {
            Place::Request => Seen::Request,
            Place::Fields => Seen::Fields,
            Place::Body(left) => Seen::Body(left),
            Place::Unseen => Seen::Unseen,
        })
    }
}

/// What an end of a lasting stream made of what it was told.
#[derive(PartialEq, Eq, Debug)]
pub struct Heard {
    /// What came of the stream.
    pub read: Vec<u8>,
    /// Whether the connection goes on, or which rule was broken.
    pub verdict: Result<(), String>,
    /// Whether the other end has said that it is gone.
    pub gone: bool,
}

/// What an end of a lasting stream holds for a reader who does not read.
pub const UNREAD: usize = 1000;

/// What an end has sent before it is told anything but a hello.
const SENT: usize = 500;

/// An end that has said hello and sent [`SENT`] bytes is told `pieces`, one after the other, and says nothing itself.
pub fn hear<'p>(pieces: impl Iterator<Item = &'p [u8]>) -> Heard {
    let (mut stream, mut carrier) =
        lasting(LastingLimits { unread: UNREAD, unacknowledged: 10_000, ..LastingLimits::default() });
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut stream).poll_write(&mut cx, &[7; SENT]).is_ready());
    let mut session = carrier.session();
    assert!(session.receive(&greeting()).is_ok());
    session.fill(Tell::Urgent, Waker::noop());
    let verdict = tell(&mut session, pieces, |_| ());
    let gone = session.parting() == Parting::There;
    let mut buffer = vec![0; 2 * UNREAD];
    let mut buffer = ReadBuf::new(&mut buffer);
    while !gone {
        let before = buffer.filled().len();
        let read = Pin::new(&mut stream).poll_read(&mut cx, &mut buffer);
        if !matches!(read, Poll::Ready(Ok(()))) || buffer.filled().len() == before {
            break;
        }
    }
    Heard { read: buffer.filled().to_vec(), verdict, gone }
}

/// An end goes on over two connections, each of which tells it `pieces`, hello and all; it answers after each.
pub fn hear_twice<'p>(pieces: impl Iterator<Item = &'p [u8]> + Clone) {
    let (mut stream, mut carrier) =
        lasting(LastingLimits { unread: UNREAD, unacknowledged: 10_000, ..LastingLimits::default() });
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..2 {
        assert!(Pin::new(&mut stream).poll_write(&mut cx, &[7; SENT]).is_ready());
        let _ = tell(&mut carrier.session(), pieces.clone(), |session| {
            session.fill(Tell::Now, Waker::noop());
            let mut slices = [std::io::IoSlice::new(&[]); 4];
            let count = session.out().slices(&mut slices);
            let length = slices[..count].iter().map(|slice| slice.len()).sum();
            session.out().sent(length);
        });
        let mut buffer = [0; 100];
        let _ = Pin::new(&mut stream).poll_read(&mut cx, &mut ReadBuf::new(&mut buffer));
    }
    let _ = Pin::new(&mut stream).poll_shutdown(&mut cx);
    let _ = tell(&mut carrier.session(), pieces, |session| session.fill(Tell::Urgent, Waker::noop()));
}

/// The hello of an end that grants [`SENT`] bytes and no more.
fn greeting() -> Vec<u8> {
    let numbers = [1, 0, 0, SENT as u64].map(u64::to_be_bytes);
    [b"lasting\x01".as_slice(), &numbers.concat()].concat()
}

fn tell<'p>(
    session: &mut Session<'_>,
    pieces: impl Iterator<Item = &'p [u8]>,
    between: impl Fn(&mut Session<'_>),
) -> Result<(), String> {
    for piece in pieces {
        session.receive(piece).map_err(|broken| broken.to_string())?;
        between(session);
    }
    Ok(())
}
