//! The app's output, from its pipe to the session's log.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
};

use nix::{fcntl::OFlag, unistd::pipe2};
use tokio::sync::watch;

/// The pump: a thread of its own, since a home folder's file server may keep a write waiting for minutes.
pub(super) struct LogPump {
    thread: JoinHandle<()>,
}

impl LogPump {
    /// Starts it. Returns the pipe's end for the app and the log's length as it grows (it falls to 0 where the log was
    /// rotated: at `max` bytes it becomes `log.1`).
    pub(super) fn start(path: &Path, max: u64) -> io::Result<(Self, File, watch::Receiver<u64>)> {
        Self::into(Log::create(path, max)?)
    }

    /// The same, to a log that another process may have begun.
    pub(super) fn go_on(path: &Path, max: u64) -> io::Result<(Self, File, watch::Receiver<u64>)> {
        Self::into(Log::create_or_append(path, max)?)
    }

    fn into(log: Log) -> io::Result<(Self, File, watch::Receiver<u64>)> {
        let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC)?;
        let (sender, len) = watch::channel(log.len);
        let thread = thread::Builder::new()
            .name("log".to_owned())
            .stack_size(64 * 1024)
            .spawn(move || log.pump(File::from(read_end), &sender))?;
        Ok((Self { thread }, File::from(write_end), len))
    }

    /// Waits until all that was written is in the log. The pipe's other ends must be closed, or about to be.
    pub(super) fn finish(self) {
        // It never panics on its own account; if it did, the log is as far as it got.
        let _ = self.thread.join();
    }
}

/// A file that never grows beyond a limit: what was before is kept once, under another name.
pub(super) struct Log {
    file: File,
    path: PathBuf,
    len: u64,
    max: u64,
}

impl Log {
    /// Opens the log at `path`, which must not be there yet.
    pub(super) fn create(path: &Path, max: u64) -> io::Result<Self> {
        Ok(Self { file: create(path)?, path: path.to_owned(), len: 0, max })
    }

    /// Opens the log at `path`, which another process may have begun.
    pub(super) fn create_or_append(path: &Path, max: u64) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { file, path: path.to_owned(), len, max })
    }

    /// A duplicate of its descriptor, for a process that writes little and by itself.
    pub(super) fn share(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    fn pump(mut self, mut pipe: File, told: &watch::Sender<u64>) {
        let mut buffer = [0; 16 * 1024];
        loop {
            match pipe.read(&mut buffer) {
                Ok(0) => return,
                // A disk that is full must not stop the app: what cannot be written is lost, what follows is tried.
                Ok(n) => drop(self.append_all(&buffer[..n])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
            told.send_replace(self.len);
        }
    }

    /// In pieces that each fit into one file.
    fn append_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let most = usize::try_from(self.max).unwrap_or(usize::MAX).max(1);
        bytes.chunks(most).try_for_each(|piece| self.append(piece))
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let more = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if self.len > 0 && self.len.saturating_add(more) > self.max {
            fs::rename(&self.path, self.path.with_extension("1"))?;
            self.file = create(&self.path)?;
            self.len = 0;
        }
        self.file.write_all(bytes)?;
        self.len += more;
        Ok(())
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)
}

/// The last `lines` lines of a log, without control characters: for a terminal that did not ask for them.
pub(super) fn tail(path: &Path, lines: usize) -> Vec<String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|mut file| {
        use io::Seek;
        let len = file.metadata()?.len();
        file.seek(io::SeekFrom::Start(len.saturating_sub(16 * 1024)))?;
        let mut bytes = Vec::new();
        file.take(16 * 1024).read_to_end(&mut bytes)?;
        text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(())
    });
    if read.is_err() {
        return Vec::new();
    }
    let clean = |line: &str| line.chars().filter(|c| !c.is_control() || *c == '\t').collect::<String>();
    let all: Vec<String> = text.lines().map(clean).collect();
    all[all.len().saturating_sub(lines)..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_arrives_in_order_and_the_log_stays_within_its_limit() {
        let folder = std::env::temp_dir().join(format!("shlogin-log-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("log");
        let (pump, mut pipe, len) = LogPump::start(&path, 1000).unwrap();
        for n in 0..200 {
            writeln!(pipe, "line {n}\u{1b}[31m").unwrap();
        }
        drop(pipe);
        pump.finish();
        assert!(*len.borrow() <= 1000);
        assert!(fs::metadata(&path).unwrap().len() <= 1000);
        assert_eq!(tail(&path, 2), ["line 198[31m", "line 199[31m"]);
        fs::remove_dir_all(&folder).unwrap();
    }
}
