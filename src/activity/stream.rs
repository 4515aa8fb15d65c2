//! A connection to the app whose bytes are counted on their way.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Activity, Pulse};

/// What a connection carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carries {
    /// A WebSocket: all that is said.
    Messages,
    /// Requests, one after the other. Only what is said later than a whole time between two looks after a request began is
    /// counted: then it is a download, an upload or a stream, and no poll.
    Requests,
}

/// Counts what goes over a stream, where anybody judges.
#[derive(Debug)]
pub struct Counted<S> {
    stream: S,
    activity: Activity,
    carries: Carries,
    pulse: Pulse,
    /// How many looks there had been when the request began that is under way.
    began: u64,
    /// The last byte was the app's: the next of ours begins a request.
    answered: bool,
}

impl<S> Counted<S> {
    /// Counts on behalf of `activity`.
    pub fn new(stream: S, activity: Activity, carries: Carries) -> Self {
        let began = activity.looks();
        let pulse = Pulse::new(&activity);
        Self { stream, activity, carries, pulse, began, answered: false }
    }

    fn lasts(&self) -> bool {
        self.activity.looks() >= self.began.saturating_add(2)
    }

    fn wrote(&mut self, bytes: usize) {
        if !self.activity.counts() || bytes == 0 {
            return;
        }
        match self.carries {
            Carries::Messages => self.pulse.sent(&self.activity, bytes),
            Carries::Requests => {
                if std::mem::take(&mut self.answered) {
                    self.began = self.activity.looks();
                }
                if self.lasts() {
                    self.activity.moved(bytes);
                }
            }
        }
    }

    fn read(&mut self, bytes: usize) {
        if !self.activity.counts() || bytes == 0 {
            return;
        }
        self.answered = true;
        if self.carries == Carries::Messages || self.lasts() {
            self.activity.moved(bytes);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.read(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.wrote(wrote);
        Poll::Ready(Ok(wrote))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, parts))?;
        self.wrote(wrote);
        Poll::Ready(Ok(wrote))
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

    async fn exchange(
        one: &mut Counted<tokio::io::DuplexStream>,
        other: &mut tokio::io::DuplexStream,
        n: usize,
    ) {
        one.write_all(&vec![b'q'; n]).await.unwrap();
        other.read_exact(&mut vec![0; n]).await.unwrap();
        answer(one, other, n).await;
    }

    async fn answer(
        one: &mut Counted<tokio::io::DuplexStream>,
        other: &mut tokio::io::DuplexStream,
        n: usize,
    ) {
        other.write_all(&vec![b'a'; n]).await.unwrap();
        one.read_exact(&mut vec![0; n]).await.unwrap();
    }

    #[tokio::test]
    async fn polls_over_one_connection_are_not_counted_and_a_long_answer_is() {
        let activity = Activity::counting();
        let (one, mut other) = tokio::io::duplex(4096);
        let mut one = Counted::new(one, activity.clone(), Carries::Requests);
        for _ in 0..10 {
            exchange(&mut one, &mut other, 1000).await;
            assert_eq!(activity.look().moved, 0);
        }
        exchange(&mut one, &mut other, 1000).await;
        assert_eq!((activity.look().moved, activity.look().moved), (0, 0));
        answer(&mut one, &mut other, 1000).await;
        let counted = activity.look();
        assert_eq!((counted.moved, counted.sent), (1000, 0));
        // The next request is a short one again.
        exchange(&mut one, &mut other, 10).await;
        assert_eq!(activity.look().moved, 1000);
    }

    #[tokio::test]
    async fn a_websocket_s_bytes_are_all_counted() {
        let activity = Activity::counting();
        let (one, mut other) = tokio::io::duplex(4096);
        let mut one = Counted::new(one, activity.clone(), Carries::Messages);
        exchange(&mut one, &mut other, 100).await;
        let counted = activity.look();
        assert_eq!((counted.moved, counted.sent), (200, 0));
        exchange(&mut one, &mut other, 1000).await;
        let counted = activity.look();
        assert_eq!((counted.moved, counted.sent), (2200, 1));
    }
}
