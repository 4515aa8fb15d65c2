//! The judgement: how long a session has been idle, from looks at the evidence. Pure: it is told how much time has passed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Counters;

/// So much of one processor is computing, on the average between two looks. An idle JupyterLab was seen to need 0.3 to 0.8 %, an
/// idle code-server 2 to 4.3 %.
pub const CPU: f64 = 0.05;
/// Bytes both ways count beyond so many a minute. An open page of JupyterLab's moves 8 KiB, one of code-server's 14.
pub const MOVED: u64 = 64 * 1024;

/// What has to come together beyond that, so that a single heartbeat is none however often one looks.
const MOVED_AT_ONCE: u64 = 16 * 1024;
/// Seconds of one processor.
const CPU_AT_ONCE: f64 = 0.2;

/// What one looked at.
#[derive(Clone, Debug, PartialEq)]
pub enum Look {
    /// No app runs: it waits, or starts. Idleness begins when it runs.
    Absent,
    /// Its app may run, and cannot be looked at. Such time is neither idle nor used.
    Unknown,
    /// This.
    Read(Reading),
}

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// What was counted.
    pub counted: Counters,
    /// The time that its processes have had on processors; `None` where that cannot be read.
    pub cpu: Option<Duration>,
    /// Its GPUs.
    pub gpu: Gpu,
}

/// A session's GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gpu {
    /// It has none.
    None,
    /// It has some, and how busy they are cannot be read: no evidence of anything.
    Unreadable,
    /// The busiest is so many percent busy.
    Busy(u8),
}

/// What shows that it is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// Somebody types.
    Keys,
    /// Somebody asks for something.
    Acts,
    /// Somebody sends something.
    Sent,
    /// Much is on its way.
    Moved,
    /// It computes.
    Cpu,
    /// It computes on a GPU.
    Gpu,
}

/// The verdict of one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing runs.
    Absent,
    /// Nobody knows.
    Unknown,
    /// It is in use.
    Used(Evidence),
    /// It is not.
    Idle,
    /// It has not been for all the time that it may.
    Over,
}

/// Judges one session.
#[derive(Debug)]
pub struct Judge {
    after: Duration,
    interval: Duration,
    before: Option<Reading>,
    idle: Duration,
    cpu_share: Option<f64>,
    moved: Bucket,
    cpu: Bucket,
}

impl Judge {
    /// One that lets a session be idle for so long.
    #[allow(clippy::cast_precision_loss, reason = "kilobytes")]
    pub fn new(after: Duration) -> Self {
        Self {
            after,
            interval: (after / 10).min(Duration::from_secs(30)),
            before: None,
            idle: Duration::ZERO,
            cpu_share: None,
            moved: Bucket::new(MOVED as f64 / 60.0, MOVED_AT_ONCE as f64),
            cpu: Bucket::new(CPU, CPU_AT_ONCE),
        }
    }

    /// How long to wait between looks.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// How long it has been idle, as far as that is known.
    pub fn idle(&self) -> Duration {
        self.idle
    }

    /// How long it may still be.
    pub fn left(&self) -> Duration {
        self.after.saturating_sub(self.idle)
    }

    /// Of one processor, what its processes had between the last two looks: 1 is all of it.
    pub fn cpu_share(&self) -> Option<f64> {
        self.cpu_share
    }

    /// Takes a look, so long after the one before.
    pub fn look(&mut self, elapsed: Duration, look: &Look) -> Verdict {
        let reading = match look {
            Look::Absent => {
                *self = Self::new(self.after);
                return Verdict::Absent;
            }
            Look::Unknown => {
                self.cpu_share = None;
                return Verdict::Unknown;
            }
            Look::Read(reading) => *reading,
        };
        // Before the first look, nobody can have done anything; what its processes did then is not known.
        let nothing = Reading { counted: Counters::default(), cpu: None, gpu: Gpu::None };
        let before = self.before.replace(reading).unwrap_or(nothing);
        let cpu = reading.cpu.zip(before.cpu).and_then(|(now, before)| now.checked_sub(before));
        self.cpu_share = cpu.map(|cpu| cpu.as_secs_f64() / elapsed.as_secs_f64().max(0.001));
        if let Some(evidence) = self.evidence(elapsed, &before.counted, &reading, cpu) {
            self.idle = Duration::ZERO;
            return Verdict::Used(evidence);
        }
        if cpu.is_none() {
            return Verdict::Unknown;
        }
        // Of more, nobody has seen anything: who looks was stopped.
        self.idle += elapsed.min(self.interval * 2);
        if self.idle >= self.after { Verdict::Over } else { Verdict::Idle }
    }

