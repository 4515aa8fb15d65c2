//! Entries as lines, one write each.

use std::{
    cell::RefCell,
    fmt::Write as _,
    io::Write,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{Access, AccessLog};

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
/// use nginx_free::{Admit, Proxy, log::{Format, Lines}};
///
/// fn logged<A: Admit>(proxy: Proxy<A>) -> Proxy<A> {
///     proxy.with_access_log(Lines::new(Format::Json, std::io::stdout()))
/// }
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

impl<W: Write + Send + 'static> AccessLog for Lines<W> {
    fn record(&self, access: &Access<'_>) {
        LINE.with_borrow_mut(|text| {
            text.clear();
            let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
            match self.format {
                Format::Text => {
                    out.clock.tell(text, access.ended);
                    push_fields(text, access, &TEXT);
                    text.push('\n');
                }
                Format::Json => {
                    text.push_str("{\"time\":\"");
                    out.clock.tell(text, access.ended);
                    text.push('"');
                    push_fields(text, access, &JSON);
                    text.push_str("}\n");
                }
            }
            // A log that can't be written must not end a request.
            let _ = out.writer.write_all(text.as_bytes());
        });
    }
}

/// What stands before each value, in the order of the values.
type Names = [&'static str; 11];

const TEXT: Names = [
    " request=",
    " app=\"",
    " peer=\"",
    " method=\"",
    " path=\"",
    " status=",
    " received=",
    " sent=",
    " micros=",
    " app_micros=",
    " end=\"",
];

const JSON: Names = [
    r#","request":"#,
    r#","app":""#,
    r#","peer":""#,
    r#","method":""#,
    r#","path":""#,
    r#","status":"#,
    r#","received":"#,
    r#","sent":"#,
    r#","micros":"#,
    r#","app_micros":"#,
    r#","end":""#,
];

fn push_fields(text: &mut String, access: &Access<'_>, names: &Names) {
    let [request, app, peer, method, path, status, received, sent, micros, app_micros, end] = *names;
    push_count(text, request, access.request);
    if let Some(name) = access.app {
        push_text(text, app, name);
    }
    push_text(text, peer, access.peer);
    push_text(text, method, access.method);
    push_text(text, path, access.path);
    push_count(text, status, access.status.as_u16().into());
    push_count(text, received, access.received);
    push_count(text, sent, access.sent);
    push_count(text, micros, access.micros());
    push_count(text, app_micros, access.app_micros());
    push_text(text, end, access.end());
}

fn push_count(text: &mut String, name: &str, value: u64) {
    text.push_str(name);
    push_number(text, value, 1);
}

fn push_text(text: &mut String, name: &str, value: &str) {
    text.push_str(name);
    let is_plain = |b: u8| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\';
    // Nearly all are: to look at all of it takes less than to look for the first that is not.
    if value.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
        text.push_str(value);
    } else {
        push_escaped(text, value);
    }
    text.push('"');
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

/// The time in UTC, to the microsecond. Once a second it is asked for, and its seconds are put into words.
#[derive(Default, Debug)]
struct Clock {
    /// When it was asked for, and what it was, in microseconds since 1970.
    read: Option<(Instant, i64)>,
    second: Option<i64>,
    words: String,
}

impl Clock {
    fn tell(&mut self, text: &mut String, at: Instant) {
        let micros = match self.read.map(|(read, then)| (at.saturating_duration_since(read), then)) {
            Some((since, then)) if since < Duration::from_secs(1) => then + i64::from(since.subsec_micros()),
            _ => {
                let now = Timestamp::now().as_microsecond();
                self.read = Some((at, now));
                now
            }
        };
        let second = micros.div_euclid(1_000_000);
        if self.second != Some(second) {
            self.second = Some(second);
            self.words = match Timestamp::from_second(second) {
                Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%S.").to_string(),
                // Past the year 9999, where it is not read any more either.
                Err(_) => String::new(),
            };
        }
        text.push_str(&self.words);
        push_number(text, micros.rem_euclid(1_000_000).unsigned_abs(), 6);
        text.push('Z');
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::StatusCode;

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
        let lines = Lines::new(format, kept.clone());
        let plain = Access {
            request: 0,
            app: None,
            peer: "127.0.0.1:4000",
            method: "GET",
            path: "/a b",
            status: StatusCode::OK,
            received: 3,
            sent: 1024,
            ended: Instant::now(),
            took: Duration::from_micros(345),
            app_took: Some(Duration::from_micros(120)),
            is_broken: false,
        };
        lines.record(&plain);
        let path = "\"\\\n\u{1b}]é\u{202e}😀";
        let app_took = None;
        lines.record(&Access {
            request: u64::MAX,
            app: Some("a\"b"),
            path,
            app_took,
            is_broken: true,
            ..plain
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        assert!(text.is_ascii() && text.ends_with('\n'), "{text}");
        text.lines().map(str::to_owned).collect()
    }

    /// What stands after the time, which is looked at here.
    fn after_time<'l>(line: &'l str, before: &str) -> &'l str {
        let line = line.strip_prefix(before).unwrap();
        let (time, rest) = line.split_at("2026-01-31T12:00:00.123456Z".len());
        assert!(time.parse::<Timestamp>().is_ok(), "{time}");
        rest
    }

    const ESCAPED: &str = r#""\"\\\u000a\u001b]\u00e9\u202e\ud83d\ude00""#;

    #[test]
    fn a_line_of_text() {
        let lines = lines(Format::Text);
        assert_eq!(lines.len(), 2, "{lines:?}");
        let plain = concat!(
            r#" request=0 peer="127.0.0.1:4000" method="GET" path="/a b" status=200 received=3 sent=1024"#,
            r#" micros=345 app_micros=120 end="done""#
        );
        assert_eq!(after_time(&lines[0], ""), plain);
        let odd = format!(
            r#" request=18446744073709551615 app="a\"b" peer="127.0.0.1:4000" method="GET" path={ESCAPED} status=200 received=3 sent=1024 micros=345 app_micros=0 end="broken""#
        );
        assert_eq!(after_time(&lines[1], ""), odd);
    }

    #[test]
    fn a_line_of_json() {
        let lines = lines(Format::Json);
        assert_eq!(lines.len(), 2, "{lines:?}");
        let plain = concat!(
            r#"","request":0,"peer":"127.0.0.1:4000","method":"GET","path":"/a b","status":200,"received":3,"#,
            r#""sent":1024,"micros":345,"app_micros":120,"end":"done"}"#
        );
        assert_eq!(after_time(&lines[0], r#"{"time":""#), plain);
        let odd = format!(
            r#"","request":18446744073709551615,"app":"a\"b","peer":"127.0.0.1:4000","method":"GET","path":{ESCAPED},"status":200,"received":3,"sent":1024,"micros":345,"app_micros":0,"end":"broken"}}"#
        );
        assert_eq!(after_time(&lines[1], r#"{"time":""#), odd);
    }

    #[test]
    fn the_clock_goes_on_between_two_readings() {
        let mut clock = Clock::default();
        let mut time = |at| {
            let mut text = String::new();
            clock.tell(&mut text, at);
            text.parse::<Timestamp>().unwrap().as_microsecond()
        };
        let begun = Instant::now();
        let first = time(begun);
        assert!((Timestamp::now().as_microsecond() - first).abs() < 1_000_000);
        for micros in [1, 999, 123_456, 700_000, 999_999] {
            let told = time(begun + Duration::from_micros(micros));
            assert_eq!(told - first, i64::try_from(micros).unwrap(), "through the end of a second, too");
        }
        assert_eq!(time(begun), first, "one that ended a little sooner");
        // It is read again, and here no second has passed.
        assert!(time(begun + Duration::from_secs(1)) - first < 1_000_000);
    }
}
