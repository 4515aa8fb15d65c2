//! Loads a proxy, checks every answer, and prints what it saw as JSON.
//!
//! It goes in steps, so that the proxy's processor time and memory can be read at exact points, with the proxy at rest:
//!
//! ```text
//! load                         runner
//!   connects, warms up
//!   "ready"             →
//!                       ←      "go"
//!   measures
//!   the figures         →
//!                       ←      "go": once more; "end": it ends
//! ```
//!
//! `idle` measures once; the second "go" makes it ask once more on every connection, and say how many were alive.
//!
//! Any answer that is not what it should be ends the run with an error and without figures.
#![forbid(unsafe_code)]

mod connect;
mod count;
mod drive;
mod exchange;
mod fresh;
mod idle;

use std::{
    io::{BufRead, Write},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use proxy_bench::{LARGE, Result, SMALL, arguments::Arguments, tls::Tickets};

use crate::{connect::Target, exchange::Exchange};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let case = words.next().ok_or("usage: load CASE --address HOST:PORT …")?;
    let mut arguments = Arguments::parse(words)?;
    let address: SocketAddr = arguments.required("address")?;
    let certificate: Option<PathBuf> = arguments.optional("cert")?;
    let target = Target { address, certificate, source: arguments.optional("source")? };
    let connections: usize = arguments.required("connections")?;
    let warm_up = Duration::from_secs_f64(arguments.optional("warm-up")?.unwrap_or(0.5));
    let measured = Duration::from_secs_f64(arguments.optional("seconds")?.unwrap_or(3.0));
    let fields = arguments.all("header");
    arguments.end()?;

    let load = drive::Load { connections, warm_up, measured };
    let small = || Exchange::get("/1k", SMALL, &fields);
    match case.as_str() {
        "get" => drive::run(&target, small(), &load).await,
        "down" => drive::run(&target, Exchange::get("/10m", LARGE, &fields), &load).await,
        "up" => drive::run(&target, Exchange::post("/up", LARGE, &fields), &load).await,
        "ws" => drive::run(&target, Exchange::echo("/ws", &fields), &load).await,
        "handshake" => fresh::run(&target, Tickets::Ignored, small(), &load).await,
        "resume" => fresh::run(&target, Tickets::Used, small(), &load).await,
        "idle" => idle::run(&target, small(), connections).await,
        _ => Err(format!("no such case: {case}").into()),
    }
}

/// Says `line`, and waits to be told to go on, or to end. Nothing else runs meanwhile.
fn goes_on_after(line: &str) -> Result<bool> {
    println!("{line}");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    match answer.trim_end() {
        "go" => Ok(true),
        "end" => Ok(false),
        "" => Err("the runner is gone".into()),
        _ => Err(format!("{answer} is neither go nor end").into()),
    }
}
