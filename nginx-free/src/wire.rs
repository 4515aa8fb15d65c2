//! A client's HTTP/1.1 connection, with hyper at one end and the proxy looking on from the other.
//!
//! # What is read
//! The raw heads of requests are looked at on their way to hyper, for hyper hides from a service what it repairs:
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
//! To know where the next head begins, bodies with a length are counted. Chunks are not: after a chunked request, or one
//! that asks for an upgrade, the service makes its answer the last one on the connection, and the rest passes unseen.
//!
//! # What is written
//! Interim answers (RFC 9110 §15.2), which hyper's server cannot send, leave between two answers of hyper's.
//!
//! # When nothing is under way
//! The stream is not hyper's own. Between two requests hyper and its buffers can be let go of, and made anew when the
//! next request begins: [`Hold::is_between`] and [`Hold::poll_arrival`].

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    check::Refusal,
    scan::{Place, Scanner},
};

/// hyper's end.
pub(crate) struct Wire<S>(Arc<Mutex<State<S>>>);

/// The proxy's end.
pub(crate) struct Hold<S>(Arc<Mutex<State<S>>>);

/// What speaks to the client while it waits for an answer. It does not keep the connection open.
pub(crate) struct Meanwhile<S>(Weak<Mutex<State<S>>>);

struct State<S> {
    /// `None` once it was taken for a tunnel.
    stream: Option<S>,
    scanner: Scanner,
    /// The first rule that the client broke.
    refusal: Option<Refusal>,
    /// What came while there was no hyper to read it.
    arrived: Bytes,
    /// All that hyper has written has left: what it writes next is the beginning of an answer.
    at_rest: bool,
    /// Interim answers that have not left.
    interim: BytesMut,
}

/// Interim answers that wait for a client are no more than this.
const INTERIM: usize = 16 * 1024;

/// What is read at once where there is no hyper: a request without a body, as a rule.
const ARRIVAL: usize = 4096;

/// Its ends are used by one connection's tasks, for a moment each.
fn lock<S>(state: &Mutex<State<S>>) -> MutexGuard<'_, State<S>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn taken() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the stream was taken for a tunnel")
}

impl<S> Clone for Hold<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Hold<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self(Arc::new(Mutex::new(State {
            stream: Some(stream),
            scanner: Scanner::default(),
            refusal: None,
            arrived: Bytes::new(),
            at_rest: true,
            interim: BytesMut::new(),
        })))
    }

    /// An end for hyper. There is to be one at a time.
    pub(crate) fn wire(&self) -> Wire<S> {
        Wire(Arc::clone(&self.0))
    }

    /// The first rule that the client broke.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        lock(&self.0).refusal
    }

    /// Whether `answered` requests are all that came, not one byte of another is here, and all that was said has left.
    pub(crate) fn is_between(&self, answered: usize) -> bool {
        let state = lock(&self.0);
        state.scanner.is_before_head(answered) && state.at_rest && state.interim.is_empty()
    }

    /// For interim answers.
    pub(crate) fn meanwhile(&self) -> Meanwhile<S> {
        Meanwhile(Arc::downgrade(&self.0))
    }
}

