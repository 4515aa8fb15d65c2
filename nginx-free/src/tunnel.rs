//! A WebSocket after its handshake: bytes both ways, past hyper. What is under way is read into one buffer for all tunnels
//! of a thread, so that a silent one holds no memory.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{io::ClientIo, tls::AT_ONCE, wire::Wire};

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; AT_ONCE].into());
}

/// How long the one side may go on after the other has ended.
const LINGER: Duration = Duration::from_secs(10);

/// How many bytes a tunnel carried.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Carried {
    pub(crate) from_client: u64,
    pub(crate) from_app: u64,
}

/// The app's side of a tunnel, with what it has sent already.
pub(crate) struct AppSide<S> {
    pub(crate) stream: S,
    pub(crate) early: Bytes,
}

/// Carries bytes until both sides have ended, or either breaks off. `carried` counts them.
pub(crate) async fn run<S>(client: OnUpgrade, app: AppSide<S>, carried: &mut Carried) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let upgraded = client.await.map_err(io::Error::other)?;
    // HTTP/1.1 is left behind here; a stream of HTTP/2 stays one.
    match upgraded.downcast::<TokioIo<Wire<ClientIo>>>() {
        Ok(parts) => {
            let client = parts.io.into_inner().into_stream().ok_or(io::ErrorKind::NotConnected)?;
            relay(client, parts.read_buf, app, carried).await
        }
        Err(upgraded) => relay(http2_stream(upgraded), Bytes::new(), app, carried).await,
    }
}

fn http2_stream(upgraded: Upgraded) -> TokioIo<Upgraded> {
    TokioIo::new(upgraded)
}

async fn relay<C, S>(client: C, early: Bytes, app: AppSide<S>, carried: &mut Carried) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut client, mut stream) = (client, app.stream);
    let (mut up, mut down) = (Half::new(early), Half::new(app.early));
    let mut linger = std::pin::pin!(None::<tokio::time::Sleep>);
    std::future::poll_fn(|cx| {
        let sent = up.carry(cx, &mut client, &mut stream, &mut carried.from_client)?;
        let received = down.carry(cx, &mut stream, &mut client, &mut carried.from_app)?;
        match (sent, received) {
            (Poll::Ready(()), Poll::Ready(())) => return Poll::Ready(Ok(())),
            (Poll::Pending, Poll::Pending) => return Poll::Pending,
            _ => {}
        }
        if linger.is_none() {
            linger.set(Some(tokio::time::sleep(LINGER)));
        }
        match linger.as_mut().as_pin_mut() {
            Some(linger) => linger.poll(cx).map(Ok),
            None => Poll::Pending,
        }
    })
    .await
}

/// One direction.
struct Half {
    /// What was read, and not yet taken by the other side.
    held: Bytes,
    unflushed: bool,
    place: Place,
}

#[derive(PartialEq, Eq)]
enum Place {
    Open,
    /// One side has ended; the other is told when all is sent.
    Ending,
    Ended,
}

impl Half {
    fn new(held: Bytes) -> Self {
        Self { held, unflushed: false, place: Place::Open }
    }

    /// Moves what can be moved; `Ready` when this direction has ended.
    fn carry(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        count: &mut u64,
    ) -> io::Result<Poll<()>> {
        match self.poll(cx, from, to, count) {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Ok(())) => Ok(Poll::Ready(())),
            Poll::Ready(Err(error)) => Err(error),
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        count: &mut u64,
    ) -> Poll<io::Result<()>> {
        loop {
            while !self.held.is_empty() {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.held))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                *count += written as u64;
                drop(self.held.split_to(written));
                self.unflushed = true;
            }
            match self.place {
                Place::Ended => return Poll::Ready(Ok(())),
                Place::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.place = Place::Ended;
                    return Poll::Ready(Ok(()));
                }
                Place::Open => {}
            }
            if self.read(cx, from, to, count)?.is_pending() {
                if self.unflushed {
                    ready!(Pin::new(&mut *to).poll_flush(cx))?;
                    self.unflushed = false;
                }
                return Poll::Pending;
            }
        }
    }

    /// Reads once and passes on what the other side takes at once; only the rest is held.
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        count: &mut u64,
    ) -> io::Result<Poll<()>> {
        BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            match Pin::new(&mut *from).poll_read(cx, &mut buffer) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(read) => read?,
            }
            let read = buffer.filled();
            if read.is_empty() {
                self.place = Place::Ending;
                return Ok(Poll::Ready(()));
            }
            let written = match Pin::new(&mut *to).poll_write(cx, read) {
                Poll::Pending => 0,
                Poll::Ready(written) => written?,
            };
            *count += written as u64;
            self.unflushed |= written > 0;
            self.held = Bytes::copy_from_slice(&read[written..]);
            Ok(Poll::Ready(()))
        })
    }
}
