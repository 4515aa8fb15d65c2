//! Writing without waiting: what is written is kept in memory, and a thread of its own brings it to its file a few times a
//! second. The file may lie on a home folder's server that hangs for minutes; the gateway must not hang with it.

use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

/// How much may wait to be written. What comes when that is full is lost.
const MOST: usize = 256 * 1024;

/// How long lines are gathered before they are written together.
const GATHER: Duration = Duration::from_millis(200);

/// The end to write to. It never blocks and never fails; what is written waits until there is a [`Writer`].
#[derive(Clone, Default)]
pub(super) struct Later(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    news: Condvar,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    lost: u64,
    closed: bool,
}

/// The thread that writes.
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Later {
    /// Starts the thread that brings it to `file`.
    pub(super) fn bring_to(&self, mut file: impl Write + Send + 'static) -> io::Result<Writer> {
        let (shared, own) = (Arc::clone(&self.0), Arc::clone(&self.0));
        let thread = thread::Builder::new()
            .name("diagnostics".to_owned())
            .stack_size(64 * 1024)
            .spawn(move || while own.bring(&mut file) {})?;
        Ok(Writer { shared, thread })
    }
}

impl Shared {
    /// Waits for something to write, and writes it; false when nothing more can come.
    fn bring(&self, file: &mut impl Write) -> bool {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |waiting: &mut Waiting| waiting.bytes.is_empty() && !waiting.closed;
        let waiting = self.news.wait_while(waiting, idle).unwrap_or_else(PoisonError::into_inner);
        // More comes with it, unless this is the end.
        let going_on = |waiting: &mut Waiting| !waiting.closed;
        let gathered = self.news.wait_timeout_while(waiting, GATHER, going_on);
        let (mut waiting, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        let (bytes, lost) = (std::mem::take(&mut waiting.bytes), std::mem::take(&mut waiting.lost));
        let closed = waiting.closed;
        drop(waiting);
        // A disk that is full takes no complaint either.
        let _ = file.write_all(&bytes);
        if lost > 0 {
            let _ =
                writeln!(file, "{lost} bytes were lost here: they came faster than they could be written");
        }
        !closed
    }
}

impl Write for Later {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.bytes.len() + bytes.len() > MOST {
            waiting.lost += bytes.len() as u64;
        } else {
            waiting.bytes.extend_from_slice(bytes);
            if waiting.bytes.len() == bytes.len() {
                self.0.news.notify_one();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Writer {
    /// Waits until all is written, but no longer than the file can be expected to take.
    pub(super) fn finish(self) {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.shared.news.notify_one();
        let end = std::time::Instant::now() + Duration::from_secs(2);
        while !self.thread.is_finished() && std::time::Instant::now() < end {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A file that takes nothing before it is told to.
    struct Slow(mpsc::Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(io::Error::other)?;
            self.1.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_written_arrives_in_order_and_a_hanging_file_holds_nobody_up() {
        let (go, told) = mpsc::channel();
        let kept = Arc::new(Mutex::new(Vec::new()));
        let mut late = Later::default();
        let writer = late.bring_to(Slow(told, Arc::clone(&kept))).unwrap();
        late.write_all(b"first\n").unwrap();
        for _ in 0..64 {
            late.write_all(&[b'x'; 8 * 1024]).unwrap();
        }
        late.write_all(b"last\n").unwrap();
        for _ in 0..100 {
            go.send(()).unwrap();
        }
        writer.finish();
        let text = String::from_utf8(kept.lock().unwrap().clone()).unwrap();
        assert!(text.starts_with("first\n") && text.contains("bytes were lost here"), "{}", text.len());
        assert!(text.len() < 2 * MOST + 1024, "{}", text.len());
    }
}
