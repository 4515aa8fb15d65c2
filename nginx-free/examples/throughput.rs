//! How many bytes a second one channel of a trunk carries over TCP's loopback, and what a lasting stream below it costs.
//!
//! `cargo run --release -p nginx-free --example throughput [MIB]`: all of it on one thread, both ends included, plain.
use std::{env, error::Error, io, time::Instant};

use nginx_free::{
    lasting::{Lasting, LastingLimits, lasting},
    trunk::{Trunk, TrunkLimits, serve},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What is written and read at once.
const PIECE: usize = 64 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mib = env::args().nth(1).map_or(Ok(1024), |text| text.parse::<u64>())?;
    let (theirs, ours) = loopback().await?;
    report("TCP", mib, ours, theirs).await?;
    let (theirs, ours) = loopback().await?;
    report("TCP, a lasting stream", mib, carried(ours), carried(theirs)).await?;
    let (theirs, ours) = loopback().await?;
    channel("TCP, a channel", mib, ours, theirs).await?;
    let (theirs, ours) = loopback().await?;
    channel("TCP, a lasting stream, a channel", mib, carried(ours), carried(theirs)).await?;
    Ok(())
}

async fn loopback() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let theirs = TcpStream::connect(listener.local_addr()?).await?;
    let (ours, _) = listener.accept().await?;
    theirs.set_nodelay(true)?;
    ours.set_nodelay(true)?;
    Ok((theirs, ours))
}

/// A lasting stream over this one connection.
fn carried(connection: TcpStream) -> Lasting {
    let (stream, mut carrier) = lasting(LastingLimits::default());
    tokio::spawn(async move { carrier.carry(connection).await });
    stream
}

async fn channel<S>(what: &str, mib: u64, ours: S, theirs: S) -> Result<(), Box<dyn Error>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (tell, told) = tokio::sync::oneshot::channel();
    let tell = std::sync::Mutex::new(Some(tell));
    tokio::spawn(serve(theirs, TrunkLimits::default(), move |asked| {
        let tell = tell.lock().ok().and_then(|mut tell| tell.take());
        async move {
            if let (Ok(channel), Some(tell)) = (asked.accept(), tell) {
                drop(tell.send(channel));
            }
        }
    }));
    let trunk = Trunk::over(ours, TrunkLimits::default()).await?;
    let near = trunk.open("far:1").await?;
    Ok(report(what, mib, near, told.await?).await?)
}

async fn report<N, F>(what: &str, mib: u64, mut near: N, mut far: F) -> io::Result<()>
where
    N: AsyncWrite + Unpin + Send + 'static,
    F: AsyncRead + Unpin,
{
    let begun = Instant::now();
    let writing = tokio::spawn(async move {
        let piece = vec![7; PIECE];
        for _ in 0..mib * 1024 * 1024 / PIECE as u64 {
            near.write_all(&piece).await?;
        }
        near.shutdown().await?;
        Ok::<_, io::Error>(near)
    });
    let (mut buffer, mut read) = (vec![0; PIECE], 0);
    loop {
        match far.read(&mut buffer).await? {
            0 => break,
            count => read += count as u64,
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    drop(writing.await?);
    println!("{what}: {:.0} MB/s", read as f64 / 1e6 / seconds);
    Ok(())
}
