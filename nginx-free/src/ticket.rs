//! A session ticket leaves with the first answer.
//!
//! A server of TLS 1.3 ends a handshake by a ticket (RFC 8446 §4.6.1), for which the client has no use until it comes back.
//! Sent by itself it is one more packet, for which both sides are woken. So it is kept here, below TLS, until something else
//! is written.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The type of records that are encrypted (RFC 8446 §5.1). What a server writes before a handshake has ended begins with
/// its hello or an alert, which are not.
const APPLICATION_DATA: u8 = 23;

/// No encrypted alert is as long as this, and no ticket as short.
const ALERT: usize = 64;

/// A client's connection, below TLS.
pub(crate) struct Ticketed<S> {
    stream: S,
    /// The handshake is under way, and each write was taken whole, so that the next begins with a record.
    awaits_ticket: bool,
    ticket: Vec<u8>,
}

impl<S> Ticketed<S> {
    /// A connection whose handshake begins.
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, awaits_ticket: true, ticket: Vec::new() }
    }

    /// The handshake has ended.
    pub(crate) fn shaken(&mut self) {
        self.awaits_ticket = false;
    }
}

impl<S: AsyncWrite + Unpin> Ticketed<S> {
    fn poll_shake(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        let kind = slices.iter().find_map(|slice| slice.first());
        if kind == Some(&APPLICATION_DATA) && length > ALERT {
            for slice in slices {
                self.ticket.extend_from_slice(slice);
            }
            return Poll::Ready(Ok(length));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices));
        self.awaits_ticket = written.as_ref().is_ok_and(|written| *written == length);
        Poll::Ready(written)
    }

    /// Writes the ticket, and of the rest what is taken with it.
    fn poll_write_ticket(&mut self, cx: &mut Context<'_>, rest: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        while !self.ticket.is_empty() {
            let slices: Vec<_> = [&*self.ticket]
                .into_iter()
                .chain(rest.iter().map(|slice| &**slice))
                .map(IoSlice::new)
                .collect();
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &slices))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if written > self.ticket.len() {
                let of_rest = written - self.ticket.len();
                self.ticket = Vec::new();
                return Poll::Ready(Ok(of_rest));
            }
            self.ticket.drain(..written);
        }
        self.ticket = Vec::new();
        Pin::new(&mut self.stream).poll_write_vectored(cx, rest)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ticketed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ticketed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.awaits_ticket {
            self.poll_shake(cx, slices)
        } else if self.ticket.is_empty() {
            Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
        } else {
            self.poll_write_ticket(cx, slices)
        }
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

    const ALERT_RECORD: [u8; 24] = [APPLICATION_DATA; 24];
    const TICKET: [u8; 100] = [APPLICATION_DATA; 100];

    /// What arrives of these writes, of which so many are in the handshake, through a pipe of so many bytes.
    async fn arrives(writes: &[&[u8]], in_handshake: usize, pipe: usize) -> Vec<u8> {
        let (near, mut far) = tokio::io::duplex(pipe);
        let mut near = Ticketed::new(near);
        let writing = async move {
            for (index, bytes) in writes.iter().enumerate() {
                if index == in_handshake {
                    near.shaken();
                }
                near.write_all(bytes).await.unwrap();
            }
        };
        let mut arrived = Vec::new();
        let ((), read) = tokio::join!(writing, far.read_to_end(&mut arrived));
        read.unwrap();
        arrived
    }

    #[tokio::test]
    async fn a_ticket_goes_before_what_is_written_next() {
        for pipe in [1, 7, 99, 100, 101, 106, 1000] {
            let all = [&TICKET[..], b"answer", b"more"];
            assert_eq!(arrives(&all, 1, pipe).await, all.concat(), "{pipe}");
        }
    }

    #[tokio::test]
    async fn a_ticket_alone_is_kept() {
        assert_eq!(arrives(&[b"\x16hello", &TICKET], 2, 1000).await, b"\x16hello");
    }

    #[tokio::test]
    async fn an_alert_is_not_kept() {
        assert_eq!(arrives(&[b"\x16hello", &ALERT_RECORD], 2, 1000).await[6..], ALERT_RECORD);
    }

    #[tokio::test]
    async fn what_is_not_known_to_be_a_whole_record_is_not_kept() {
        let hello = [APPLICATION_DATA - 1; 150];
        assert_eq!(arrives(&[&hello, &TICKET], 2, 100).await, [&hello[..], &TICKET].concat());
    }
}
