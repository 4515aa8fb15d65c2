//! What has come and was not read yet.

use std::collections::VecDeque;

use tokio::io::ReadBuf;

use super::frame::Progress;

/// One direction, as its reader sees it.
pub(super) struct Receiving {
    limit: usize,
    unread: VecDeque<u8>,
    /// Bytes that have come.
    came: u64,
    ended: bool,
    /// Nobody will read any more: what comes is received, and forgotten.
    unwanted: bool,
    /// What the other end was told last.
    told: Progress,
}

impl Receiving {
    pub(super) fn new(limit: usize) -> Self {
        let limit = limit.max(1);
        let told = Progress::default();
        Self { limit, unread: VecDeque::new(), came: 0, ended: false, unwanted: false, told }
    }

    /// How far it has got. The end counts as a byte.
    pub(super) fn progress(&self) -> Progress {
        let read = self.came - self.unread.len() as u64;
        Progress {
            received: self.came + u64::from(self.ended),
            granted: read.saturating_add(self.limit as u64),
        }
    }

    /// The same, for the other end to be told.
    pub(super) fn tell(&mut self) -> Progress {
        self.told = self.progress();
        self.told
    }

    /// Whether there is anything that the other end was not told.
    pub(super) fn is_untold(&self) -> bool {
        self.told.received != self.progress().received
    }

    /// Whether the other end should be told at once, for it might wait for it.
    pub(super) fn is_urgent(&self) -> bool {
        let now = self.progress();
        let part = (self.limit as u64 / 4).max(1);
        now.granted - self.told.granted >= part
            || now.received - self.told.received >= part
            || self.ended && self.told.received != now.received
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Bytes that the other end may still send, by what it was told.
    pub(super) fn expected(&self) -> u64 {
        self.told.granted.saturating_sub(self.came)
    }

    pub(super) fn receive(&mut self, bytes: &[u8]) {
        self.came += bytes.len() as u64;
        if !self.unwanted {
            self.unread.extend(bytes);
        }
    }

    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    pub(super) fn forget(&mut self) {
        self.unwanted = true;
        self.unread = VecDeque::new();
    }

    /// Hands out what has come; `false` where there is nothing.
    pub(super) fn read(&mut self, to: &mut ReadBuf<'_>) -> bool {
        if self.unread.is_empty() {
            return false;
        }
        let mut count = 0;
        let (front, back) = self.unread.as_slices();
        for slice in [front, back] {
            let part = slice.len().min(to.remaining());
            to.put_slice(&slice[..part]);
            count += part;
        }
        self.unread.drain(..count);
        true
    }
}