    fn evidence(
        &mut self,
        elapsed: Duration,
        before: &Counters,
        reading: &Reading,
        cpu: Option<Duration>,
    ) -> Option<Evidence> {
        let Counters { keys, acts, sent, moved } = reading.counted;
        #[allow(clippy::cast_precision_loss, reason = "what is lost of petabytes")]
        let more = moved.saturating_sub(before.moved) as f64;
        // Each is filled, whichever of them shows it.
        let moved = self.moved.pour(elapsed, more);
        let computes = self.cpu.pour(elapsed, cpu.unwrap_or_default().as_secs_f64());
        let found = [
            (keys != before.keys, Evidence::Keys),
            (acts != before.acts, Evidence::Acts),
            (sent != before.sent, Evidence::Sent),
            (moved, Evidence::Moved),
            (computes, Evidence::Cpu),
            (matches!(reading.gpu, Gpu::Busy(1..)), Evidence::Gpu),
        ];
        found.into_iter().find_map(|(is, evidence)| is.then_some(evidence))
    }
}

/// Something that leaks: what comes slower than that never fills it.
#[derive(Debug)]
struct Bucket {
    /// A second.
    leaks: f64,
    holds: f64,
    level: f64,
}

impl Bucket {
    fn new(leaks: f64, holds: f64) -> Self {
        Self { leaks, holds, level: 0.0 }
    }

