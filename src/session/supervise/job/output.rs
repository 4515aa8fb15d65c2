//! What an app says, on the machine where it runs: the last of it, numbered in bytes, for a gate that may be away. The app
//! never waits for anybody to read it.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use nix::{fcntl::OFlag, unistd::pipe2};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::unix::pipe,
    sync::watch,
};

use super::wire::LogFrom;

/// How much is kept, in bytes.
const KEPT: usize = 4 * 1024 * 1024;
/// How much is sent in one go.
const PIECE: usize = 64 * 1024;

/// The last of what was said.
pub(super) struct Output {
    state: Mutex<State>,
    end: watch::Sender<u64>,
    over: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    kept: VecDeque<u8>,
    /// The number of the first byte that is kept.
    begin: u64,
    /// The number of the first byte that no gate was sent.
    new: u64,
}

impl State {
    fn end(&self) -> u64 {
        self.begin + self.kept.len() as u64
    }
}

impl Output {
    /// Begins to take in what is written to the file.
    ///
    /// # Errors
    /// As `pipe(2)`.
    pub(super) fn begin() -> io::Result<(Arc<Self>, File)> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        let mut read = pipe::Receiver::from_owned_fd(read)?;
        let output = Arc::new(Self {
            state: Mutex::default(),
            end: watch::Sender::new(0),
            over: watch::Sender::new(false),
        });
        let own = Arc::clone(&output);
        tokio::spawn(async move {
            let mut buffer = BytesMut::with_capacity(PIECE);
            while matches!(read.read_buf(&mut buffer).await, Ok(1..)) {
                own.take(&buffer);
                buffer.clear();
            }
            own.over.send_replace(true);
        });
        Ok((output, write.into()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, bytes: &[u8]) {
        let mut state = self.state();
        state.kept.extend(bytes);
        let over = state.kept.len().saturating_sub(KEPT);
        state.kept.drain(..over);
        state.begin += over as u64;
        let end = state.end();
        drop(state);
        self.end.send_replace(end);
    }

    /// Waits until nobody can say anything more.
    pub(super) async fn over(&self) {
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// How much was said, in bytes.
    pub(super) fn said(&self) -> u64 {
        *self.end.borrow()
    }

    /// Writes to a gate the number of the first byte that it gets, and then all that was and is said, until that is gone.
    ///
    /// # Errors
    /// Where it is.
    pub(super) async fn send(&self, from: LogFrom, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let mut ends = self.end.subscribe();
        let mut at = match from {
            LogFrom::New => self.state().new,
            LogFrom::Byte(at) => at,
        };
        to.write_u64(at).await?;
        loop {
            let (lost, bytes) = self.piece(at);
            if lost > 0 {
                to.write_all(format!("\n[shlogin: {lost} bytes were lost here]\n").as_bytes()).await?;
            }
            at += lost;
            if bytes.is_empty() {
                to.flush().await?;
                // The sender is our own.
                let _ = ends.wait_for(|end| *end > at).await;
                continue;
            }
            to.write_all(&bytes).await?;
            at += bytes.len() as u64;
            let mut state = self.state();
            state.new = state.new.max(at);
        }
    }

    /// The bytes from number `at` on, and how many of them are lost.
    fn piece(&self, at: u64) -> (u64, Bytes) {
        let state = self.state();
        let lost = state.begin.saturating_sub(at);
        let skip = usize::try_from((at + lost).saturating_sub(state.begin)).unwrap_or(usize::MAX);
        let bytes = state.kept.iter().skip(skip).take(PIECE).copied().collect();
        (lost, bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, time::Duration};

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_gate_that_comes_later_hears_what_is_new_and_what_was_lost() {
        let (output, mut file) = Output::begin().unwrap();
        file.write_all(b"one\n").unwrap();
        let hear = async |from, want: &str| {
            let (mut ours, mut theirs) = tokio::io::duplex(1024);
            let mut got = vec![0; 8 + want.len()];
            let read = tokio::time::timeout(Duration::from_secs(5), async {
                tokio::select! {
                    error = output.send(from, &mut ours) => panic!("{error:?}"),
                    read = theirs.read_exact(&mut got) => read.unwrap(),
                }
            });
            read.await.unwrap();
            assert_eq!(String::from_utf8(got.split_off(8)).unwrap(), want);
            u64::from_be_bytes(got.try_into().unwrap())
        };
        assert_eq!(hear(LogFrom::New, "one\n").await, 0);
        file.write_all(b"two\n").unwrap();
        assert_eq!(hear(LogFrom::New, "two\n").await, 4);
        hear(LogFrom::Byte(1), "ne\ntwo\n").await;
        output.take(&vec![b'x'; KEPT]);
        hear(LogFrom::Byte(0), "\n[shlogin: 8 bytes were lost here]\nxxx").await;
    }
}
