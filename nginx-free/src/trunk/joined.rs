//! A channel joined with another stream of bytes: what one reads the other writes. What comes in bulk is not copied on the
//! way: it goes to HTTP/2 in the memory that it was read into, and what HTTP/2 received is written from where it lies.

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::Channel;

/// What is read at once: first so much, then more as long as it is filled, and less again when it is not. A piece that
/// fills less than a fourth is copied, so that what waits to be sent takes no more than four times its length.
const LEAST: usize = 8 * 1024;
const MOST: usize = 64 * 1024;

/// Bytes on their way to the channel.
struct Inward {
    /// What is read into.
    buffer: BytesMut,
    /// What was read, and not sent.
    piece: Bytes,
    /// What is read next at most.
    size: usize,
    ended: bool,
}

/// How far the other direction has got.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outward {
    Flowing,
    Ending,
    Ended,
}

impl Channel {
    /// Joins it with `stream`, until both directions have ended: the end of one is passed on while the other goes on.
    ///
    /// # Errors
    /// That of whichever broke first. The channel's other end sees that it broke, and `stream` is dropped.
    pub async fn join<S: AsyncRead + AsyncWrite + Unpin>(mut self, mut stream: S) -> io::Result<()> {
        let mut inward = Inward { buffer: BytesMut::new(), piece: Bytes::new(), size: LEAST, ended: false };
        let mut outward = Outward::Flowing;
        std::future::poll_fn(|cx| {
            let there = inward.poll(cx, &mut self, &mut stream)?;
            let back = outward.poll(cx, &mut self, &mut stream)?;
            if there.is_ready() && back.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
        .await
    }
}

impl Inward {
    fn poll<S: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        channel: &mut Channel,
        stream: &mut S,
    ) -> Poll<io::Result<()>> {
        while !self.ended {
            while !self.piece.is_empty() {
                ready!(channel.poll_send(cx, &mut self.piece))?;
            }
            if ready!(self.poll_read(cx, stream))? == 0 {
                self.ended = true;
                channel.end();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<usize>> {
        self.buffer.reserve(self.size);
        let Poll::Ready(count) = pin!(stream.read_buf(&mut self.buffer)).poll(cx) else {
            if self.buffer.capacity() > LEAST {
                // Nobody knows for how long it would lie idle.
                self.buffer = BytesMut::new();
            }
            return Poll::Pending;
        };
        let count = count?;
        if count < self.size / 4 {
            self.piece = Bytes::copy_from_slice(&self.buffer);
            self.buffer.clear();
            self.size = (self.size / 2).max(LEAST);
        } else {
            self.piece = self.buffer.split().freeze();
            if count >= self.size {
                self.size = (2 * self.size).min(MOST);
            }
        }
        Poll::Ready(Ok(count))
    }
}

impl Outward {
    fn poll<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        channel: &mut Channel,
        stream: &mut S,
    ) -> Poll<io::Result<()>> {
        loop {
            match self {
                Self::Flowing => match channel.poll_pass_on(cx, stream)? {
                    Poll::Ready(true) => {}
                    Poll::Ready(false) => *self = Self::Ending,
                    Poll::Pending => {
                        // What was written is on its way at once, in a stream that holds back, too.
                        ready!(Pin::new(&mut *stream).poll_flush(cx))?;
                        return Poll::Pending;
                    }
                },
                Self::Ending => {
                    ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
                    *self = Self::Ended;
                }
                Self::Ended => return Poll::Ready(Ok(())),
            }
        }
    }
}
