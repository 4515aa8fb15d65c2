//! Many connections that do nothing, each after one request.

use std::{sync::Arc, time::Instant};

use proxy_bench::{Result, tls::Tickets};
use tokio::task::JoinSet;

use crate::{
    connect::{Connection, Dialer, Target},
    drive::{figures, nanoseconds},
    exchange::Exchange,
    goes_on_after,
};

/// How many are opened at a time.
const AT_ONCE: usize = 32;

/// Opens `count` connections and holds them; at the end, each has to be good for one more request.
pub(crate) async fn run(target: &Target, exchange: Exchange, count: usize) -> Result<()> {
    let dialer = Dialer::new(target, Tickets::Ignored)?.reading(2048);
    // What the first request alone makes the proxy take is not the connections'.
    let (mut first, _) = dialer.dial(0).await?;
    exchange.once(&mut first).await?;
    if !goes_on_after("ready")? {
        return Ok(());
    }

    let exchange = Arc::new(exchange);
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for worker in 0..AT_ONCE {
        let (dialer, exchange) = (dialer.clone(), Arc::clone(&exchange));
        let share = (worker..count).step_by(AT_ONCE);
        tasks.spawn(async move {
            let (mut held, mut times) = (Vec::new(), Vec::new());
            for turn in share {
                let begun = Instant::now();
                let (mut connection, _) = dialer.dial(turn).await?;
                exchange.once(&mut connection).await?;
                connection.buffer = bytes::BytesMut::new();
                held.push(connection);
                times.push(nanoseconds(begun.elapsed()));
            }
            Ok::<(Vec<Connection>, Vec<u32>), Box<dyn std::error::Error + Send + Sync>>((held, times))
        });
    }
    let (mut held, mut times) = (Vec::with_capacity(count), Vec::with_capacity(count));
    while let Some(done) = tasks.join_next().await {
        let (connections, taken) = done??;
        held.extend(connections);
        times.extend(taken);
    }
    if goes_on_after(&figures(begun.elapsed(), times, exchange.payload(), ""))? {
        for connection in &mut held {
            exchange.once(connection).await?;
        }
        goes_on_after(&format!(r#"{{"alive":{}}}"#, held.len()))?;
    }
    Ok(())
}
