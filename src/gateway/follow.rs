//! The log as the starting page follows it: server-sent events, from the last 64 KiB of the file on, until the app
//! answers or ends.

use std::{
    convert::Infallible,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::{mpsc, watch};

use super::Phase;

/// How much of a log is shown that is there already.
const TAIL: u64 = 64 * 1024;
/// How much of it goes into one event.
const CHUNK: usize = 8 * 1024;
/// A comment is sent this often, so that nothing in between takes the stream for dead.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// A log and what makes it grow.
pub(crate) struct Follow {
    pub(crate) log: PathBuf,
    pub(crate) length: watch::Receiver<u64>,
    pub(crate) phase: watch::Receiver<Phase>,
    /// Where a browser that was cut off had got to.
    pub(crate) from: Option<u64>,
}

/// The events, as a body. What makes them ends when this is dropped.
pub(crate) struct Events(mpsc::Receiver<Bytes>);

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}

impl Follow {
    /// Begins to follow.
    pub(crate) fn begin(self) -> Events {
        let (events, body) = mpsc::channel(1);
        tokio::spawn(async move {
            tokio::select! {
                () = events.closed() => {}
                _ = self.run(&events) => {}
            }
        });
        Events(body)
    }

    async fn run(mut self, events: &mpsc::Sender<Bytes>) -> Option<()> {
        let length = *self.length.borrow();
        let mut at = self.from.filter(|from| *from <= length).unwrap_or(length.saturating_sub(TAIL));
        loop {
            let over = !matches!(*self.phase.borrow_and_update(), Phase::Waiting { .. } | Phase::Starting);
            let length = *self.length.borrow_and_update();
            while at < length {
                let log = self.log.clone();
                // Homes are on network file systems: a read may take its time.
                let read = tokio::task::spawn_blocking(move || read(&log, at, length)).await.ok()?;
                let Ok((text, end)) = read else { break };
                if end == at {
                    break;
                }
                at = end;
                let text = serde_json::to_string(&printable(&text)).ok()?;
                events.send(Bytes::from(format!("id: {at}\nevent: log\ndata: {text}\n\n"))).await.ok()?;
            }
            if over {
                return events.send(Bytes::from_static(b"event: over\ndata: 1\n\n")).await.ok();
            }
            tokio::select! {
                grown = self.length.changed() => grown.ok()?,
                changed = self.phase.changed() => changed.ok()?,
                () = tokio::time::sleep(HEARTBEAT) => events.send(Bytes::from_static(b":\n\n")).await.ok()?,
            }
        }
    }
}

/// The text from `at` up to `length` or a chunk's size, and where it ends: not within a character, unless there is no
/// more of it.
fn read(log: &std::path::Path, at: u64, length: u64) -> io::Result<(String, u64)> {
    let want = usize::try_from(length - at).unwrap_or(CHUNK).min(CHUNK);
    let mut bytes = vec![0; want];
    let count = File::open(log)?.read_at(&mut bytes, at)?;
    bytes.truncate(count);
    if let Err(error) = std::str::from_utf8(&bytes)
        && error.error_len().is_none()
        && error.valid_up_to() > 0
    {
        bytes.truncate(error.valid_up_to());
    }
    Ok((String::from_utf8_lossy(&bytes).into_owned(), at + bytes.len() as u64))
}

/// A log's text without escape sequences and other controls; carriage returns are line ends.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\u{1b}' => skip_escape(&mut rest),
            '\r' if rest.peek() == Some(&'\n') => {}
            '\r' => out.push('\n'),
            '\n' | '\t' => out.push(character),
            control if control.is_control() => {}
            other => out.push(other),
        }
    }
    out
}

/// Skips an escape sequence (ECMA-48): CSI up to its final byte, OSC up to its terminator, else one character.
fn skip_escape(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match rest.next() {
        Some('[') => drop(rest.find(|c| ('\u{40}'..='\u{7e}').contains(c))),
        Some(']') => {
            while let Some(character) = rest.next() {
                if character == '\u{7}' || (character == '\u{1b}' && rest.next_if_eq(&'\\').is_some()) {
                    return;
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[test]
    fn a_log_is_shown_as_text() {
        assert_eq!(
            printable("\u{1b}[31mred\u{1b}[0m \u{1b}]0;title\u{7}x\r\ny\rz\u{0}\u{9b}\tä"),
            "red x\ny\nz\tä"
        );
    }

    #[test]
    fn no_chunk_ends_within_a_character() {
        let file = std::env::temp_dir().join(format!("shlogin-follow-{}", std::process::id()));
        std::fs::write(&file, "aä").unwrap();
        assert_eq!(read(&file, 0, 2).unwrap(), ("a".to_owned(), 1));
        assert_eq!(read(&file, 1, 3).unwrap(), ("ä".to_owned(), 3));
        std::fs::remove_file(file).unwrap();
    }

    #[tokio::test]
    async fn follows_a_log_until_the_app_answers() {
        let log = std::env::temp_dir().join(format!("shlogin-follow-run-{}", std::process::id()));
        std::fs::write(&log, "one\n").unwrap();
        let ((grow, length), (phase, phases)) = (watch::channel(4), watch::channel(Phase::Starting));
        let mut events = Follow { log: log.clone(), length, phase: phases, from: None }.begin();
        let mut next = async || {
            let frame = events.frame().await?.unwrap();
            Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
        };
        assert_eq!(next().await.unwrap(), "id: 4\nevent: log\ndata: \"one\\n\"\n\n");
        std::fs::write(&log, "one\ntwo").unwrap();
        grow.send(7).unwrap();
        assert_eq!(next().await.unwrap(), "id: 7\nevent: log\ndata: \"two\"\n\n");
        phase.send(Phase::Running).unwrap();
        assert_eq!(next().await.unwrap(), "event: over\ndata: 1\n\n");
        assert_eq!(next().await, None);
        std::fs::remove_file(log).unwrap();
    }
}
