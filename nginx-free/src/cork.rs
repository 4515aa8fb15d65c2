//! Gathers what HTTP/2 writes, so that the answers that are ready at one moment leave together: one TLS record and one
//! system call instead of one for each frame. The connection's task pushes it out each time it has been polled.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A buffer larger than this is let go when it is empty.
const KEPT: usize = 16 * 1024;

/// The end that is written to.
pub(crate) struct Corked<S>(Arc<Mutex<Gathered<S>>>);

/// The end that pushes.
pub(crate) struct Push<S>(Arc<Mutex<Gathered<S>>>);

struct Gathered<S> {
    stream: S,
    bytes: Vec<u8>,
    /// How many of them have been written.
    written: usize,
    most: usize,
    unflushed: bool,
}

/// `stream` with at most so many bytes held back.
pub(crate) fn cork<S>(stream: S, most: usize) -> (Corked<S>, Push<S>) {
    let gathered = Gathered { stream, bytes: Vec::new(), written: 0, most, unflushed: false };
    let shared = Arc::new(Mutex::new(gathered));
    (Corked(Arc::clone(&shared)), Push(shared))
}

/// Only one task ever holds it, so nobody waits here.
fn lock<S>(shared: &Mutex<Gathered<S>>) -> MutexGuard<'_, Gathered<S>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: AsyncWrite + Unpin> Push<S> {
    /// Writes what was gathered. `Pending` where the client does not take it yet.
    pub(crate) fn poll_push(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = lock(&self.0);
        ready!(gathered.poll_write_out(cx))?;
        gathered.poll_flush(cx)
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.bytes.len() {
            let rest = &self.bytes[self.written..];
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
            self.unflushed = true;
        }
        self.written = 0;
        if self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn gather(&mut self, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.bytes.len() >= self.most {
            ready!(self.poll_write_out(cx))?;
        }
        let before = self.bytes.len();
        for slice in slices {
            let left = self.most - self.bytes.len();
            self.bytes.extend_from_slice(&slice[..slice.len().min(left)]);
        }
        Poll::Ready(Ok(self.bytes.len() - before))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        lock(&self.0).gather(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        lock(&self.0).gather(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What was gathered leaves with [`Push::poll_push`].
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = lock(&self.0);
        ready!(gathered.poll_write_out(cx))?;
        Pin::new(&mut gathered.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_is_written_leaves_in_order_and_no_more_than_so_much_is_held() {
        let (near, mut far) = tokio::io::duplex(100);
        let (mut corked, push) = cork(near, 1000);
        let bytes: Vec<u8> = (0..50_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let sent = bytes.clone();
        let writing = tokio::spawn(async move {
            for piece in sent.chunks(700) {
                corked.write_all(piece).await.unwrap();
                corked.flush().await.unwrap();
                assert!(lock(&corked.0).bytes.len() <= 1000);
            }
            std::future::poll_fn(|cx| push.poll_push(cx)).await.unwrap();
            assert!(lock(&push.0).bytes.is_empty());
            corked.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.unwrap();
        writing.await.unwrap();
        assert_eq!(received, bytes);
    }
}
