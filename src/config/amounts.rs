//! The types of settings that are amounts: durations and sizes.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use super::values::{InvalidValue, through_text};

/// A duration as people write it: `90s`, `2m`, `1h 30m`, `30 days`; a bare number is seconds. At most ten years, so
/// that it can be added to any clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "TextOrNumber", into = "String")]
pub struct TimeSpan(Duration);

/// A number of bytes as people write it: `64 MiB`, `1GB`; a bare number is bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "TextOrNumber", into = "String")]
pub struct ByteSize(u64);

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text or a whole number")]
pub(super) enum TextOrNumber {
    Number(u64),
    Text(String),
}

impl TextOrNumber {
    pub(super) fn parse<T: FromStr>(self) -> Result<T, T::Err> {
        match self {
            Self::Number(number) => number.to_string().parse(),
            Self::Text(text) => text.parse(),
        }
    }
}

impl TimeSpan {
    const MAX: Duration = Duration::from_secs(10 * 366 * 86_400);
    const EXPECTED: &'static str = "a duration: write 90s, 2m, 12h or 30 days (at most ten years)";

    /// The duration as such.
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for TimeSpan {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let invalid = || InvalidValue::new(text, Self::EXPECTED);
        let mut millis: u64 = 0;
        for (number, unit) in numbers_with_units(text).ok_or_else(invalid)? {
            let unit = match unit.as_str() {
                "ms" => 1,
                "" | "s" | "sec" | "secs" | "second" | "seconds" => 1000,
                "m" | "min" | "mins" | "minute" | "minutes" => 60_000,
                "h" | "hour" | "hours" => 3_600_000,
                "d" | "day" | "days" => 86_400_000,
                "w" | "week" | "weeks" => 604_800_000,
                _ => return Err(invalid()),
            };
            millis = number.checked_mul(unit).and_then(|n| millis.checked_add(n)).ok_or_else(invalid)?;
        }
        let duration = Duration::from_millis(millis);
        if duration <= Self::MAX { Ok(Self(duration)) } else { Err(invalid()) }
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_millis();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, millis) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
            if rest >= millis {
                write!(f, "{}{unit}", rest / millis)?;
                rest %= millis;
            }
        }
        Ok(())
    }
}

impl ByteSize {
    const EXPECTED: &'static str = "a size: write 64 MiB, 1 GB or a number of bytes";

    /// The number of bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let invalid = || InvalidValue::new(text, Self::EXPECTED);
        let parts = numbers_with_units(text).ok_or_else(invalid)?;
        let [(number, unit)] = parts.as_slice() else { return Err(invalid()) };
        let unit: u64 = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kb" => 1000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            _ => return Err(invalid()),
        };
        number.checked_mul(unit).map(Self).ok_or_else(invalid)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 1_u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        match units.into_iter().find(|(_, size)| self.0 != 0 && self.0.is_multiple_of(*size)) {
            Some((unit, size)) => write!(f, "{} {unit}", self.0 / size),
            None => write!(f, "{} B", self.0),
        }
    }
}

/// `1h 30 m` as `[(1, "h"), (30, "m")]`. `None` where a part has no number; a part without a unit has to be the only one.
fn numbers_with_units(text: &str) -> Option<Vec<(u64, String)>> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        parts.push((number, rest[..letters].to_owned()));
        rest = rest[letters..].trim_start();
    }
    let has_all_units = parts.len() == 1 || parts.iter().all(|(_, unit)| !unit.is_empty());
    (!parts.is_empty() && has_all_units).then_some(parts)
}

through_text!(TextOrNumber, parse: TimeSpan, ByteSize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them_and_print_as_what_they_are() {
        for (text, seconds, printed) in [
            ("90s", 90, "1m30s"),
            ("2m", 120, "2m"),
            ("120", 120, "2m"),
            ("10 min", 600, "10m"),
            ("1h 30m", 5400, "1h30m"),
            ("30 days", 2_592_000, "30d"),
            ("0s", 0, "0s"),
        ] {
            let span: TimeSpan = text.parse().unwrap();
            assert_eq!(span.duration().as_secs(), seconds, "{text}");
            assert_eq!(span.to_string(), printed, "{text}");
            assert_eq!(span.to_string().parse::<TimeSpan>().unwrap(), span);
        }
        assert_eq!("250ms".parse::<TimeSpan>().unwrap().duration(), Duration::from_millis(250));
        for text in
            ["", "s", "-1s", "1.5s", "1 fortnight", "1h 30", "99999999999999999999s", "11 years", "5000 days"]
        {
            assert!(text.parse::<TimeSpan>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes, printed) in [
            ("64 MiB", 64 << 20, "64 MiB"),
            ("1GB", 1_000_000_000, "1000000000 B"),
            ("4096", 4096, "4 KiB"),
            ("0", 0, "0 B"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, printed), "{text}");
        }
        for text in ["", "MiB", "1 MiB 2 KiB", "99999999999 TiB", "-1"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text:?}");
        }
    }
}
