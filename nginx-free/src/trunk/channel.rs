//! One stream of HTTP/2 as a stream of bytes.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::coop,
};

use super::Place;

/// What one write takes at most: it reserves as much of the trunk's window, and what is reserved nobody else can use.
const PIECE: usize = 64 * 1024;

/// A stream of bytes over a [`Trunk`](super::Trunk). What is written is held back where the other end does not read it,
/// and what is not read holds the other end back.
pub struct Channel {
    send: SendStream<Bytes>,
    receive: RecvStream,
    /// What came, and was not read yet. Its place in the window is given back as it is read.
    rest: Bytes,
    ended: bool,
    _place: Arc<Place>,
}

impl Channel {
    pub(super) fn new(send: SendStream<Bytes>, receive: RecvStream, place: Arc<Place>) -> Self {
        Self { send, receive, rest: Bytes::new(), ended: false, _place: place }
    }

    /// Takes in what has come next; `false` at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.rest.is_empty() {
            match ready!(self.receive.poll_data(cx)) {
                Some(Ok(data)) => self.rest = data,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None if self.receive.is_end_stream() => return Poll::Ready(Ok(false)),
                // Trailers, which have no place on a connected stream (RFC 9113 §8.5).
                None => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            }
        }
        Poll::Ready(Ok(true))
    }

    /// Sends some of `bytes`, in the memory that they are in.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<()>> {
        let turn = ready!(coop::poll_proceed(cx));
        let wanted = bytes.len().min(PIECE);
        let count = ready!(self.poll_room(cx, wanted))?;
        turn.made_progress();
        self.send_piece(bytes.split_to(count), wanted)?;
        Poll::Ready(Ok(()))
    }

    /// Sends what there was room for.
    fn send_piece(&mut self, piece: Bytes, wanted: usize) -> io::Result<()> {
        let count = piece.len();
        self.send.send_data(piece, false).map_err(broken)?;
        if count < wanted {
            // What is still asked for would be kept from the other channels until the next write, which may never come.
            self.send.reserve_capacity(0);
        }
        Ok(())
    }

    /// Ends this direction.
    pub(super) fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            // It fails where the stream has ended already, and then there is nobody left to be told.
            let _ = self.send.send_data(Bytes::new(), true);
        }
    }

    /// Writes some of what has come to `stream`; `false` at the end.
    pub(super) fn poll_pass_on<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<bool>> {
        if !ready!(self.poll_fill(cx))? {
            return Poll::Ready(Ok(false));
        }
        let count = ready!(Pin::new(stream).poll_write(cx, &self.rest))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.take(count);
        Poll::Ready(Ok(true))
    }

    /// So much of what has come was read.
    fn take(&mut self, count: usize) {
        self.rest.advance(count);
        // It fails for a stream that has ended meanwhile, whose window nobody needs.
        let _ = self.receive.flow_control().release_capacity(count);
    }

    /// Room for some of `wanted` bytes.
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        self.send.reserve_capacity(wanted);
        loop {
            match self.send.capacity() {
                0 => {}
                room => return Poll::Ready(Ok(room.min(wanted))),
            }
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
    }
}

impl AsyncRead for Channel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let turn = ready!(coop::poll_proceed(cx));
        let filled = ready!(self.poll_fill(cx))?;
        turn.made_progress();
        if filled {
            let count = self.rest.len().min(buf.remaining());
            buf.put_slice(&self.rest[..count]);
            self.take(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Channel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = slices.iter().fold(0_usize, |sum, slice| sum.saturating_add(slice.len()));
        if all == 0 {
            return Poll::Ready(Ok(0));
        }
        if self.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let turn = ready!(coop::poll_proceed(cx));
        let wanted = all.min(PIECE);
        let count = ready!(self.poll_room(cx, wanted))?;
        turn.made_progress();
        let mut piece = BytesMut::with_capacity(count);
        for slice in slices {
            let part = slice.len().min(count - piece.len());
            piece.extend_from_slice(&slice[..part]);
        }
        self.send_piece(piece.freeze(), wanted)?;
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The trunk's own task sends what was written, without being asked.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end();
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("stream", &self.receive.stream_id()).finish_non_exhaustive()
    }
}

pub(super) fn broken(error: h2::Error) -> io::Error {
    let kind =
        if error.is_reset() { io::ErrorKind::ConnectionReset } else { io::ErrorKind::ConnectionAborted };
    io::Error::new(kind, error)
}
