//! A connection's stream to its app as hyper has it: what comes is counted, and what leaves can be copied.

use std::{
    io,
    io::IoSlice,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::transport::poll_write_slices;

/// What whoever uses a connection knows of its stream, and says to it.
pub(crate) struct Meter {
    /// How much came since the last request.
    read: AtomicUsize,
    /// How much may come before the head of its answer is complete. hyper skips interim answers (1xx) as long as they come;
    /// this ends a flood of them.
    limit: usize,
    leaving: Mutex<Leaving>,
}

#[derive(Default)]
struct Leaving {
    /// The next piece is to be copied.
    is_copied: bool,
    copy: Vec<u8>,
}

impl Meter {
    const UNLIMITED: usize = usize::MAX;

    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { read: AtomicUsize::new(0), limit, leaving: Mutex::default() })
    }

    /// Before a request: nothing was read. With `copies`, the first piece of it that is to leave is copied.
    pub(crate) fn begin(&self, copies: bool) {
        self.read.store(0, Ordering::Relaxed);
        let mut leaving = self.leaving();
        leaving.is_copied = copies;
        leaving.copy.clear();
    }

    /// What was copied.
    pub(crate) fn copy(&self) -> Vec<u8> {
        std::mem::take(&mut self.leaving().copy)
    }

    /// Whether anything came since the request.
    pub(crate) fn has_read(&self) -> bool {
        self.read.load(Ordering::Relaxed) > 0
    }

    /// From here on as much may come as is wanted.
    pub(crate) fn unlimited(&self) {
        self.read.store(Self::UNLIMITED, Ordering::Relaxed);
    }

    fn leaving(&self) -> MutexGuard<'_, Leaving> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, bytes: usize) -> io::Result<()> {
        let read = self.read.load(Ordering::Relaxed);
        if read == Self::UNLIMITED {
            return Ok(());
        }
        self.read.store(read + bytes, Ordering::Relaxed);
        if read + bytes > self.limit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the app's answer has no end of heads"));
        }
        Ok(())
    }

    /// Copies a piece that is to leave, where that is wanted.
    fn leaves(&self, slices: &[IoSlice<'_>]) {
        let leaving = &mut *self.leaving();
        if std::mem::take(&mut leaving.is_copied) {
            for slice in slices {
                leaving.copy.extend_from_slice(slice);
            }
        }
    }
}

/// A stream with its meter, and what is kept for as long as it is open.
pub(crate) struct Metered<S, K> {
    pub(crate) stream: S,
    pub(crate) meter: Arc<Meter>,
    pub(crate) _kept: K,
}

impl<S: AsyncRead + Unpin, K: Unpin> AsyncRead for Metered<S, K> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        Poll::Ready(self.meter.count(buf.filled().len() - before))
    }
}

impl<S: AsyncWrite + Unpin, K: Unpin> AsyncWrite for Metered<S, K> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.meter.leaves(&[IoSlice::new(bytes)]);
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.meter.leaves(slices);
        poll_write_slices(Pin::new(&mut self.stream), cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn the_first_piece_that_leaves_is_copied() {
        let (near, mut far) = tokio::io::duplex(100);
        let meter = Meter::new(10);
        let mut stream = Metered { stream: near, meter: Arc::clone(&meter), _kept: () };
        meter.begin(true);
        stream.write_all(b"one").await.unwrap();
        stream.write_all(b", two").await.unwrap();
        drop(stream);
        let mut came = String::new();
        far.read_to_string(&mut came).await.unwrap();
        assert_eq!(came, "one, two");
        assert_eq!(meter.copy(), b"one");
        meter.begin(false);
        assert_eq!(meter.copy(), b"");
    }

    #[tokio::test]
    async fn no_more_comes_before_the_head_than_may() {
        let (near, mut far) = tokio::io::duplex(100);
        let meter = Meter::new(10);
        let mut stream = Metered { stream: near, meter: Arc::clone(&meter), _kept: () };
        far.write_all(&[0; 10]).await.unwrap();
        meter.begin(false);
        assert!(!meter.has_read());
        stream.read_exact(&mut [0; 10]).await.unwrap();
        assert!(meter.has_read());
        far.write_all(&[0; 11]).await.unwrap();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        meter.unlimited();
        stream.read_exact(&mut [0; 10]).await.unwrap();
    }
}
