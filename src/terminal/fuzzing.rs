//! What the fuzz target needs to see of the inside. Compiled for it alone (`cfg(fuzzing)`, which `cargo fuzz` sets).

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Attach, Began, ClientId, Event, Keep,
    state::{SeatId, State},
};
use crate::words::{Access, Size};

/// A terminal without a program.
pub struct Relay(State);

impl Relay {
    /// An empty one.
    pub fn new() -> Self {
        Self(State::new(Size::default(), Keep::UntilItEnds, String::new()))
    }

    /// The program writes.
    pub fn output(&mut self, bytes: &[u8]) {
        let mut bytes = Bytes::copy_from_slice(bytes);
        while !bytes.is_empty() {
            self.0.output(&mut bytes, Instant::now());
        }
    }

    /// Somebody comes.
    pub fn seat(
        &mut self,
        access: Access,
        client: Option<ClientId>,
        have: Option<u64>,
        size: Size,
    ) -> (u64, Began) {
        let attach = Attach { access, client, who: "somebody".to_owned(), have, size: Some(size) };
        self.0.seat(attach, Instant::now())
    }

    /// Somebody goes.
    pub fn leave(&mut self, seat: SeatId) {
        self.0.leave(seat, Instant::now());
    }

    /// What somebody hears next.
    pub fn next(&mut self, seat: SeatId) -> Option<Event> {
        self.0.next(seat, Instant::now())
    }

    /// What of it reaches the program.
    pub fn typed(&mut self, seat: SeatId, at: Option<u64>, bytes: &[u8]) -> Bytes {
        self.0.typed(seat, at, Bytes::copy_from_slice(bytes)).bytes
    }

    /// Somebody's window has another size.
    pub fn resize(&mut self, seat: SeatId, size: Size) {
        self.0.resize(seat, size);
    }

    /// Somebody looks at it.
    pub fn focus(&mut self, seat: SeatId) {
        self.0.take_lead(seat);
    }

    /// Somebody has seen it.
    pub fn shown(&mut self, seat: SeatId, at: u64) {
        self.0.shown(seat, at, Instant::now());
    }

    /// Its size.
    pub fn size(&self) -> Size {
        self.0.size()
    }

    /// Its title.
    pub fn title(&self) -> String {
        self.0.title()
    }
}

impl Default for Relay {
    fn default() -> Self {
        Self::new()
    }
}
