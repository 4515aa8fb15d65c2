//! What a program wrote last, in numbered bytes.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// How many bytes are kept: some thirty thousand lines.
pub(super) const KEPT: u64 = 2 * 1024 * 1024;
/// The longest line that is looked through for its end.
const LINE: usize = 64 * 1024;

/// The last bytes of a stream, each with its offset from the stream's beginning.
#[derive(Default)]
pub(super) struct History {
    chunks: VecDeque<Bytes>,
    start: u64,
    end: u64,
}

impl History {
    /// The offset of the first byte that is kept.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// The offset of the next byte that will come.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Takes more in, and lets go of the oldest.
    pub(super) fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        self.end += bytes.len() as u64;
        self.chunks.push_back(bytes);
        while self.end - self.start > KEPT
            && let Some(oldest) = self.chunks.front()
        {
            let len = oldest.len() as u64;
            if self.end - self.start - len < KEPT {
                break;
            }
            self.start += len;
            self.chunks.pop_front();
        }
    }

    /// At most `most` bytes from offset `at` on; none where there are none yet, or none any more.
    pub(super) fn read(&self, at: u64, most: usize) -> Bytes {
        let Some(mut skip) = at.checked_sub(self.start) else { return Bytes::new() };
        let mut found = BytesMut::new();
        for chunk in &self.chunks {
            let len = chunk.len() as u64;
            if skip >= len {
                skip -= len;
                continue;
            }
            #[allow(
                clippy::cast_possible_truncation,
                reason = "less than the chunk's length, which is a usize"
            )]
            let from = skip as usize;
            skip = 0;
            let to = chunk.len().min(from + (most - found.len()));
            if found.is_empty() && to - from == most {
                return chunk.slice(from..to);
            }
            found.extend_from_slice(&chunk[from..to]);
            if found.len() == most {
                break;
            }
        }
        found.freeze()
    }

    /// Where somebody begins to read who has seen nothing: at the first line that is whole.
    pub(super) fn beginning(&self) -> u64 {
        if self.start == 0 {
            return 0;
        }
        let first = self.read(self.start, LINE);
        let line = first.iter().position(|byte| *byte == b'\n').map_or(0, |at| at as u64 + 1);
        self.start + line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The byte that stands at an offset of the test's stream.
    fn byte(at: u64) -> u8 {
        if at.is_multiple_of(80) { b'\n' } else { u8::try_from(at % 251).unwrap() }
    }

    fn stream(from: u64, len: u64) -> Bytes {
        (from..from + len).map(byte).collect()
    }

    #[test]
    fn every_byte_that_is_kept_is_found_at_its_offset() {
        let mut history = History::default();
        for len in (1..3000).cycle().take(6000) {
            history.push(stream(history.end(), len));
        }
        assert!(history.start() > 0 && history.end() - history.start() >= KEPT);
        assert!(history.end() - history.start() < KEPT + 3000);
        let mut at = history.start();
        while at < history.end() {
            let read = history.read(at, 10_007);
            assert_eq!(read, stream(at, read.len() as u64));
            assert!(read.len() == 10_007 || at + read.len() as u64 == history.end());
            at += read.len() as u64;
        }
        assert!(history.read(history.start() - 1, 10).is_empty());
        assert!(history.read(history.end(), 10).is_empty());
    }

    #[test]
    fn who_has_seen_nothing_begins_with_a_whole_line() {
        let mut history = History::default();
        assert_eq!(history.beginning(), 0);
        while history.start() == 0 {
            history.push(stream(history.end(), 1000));
        }
        let beginning = history.beginning();
        assert!(beginning - history.start() <= 80);
        assert_eq!(byte(beginning - 1), b'\n');
    }
}
