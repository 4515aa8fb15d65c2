//! How long a session may be idle.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    amounts::{TextOrNumber, TimeSpan},
    values::{InvalidValue, through_text},
};

/// How long nobody may use a session and it may compute nothing, before it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "TextOrNumber", into = "String")]
pub enum IdleTimeout {
    /// Written as `off`: for as long as it likes.
    Off,
    /// So long.
    After(TimeSpan),
}

impl IdleTimeout {
    /// Within less, nobody has read a page, and processors are not measured well.
    const SHORTEST: Duration = Duration::from_secs(5);
    const EXPECTED: &'static str = "off, or a duration of at least 5 seconds: write 30m or 2h";

    /// The time, where there is one.
    pub fn after(self) -> Option<Duration> {
        match self {
            Self::Off => None,
            Self::After(span) => Some(span.duration()),
        }
    }
}

impl FromStr for IdleTimeout {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let span = text.parse::<TimeSpan>().ok().filter(|span| span.duration() >= Self::SHORTEST);
        span.map(Self::After).ok_or_else(|| InvalidValue::new(text, Self::EXPECTED))
    }
}

impl fmt::Display for IdleTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::After(span) => span.fmt(f),
        }
    }
}

through_text!(TextOrNumber, parse: IdleTimeout);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_off_or_long_enough_to_be_meant() {
        for (text, printed, seconds) in [
            ("off", "off", None),
            ("30m", "30m", Some(1800)),
            ("5s", "5s", Some(5)),
            ("90", "1m30s", Some(90)),
        ] {
            let read: IdleTimeout = text.parse().unwrap();
            assert_eq!((read.to_string().as_str(), read.after().map(|d| d.as_secs())), (printed, seconds));
            assert_eq!(read.to_string().parse::<IdleTimeout>().unwrap(), read);
        }
        for text in ["", "0", "4s", "never", "4999ms", "-1", "11 years"] {
            assert!(text.parse::<IdleTimeout>().is_err(), "{text:?}");
        }
    }
}