    /// Pours in what came in this time. Whether it is full; then it is emptied.
    fn pour(&mut self, elapsed: Duration, amount: f64) -> bool {
        self.level = (self.level + amount - self.leaks * elapsed.as_secs_f64()).max(0.0);
        let full = self.level >= self.holds;
        if full {
            self.level = 0.0;
        }
        full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const HALF_AN_HOUR: Duration = Duration::from_secs(1800);

    fn bytes(per_second: u64, step: Duration) -> u64 {
        per_second * step.as_secs() + per_second * u64::from(step.subsec_millis()) / 1000
    }

    fn silent() -> Reading {
        Reading { counted: Counters::default(), cpu: Some(Duration::ZERO), gpu: Gpu::None }
    }

    /// Looks at this as long as it is not over, each time after `change`; returns how long that took, at most a day.
    fn lasts(after: Duration, change: impl Fn(&mut Reading, Duration)) -> Option<Duration> {
        let mut judge = Judge::new(after);
        let (mut reading, mut time) = (silent(), Duration::ZERO);
        let step = judge.interval();
        while time < 86_400 * SECOND {
            if judge.look(step, &Look::Read(reading)) == Verdict::Over {
                return Some(time);
            }
            time += step;
            change(&mut reading, step);
        }
        None
    }

    #[test]
    fn what_does_nothing_is_over_in_time() {
        assert_eq!(lasts(HALF_AN_HOUR, |_, _| {}), Some(HALF_AN_HOUR));
        assert_eq!(lasts(5 * SECOND, |_, _| {}), Some(5 * SECOND));
    }

    #[test]
    fn each_evidence_keeps_a_session_for_ever() {
        type Change = fn(&mut Reading, Duration);
        let changes: [(&str, Change); 7] = [
            ("keys", |reading, _| reading.counted.keys += 1),
            ("acts", |reading, _| reading.counted.acts += 1),
            ("sent", |reading, _| reading.counted.sent += 1),
            ("moved", |reading, step| reading.counted.moved += bytes(10 * 1024, step)),
            ("cpu", |reading, step| reading.cpu = reading.cpu.map(|cpu| cpu + step.mul_f64(0.98))),
            ("a tenth of a processor", |reading, step| reading.cpu = reading.cpu.map(|cpu| cpu + step / 10)),
            ("gpu", |reading, _| reading.gpu = Gpu::Busy(1)),
        ];
        for (what, change) in changes {
            assert_eq!(lasts(HALF_AN_HOUR, change), None, "{what}");
            assert_eq!(lasts(6 * SECOND, change), None, "{what}");
        }
    }

    /// As it was measured: 0.3 to 0.8 % of a processor, with pings and events over WebSockets.
    #[test]
    fn an_open_page_that_nobody_looks_at_is_idle() {
        let tab = |reading: &mut Reading, step: Duration| {
            reading.cpu = reading.cpu.map(|cpu| cpu + step.mul_f64(0.008));
            reading.counted.moved += bytes(140, step);
            reading.gpu = Gpu::Busy(0);
        };
        assert_eq!(lasts(HALF_AN_HOUR, tab), Some(HALF_AN_HOUR));
        // However often one looks, a poll's few milliseconds are no computing.
        let step = std::cell::Cell::new(0);
        let polls = |reading: &mut Reading, _: Duration| {
            step.set(step.get() + 1);
            if step.get() % 4 == 0 {
                reading.cpu = reading.cpu.map(|cpu| cpu + Duration::from_millis(80));
            }
        };
        assert_eq!(lasts(5 * SECOND, polls), Some(5 * SECOND));
    }

    #[test]
    fn a_gpu_that_cannot_be_read_shows_nothing() {
        let unreadable = |reading: &mut Reading, _: Duration| reading.gpu = Gpu::Unreadable;
        assert_eq!(lasts(HALF_AN_HOUR, unreadable), Some(HALF_AN_HOUR));
    }

    #[test]
    fn time_in_which_nobody_could_look_is_not_idle() {
        let mut judge = Judge::new(HALF_AN_HOUR);
        judge.look(SECOND, &Look::Read(silent()));
        let verdict = judge.look(HALF_AN_HOUR, &Look::Read(silent()));
        assert_eq!((verdict, judge.idle()), (Verdict::Idle, 60 * SECOND));
        // Processors that count backwards are others than before.
        judge.look(SECOND, &Look::Read(Reading { cpu: Some(100 * SECOND), ..silent() }));
        assert_eq!(judge.look(SECOND, &Look::Read(silent())), Verdict::Unknown);
    }

    #[test]
    fn an_app_that_begins_anew_has_all_its_time() {
        let mut judge = Judge::new(5 * SECOND);
        for _ in 0..9 {
            judge.look(SECOND / 2, &Look::Read(silent()));
        }
        assert_eq!(judge.look(SECOND / 2, &Look::Absent), Verdict::Absent);
        assert_eq!(judge.look(SECOND / 2, &Look::Read(silent())), Verdict::Unknown);
        assert_eq!(judge.left(), 5 * SECOND);
    }

    #[test]
    fn what_is_done_before_the_first_look_counts() {
        let mut judge = Judge::new(5 * SECOND);
        judge.look(SECOND / 2, &Look::Absent);
        let counted = Counters { acts: 1, ..Counters::default() };
        let first = judge.look(SECOND / 2, &Look::Read(Reading { counted, ..silent() }));
        assert_eq!(first, Verdict::Used(Evidence::Acts));
    }

    /// Whatever comes in whatever order: no unknown time is idle, and none is over that was not known to be idle for so long.
    #[test]
    fn unknown_is_never_idle() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        for _ in 0..2000 {
            let mut judge = Judge::new(Duration::from_secs(5 + random(3600)));
            let after = judge.after;
            let (mut reading, mut known) = (silent(), Duration::ZERO);
            for _ in 0..100 {
                let elapsed = Duration::from_millis(random(120_000));
                let look = match random(8) {
                    0 => Look::Absent,
                    1 | 2 => Look::Unknown,
                    3 => Look::Read(Reading { cpu: None, ..reading }),
                    4 => {
                        reading.counted.keys += random(2);
                        reading.counted.moved += random(100_000);
                        reading.cpu = reading.cpu.map(|cpu| cpu + Duration::from_millis(random(9000)));
                        Look::Read(reading)
                    }
                    _ => Look::Read(reading),
                };
                let readable = matches!(&look, Look::Read(reading) if reading.cpu.is_some());
                let idle = judge.idle();
                match judge.look(elapsed, &look) {
                    Verdict::Absent | Verdict::Used(_) => known = Duration::ZERO,
                    Verdict::Unknown => assert_eq!(judge.idle(), idle, "{look:?}"),
                    verdict @ (Verdict::Idle | Verdict::Over) => {
                        assert!(readable, "{look:?}");
                        known += elapsed;
                        assert!(judge.idle() <= known);
                        assert_eq!(verdict == Verdict::Over, judge.idle() >= after);
                    }
                }
            }
        }
    }
}
