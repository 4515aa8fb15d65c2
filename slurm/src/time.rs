//! Times as Slurm writes them: how long a job may run, and points in time.
//!
//! Its programs are run with UTC as their time zone, so a point in time means what it says, also in the hour that summer
//! time repeats.

use std::{fmt, str::FromStr};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde::{Deserialize, Serialize};

/// How long a job may run. Slurm counts whole minutes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeLimit {
    /// So many minutes.
    Minutes(u32),
    /// For ever.
    Unlimited,
}

impl TimeLimit {
    /// In minutes, if there is a limit.
    pub fn minutes(self) -> Option<u32> {
        match self {
            Self::Minutes(minutes) => Some(minutes),
            Self::Unlimited => None,
        }
    }
}

/// The text is no time limit.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0:?} is not a time limit: minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes, \
     days-hours:minutes:seconds or UNLIMITED"
)]
pub struct TimeLimitError(String);

/// As `sbatch --time` takes it: `30`, `30:00`, `1:00:00`, `2-0`, `2-0:30`, `2-0:30:00`, `UNLIMITED`, `INFINITE`. Seconds
/// are rounded up to a minute, as Slurm does.
impl FromStr for TimeLimit {
    type Err = TimeLimitError;

    fn from_str(text: &str) -> Result<Self, TimeLimitError> {
        if ["unlimited", "infinite"].iter().any(|word| text.eq_ignore_ascii_case(word)) {
            return Ok(Self::Unlimited);
        }
        minutes(text).map(Self::Minutes).ok_or_else(|| TimeLimitError(text.to_owned()))
    }
}

fn minutes(text: &str) -> Option<u32> {
    let (days, rest) = match text.split_once('-') {
        Some((days, rest)) => (Some(number(days)?), rest),
        None => (None, text),
    };
    let parts = rest.split(':').map(number).collect::<Option<Vec<_>>>()?;
    let (hours, minutes, seconds) = match (days, parts.as_slice()) {
        (None, &[minutes]) => (0, minutes, 0),
        (None, &[minutes, seconds]) => (0, minutes, seconds),
        (Some(_), &[hours]) => (hours, 0, 0),
        (Some(_), &[hours, minutes]) => (hours, minutes, 0),
        (_, &[hours, minutes, seconds]) => (hours, minutes, seconds),
        _ => return None,
    };
    // Each is less than 2^32, so that nothing overflows.
    let minutes = (days.unwrap_or(0) * 24 + hours) * 60 + minutes + seconds.div_ceil(60);
    u32::try_from(minutes).ok()
}

fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse::<u32>().ok()).flatten().map(u64::from)
}

/// As Slurm's programs take and print it.
impl fmt::Display for TimeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Minutes(all) = *self else { return f.write_str("UNLIMITED") };
        let (days, hours, minutes) = (all / (24 * 60), all / 60 % 24, all % 60);
        if days > 0 {
            write!(f, "{days}-")?;
        }
        write!(f, "{hours:02}:{minutes:02}:00")
    }
}

/// What a field for a limit holds; nothing where it is not settled yet (`Partition_Limit`, `NOT_SET`).
pub(crate) fn limit(field: &str) -> Option<TimeLimit> {
    field.parse().ok()
}

/// What a field for a time holds; nothing where there is none (`N/A`, `NONE`, `Unknown`).
pub(crate) fn point(field: &str) -> Option<Timestamp> {
    let time = field.parse::<DateTime>().ok()?;
    // A date alone is none of Slurm's times.
    let time = field.contains('T').then_some(time)?;
    time.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_of_the_manuals_forms_are_read() {
        for (text, minutes) in [
            ("0", 0),
            ("30", 30),
            ("5:00", 5),
            ("5:01", 6),
            ("1:00:00", 60),
            ("01:30:00", 90),
            ("100:00:00", 6000),
            ("2-0", 2880),
            ("2-1:30", 2970),
            ("1-00:00:00", 1440),
            ("1-00:00:30", 1441),
        ] {
            assert_eq!(text.parse(), Ok(TimeLimit::Minutes(minutes)), "{text}");
        }
        assert_eq!("UNLIMITED".parse(), Ok(TimeLimit::Unlimited));
        assert_eq!("infinite".parse(), Ok(TimeLimit::Unlimited));
        for bad in ["", "-", "1-", "-1", "+1", "1:2:3:4", "1:", ":1", "1h", "Partition_Limit", "4294967295-0"]
        {
            assert!(bad.parse::<TimeLimit>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_limit_reads_what_it_prints() {
        for (minutes, text) in [(0, "00:00:00"), (61, "01:01:00"), (1440, "1-00:00:00"), (2970, "2-01:30:00")]
        {
            assert_eq!(TimeLimit::Minutes(minutes).to_string(), text);
        }
        assert_eq!(TimeLimit::Unlimited.to_string(), "UNLIMITED");
    }

    #[test]
    fn points_in_time_are_in_utc() {
        assert_eq!(point("2026-11-28T22:07:08").unwrap().to_string(), "2026-11-28T22:07:08Z");
        for none in ["", "N/A", "NONE", "Unknown", "(null)", "2026-11-28", "1795903628"] {
            assert_eq!(point(none), None, "{none:?}");
        }
    }

    proptest! {
        #[test]
        fn every_limit_comes_back(minutes in any::<u32>()) {
            let limit = TimeLimit::Minutes(minutes);
            prop_assert_eq!(limit.to_string().parse(), Ok(limit));
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>(), near in "[0-9:T-]{0,30}") {
            let _ = (limit(&text), point(&text), limit(&near), point(&near));
        }
    }
}
