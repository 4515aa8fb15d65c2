//! A new connection for each request: a full handshake each time, or one that comes back with a ticket.

use std::time::{Duration, Instant};

use proxy_bench::{Result, tls::Tickets};
use rustls::HandshakeKind;
use tokio::{io::AsyncWriteExt, task::JoinSet};

use crate::{
    connect::{Dialer, Target},
    drive::{Load, figures, nanoseconds},
    exchange::Exchange,
    goes_on_after,
};

/// Measures new connections, `load.connections` of them under way at a time.
pub(crate) async fn run(target: &Target, tickets: Tickets, exchange: Exchange, load: &Load) -> Result<()> {
    let mut workers = Vec::new();
    for turn in 0..load.connections {
        // With sessions of its own: nobody takes another one's ticket.
        workers.push(Worker {
            dialer: Dialer::new(target, tickets)?.reading(4096),
            turn,
            exchange: exchange.clone(),
        });
    }
    let (mut workers, _) = all(workers, load.warm_up).await?;
    let mut line = "ready".to_owned();
    while goes_on_after(&line)? {
        let begun = Instant::now();
        let (still, seen) = all(workers, load.measured).await?;
        let elapsed = begun.elapsed();
        let wanted = if tickets == Tickets::Used { seen.resumed } else { seen.full };
        if wanted * 100 < seen.times.len() * 99 {
            return Err(format!("{} full handshakes, {} resumed ones", seen.full, seen.resumed).into());
        }
        let more = format!(r#","full":{},"resumed":{}"#, seen.full, seen.resumed);
        line = figures(elapsed, seen.times, exchange.payload(), &more);
        workers = still;
    }
    Ok(())
}

struct Worker {
    dialer: Dialer,
    turn: usize,
    exchange: Exchange,
}

#[derive(Default)]
struct Seen {
    times: Vec<u32>,
    full: usize,
    resumed: usize,
}

async fn all(workers: Vec<Worker>, time: Duration) -> Result<(Vec<Worker>, Seen)> {
    let end = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for worker in workers {
        tasks.spawn(async move {
            let seen = worker.work(end).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((worker, seen))
        });
    }
    let (mut workers, mut sum) = (Vec::new(), Seen::default());
    while let Some(done) = tasks.join_next().await {
        let (worker, seen) = done??;
        workers.push(worker);
        sum.times.extend(seen.times);
        sum.full += seen.full;
        sum.resumed += seen.resumed;
    }
    Ok((workers, sum))
}

impl Worker {
    async fn work(&self, end: Instant) -> Result<Seen> {
        let mut seen = Seen::default();
        let mut begun = Instant::now();
        while begun < end {
            let (mut connection, kind) = self.dialer.dial(self.turn).await?;
            match kind {
                Some(HandshakeKind::Resumed) => seen.resumed += 1,
                _ => seen.full += 1,
            }
            self.exchange.once(&mut connection).await?;
            connection.stream.shutdown().await?;
            let now = Instant::now();
            seen.times.push(nanoseconds(now - begun));
            begun = now;
        }
        Ok(seen)
    }
}
