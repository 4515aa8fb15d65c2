//! Asks the site's accounting, by sacct, how a job ended that the controller has forgotten.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Slurm,
    id::JobId,
    job::{Exit, exit},
    query::{QueryError, misshapen},
    state::State,
    time::point,
};

/// A job's last run, as the accounting has it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Past {
    /// The job.
    pub id: JobId,
    /// How far it was when the accounting last heard of it: that may be `Running` for a while after its end.
    pub state: State,
    /// How its script ended.
    pub exit: Option<Exit>,
    /// When it started.
    pub start: Option<Timestamp>,
    /// When it ended.
    pub end: Option<Timestamp>,
}

impl Slurm {
    /// What the accounting knows of a job; nothing where there is none, or it does not know it.
    ///
    /// # Errors
    /// Where there is one, and it did not tell.
    pub fn past(&self, id: JobId) -> Result<Option<Past>, QueryError> {
        let Some(sacct) = &self.sacct else { return Ok(None) };
        let jobs = format!("--jobs={id}");
        let fields = "--format=JobIDRaw,State,ExitCode,Start,End";
        match self.text(sacct, &["--noheader", "--parsable2", "--allocations", &jobs, fields]) {
            Ok(text) => past(id, &text).map_err(|()| misshapen(sacct, &text)),
            Err(QueryError::Failed { words, .. }) if words.contains("accounting storage is disabled") => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

fn past(id: JobId, text: &str) -> Result<Option<Past>, ()> {
    let mut last = None;
    for line in text.lines() {
        let fields = line.split('|').collect::<Vec<_>>();
        let &[number, state, code, start, end] = fields.as_slice() else { return Err(()) };
        // An array's number names its tasks as well.
        if number.parse() == Ok(id) {
            let state = state.parse::<State>().map_err(|never| match never {})?;
            last = Some(Past { id, state, exit: exit(code), start: point(start), end: point(end) });
        }
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_of_its_runs_counts() {
        let id = JobId::new(7).unwrap();
        let text = "7|NODE_FAIL|0:0|2026-11-28T22:00:00|2026-11-28T22:01:00\n\
                    8|COMPLETED|0:0|2026-11-28T22:00:00|2026-11-28T22:01:00\n\
                    7|CANCELLED by 2001|0:15|2026-11-28T22:07:08|Unknown\n";
        let past = past(id, text).unwrap().unwrap();
        assert_eq!((past.state, past.exit), (State::Cancelled, Some(Exit { code: 0, signal: 15 })));
        assert_eq!((past.start.is_some(), past.end), (true, None));
        assert_eq!(super::past(id, ""), Ok(None));
        assert!(super::past(id, "sacct says\n").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>(), near in "[7|:A-Z0-9\n]{0,60}") {
            let id = JobId::new(7).unwrap();
            let _ = (past(id, &text), past(id, &near));
        }
    }
}
