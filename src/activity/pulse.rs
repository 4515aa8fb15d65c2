//! What somebody sends over a connection that stays open, told from what his page sends by itself.
//!
//! Keys that are typed into an app's own terminal are a few bytes each, and so are the moves of a slider. An open page of code-server's
//! sends some 20 heartbeats of 100 bytes in half a minute, and one of JupyterLab's next to nothing. So each connection is measured by itself,
//! at its quietest.

use super::Activity;

/// Between two looks, a connection that shows use sends more than so many times what it sent at its quietest,
const TIMES: u64 = 4;
/// and more than so many pieces, or so many bytes, beyond. JupyterLab asks its kernel now and then how it is: 300 bytes.
const PIECES: u64 = 3;
const BYTES: u64 = 512;

/// Measures one connection.
#[derive(Debug, Default)]
pub struct Pulse {
    /// How many looks there had been when what is below began.
    looks: u64,
    /// Since then.
    now: Sent,
    /// Nobody has looked since the connection began: that is less than a whole time between looks.
    partial: bool,
    /// The least between two looks.
    quiet: Option<Sent>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    pieces: u64,
    bytes: u64,
}

impl Pulse {
    /// Of a connection that begins now.
    pub fn new(activity: &Activity) -> Self {
        Self { looks: activity.looks(), partial: true, ..Self::default() }
    }

    /// So many bytes more were sent, in one piece.
    pub fn sent(&mut self, activity: &Activity, bytes: usize) {
        if !activity.counts() {
            return;
        }
        self.turn(activity.looks());
        self.now.pieces += 1;
        self.now.bytes = self.now.bytes.saturating_add(bytes as u64);
        activity.moved(bytes);
        let quiet = self.quiet.unwrap_or_default();
        let beyond = |now: u64, quiet: u64, more: u64| now > quiet.saturating_mul(TIMES).saturating_add(more);
        if beyond(self.now.pieces, quiet.pieces, PIECES) || beyond(self.now.bytes, quiet.bytes, BYTES) {
            activity.sent();
        }
    }

    /// Where somebody has looked, a new time begins.
    fn turn(&mut self, looks: u64) {
        if looks == self.looks {
            return;
        }
        // Nothing at all was sent in a time between.
        let silent = looks > self.looks + 1;
        let now = std::mem::take(&mut self.now);
        let least = if silent { Sent::default() } else { now };
        let partial = std::mem::take(&mut self.partial);
        if silent || !partial {
            let quiet = self.quiet.unwrap_or(least);
            self.quiet =
                Some(Sent { pieces: quiet.pieces.min(least.pieces), bytes: quiet.bytes.min(least.bytes) });
        }
        self.looks = looks;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends so many pieces of so many bytes between looks, and returns in which of them that counted.
    fn counted(sent: &[(usize, usize)]) -> Vec<bool> {
        let activity = Activity::counting();
        let mut pulse = Pulse::new(&activity);
        let mut before = activity.look().sent;
        let mut counts = |(pieces, bytes): &(usize, usize)| {
            (0..*pieces).for_each(|_| pulse.sent(&activity, *bytes));
            let now = activity.look().sent;
            std::mem::replace(&mut before, now) != now
        };
        sent.iter().map(&mut counts).collect()
    }

    #[test]
    fn heartbeats_do_not_count_and_keys_do() {
        // As it was measured: code-server's, in half a minute; the first is its beginning.
        assert_eq!(
            counted(&[(100, 400), (28, 130), (21, 95), (21, 95), (28, 130), (21, 95), (150, 300), (21, 95)]),
            [true, false, false, false, false, false, true, false]
        );
        // JupyterLab's: a kernel, a terminal in which somebody types five keys, or pastes a line.
        assert_eq!(
            counted(&[(1, 300), (2, 6), (0, 0), (1, 300), (5, 15), (0, 0), (1, 600), (1, 6)]),
            [false, false, false, false, true, false, true, false]
        );
    }
}
