//! How an app is reached.

use std::{future::Future, io, sync::Arc};

use tokio::io::{AsyncRead, AsyncWrite};

/// Opens connections to one app.
pub trait Dial: Send + Sync + 'static {
    /// A connection. One that returns `Pending` is not asked again before it has called the waker that it was asked with: to
    /// rely on being asked for another reason would leave it waiting.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Opens one more connection. Called once for each that is needed; the caller bounds the time it may take.
    ///
    /// # Errors
    /// What the network says. It is logged, and never shown to a client. One of kind [`io::ErrorKind::QuotaExceeded`] says
    /// that there are too many connections already: the client is told to try again (503).
    fn dial(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// One way that several upstreams share.
impl<D: Dial> Dial for Arc<D> {
    type Stream = D::Stream;

    fn dial(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send {
        D::dial(self)
    }
}
