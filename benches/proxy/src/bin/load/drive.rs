//! The same exchange over and over, on connections that stay.

use std::time::{Duration, Instant};

use proxy_bench::{Result, tls::Tickets};
use tokio::task::JoinSet;

use crate::{
    connect::{Connection, Dialer, Stream, Target},
    count::Counter,
    exchange::Exchange,
    goes_on_after,
};

/// How many at once, and for how long.
pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

/// Measures `exchange`.
pub(crate) async fn run(target: &Target, exchange: Exchange, load: &Load) -> Result<()> {
    let dialer = Dialer::new(target, Tickets::Ignored)?;
    let mut connections = Vec::with_capacity(load.connections);
    for turn in 0..load.connections {
        let (mut connection, _) = dialer.dial(turn).await?;
        exchange.open(&mut connection).await?;
        let came = exchange.once(&mut connection).await?;
        connections.push(match (exchange.has_large_answer(), connection.stream) {
            // The first is read whole.
            (true, Stream::Right(tls)) if turn > 0 => Way::Counted(Counter::new(tls, came)?),
            (_, stream) => Way::Checked(Connection { stream, ..connection }),
        });
    }
    let (mut connections, _) = rounds(connections, &exchange, load.warm_up).await?;
    let mut line = "ready".to_owned();
    while goes_on_after(&line)? {
        let begun = Instant::now();
        let (still, times) = rounds(connections, &exchange, load.measured).await?;
        line = figures(begun.elapsed(), times, exchange.payload(), "");
        connections = still;
    }
    Ok(())
}

/// How a connection's answers are looked at.
enum Way {
    Checked(Connection),
    Counted(Counter),
}

/// Exchanges on all connections for some time; returns the time each exchange took, in nanoseconds.
async fn rounds(connections: Vec<Way>, exchange: &Exchange, time: Duration) -> Result<(Vec<Way>, Vec<u32>)> {
    let end = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for mut connection in connections {
        let exchange = exchange.clone();
        tasks.spawn(async move {
            let mut times = Vec::with_capacity(1 << 14);
            let mut begun = Instant::now();
            while begun < end {
                match &mut connection {
                    Way::Checked(connection) => drop(exchange.once(connection).await?),
                    Way::Counted(counter) => counter.once(exchange.message()).await?,
                }
                let now = Instant::now();
                times.push(nanoseconds(now - begun));
                begun = now;
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((connection, times))
        });
    }
    let (mut connections, mut all) = (Vec::new(), Vec::new());
    while let Some(done) = tasks.join_next().await {
        let (connection, times) = done??;
        connections.push(connection);
        all.extend(times);
    }
    Ok((connections, all))
}

/// A time in nanoseconds, up to four seconds.
pub(crate) fn nanoseconds(time: Duration) -> u32 {
    u32::try_from(time.as_nanos()).unwrap_or(u32::MAX)
}

/// The figures as JSON; `more` are members for the end of it.
pub(crate) fn figures(elapsed: Duration, mut times: Vec<u32>, payload: usize, more: &str) -> String {
    times.sort_unstable();
    let count = times.len();
    let at = |percent: usize| {
        times.get((count * percent / 100).min(count.saturating_sub(1))).copied().unwrap_or_default()
    };
    format!(
        r#"{{"count":{count},"seconds":{:.6},"bytes":{},"p50_ns":{},"p99_ns":{}{more}}}"#,
        elapsed.as_secs_f64(),
        count * payload,
        at(50),
        at(99)
    )
}
