//! The two ways that a request may be forwarded: to the app, or to the session's terminals, which are served in this very
//! process. Both are upstreams to the proxy, so a terminal's WebSocket passes the same door, over HTTP/1.1 and HTTP/2.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use nginx_free::Dial;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::{Desk, socket::Caller};
use crate::activity::{Activity, Carries, Counted};

/// Bytes under way between the proxy and a terminal's end of the WebSocket.
const BUFFER: usize = 64 * 1024;

/// One way.
pub(crate) enum Way<D> {
    /// To the app, by connections whose bytes are counted.
    App {
        /// The app.
        dial: D,
        /// Where they are counted.
        activity: Activity,
        /// What these connections carry.
        carries: Carries,
    },
    /// To the terminals, for whoever it is whom the door has let through.
    Terminals {
        /// The terminals.
        desk: Desk,
        /// Who comes.
        caller: Caller,
    },
}

impl<D: Dial> Dial for Way<D> {
    type Stream = WayStream<D::Stream>;

    async fn dial(&self) -> io::Result<Self::Stream> {
        match self {
            Self::App { dial, activity, carries } => {
                Ok(WayStream::App(Counted::new(dial.dial().await?, activity.clone(), *carries)))
            }
            Self::Terminals { desk, caller } => {
                let (theirs, ours) = tokio::io::duplex(BUFFER);
                tokio::spawn(desk.clone().serve(ours, caller.clone()));
                Ok(WayStream::Terminals(theirs))
            }
        }
    }
}

/// A connection by one of the ways.
pub(crate) enum WayStream<S> {
    /// To the app.
    App(Counted<S>),
    /// To the terminals.
    Terminals(DuplexStream),
}

macro_rules! on_either {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            WayStream::App($stream) => $call,
            WayStream::Terminals($stream) => $call,
        }
    };
}

impl<S: AsyncRead + Unpin> AsyncRead for WayStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_either!(self, stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WayStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on_either!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_either!(self, stream => Pin::new(stream).poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::App(stream) => stream.is_write_vectored(),
            Self::Terminals(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_either!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_either!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
