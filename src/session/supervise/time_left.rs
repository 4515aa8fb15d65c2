//! Tells a session's owner, wherever she looks at a terminal, that its job's time is almost over.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    session::{JobRecord, job::span},
    terminal::Terminals,
};

/// When.
const WARNINGS: [Duration; 3] =
    [Duration::from_secs(30 * 60), Duration::from_secs(10 * 60), Duration::from_secs(2 * 60)];

/// How many of the warnings have been given.
#[derive(Default)]
pub(super) struct TimeLeft {
    warned: usize,
}

impl TimeLeft {
    /// Looks at the clock. To be called every few seconds.
    pub(super) fn look(&mut self, job: &JobRecord, terminals: &Terminals) {
        let Some(left) = job.time_left(Timestamp::now()) else { return };
        let due = WARNINGS.iter().filter(|warning| left <= **warning).count();
        if due > self.warned {
            let terminals = terminals.list();
            if terminals.is_empty() {
                // Whoever opens one is told then.
                return;
            }
            let text = format!("{} left of this job's time", span(left));
            for terminal in terminals {
                terminal.notify_owner(&text);
            }
        }
        // Less than before where it was given more time.
        self.warned = due;
    }
}
