//! Why there is no channel, or no trunk.

use std::io;

use h2::Reason;
use http::StatusCode;

/// Why a channel, or a trunk, could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrunkError {
    /// There is no trunk any more.
    #[error("no channel to the host: {0}")]
    Ended(#[from] Ended),
    /// As many channels are open as the limits, or the host, allow.
    #[error("no channel to the host: too many are open")]
    Full,
    /// The host's answer was not 2xx.
    #[error("the host refused to connect: it answered {0}")]
    Refused(StatusCode),
    /// The host took the stream back instead of answering.
    #[error("the host refused to connect: {0}")]
    Reset(#[source] io::Error),
    /// The host did not answer in time.
    #[error("the host did not answer in time")]
    TimedOut,
    /// The host knows no extended CONNECT (RFC 8441 §3).
    #[error("the host knows no extended CONNECT")]
    NotExtended,
    /// At the host: whoever asked for the channel has taken that back.
    #[error("the channel is not wanted any more: {0}")]
    Withdrawn(#[source] io::Error),
    /// What to connect to is not `host:port`, or a path is none.
    #[error("cannot connect to {0:?}: not a valid target")]
    BadTarget(String),
}

/// A trunk that has too many channels says so by [`io::ErrorKind::QuotaExceeded`], as
/// [`Dial::dial`](crate::Dial::dial) is to.
impl From<TrunkError> for io::Error {
    fn from(error: TrunkError) -> Self {
        let kind = match &error {
            TrunkError::Ended(_) => io::ErrorKind::NotConnected,
            TrunkError::Withdrawn(_) => io::ErrorKind::ConnectionReset,
            TrunkError::Full => io::ErrorKind::QuotaExceeded,
            TrunkError::Refused(_) | TrunkError::Reset(_) => io::ErrorKind::ConnectionRefused,
            TrunkError::TimedOut => io::ErrorKind::TimedOut,
            TrunkError::NotExtended => io::ErrorKind::Unsupported,
            TrunkError::BadTarget(_) => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

/// Why a trunk is no more.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// The other end closed it.
    #[error("the other end has closed the connection")]
    Closed,
    /// The other end did not answer a ping, or never said what it is.
    #[error("the other end was silent for too long")]
    Silent,
    /// The stream below it broke, or what came was not HTTP/2.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// [`Trunk::cut`](super::Trunk::cut) was called.
    #[error("the connection was cut")]
    Cut,
}

/// Why h2's connection is no more.
pub(super) fn broken(error: h2::Error) -> Ended {
    Ended::Broken(error.to_string())
}

/// Why h2 opened no stream.
pub(super) fn refused(error: h2::Error) -> TrunkError {
    match error.reason() {
        Some(Reason::REFUSED_STREAM) => TrunkError::Full,
        _ if error.is_reset() => TrunkError::Reset(super::channel::broken(error)),
        // GOAWAY: what is open may go on, but nothing is opened any more (RFC 9113 §6.8).
        Some(Reason::NO_ERROR) => Ended::Closed.into(),
        _ => broken(error).into(),
    }
}
