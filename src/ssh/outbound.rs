//! What a program or a connection says, on its way to the client of one channel. Nothing is read before the client's
//! window has room for it.

use std::io;

use bytes::BytesMut;
use russh::{ChannelWriteHalf, server::Msg};
use tokio::net::{tcp, unix, unix::pipe};

use crate::activity::Activity;

/// So much is read at once.
const CHUNK: usize = 128 * 1024;

/// The extended data of standard error (RFC 4254, 5.2).
const STDERR: u32 = 1;

/// Where it comes from.
pub(super) enum Source {
    /// A program's standard output or error.
    Pipe(pipe::Receiver),
    /// A TCP connection.
    Tcp(tcp::OwnedReadHalf),
    /// A connection over a unix socket.
    Unix(unix::OwnedReadHalf),
}

/// As what the client gets it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum As {
    /// The channel's data.
    Data,
    /// Its standard error.
    Stderr,
}

impl Source {
    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Pipe(pipe) => pipe.readable().await,
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
        }
    }

    fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Pipe(pipe) => pipe.try_read_buf(buffer),
            Self::Tcp(stream) => stream.try_read_buf(buffer),
            Self::Unix(stream) => stream.try_read_buf(buffer),
        }
    }
}

/// Sends all that comes, to its end, and counts it. Returns early where the connection is no more.
pub(super) async fn pump(source: Source, channel: &ChannelWriteHalf<Msg>, kind: As, activity: &Activity) {
    loop {
        // Memory is taken when there is something for it: most channels are silent most of the time.
        if source.readable().await.is_err() {
            return;
        }
        let mut buffer = BytesMut::with_capacity(CHUNK);
        match source.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                continue;
            }
            Err(_) => return,
        }
        let bytes = buffer.freeze();
        activity.moved(bytes.len());
        let sent = match kind {
            As::Data => channel.data_bytes(bytes).await,
            As::Stderr => channel.extended_data_bytes(STDERR, bytes).await,
        };
        if sent.is_err() {
            return;
        }
    }
}
