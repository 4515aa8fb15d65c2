//! Connections that break at any byte, while much is under way both ways.

use std::{
    io,
    ops::RangeInclusive,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use nginx_free::{
    lasting::{Broken, Carrier, Lasting, LastingLimits},
    trunk::{Asked, Trunk, TrunkLimits, serve},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, copy, duplex, split},
    task::{JoinSet, yield_now},
    time::timeout,
};

use super::both;
use crate::support::*;

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From 1 to `most`, small ones as often as large ones.
    fn up_to(&mut self, most: usize) -> usize {
        let bits = self.next() % (u64::from(most.ilog2()) + 1);
        let number = usize::try_from(self.next() % (2 << bits)).unwrap();
        number.clamp(1, most)
    }
}

/// A connection that breaks after so many bytes, of which the last ones may never arrive.
struct Flaky {
    stream: DuplexStream,
    writes: usize,
    reads: usize,
}

fn flaky(random: &mut Random, bytes: &RangeInclusive<usize>) -> (Flaky, Flaky) {
    let (here, there) = duplex(random.up_to(100_000).max(*bytes.start() / 10));
    let mut from = || random.up_to(*bytes.end()).max(*bytes.start());
    let mut wrap = |stream| Flaky { stream, writes: from(), reads: from() };
    (wrap(here), wrap(there))
}

impl AsyncRead for Flaky {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.reads == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let most = self.reads;
        let mut part = buf.take(most);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut part);
        let count = part.filled().len();
        buf.set_filled(buf.filled().len() + count);
        self.reads -= count;
        read
    }
}

