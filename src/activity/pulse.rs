//! What somebody sends over a connection that stays open, told from what his page sends by itself.
//!
//! Keys that are typed into an app's own terminal are a few bytes each. An open page of code-server's sends 2 KiB of heartbeats
//! in half a minute, and one of JupyterLab's next to none. So each connection is measured by itself, at its quietest.

use super::Activity;

/// Between two looks, a connection that shows use sends more than so many times what it sent at its quietest,
const TIMES: u64 = 4;
/// and so many bytes more: some two dozen keys.
const MORE: u64 = 512;

/// Measures one connection.
#[derive(Debug, Default)]
pub struct Pulse {
    /// How many looks there had been when the bytes below began.
    looks: u64,
    bytes: u64,
    /// Nobody has looked since the connection began: the bytes are of less than a whole time between looks.
    partial: bool,
    /// The least between two looks.
    quiet: Option<u64>,
}

impl Pulse {
    /// Of a connection that begins now.
    pub fn new(activity: &Activity) -> Self {
        Self { looks: activity.looks(), partial: true, ..Self::default() }
    }

    /// So many bytes more were sent.
    pub fn sent(&mut self, activity: &Activity, bytes: usize) {
        if !activity.counts() {
            return;
        }
        let looks = activity.looks();
        if looks != self.looks {
            // Nothing at all was sent in a time between.
            let least = if looks > self.looks + 1 { 0 } else { self.bytes };
            if least == 0 || !std::mem::take(&mut self.partial) {
                self.quiet = Some(self.quiet.map_or(least, |quiet| quiet.min(least)));
            }
            (self.looks, self.bytes, self.partial) = (looks, 0, false);
        }
        self.bytes = self.bytes.saturating_add(bytes as u64);
        activity.moved(bytes);
        if self.bytes > self.quiet.unwrap_or(0).saturating_mul(TIMES).saturating_add(MORE) {
            activity.sent();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends this between looks, and returns in which of them it counted.
    fn counted(sent: &[usize]) -> Vec<bool> {
        let activity = Activity::counting();
        let mut pulse = Pulse::new(&activity);
        let mut before = activity.look().sent;
        let mut counts = |bytes: &usize| {
            if *bytes > 0 {
                pulse.sent(&activity, *bytes);
            }
            let now = activity.look().sent;
            std::mem::replace(&mut before, now) != now
        };
        sent.iter().map(&mut counts).collect()
    }

    #[test]
    fn heartbeats_do_not_count_and_keys_do() {
        // As it was measured: two connections of code-server's; the first is its beginning.
        assert_eq!(
            counted(&[40_000, 3700, 1980, 1990, 3745, 1985, 20_000, 1980]),
            [true, true, false, false, false, false, true, false]
        );
        // A terminal of JupyterLab's.
        assert_eq!(
            counted(&[100, 12, 6, 0, 700, 0, 0, 6]),
            [false, false, false, false, true, false, false, false]
        );
    }
}