impl<S> Meanwhile<S> {
    /// Sends the head of an interim answer, its empty line included, unless the answer before is still on its way: it is
    /// a hint, and there is no good place for it then.
    pub(crate) fn say(&self, head: &[u8]) {
        let Some(state) = self.0.upgrade() else { return };
        let mut state = lock(&state);
        if state.at_rest && state.interim.len() + head.len() <= INTERIM {
            state.interim.extend_from_slice(head);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Hold<S> {
    /// Waits for the next request where there is no hyper. `false`: the client has ended the connection.
    pub(crate) fn poll_arrival(&self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut state = lock(&self.0);
        let mut space = [0; ARRIVAL];
        let mut space = ReadBuf::new(&mut space);
        let stream = state.stream.as_mut().ok_or_else(taken)?;
        ready!(Pin::new(stream).poll_read(cx, &mut space))?;
        state.arrived = Bytes::copy_from_slice(space.filled());
        Poll::Ready(Ok(!state.arrived.is_empty()))
    }

    /// Ends the connection where there is no hyper to do it.
    pub(crate) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).stream(|stream| stream.poll_shutdown(cx))
    }
}

impl<S> Wire<S> {
    /// The stream, for a tunnel.
    pub(crate) fn into_stream(self) -> Option<S> {
        lock(&self.0).stream.take()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> State<S> {
    fn stream<T>(&mut self, poll: impl FnOnce(Pin<&mut S>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &mut self.stream {
            Some(stream) => poll(Pin::new(stream)),
            None => Poll::Ready(Err(taken())),
        }
    }

    /// Writes, after the interim answers that wait.
    fn write(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        self.at_rest = false;
        self.stream(|stream| write(stream, cx))
    }

    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.interim.is_empty() {
            let stream = self.stream.as_mut().ok_or_else(taken)?;
            let written = ready!(Pin::new(stream).poll_write(cx, &self.interim))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.interim.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let state = &mut *lock(&self.0);
        let before = buf.filled().len();
        if state.arrived.is_empty() {
            ready!(state.stream(|stream| stream.poll_read(cx, buf)))?;
        } else {
            let now = state.arrived.len().min(buf.remaining());
            buf.put_slice(&state.arrived.split_to(now));
        }
        if let Err(refusal) = state.scanner.scan(&buf.filled()[before..]) {
            // Only the first counts.
            state.refusal.get_or_insert(refusal);
            state.scanner.place = Place::Unseen;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        lock(&self.0).write(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        lock(&self.0).write(cx, |stream, cx| stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper flushes when it has written all it had.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *lock(&self.0);
        ready!(state.poll_interim(cx))?;
        ready!(state.stream(|stream| stream.poll_flush(cx)))?;
        state.at_rest = true;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *lock(&self.0);
        ready!(state.poll_interim(cx))?;
        state.stream(|stream| stream.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    fn wired(room: usize) -> (Hold<DuplexStream>, Wire<DuplexStream>, DuplexStream) {
        let (near, far) = tokio::io::duplex(room);
        let hold = Hold::new(near);
        let wire = hold.wire();
        (hold, wire, far)
    }

    #[tokio::test]
    async fn interim_answers_leave_between_answers_and_never_within_one() {
        let (hold, mut wire, mut client) = wired(1000);
        hold.meanwhile().say(b"<103>");
        wire.flush().await.unwrap();
        hold.meanwhile().say(b"<102>");
        wire.write_all(b"<200").await.unwrap();
        hold.meanwhile().say(b"<too late>");
        wire.write_all(b">").await.unwrap();
        wire.flush().await.unwrap();
        hold.meanwhile().say(b"<103 of the next>");
        wire.shutdown().await.unwrap();
        let mut seen = String::new();
        client.read_to_string(&mut seen).await.unwrap();
        assert_eq!(seen, "<103><102><200><103 of the next>");
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_gets_few_of_them_and_whole() {
        let (hold, mut wire, mut client) = wired(3);
        for _ in 0..INTERIM {
            hold.meanwhile().say(b"<103>");
        }
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut wire).poll_flush(&mut cx).is_pending());
        assert!(Pin::new(&mut wire).poll_write(&mut cx, b"<200>").is_pending(), "not into one of them");
        let writing = tokio::spawn(async move {
            wire.write_all(b"<200>").await.unwrap();
            wire.shutdown().await.unwrap();
        });
        let mut seen = String::new();
        client.read_to_string(&mut seen).await.unwrap();
        writing.await.unwrap();
        let interim = seen.strip_suffix("<200>").unwrap();
        assert!(interim.len() <= INTERIM && interim.replace("<103>", "").is_empty(), "{}", interim.len());
    }

    #[tokio::test]
    async fn what_arrives_without_hyper_is_hyper_s_first() {
        let (hold, mut wire, mut client) = wired(1000);
        assert!(hold.is_between(0));
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut head = [0; 27];
        wire.read_exact(&mut head).await.unwrap();
        assert!(hold.is_between(1) && !hold.is_between(0), "one came, and was not answered");
        wire.write_all(b"HTTP").await.unwrap();
        assert!(!hold.is_between(1), "an answer is on its way");
        wire.flush().await.unwrap();
        drop(wire);
        client.write_all(b"GET /2 HTT").await.unwrap();
        assert!(std::future::poll_fn(|cx| hold.poll_arrival(cx)).await.unwrap());
        let mut wire = hold.wire();
        let mut head = [0; 7];
        wire.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"GET /2 ");
        assert!(!hold.is_between(1), "a part of a head is here");
        drop(client);
        let mut rest = String::new();
        wire.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "HTT");
        assert!(!std::future::poll_fn(|cx| hold.poll_arrival(cx)).await.unwrap());
    }
}
