//! Recordings of a terminal, as asciicast v2: a header, then a line of JSON for each event. Before the first input of each
//! person, and whenever it is another's turn, a marker says who types.
//!
//! A thread of its own writes the file, so that a hung home folder holds nobody up. A disk that does not keep up ends the
//! recording, visibly: its last line says so.

use std::{
    fs::OpenOptions,
    io::{self, BufWriter, Write},
    iter,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::words::Size;

/// Bytes that wait to be written: what a program writes in a moment is no reason to end a recording.
const WAITING: usize = 32 * 1024 * 1024;

/// Why nothing is recorded.
#[derive(Debug, thiserror::Error)]
#[error("cannot record to {path}: {source}")]
pub struct RecordingError {
    path: PathBuf,
    source: io::Error,
}

/// A recording under way; ends when dropped.
pub struct Recording {
    lines: Option<mpsc::Sender<String>>,
    /// Shared with who writes them.
    waiting: Arc<Waiting>,
    began: Instant,
    /// What came of a character whose rest has not come yet.
    partial: Vec<u8>,
    /// Who typed last.
    typist: Option<String>,
}

#[derive(Default)]
struct Waiting {
    /// How many bytes wait.
    bytes: AtomicUsize,
    /// There were too many; the rest is not recorded.
    cut: AtomicBool,
}

impl Recording {
    /// Begins one in a new file that only its owner can read.
    ///
    /// # Errors
    /// As `open(2)`; also where the file exists.
    pub fn begin(path: &Path, size: Size, title: &str) -> Result<Self, RecordingError> {
        let failed = |source| RecordingError { path: path.to_owned(), source };
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        let header = json!({
            "version": 2, "width": size.cols(), "height": size.rows(),
            "timestamp": Timestamp::now().as_second(), "title": title,
        });
        Self::onto(BufWriter::new(file), &header).map_err(failed)
    }

    fn onto(mut out: impl Write + Send + 'static, header: &Value) -> io::Result<Self> {
        let (lines, coming) = mpsc::channel::<String>();
        let (waiting, began) = (Arc::<Waiting>::default(), Instant::now());
        let known = Arc::clone(&waiting);
        writeln!(out, "{header}")?;
        out.flush()?;
        thread::Builder::new().name("recording".to_owned()).spawn(move || {
            // What cannot be written is the recording's end, and nobody else's.
            let _ = write_all(&mut out, &coming, &known, began);
        })?;
        Ok(Self { lines: Some(lines), waiting, began, partial: Vec::new(), typist: None })
    }

    /// Whether its file has not been written fast enough, or not at all: nothing more is recorded.
    pub(super) fn has_failed(&self) -> bool {
        self.lines.is_none()
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
        let Some(lines) = &self.lines else { return };
        let line = event(self.began, kind, text);
        let len = line.len();
        let cut = self.waiting.bytes.fetch_add(len, Ordering::Relaxed) + len > WAITING;
        if cut {
            self.waiting.cut.store(true, Ordering::Relaxed);
        }
        if cut || lines.send(line).is_err() {
            tracing::warn!("a recording has ended: its file cannot be written fast enough, or not at all");
            self.lines = None;
        }
    }
}

fn event(began: Instant, kind: &str, text: &str) -> String {
    json!([began.elapsed().as_secs_f64(), kind, text]).to_string()
}

/// Writes what comes, to its end.
fn write_all(
    out: &mut impl Write,
    coming: &mpsc::Receiver<String>,
    waiting: &Waiting,
    began: Instant,
) -> io::Result<()> {
    while let Ok(first) = coming.recv() {
        for line in iter::once(first).chain(coming.try_iter()) {
            writeln!(out, "{line}")?;
            waiting.bytes.fetch_sub(line.len(), Ordering::Relaxed);
        }
        out.flush()?;
    }
    if waiting.cut.load(Ordering::Relaxed) {
        writeln!(out, "{}", event(began, "m", "what follows was too much to be recorded"))?;
    }
    out.flush()
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
    use std::sync::Mutex;

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

    /// A disk that takes nothing before it is told to, and maybe not then.
    struct Disk {
        go_on: mpsc::Receiver<bool>,
        goes: Option<bool>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // The header is what is written first.
            if !self.written.lock().unwrap().is_empty() && self.goes.is_none() && bytes != b"\n" {
                self.goes = self.go_on.recv().ok();
            }
            if self.goes == Some(false) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn onto_a_disk() -> (Recording, mpsc::Sender<bool>, Arc<Mutex<Vec<u8>>>) {
        let (go_on, waits) = mpsc::channel();
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let disk = Disk { go_on: waits, goes: None, written: Arc::clone(&written) };
        (Recording::onto(BufWriter::new(disk), &json!("header")).unwrap(), go_on, written)
    }

    fn wait_for(what: impl Fn() -> bool) {
        let begun = Instant::now();
        while !what() {
            assert!(begun.elapsed().as_secs() < 10);
            thread::yield_now();
        }
    }

    #[test]
    fn many_events_at_once_are_no_reason_to_end_it() {
        let (mut recording, go_on, written) = onto_a_disk();
        for _ in 0..20_000 {
            recording.output(b"x");
        }
        assert!(!recording.has_failed());
        go_on.send(true).unwrap();
        drop(recording);
        wait_for(|| written.lock().unwrap().iter().filter(|byte| **byte == b'\n').count() == 20_001);
    }

    #[test]
    fn a_disk_that_does_not_keep_up_ends_it_and_its_last_line_says_so() {
        let (mut recording, go_on, written) = onto_a_disk();
        let much = vec![b'x'; 1024 * 1024];
        for _ in 0..WAITING / much.len() + 1 {
            recording.output(&much);
        }
        assert!(recording.has_failed());
        go_on.send(true).unwrap();
        wait_for(|| written.lock().unwrap().ends_with(b"too much to be recorded\"]\n"));
    }

    #[test]
    fn a_full_disk_ends_it() {
        let (mut recording, go_on, _) = onto_a_disk();
        go_on.send(false).unwrap();
        let begun = Instant::now();
        while !recording.has_failed() {
            recording.output(b"x");
            assert!(begun.elapsed().as_secs() < 10);
            thread::yield_now();
        }
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
