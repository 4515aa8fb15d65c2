//! What a session's supervisor says of its idleness, and how that reads.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::job::{local, span};
use crate::activity::{Evidence, Gpu, judge};

/// How a session was judged at the last look. Part of what `show --json` prints.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct IdleReport {
    /// The verdict.
    pub state: IdleState,
    /// What showed that it is in use, in words; or why nobody knows.
    pub why: Option<String>,
    /// How many seconds it has been idle, as far as that is known.
    pub idle: u64,
    /// How many it may be.
    pub after: u64,
    /// When it ends, unless somebody uses it.
    pub ends_at: Option<Timestamp>,
    /// What it was used for last, and when that was seen.
    pub last: Option<LastUse>,
    /// Of one processor, in percent, what its processes had between the last two looks.
    pub cpu: Option<f64>,
    /// Its GPUs.
    pub gpu: Gpu,
}

/// Whether it is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdleState {
    /// It is.
    Used,
    /// It is not.
    Idle,
    /// Nobody knows at the moment: the time does not run.
    Unknown,
    /// No app runs: the time has not begun.
    Absent,
}

/// A use of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LastUse {
    /// Its kind.
    pub evidence: Evidence,
    /// In words.
    pub what: String,
    /// When it was seen: at most the time between two looks later than it was.
    pub at: Timestamp,
}

/// What a use is called. `act` is the last request or command.
pub(super) fn words(evidence: Evidence, act: String, cpu: Option<f64>, gpu: Gpu) -> String {
    match evidence {
        Evidence::Keys => "somebody typed".to_owned(),
        Evidence::Acts => act,
        Evidence::Sent => "somebody sent something over an open connection".to_owned(),
        Evidence::Moved => "a transfer".to_owned(),
        Evidence::Cpu => match cpu {
            Some(cpu) => format!("computing (cpu {})", percent(cpu)),
            None => "computing".to_owned(),
        },
        Evidence::Gpu => match gpu {
            Gpu::Busy(percent) => format!("computing (gpu {percent} %)"),
            _ => "computing (gpu)".to_owned(),
        },
    }
}

fn percent(cpu: f64) -> String {
    if cpu < 10.0 { format!("{cpu:.1} %") } else { format!("{cpu:.0} %") }
}

/// A time span that may be short.
pub fn exact(time: Duration) -> String {
    match time.as_secs() {
        secs @ 0..600 if secs % 60 != 0 => format!("{secs} s"),
        _ => span(time),
    }
}

impl IdleReport {
    /// The lines of `show`: what each is called, and what it says.
    pub fn lines(&self, now: Timestamp) -> Vec<(&'static str, String)> {
        let seconds = |n| exact(Duration::from_secs(n));
        let (idle, after) = (seconds(self.idle), seconds(self.after));
        let why = self.why.as_deref().unwrap_or("nobody can tell");
        let verdict = match (self.state, self.ends_at) {
            (IdleState::Used, _) => format!("no: {why}; ends after {after} without use"),
            (IdleState::Idle, Some(at)) => {
                format!("for {idle}; ends after {after}, at {} unless used", local(at))
            }
            (IdleState::Idle, None) => format!("for {idle}; ends now"),
            (IdleState::Unknown, _) => format!("not known: {why}; at {idle} of {after}"),
            (IdleState::Absent, _) => format!("not yet: no app answers; ends after {after} without use"),
        };
        let mut lines = vec![("idle", verdict)];
        if let Some(last) = &self.last {
            let ago = Duration::try_from(now.duration_since(last.at)).unwrap_or_default();
            lines.push(("last used", format!("{} ago: {}", exact(ago), last.what)));
        }
        if let Some(cpu) = self.cpu {
            let counts = judge::CPU * 100.0;
            lines.push(("cpu", format!("{} of a core (counts from {counts:.0} %)", percent(cpu))));
        }
        match self.gpu {
            Gpu::None => {}
            Gpu::Busy(percent) => lines.push(("gpu", format!("{percent} % (counts from 1 %)"))),
            Gpu::Unreadable => lines.push(("gpu", "not readable: its use does not count".to_owned())),
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> IdleReport {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        IdleReport {
            state: IdleState::Idle,
            why: None,
            idle: 720,
            after: 1800,
            ends_at: Some(now + jiff::SignedDuration::from_mins(18)),
            last: Some(LastUse {
                evidence: Evidence::Acts,
                what: "a request (GET /lab)".to_owned(),
                at: now - jiff::SignedDuration::from_mins(12),
            }),
            cpu: Some(0.42),
            gpu: Gpu::Unreadable,
        }
    }

    fn said(report: &IdleReport) -> String {
        let lines = report.lines("2026-01-01T12:00:00Z".parse().unwrap());
        lines.into_iter().map(|(key, value)| format!("{key}: {value}\n")).collect()
    }

    #[test]
    fn each_verdict_is_explained() {
        let idle = said(&report());
        assert!(idle.starts_with("idle: for 12 min; ends after 30 min, at "), "{idle}");
        for line in [
            "last used: 12 min ago: a request (GET /lab)\n",
            "cpu: 0.4 % of a core (counts from 5 %)\n",
            "gpu: not readable: its use does not count\n",
        ] {
            assert!(idle.contains(line), "{idle}");
        }
        let why = words(Evidence::Cpu, String::new(), Some(98.3), Gpu::None);
        let used = IdleReport { state: IdleState::Used, why: Some(why), gpu: Gpu::None, ..report() };
        let used = said(&used);
        assert!(
            used.starts_with("idle: no: computing (cpu 98 %); ends after 30 min without use\n"),
            "{used}"
        );
        assert!(!used.contains("gpu"));
        let unknown = said(&IdleReport {
            state: IdleState::Unknown,
            why: Some("the link is down".to_owned()),
            ..report()
        });
        assert!(unknown.starts_with("idle: not known: the link is down; at 12 min of 30 min\n"), "{unknown}");
    }

    #[test]
    fn programs_read_what_they_wrote() {
        let text = serde_json::to_string(&report()).unwrap();
        assert_eq!(serde_json::from_str::<IdleReport>(&text).unwrap(), report());
        assert!(text.contains(r#""state":"idle""#) && text.contains(r#""evidence":"acts""#), "{text}");
    }
}
