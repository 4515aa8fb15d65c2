//! Access events as lines, one write each. Other events pass by, for other layers.

use std::{
    cell::RefCell,
    fmt::{self, Write as _},
    io::Write,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use super::TARGET;

/// How a line is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// `2026-01-31T12:00:00.123456Z request=7 peer="127.0.0.1:4000" method="GET" path="/" …`
    Text,
    /// `{"time":"2026-01-31T12:00:00.123456Z","request":7,"peer":"127.0.0.1:4000",…}`
    Json,
}

/// Writes the access log as lines, each in one piece. In both formats a line is ASCII: whatever else a client sent is
/// escaped. What can't be written is lost.
///
/// ```
/// use nginx_free::log::{Format, Lines};
/// use tracing_subscriber::{filter::{LevelFilter, filter_fn}, prelude::*};
///
/// let other = tracing_subscriber::fmt::layer()
///     .with_filter(filter_fn(|event| event.target() != nginx_free::log::TARGET));
/// // Without a level, everything in the program is made ready for a log that drops it.
/// let subscriber = tracing_subscriber::registry()
///     .with(LevelFilter::INFO)
///     .with(Lines::new(Format::Json, std::io::stdout()))
///     .with(other);
/// # drop(subscriber);
/// ```
#[derive(Debug)]
pub struct Lines<W> {
    format: Format,
    out: Mutex<Out<W>>,
}

#[derive(Debug)]
struct Out<W> {
    writer: W,
    clock: Clock,
}

impl<W: Write + Send + 'static> Lines<W> {
    /// Writes to `writer`, which is best a buffered one.
    pub fn new(format: Format, writer: W) -> Self {
        Self { format, out: Mutex::new(Out { writer, clock: Clock::default() }) }
    }
}

thread_local! {
    static LINE: RefCell<String> = RefCell::new(String::with_capacity(512));
}

impl<S: Subscriber, W: Write + Send + 'static> Layer<S> for Lines<W> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() != TARGET {
            return;
        }
        LINE.with_borrow_mut(|text| {
            text.clear();
            let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
            match self.format {
                Format::Text => out.clock.tell(text),
                Format::Json => {
                    text.push_str("{\"time\":\"");
                    out.clock.tell(text);
                    text.push('"');
                }
            }
            event.record(&mut Line { text, format: self.format });
            text.push_str(match self.format {
                Format::Text => "\n",
                Format::Json => "}\n",
            });
            // A log that can't be written must not end a request.
            let _ = out.writer.write_all(text.as_bytes());
        });
    }
}

struct Line<'l> {
    text: &'l mut String,
    format: Format,
}

impl Line<'_> {
    fn name(&mut self, field: &Field) {
        match self.format {
            Format::Text => {
                self.text.push(' ');
                self.text.push_str(field.name());
                self.text.push('=');
            }
            Format::Json => {
                self.text.push_str(",\"");
                self.text.push_str(field.name());
                self.text.push_str("\":");
            }
        }
    }
}

impl Visit for Line<'_> {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.name(field);
        push_number(self.text, value, 1);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.name(field);
        self.text.push('"');
        let is_plain = |b: u8| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\';
        // Nearly all are: to look at all of it takes less than to look for the first that is not.
        if value.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
            self.text.push_str(value);
        } else {
            push_escaped(self.text, value);
        }
        self.text.push('"');
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// JSON's escapes (RFC 8259 §7), which a person reads as well.
fn push_escaped(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            ' '..='~' => text.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a String can't fail.
                    let _ = write!(text, "\\u{unit:04x}");
                }
            }
        }
    }
}

/// A number with at least so many digits.
fn push_number(text: &mut String, value: u64, least: usize) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(value);
    for _ in digits.len()..least {
        text.push('0');
    }
    text.push_str(digits);
}

/// The time in UTC, to the microsecond; the seconds are put into words only once each.
#[derive(Default, Debug)]
struct Clock {
    second: Option<i64>,
    words: String,
}

impl Clock {
    fn tell(&mut self, text: &mut String) {
        let now = Timestamp::now();
        let second = now.as_second();
        if self.second != Some(second) {
            self.second = Some(second);
            self.words = now.strftime("%Y-%m-%dT%H:%M:%S.").to_string();
        }
        text.push_str(&self.words);
        push_number(text, u64::try_from(now.subsec_microsecond()).unwrap_or(0), 6);
        text.push('Z');
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracing_subscriber::prelude::*;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines(format: Format) -> Vec<String> {
        let kept = Kept::default();
        let subscriber = tracing_subscriber::registry().with(Lines::new(format, kept.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: TARGET, request = 0_u64, app = None::<&str>, path = "/a b", peer = %"p");
            tracing::info!(target: TARGET, request = u64::MAX, path = "\"\\\n\u{1b}]é\u{202e}😀");
            tracing::info!(request = 1_u64, "of something else");
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        assert!(text.is_ascii() && text.ends_with('\n'), "{text}");
        text.lines().map(str::to_owned).collect()
    }

    const ESCAPED: &str = r#""\"\\\u000a\u001b]\u00e9\u202e\ud83d\ude00""#;

    #[test]
    fn a_line_of_text() {
        let lines = lines(Format::Text);
        assert_eq!(lines.len(), 2, "{lines:?}");
        let (time, rest) = lines[0].split_once(' ').unwrap();
        assert!(
            time.parse::<Timestamp>().is_ok() && time.len() == "2026-01-31T12:00:00.123456Z".len(),
            "{time}"
        );
        assert_eq!(rest, r#"request=0 path="/a b" peer="p""#);
        assert!(lines[1].ends_with(&format!("request=18446744073709551615 path={ESCAPED}")), "{}", lines[1]);
    }

    #[test]
    fn a_line_of_json() {
        let lines = lines(Format::Json);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with(r#"{"time":"2"#), "{}", lines[0]);
        assert!(lines[0].ends_with(r#"Z","request":0,"path":"/a b","peer":"p"}"#), "{}", lines[0]);
        assert!(
            lines[1].ends_with(&format!(r#""request":18446744073709551615,"path":{ESCAPED}}}"#)),
            "{}",
            lines[1]
        );
    }
}