impl AsyncWrite for Flaky {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.writes == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let part = &bytes[..bytes.len().min(self.writes)];
        let written = Pin::new(&mut self.stream).poll_write(cx, part);
        if let Poll::Ready(Ok(count)) = written {
            self.writes -= count;
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Gives both ends one connection after the other, until neither wants another: how many broke of themselves.
async fn carry(
    (a, b): (&mut Carrier, &mut Carrier),
    random: &mut Random,
    bytes: RangeInclusive<usize>,
) -> usize {
    let mut broken = 0;
    loop {
        let (here, there) = flaky(random, &bytes);
        let patience = 1 + random.up_to(100_000);
        tokio::select! {
            biased;
            ended = async { tokio::join!(a.carry(here), b.carry(there)) } => match ended {
                (Ok(()), Ok(())) => return broken,
                (Err(why), _) | (_, Err(why)) => {
                    assert!(matches!(why, Broken::Connection(_)), "{why}");
                    broken += 1;
                }
            },
            // Some are let go of where they stand.
            () = async { for _ in 0..patience { yield_now().await; } } => {}
        }
    }
}

/// The nth byte of a direction: any other's is another one's, mostly.
fn byte(seed: u64, number: usize) -> u8 {
    let number = number as u64;
    (number ^ (number >> 8) ^ (number >> 16)).wrapping_mul(151).wrapping_add(seed).to_le_bytes()[0]
}

async fn write(mut to: tokio::io::WriteHalf<Lasting>, seed: u64, total: usize) {
    let (mut random, mut sent) = (Random(seed), 0);
    while sent < total {
        let piece = random.up_to(100_000).min(total - sent);
        let bytes: Vec<u8> = (sent..sent + piece).map(|number| byte(seed, number)).collect();
        to.write_all(&bytes).await.unwrap();
        sent += piece;
        if random.next().is_multiple_of(4) {
            yield_now().await;
        }
    }
    to.shutdown().await.unwrap();
}

async fn read(mut from: tokio::io::ReadHalf<Lasting>, seed: u64, total: usize) {
    let (mut random, mut came) = (Random(seed), 0);
    let mut buffer = vec![0; 100_000];
    loop {
        let most = random.up_to(buffer.len());
        let count = from.read(&mut buffer[..most]).await.unwrap();
        if count == 0 {
            break;
        }
        for (at, got) in buffer[..count].iter().enumerate() {
            assert_eq!(*got, byte(seed, came + at), "byte {} of {seed}", came + at);
        }
        came += count;
        if random.next().is_multiple_of(4) {
            yield_now().await;
        }
    }
    assert_eq!(came, total, "the end is where it was");
}

#[tokio::test]
async fn whatever_breaks_nothing_is_lost_and_nothing_comes_twice() {
    const TOTAL: usize = 500_000;
    let mut broken = 0;
    for seed in 0..40 {
        let mut random = Random(seed);
        let limits = LastingLimits {
            unacknowledged: random.up_to(1_000_000),
            unread: random.up_to(1_000_000),
            ..LastingLimits::default()
        };
        let ((a, mut by_a), (b, mut by_b)) = both(&limits);
        let ((a_reads, a_writes), (b_reads, b_writes)) = (split(a), split(b));
        // A few bytes take a window of one byte as long as many take a large one.
        let total = TOTAL.min(20 * limits.unread.min(limits.unacknowledged));
        let mut talk = JoinSet::new();
        talk.spawn(write(a_writes, 2 * seed, total));
        talk.spawn(write(b_writes, 2 * seed + 1, total));
        talk.spawn(read(b_reads, 2 * seed, total));
        talk.spawn(read(a_reads, 2 * seed + 1, total));
        let carried = carry((&mut by_a, &mut by_b), &mut random, 1..=200_000);
        broken += timeout(SOON, carried).await.unwrap_or_else(|_| panic!("seed {seed} hangs"));
        timeout(SOON, talk.join_all()).await.expect("it was carried to its end");
    }
    assert!(broken > 400, "{broken} connections broke");
    eprintln!("{broken} connections broke");
}

async fn echo(asked: Asked) {
    let (mut read, mut write) = split(asked.accept().unwrap());
    copy(&mut read, &mut write).await.unwrap();
    write.shutdown().await.unwrap();
}

/// No outage ends it: what carries it says when it has broken.
fn patient() -> TrunkLimits {
    TrunkLimits { ping: Duration::from_secs(1), pong: Duration::MAX, ..TrunkLimits::default() }
}

#[tokio::test]
async fn a_trunk_does_not_notice_how_its_connections_break() {
    const CHANNELS: usize = 32;
    const EACH: usize = 3 << 19;
    let ((a, mut by_a), (b, mut by_b)) = both(&LastingLimits::default());
    let host = tokio::spawn(serve(b, patient(), echo));
    let carrying =
        tokio::spawn(async move { carry((&mut by_a, &mut by_b), &mut Random(1), 500_000..=4_000_000).await });
    let trunk = Trunk::over(a, patient()).await.unwrap();
    let mut channels = JoinSet::new();
    for number in 0..CHANNELS as u64 {
        let trunk = trunk.clone();
        channels.spawn(async move {
            let (mut read, mut write) = split(trunk.open("echo:1").await.unwrap());
            let sent: Arc<Vec<u8>> = Arc::new((0..EACH).map(|at| byte(number, at)).collect());
            let writing = Arc::clone(&sent);
            tokio::spawn(async move {
                for piece in writing.chunks(10_000) {
                    write.write_all(piece).await.unwrap();
                }
                write.shutdown().await.unwrap();
            });
            let mut came = Vec::new();
            read.read_to_end(&mut came).await.unwrap();
            assert!(came == *sent, "channel {number} brought something else");
        });
    }
    timeout(3 * SOON, channels.join_all()).await.expect("a channel hangs");
    assert_eq!(trunk.has_ended(), None);
    drop(trunk);
    timeout(SOON, host).await.expect("the host sees the end").unwrap();
    let broken = timeout(SOON, carrying).await.expect("all has arrived").unwrap();
    assert!(broken > 20, "{broken} connections broke");
    eprintln!("{broken} connections broke");
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_an_hour_is_a_pause() {
    let ((a, mut by_a), (b, mut by_b)) = both(&LastingLimits::default());
    tokio::spawn(serve(b, patient(), echo));
    let mut first = Box::pin(async {
        let (here, there) = duplex(1000);
        tokio::join!(by_a.carry(here), by_b.carry(there))
    });
    let mut channel = tokio::select! {
        ended = &mut first => panic!("{ended:?}"),
        channel = async { Trunk::over(a, patient()).await.unwrap().open("echo:1").await.unwrap() } => channel,
    };
    drop(first);
    channel.write_all(b"are you there?").await.unwrap();
    assert!(timeout(Duration::from_secs(3600), channel.read(&mut [0; 1])).await.is_err());
    let (here, there) = duplex(1000);
    tokio::select! {
        ended = async { tokio::join!(by_a.carry(here), by_b.carry(there)) } => panic!("{ended:?}"),
        answer = read_exactly(&mut channel, 14) => assert_eq!(answer, b"are you there?"),
    }
}
