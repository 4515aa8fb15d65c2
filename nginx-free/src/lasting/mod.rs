//! A stream of bytes that outlives the connections which carry it.
//!
//! Both ends number the bytes they write and keep those that the other has not acknowledged. When a connection breaks,
//! the stream above it stands still; over the next one each end says how far it has received, and the other sends the
//! rest again. What is above, such as the HTTP/2 of a [`trunk`](crate::trunk), notices nothing but the pause. The idea is
//! that of Mosh and Eternal Terminal, for any stream.
//!
//! [`lasting`] makes the two halves of one end: [`Lasting`] is the stream, [`Carrier`] is given one connection after the
//! other. How they are made, and whose they are, is the caller's matter: here nobody is authenticated and nothing is
//! encrypted. A connection that leads to another stream's end is noticed, which is a safeguard and no proof.
//!
//! ```no_run
//! use std::{io, time::Duration};
//!
//! use nginx_free::{lasting::{LastingLimits, lasting}, trunk::{TrunkLimits, serve}};
//! use tokio::{net::TcpStream, time::sleep};
//!
//! # async fn run() -> io::Result<()> {
//! let (stream, mut carrier) = lasting(LastingLimits::default());
//! let limits = TrunkLimits { pong: Duration::MAX, ..TrunkLimits::default() };
//! tokio::spawn(serve(stream, limits, |asked| async { drop(asked) }));
//! loop {
//!     match carrier.carry(TcpStream::connect("gateway:443").await?).await {
//!         Ok(()) => return Ok(()),
//!         Err(why) if why.is_final() => return Err(why.into()),
//!         Err(_) => sleep(Duration::from_secs(1)).await,
//!     }
//! }
//! # }
//! ```
//!
//! # What goes over a connection
//! First a hello each way, then frames: data, how far the sender has received and how far it wants to be
//! sent more, the end of one direction, and that an end is gone. Every number counts bytes from the stream's beginning;
//! the end of a direction counts as one byte more.
//!
//! # What is bounded
//! What is kept for sending again by [`LastingLimits::unacknowledged`]: a writer waits. What is not read by
//! [`LastingLimits::unread`]: the other end is never granted more, so that acknowledgements and heartbeats behind the data
//! are always read. Who sends more than it was granted has broken the rules, and its connection is let go of.
//!
//! # What is an end, and what is not
//! [`shutdown`] ends one direction, once all that was written before has arrived. A [`Lasting`] that is dropped earlier is
//! gone at once: the other end's reads and writes fail. Both are told over the next connection if there is none now.
//! Neither a connection's end nor its loss ends the stream; only [`Carrier::give_up`], or a dropped [`Carrier`], does.
//!
//! [`shutdown`]: tokio::io::AsyncWriteExt::shutdown

mod carrier;
mod error;
mod frame;
mod receiving;
mod sending;
pub(crate) mod session;
mod state;

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use carrier::Carrier;
pub use error::{Broken, Misfit};
use state::Shared;

/// What one end of a stream spends at most.
#[derive(Clone, Debug)]
pub struct LastingLimits {
    /// Bytes that are kept until the other end has acknowledged them. A writer waits when there are so many.
    pub unacknowledged: usize,
    /// Bytes that are held for a reader who does not read. It is also what is under way in one round trip between two busy
    /// ends, and so bounds their speed.
    pub unread: usize,
    /// Time after which an end that has nothing to say shows that it is there.
    pub heartbeat: Duration,
    /// Time after which a connection over which nothing was heard has broken. Longer than the other end's
    /// [`heartbeat`](Self::heartbeat).
    pub silence: Duration,
}

impl Default for LastingLimits {
    fn default() -> Self {
        Self {
            unacknowledged: 8 << 20,
            unread: 4 << 20,
            heartbeat: Duration::from_secs(5),
            silence: Duration::from_secs(20),
        }
    }
}

/// One end of a stream, and what gives it connections. What is written before there is one is sent over the first.
pub fn lasting(limits: LastingLimits) -> (Lasting, Carrier) {
    let shared = Arc::new(Shared::new(&limits));
    (Lasting(Arc::clone(&shared)), Carrier::new(shared, limits))
}

/// A stream of bytes. It reads and writes as long as its [`Carrier`] lives, whether or not there is a connection.
///
/// A write is done when the bytes are kept, and a shutdown when it is noted; [`Carrier::carry`] says when all has arrived.
/// Where the other end is gone, what came before is read, then [`io::ErrorKind::ConnectionReset`]; where the carrier has
/// given up, [`io::ErrorKind::ConnectionAborted`].
pub struct Lasting(Arc<Shared>);

impl AsyncRead for Lasting {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read(cx, buf)
    }
}

impl AsyncWrite for Lasting {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The carrier sends what was written, without being asked.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.end();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl fmt::Debug for Lasting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lasting").finish_non_exhaustive()
    }
}
