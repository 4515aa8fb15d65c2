//! Terminals in the browser: the WebSocket by which a page reaches one. Who may has been judged at the door; what he may do
//! is the relay's to enforce, and when it is over the visit's to say.

pub(crate) mod message;
mod socket;
mod way;

use jiff::Timestamp;
use tokio::sync::watch;

use super::Phase;
use crate::{share::Guests, terminal::Terminals};

pub(crate) use socket::Caller;
pub(crate) use way::Way;

/// What the page's other end needs.
#[derive(Clone)]
pub(crate) struct Desk {
    /// The session's terminals.
    pub(crate) terminals: Terminals,
    /// Who else is let in.
    pub(crate) guests: Guests,
    /// How far the app is: nothing runs in a room that is not made yet.
    pub(crate) phase: watch::Receiver<Phase>,
    /// When the session's time is over.
    pub(crate) ends: watch::Receiver<Option<Timestamp>>,
}
