//! Recordings of a terminal, as asciicast v2: a header, then a line of JSON for each event. Before the first input of each
//! person, and whenever it is another's turn, a marker says who types.
//!
//! A thread of its own writes the file, so that a hung home folder holds nobody up. A disk that does not keep up ends the
//! recording, visibly: its last line says so.

use std::{
    fs::OpenOptions,
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Instant,
};

use jiff::Timestamp;
use serde_json::json;

use crate::words::Size;

/// Events that wait to be written.
const WAITING: usize = 1024;

/// Why nothing is recorded.
#[derive(Debug, thiserror::Error)]
#[error("cannot record to {path}: {source}")]
pub struct RecordingError {
    path: PathBuf,
    source: io::Error,
}

/// A recording under way; ends when dropped.
pub struct Recording {
    lines: Option<mpsc::SyncSender<String>>,
    began: Instant,
    /// What came of a character whose rest has not come yet.
    partial: Vec<u8>,
    /// Who typed last.
    typist: Option<String>,
}

impl Recording {
    /// Begins one in a new file that only its owner can read.
    ///
    /// # Errors
    /// As `open(2)`; also where the file exists.
    pub fn begin(path: &Path, size: Size, title: &str) -> Result<Self, RecordingError> {
        let failed = |source| RecordingError { path: path.to_owned(), source };
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        let (lines, waiting) = mpsc::sync_channel::<String>(WAITING);
        let header = json!({
            "version": 2, "width": size.cols(), "height": size.rows(),
            "timestamp": Timestamp::now().as_second(), "title": title,
        });
        let mut out = BufWriter::new(file);
        writeln!(out, "{header}").map_err(failed)?;
        thread::Builder::new()
            .name("recording".to_owned())
            .spawn(move || {
                while let Ok(line) = waiting.recv() {
                    // What cannot be written is the recording's end, and nobody else's.
                    if writeln!(out, "{line}").is_err() {
                        return;
                    }
                    for line in waiting.try_iter() {
                        if writeln!(out, "{line}").is_err() {
                            return;
                        }
                    }
                    if out.flush().is_err() {
                        return;
                    }
                }
            })
            .map_err(failed)?;
        Ok(Self { lines: Some(lines), began: Instant::now(), partial: Vec::new(), typist: None })
    }

    /// The program has written.
    pub(super) fn output(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        let whole = whole_characters(&self.partial);
        let rest = self.partial.split_off(whole);
        let text = String::from_utf8_lossy(&self.partial).into_owned();
        self.partial = rest;
        if !text.is_empty() {
            self.write("o", &text);
        }
    }

    /// Somebody has typed.
    pub(super) fn input(&mut self, who: &str, bytes: &[u8]) {
        if self.typist.as_deref() != Some(who) {
            self.typist = Some(who.to_owned());
            self.write("m", &format!("{who} types"));
        }
        self.write("i", &String::from_utf8_lossy(bytes));
    }

    /// The size has changed.
    pub(super) fn resize(&mut self, size: Size) {
        self.write("r", &format!("{}x{}", size.cols(), size.rows()));
    }

    fn write(&mut self, kind: &str, text: &str) {
        let line = json!([self.began.elapsed().as_secs_f64(), kind, text]).to_string();
        if self.lines.as_ref().is_some_and(|lines| lines.try_send(line).is_err()) {
            tracing::warn!("a recording has ended: its file cannot be written fast enough, or not at all");
            self.lines = None;
        }
    }
}

/// How many of these bytes make whole characters: all but the beginning of one that is still to come.
fn whole_characters(bytes: &[u8]) -> usize {
    let tail = bytes.len().saturating_sub(3);
    let begins = bytes[tail..].iter().rposition(|byte| *byte & 0b1100_0000 != 0b1000_0000);
    let Some(begins) = begins.map(|at| tail + at) else { return bytes.len() };
    let needs = match bytes[begins] {
        0xf0..=0xf7 => 4,
        0xe0..=0xef => 3,
        0xc0..=0xdf => 2,
        _ => 1,
    };
    if bytes.len() - begins < needs { begins } else { bytes.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_never_cut() {
        let text = "aé€𝄞b";
        for cut in 0..=text.len() {
            let (first, _) = text.as_bytes().split_at(cut);
            let whole = whole_characters(first);
            assert!(std::str::from_utf8(&first[..whole]).is_ok(), "{cut}");
            assert!(cut - whole < 4);
        }
        assert_eq!(whole_characters(b"\xff\xff\xff\xff"), 4);
        assert_eq!(whole_characters(b"\x80\x80\x80\x80"), 4);
    }

    #[test]
    fn a_recording_says_who_typed_what() {
        let folder = std::env::temp_dir().join(format!("shlogin-recording-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("it.cast");
        let mut recording = Recording::begin(&path, Size::default(), "a \"title\"").unwrap();
        recording.output("é".as_bytes().split_at(1).0);
        recording.output("é\x1b[0m".as_bytes().split_at(1).1);
        recording.input("alice", b"l");
        recording.input("alice", b"s");
        recording.input("bob (g1)", b"\r");
        recording.resize(Size::near(100, 30));
        drop(recording);
        let expected = [
            ("o", "é\u{1b}[0m"),
            ("m", "alice types"),
            ("i", "l"),
            ("i", "s"),
            ("m", "bob (g1) types"),
            ("i", "\r"),
            ("r", "100x30"),
        ];
        let lines = loop {
            let text = std::fs::read_to_string(&path).unwrap();
            if text.lines().count() == expected.len() + 1 {
                break text;
            }
            thread::yield_now();
        };
        let mut lines = lines.lines();
        let header: serde_json::Value = serde_json::from_str(lines.next().unwrap()).unwrap();
        assert_eq!((&header["version"], &header["width"]), (&json!(2), &json!(80)));
        for (line, (kind, text)) in lines.zip(expected) {
            let event: (f64, String, String) = serde_json::from_str(line).unwrap();
            assert_eq!((event.1.as_str(), event.2.as_str()), (kind, text));
        }
        assert!(Recording::begin(&path, Size::default(), "").is_err());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
