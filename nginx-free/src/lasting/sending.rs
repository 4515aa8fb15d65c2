//! What was written, from what the other end has not acknowledged on.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::{Broken, Misfit, frame::Progress};

/// Memory is taken in chunks of so many bytes, and one frame carries no more.
const CHUNK: usize = 64 * 1024;

/// What a piece costs besides its bytes. There are no more pieces than fit into the limit once more.
const PIECE: usize = 64;

/// One direction, as its writer sees it.
pub(super) struct Sending {
    limit: usize,
    /// In pieces, as they were sent for the first time.
    kept: VecDeque<Bytes>,
    /// Written after all that is in `kept`, and never sent. Its memory is the last piece's as well.
    tail: BytesMut,
    /// The number of the first byte of `kept`.
    first: u64,
    written: u64,
    ended: bool,
    acknowledged: u64,
    granted: u64,
    /// Up to where the connection at work has been given everything.
    sent: u64,
    /// The same as a place in `kept`: a piece, and bytes of it.
    next: (usize, usize),
    /// Up to where any connection has been.
    furthest: u64,
}

impl Sending {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            kept: VecDeque::new(),
            tail: BytesMut::new(),
            first: 0,
            written: 0,
            ended: false,
            acknowledged: 0,
            granted: 0,
            sent: 0,
            next: (0, 0),
            furthest: 0,
        }
    }

    /// Bytes that may be written now.
    pub(super) fn room(&self) -> usize {
        if self.kept.len() > self.limit / PIECE {
            return 0;
        }
        let kept = usize::try_from(self.written - self.first).unwrap_or(usize::MAX);
        self.limit.saturating_sub(kept)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether the other end has all, and the end of it.
    pub(super) fn has_arrived(&self) -> bool {
        self.ended && self.acknowledged > self.written
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) {
        self.written += bytes.len() as u64;
        while !bytes.is_empty() {
            let mut free = self.tail.capacity() - self.tail.len();
            if free == 0 {
                self.cut();
                self.tail = BytesMut::with_capacity(CHUNK);
                free = CHUNK;
            }
            let (now, later) = bytes.split_at(free.min(bytes.len()));
            self.tail.extend_from_slice(now);
            bytes = later;
        }
    }

    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// Keeps nothing, for nothing will be sent any more.
    pub(super) fn forget(&mut self) {
        (self.kept, self.tail) = (VecDeque::new(), BytesMut::new());
    }

    fn cut(&mut self) {
        if !self.tail.is_empty() {
            self.kept.push_back(self.tail.split().freeze());
        }
    }

    /// The next piece to send.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        let granted = usize::try_from(self.granted.saturating_sub(self.sent)).unwrap_or(usize::MAX);
        if granted == 0 {
            return None;
        }
        if self.next.0 == self.kept.len() {
            self.cut();
        }
        let (piece, at) = self.next;
        let piece = self.kept.get(piece)?;
        let taken = piece.slice(at..piece.len().min(at.saturating_add(granted)));
        self.next.1 += taken.len();
        if self.next.1 == piece.len() {
            self.next = (self.next.0 + 1, 0);
        }
        self.sent += taken.len() as u64;
        self.furthest = self.furthest.max(self.sent);
        Some(taken)
    }

    /// Whether the end is to be sent now. Asked once, for then it has been.
    pub(super) fn take_end(&mut self) -> bool {
        let now = self.ended && self.sent == self.written;
        if now {
            self.sent += 1;
            self.furthest = self.sent;
        }
        now
    }

    /// Starts over a new connection, where the other end has received so much.
    pub(super) fn resume(&mut self, from: Progress) -> Result<(), Misfit> {
        let (received, sent, acknowledged) = (from.received, self.furthest, self.acknowledged);
        if received > sent {
            return Err(Misfit::Unsent { received, sent });
        }
        if received < acknowledged {
            return Err(Misfit::Forgotten { received, acknowledged });
        }
        self.next = (self.kept.len(), 0);
        self.drop_to(received);
        self.next = (0, 0);
        self.sent = received;
        self.granted = from.granted;
        Ok(())
    }

    /// The other end has got further.
    pub(super) fn progress(&mut self, to: Progress) -> Result<(), Broken> {
        if to.received < self.acknowledged || to.granted < self.granted {
            return Err(Broken::Rules("it went back"));
        }
        if to.received > self.sent {
            return Err(Broken::Rules("it acknowledged what was not sent"));
        }
        self.granted = to.granted;
        self.drop_to(to.received);
        Ok(())
    }

    fn drop_to(&mut self, received: u64) {
        self.acknowledged = received;
        let upto = received.min(self.written);
        while let Some(piece) = self.kept.front_mut() {
            let over = usize::try_from(upto.saturating_sub(self.first)).unwrap_or(usize::MAX);
            if over == 0 {
                break;
            }
            if over < piece.len() {
                let gone = piece.split_to(over);
                self.first += gone.len() as u64;
                if self.next.0 == 0 {
                    self.next.1 -= over;
                }
                break;
            }
            self.first += piece.len() as u64;
            self.kept.pop_front();
            self.next.0 -= 1;
        }
    }
}
