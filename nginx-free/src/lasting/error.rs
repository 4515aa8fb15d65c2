//! Why a connection does not carry a stream any more.

use std::io;

/// Why a connection does not carry the stream any more. The stream itself stands still, until the next connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// It ended or failed.
    #[error("the connection broke: {0}")]
    Connection(#[from] io::Error),
    /// Nothing was heard over it for too long.
    #[error("nothing was heard for too long")]
    Silent,
    /// What is at its other end speaks something else, or another version.
    #[error("the other end carries no stream, or in another way")]
    Foreign,
    /// What is at its other end cannot go on with this stream, over whatever connection.
    #[error("the stream cannot be resumed: {0}")]
    Unresumable(#[from] Misfit),
    /// The other end broke the rules.
    #[error("the other end broke the rules: {0}")]
    Rules(&'static str),
}

impl Broken {
    /// Whether no other connection to the same end is any better.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Foreign | Self::Unresumable(_))
    }
}

/// [`Broken::Silent`] is an [`io::ErrorKind::TimedOut`], all but [`Broken::Connection`] else [`io::ErrorKind::InvalidData`].
impl From<Broken> for io::Error {
    fn from(broken: Broken) -> Self {
        let kind = match &broken {
            Broken::Connection(error) => error.kind(),
            Broken::Silent => io::ErrorKind::TimedOut,
            Broken::Foreign | Broken::Unresumable(_) | Broken::Rules(_) => io::ErrorKind::InvalidData,
        };
        Self::new(kind, broken)
    }
}

/// Why two ends do not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Misfit {
    /// It is not the end that was there before, or takes this one for another.
    #[error("this is the end of another stream")]
    Stranger,
    /// It says that it has received more than was sent.
    #[error("the other end has received {received} bytes, but only {sent} were sent")]
    Unsent {
        /// What it says.
        received: u64,
        /// What was sent at most.
        sent: u64,
    },
    /// It has not received what it acknowledged once, and what is not kept any more.
    #[error("the other end has received {received} bytes, and had acknowledged {acknowledged}")]
    Forgotten {
        /// What it says.
        received: u64,
        /// What it said before.
        acknowledged: u64,
    },
}
