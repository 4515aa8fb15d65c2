//! One app: connections to it, made by its [`Dial`] and kept while they are beyond doubt.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, ReadBuf};

use crate::{Dial, Failure, Limits, body::RequestBody};

/// One app, and the idle connections to it. The one used last is used next, so that the others grow old and go.
pub struct Upstream<D> {
    dial: D,
    limits: Limits,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection to the app.
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<RequestBody>,
    meter: Arc<Meter>,
}

/// Where a connection came from: only one from the pool may have died unnoticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    Fresh,
    Pool,
}

impl<D: Dial> Upstream<D> {
    /// An app reached by `dial`. No connection is made yet.
    pub fn new(dial: D, limits: Limits) -> Arc<Self> {
        Arc::new(Self { dial, limits, idle: Mutex::default() })
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The idle connection that was used last, else a new one.
    pub(crate) async fn connection(&self) -> Result<(Connection, Source), Failure> {
        if let Some(connection) = self.take_idle() {
            connection.meter.rewind();
            return Ok((connection, Source::Pool));
        }
        Ok((self.fresh().await?, Source::Fresh))
    }

    /// A new connection.
    pub(crate) async fn fresh(&self) -> Result<Connection, Failure> {
        let stream = match tokio::time::timeout(self.limits.dial, self.dial.dial()).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%error, "no connection to the app");
                return Err(Failure::Unreachable);
            }
            Err(_) => {
                tracing::debug!("no connection to the app in time");
                return Err(Failure::Unreachable);
            }
        };
        let meter = Arc::new(Meter::new(self.limits.head_bytes + 2 * self.limits.buffer));
        let metered = Metered { stream, meter: Arc::clone(&meter) };
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(self.limits.buffer.max(8192))
            .max_header_size(self.limits.head_bytes)
            .max_headers(self.limits.fields)
            .handshake(TokioIo::new(metered))
            .await
            .map_err(|_| Failure::Unreachable)?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "the connection to the app broke");
            }
        });
        Ok(Connection { sender, meter })
    }

    /// Keeps a connection once it is ready for another request: both bodies ended, and not one byte too many came.
    pub(crate) fn give_back(self: &Arc<Self>, mut connection: Connection) {
        let me = Arc::clone(self);
        tokio::spawn(async move {
            if connection.sender.ready().await.is_err() {
                return;
            }
            let mut idle = me.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() >= me.limits.pool {
                idle.remove(0);
            }
            idle.push(Idle { connection, since: Instant::now() });
            if idle.len() == 1 {
                tokio::spawn(sweep(Arc::downgrade(&me), me.limits.pool_idle));
            }
        });
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(Idle { connection, since }) = idle.pop() {
            if connection.sender.is_ready() && since.elapsed() < self.limits.pool_idle {
                return Some(connection);
            }
        }
        None
    }
}

/// Closes idle connections that grew old, until none is left.
async fn sweep<D: Dial>(upstream: std::sync::Weak<Upstream<D>>, age: Duration) {
    loop {
        tokio::time::sleep(age).await;
        let Some(upstream) = upstream.upgrade() else { return };
        let mut idle = upstream.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|one| one.since.elapsed() < age && !one.connection.sender.is_closed());
        if idle.is_empty() {
            idle.shrink_to_fit();
            return;
        }
    }
}

impl Connection {
    /// Whether the app has sent anything since the last request.
    pub(crate) fn has_answered(&self) -> bool {
        self.meter.read.load(Ordering::Relaxed) > 0
    }

    /// Called when the answer's head has come: from here on the app may send as much as the client takes.
    pub(crate) fn head_came(&self) {
        self.meter.read.store(Meter::UNLIMITED, Ordering::Relaxed);
    }
}

/// How much the app sent before the head of its answer was complete. hyper skips interim answers (1xx) as long as they
/// come; this ends a flood of them.
struct Meter {
    read: AtomicUsize,
    limit: usize,
}

impl Meter {
    const UNLIMITED: usize = usize::MAX;

    fn new(limit: usize) -> Self {
        Self { read: AtomicUsize::new(0), limit }
    }

    fn rewind(&self) {
        self.read.store(0, Ordering::Relaxed);
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
}

struct Metered<S> {
    stream: S,
    meter: Arc<Meter>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
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

crate::io::write_as_its_stream!(Metered);
