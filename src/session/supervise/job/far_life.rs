//! The gate's end of an app's life elsewhere: begins it over a trunk, hears how far it is, and takes in what it says.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nginx_free::trunk::Trunk;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    sync::{Mutex, mpsc, watch},
    time::timeout,
};

use super::wire::{Begin, FromHost, LIFE, LOG, LONGEST, LogFrom, ToHost};
use crate::link::{
    RunId,
    message::{hear, say},
};

/// What stands for the session where HTTP wants a host and a port.
const SESSION: &str = "session:1";
/// How long the log's last words may take.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Where what an app says goes, whichever host says it.
pub(super) struct LogSink {
    pipe: Mutex<pipe::Sender>,
    run: std::sync::Mutex<Option<RunId>>,
    /// So many bytes of this run's.
    seen: watch::Sender<u64>,
    count: AtomicU64,
}

impl LogSink {
    /// Into this pipe.
    ///
    /// # Errors
    /// Where it is none.
    pub(super) fn new(pipe: File) -> io::Result<Arc<Self>> {
        let pipe = Mutex::new(pipe::Sender::from_owned_fd(OwnedFd::from(pipe))?);
        Ok(Arc::new(Self {
            pipe,
            run: std::sync::Mutex::default(),
            seen: watch::Sender::new(0),
            count: AtomicU64::new(0),
        }))
    }

    /// From where on to hear this run.
    fn from(&self, run: RunId) -> LogFrom {
        let mut last = self.run.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *last == Some(run) {
            return LogFrom::Byte(self.count.load(Ordering::Relaxed));
        }
        let first = last.replace(run).is_none();
        self.count.store(0, Ordering::Relaxed);
        self.seen.send_replace(0);
        // Of the first, another gate may have heard a part.
        if first { LogFrom::New } else { LogFrom::Byte(0) }
    }

    async fn take(&self, trunk: &Trunk, run: RunId) -> io::Result<()> {
        // One at a time: of the one before, what it has read is still to be written.
        let mut pipe = self.pipe.lock().await;
        let from = self.from(run);
        let mut channel = trunk.open_protocol(SESSION, &from.to_path(), LOG).await?;
        let begin = channel.read_u64().await?;
        self.count.store(begin, Ordering::Relaxed);
        self.seen.send_replace(begin);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = channel.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            pipe.write_all(buffer.get(..read).unwrap_or_default()).await?;
            let seen = self.count.fetch_add(read as u64, Ordering::Relaxed) + read as u64;
            self.seen.send_replace(seen);
        }
    }

    /// Waits until so much of the run's was heard, but not for long.
    async fn heard(&self, said: u64) {
        let mut seen = self.seen.subscribe();
        let _ = timeout(LAST_WORDS, seen.wait_for(|seen| *seen >= said)).await;
    }
}

/// One run of the app, for as long as its trunk lasts.
pub(super) struct FarLife {
    pub(super) news: mpsc::Receiver<FromHost>,
    orders: mpsc::Sender<ToHost>,
}

impl FarLife {
    /// Begins it, or joins it where it was begun already.
    pub(super) fn begin(trunk: Trunk, run: RunId, begin: Begin, log: Arc<LogSink>) -> Self {
        let (told, news) = mpsc::channel(4);
        let (orders, ordered) = mpsc::channel(4);
        let (its, sink) = (trunk.clone(), Arc::clone(&log));
        tokio::spawn(async move {
            if let Err(error) = sink.take(&its, run).await {
                tracing::debug!(%error, "the log from the host has ended");
            }
        });
        tokio::spawn(async move {
            if let Err(error) = live(&trunk, begin, ordered, &told, &log).await {
                tracing::debug!(%error, "the host says nothing more");
            }
        });
        Self { news, orders }
    }

    /// Asks for its end.
    pub(super) fn stop(&self, grace: Duration) {
        // Full means that it is ending already.
        let grace = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let _ = self.orders.try_send(ToHost::Stop { grace });
    }

    /// Asks for it because the job's time is almost over. Once is enough, and more does no harm.
    pub(super) fn time_is_over(&self) {
        let _ = self.orders.try_send(ToHost::TimeIsOver);
    }
}

async fn live(
    trunk: &Trunk,
    begin: Begin,
    mut orders: mpsc::Receiver<ToHost>,
    told: &mpsc::Sender<FromHost>,
    log: &LogSink,
) -> io::Result<()> {
    let (mut from, mut to) = tokio::io::split(trunk.open_protocol(SESSION, "/", LIFE).await?);
    say(&mut to, &ToHost::Begin(Box::new(begin))).await?;
    let hearing = async {
        loop {
            let news: FromHost = hear(&mut from, LONGEST).await?;
            let ended = if let FromHost::Ended { said, .. } = news { Some(said) } else { None };
            if let Some(said) = ended {
                log.heard(said).await;
            }
            if told.send(news).await.is_err() || ended.is_some() {
                return Ok(());
            }
        }
    };
    let telling = async {
        while let Some(order) = orders.recv().await {
            say(&mut to, &order).await?;
        }
        std::future::pending().await
    };
    tokio::select! {
        heard = hearing => heard,
        told = telling => told,
    }
}
