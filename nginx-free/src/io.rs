//! A client's connection: TCP or unix, plain or TLS, as one type, so that hyper is compiled once. A client that leaves
//! what is sent to it unread for too long loses it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    task::coop,
};
use tokio_rustls::server::TlsStream;

use crate::{patience::Patience, ticket::Ticketed, transport::poll_write_slices, woken::Woken};

/// A socket that a client connected to.
pub(crate) struct Socket {
    kind: Kind,
    patience: Patience,
}

enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    pub(crate) fn tcp(stream: TcpStream, stall: Duration) -> Self {
        Self { kind: Kind::Tcp(stream), patience: Patience::new(stall) }
    }

    pub(crate) fn unix(stream: UnixStream, stall: Duration) -> Self {
        Self { kind: Kind::Unix(stream), patience: Patience::new(stall) }
    }

    fn stream(&mut self) -> Pin<&mut dyn Duplex> {
        Pin::new(match &mut self.kind {
            Kind::Tcp(stream) => stream,
            Kind::Unix(stream) => stream,
        })
    }

    /// Passes on how a write went, and starts or stops the clock.
    fn timed(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => self.patience.moved(bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                ready!(self.patience.poll_out(cx));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        written
    }
}

trait Duplex: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Duplex for S {}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(self.stream().poll_read(cx, buf))?;
        spend(cx, buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

/// Bytes that use up one unit of a task's budget, of which tokio gives it 128 before it has to let others run.
const UNIT: usize = 1024;

/// Makes what was read count by its size. tokio counts reads, and 128 of them can bring 100,000 frames of HTTP/2, each of
/// which has to be looked at: a connection that is flooded would keep all others waiting.
fn spend(cx: &mut Context<'_>, bytes: usize) {
    for _ in 0..bytes / UNIT {
        match coop::poll_proceed(cx) {
            Poll::Ready(unit) => unit.made_progress(),
            Poll::Pending => break,
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.stream().poll_write(cx, bytes);
        self.timed(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = poll_write_slices(self.stream(), cx, slices);
        self.timed(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}

/// A client's connection, ready for HTTP.
pub(crate) struct ClientIo {
    layers: Layers,
    /// Whether it is worth a read: one in vain goes through all of TLS.
    reads: Woken,
}

enum Layers {
    Plain(Socket),
    Tls(Box<TlsStream<Ticketed<Socket>>>),
}

impl Layers {
    fn stream(&mut self) -> Pin<&mut dyn Duplex> {
        Pin::new(match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.as_mut(),
        })
    }
}

impl ClientIo {
    pub(crate) fn plain(socket: Socket) -> Self {
        Self { layers: Layers::Plain(socket), reads: Woken::new() }
    }

    pub(crate) fn tls(stream: TlsStream<Ticketed<Socket>>) -> Self {
        Self { layers: Layers::Tls(Box::new(stream)), reads: Woken::new() }
    }

    /// Whether HTTP/2 was agreed on (RFC 9113 §3.2). There is no other way to it here.
    pub(crate) fn speaks_http2(&self) -> bool {
        match &self.layers {
            Layers::Plain(_) => false,
            Layers::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    fn stream(&mut self) -> Pin<&mut dyn Duplex> {
        self.layers.stream()
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { layers, reads } = &mut *self;
        reads.poll(cx, |cx| layers.stream().poll_read(cx, buf))
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}
