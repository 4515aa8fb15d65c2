//! One attempt and its outcome.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One attempt and its outcome.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// What was attacked: `port 8888 on 127.0.0.1`.
    pub what: String,
    /// How: `TCP connect`.
    pub tried: String,
    /// Whether it got through.
    pub got_through: bool,
    /// Whether it could not be made at all: then it says nothing of the session.
    #[serde(default)]
    pub untried: bool,
    /// What happened, in a sentence.
    pub result: String,
    /// When.
    pub at: Timestamp,
}

impl Finding {
    pub(super) fn new(what: impl Into<String>, tried: impl Into<String>, outcome: Outcome) -> Self {
        let (got_through, untried, result) = match outcome {
            Outcome::Held(result) => (false, false, result),
            Outcome::Through(result) => (true, false, result),
            Outcome::Untried(result) => (false, true, result),
        };
        Self { what: what.into(), tried: tried.into(), got_through, untried, result, at: Timestamp::now() }
    }

    /// `held     port 8888 on 127.0.0.1: TCP connect → connection refused`, with nothing in it that a terminal would
    /// obey: names of processes and sockets are the app's choice.
    pub fn line(&self) -> String {
        let mark = match (self.got_through, self.untried) {
            (true, _) => "THROUGH ",
            (_, true) => "untried ",
            _ => "held    ",
        };
        let line = format!("{mark} {}: {} → {}", self.what, self.tried, self.result);
        line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
    }
}

/// What came of an attempt, and its sentence.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub(super) enum Outcome {
    Held(String),
    Through(String),
    /// It could not be made, and why.
    Untried(String),
}

impl Outcome {
    /// Through where anything is in `opened`.
    pub(super) fn of_opened(opened: &[String], held: impl Into<String>) -> Self {
        if opened.is_empty() { Self::Held(held.into()) } else { Self::Through(opened.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_first_whether_it_held_and_obeys_no_name() {
        let held = Finding::new("process 7 (a\u{1b}[2J\nb)", "open", Outcome::Held("refused".to_owned()));
        assert_eq!(held.line(), "held     process 7 (a\u{fffd}[2J\u{fffd}b): open → refused");
        let opened = ["environ opened".to_owned(), "mem opened".to_owned()];
        let through = Finding::new("process 7", "open", Outcome::of_opened(&opened, "refused"));
        assert!(through.got_through);
        assert_eq!(through.line(), "THROUGH  process 7: open → environ opened, mem opened");
        let untried = Finding::new("c1", "srun", Outcome::Untried("it waits".to_owned()));
        assert!(untried.untried && !untried.got_through);
        assert_eq!(untried.line(), "untried  c1: srun → it waits");
    }
}
