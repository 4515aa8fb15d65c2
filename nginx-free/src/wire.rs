//! Looks at the raw heads of HTTP/1.1 requests on their way to hyper, for hyper hides from a service what it repairs:
//!
//! | on the wire | what hyper 1.12 makes of it | here |
//! |---|---|---|
//! | `Content-Length` beside `Transfer-Encoding` | drops the length, takes the chunks, closes afterwards | 400 |
//! | two equal `Content-Length` fields | shows one | 400 |
//! | lines that end in a bare LF | takes them for line ends | 400 |
//! | a `#fragment` in the request target | cuts it off | 400 |
//!
//! Each is allowed by RFC 9112 to a server, and each is where two servers in a row may disagree. Nothing is held back
//! or changed: what is found is noted before hyper can see the bytes, and the service that hyper then calls finds the
//! note.
//!
//! To know where the next head begins, bodies with a length are counted. Chunks are not: after a chunked request, or
//! one that asks for an upgrade, the
//! service makes its answer the last one on the connection, and the rest passes unseen.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

use crate::{
    check::Refusal,
    scan::{Place, Scanner},
};

/// The first rule that a connection broke.
pub(crate) type Note = Arc<OnceLock<Refusal>>;

/// A client's connection, looked at.
pub(crate) struct Wire<S> {
    stream: S,
    scanner: Scanner,
    note: Note,
}

impl<S> Wire<S> {
    pub(crate) fn new(stream: S, note: Note) -> Self {
        Self { stream, scanner: Scanner::default(), note }
    }

    pub(crate) fn into_stream(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = &mut *self;
        let before = buf.filled().len();
        ready!(Pin::new(&mut me.stream).poll_read(cx, buf))?;
        if let Err(refusal) = me.scanner.scan(&buf.filled()[before..]) {
            // Only the first counts.
            let _ = me.note.set(refusal);
            me.scanner.place = Place::Unseen;
        }
        Poll::Ready(Ok(()))
    }
}

crate::io::write_as_its_stream!(Wire);
