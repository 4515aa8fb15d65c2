//! Floods of HTTP/2 frames: the one who sends them loses the connection, others do not notice. How much memory they
//! cost is measured by the tests under load, where the proxy is a process of its own.

use std::time::{Duration, Instant};

use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use nginx_free::Limits;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
    sync::watch,
};
use tokio_rustls::client::TlsStream;

use crate::{
    certified::{Client, certified},
    frames::{self, Flood, frame},
    support::*,
};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// How a connection that was flooded ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    GoAway(u32),
    Cut,
}

/// One who floods.
struct Attacker {
    read: ReadHalf<TlsStream<TcpStream>>,
    write: WriteHalf<TlsStream<TcpStream>>,
}

impl Attacker {
    async fn at(proxy: &Running) -> Self {
        let (read, write) = tokio::io::split(Client::new("h2").connect(proxy, "node").await);
        let mut attacker = Self { read, write };
        attacker.write.write_all(&frames::opening()).await.unwrap();
        attacker
    }

    /// Sends `begin` and then what `nth` makes, with a pause now and then, for as long as the connection takes it; reads
    /// along until it ends.
    async fn send(
        self,
        begin: Vec<u8>,
        pause: Duration,
        mut nth: impl FnMut(u32) -> Vec<u8> + Send + 'static,
    ) -> End {
        let (mut read, mut write) = (self.read, self.write);
        let sending = tokio::spawn(async move {
            let mut bytes = begin;
            for n in 0.. {
                bytes.extend(nth(n));
                // The connection may be gone before all is written: that is the point.
                if bytes.len() > 16 * 1024 {
                    if write.write_all(&std::mem::take(&mut bytes)).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(pause).await;
                }
            }
        });
        let end = tokio::time::timeout(SOON, end(&mut read)).await.expect("the flood goes on");
        sending.abort();
        end
    }
}

async fn end(read: &mut ReadHalf<TlsStream<TcpStream>>) -> End {
    loop {
        let mut head = [0; 9];
        if read.read_exact(&mut head).await.is_err() {
            return End::Cut;
        }
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        if read.read_exact(&mut payload).await.is_err() {
            return End::Cut;
        }
        if head[3] == frames::GOAWAY {
            return End::GoAway(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
    }
}

/// Somebody else, who goes on asking over one connection. How long she waits is measured by the tests under load.
struct Bystander {
    leave: watch::Sender<bool>,
    asks: tokio::task::JoinHandle<()>,
}

impl Bystander {
    async fn at(proxy: &Running) -> Self {
        let io = TokioIo::new(Client::new("h2").connect(proxy, "node").await);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let (leave, leaving) = watch::channel(false);
        let asks = tokio::spawn(async move {
            while !*leaving.borrow() {
                let request = Request::get("https://node/").body(Empty::<Bytes>::new()).unwrap();
                let answer = sender.send_request(request).await.expect("somebody else was not served");
                assert_eq!(answer.status(), 200);
                assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "hello");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        Self { leave, asks }
    }

    /// Ends, and checks that she was served all the while, and that a newcomer is.
    async fn was_served(self, proxy: &Running) {
        let mut newcomer = Client::new("http/1.1").connect(proxy, "node").await;
        newcomer.write_all(b"GET / HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").await.unwrap();
        assert!(read_all(&mut newcomer).await.ends_with("hello"), "a newcomer was not served");
        self.leave.send_replace(true);
        tokio::time::timeout(SOON, self.asks).await.expect("she waits for ever").unwrap();
    }
}

async fn withstands(flood: Flood, limits: Limits, pause: Duration) -> End {
    let (app, _heads) = canned(HELLO).await;
    let proxy = certified(app, limits).await;
    let bystander = Bystander::at(&proxy).await;
    let end = Attacker::at(&proxy).await.send(flood.begin(), pause, move |n| flood.nth(n)).await;
    bystander.was_served(&proxy).await;
    end
}

#[tokio::test]
async fn what_costs_more_than_honest_requests_ends_with_goaway() {
    for flood in Flood::HOSTILE {
        let end = withstands(flood, Limits::default(), Duration::ZERO).await;
        assert!(end != End::GoAway(0), "{flood:?} ended for another reason");
    }
}

#[tokio::test]
async fn what_breaks_no_rule_keeps_no_connection_open() {
    let limits = Limits { idle: Duration::from_secs(1), ..Limits::default() };
    for flood in Flood::IDLE {
        let begun = Instant::now();
        withstands(flood, limits.clone(), Duration::from_millis(2)).await;
        assert!(begun.elapsed() < Duration::from_secs(15), "{flood:?} lasted {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn answers_that_nobody_reads_hold_back_who_asks_for_them() {
    let limits = Limits { send_stall: Duration::from_millis(300), ..Limits::default() };
    for flood in [Flood::Settings, Flood::Pings] {
        let (app, _heads) = canned(HELLO).await;
        let proxy = certified(app, limits.clone()).await;
        let bystander = Bystander::at(&proxy).await;
        let mut attacker = Attacker::at(&proxy).await;
        let sent = tokio::time::timeout(SOON, async {
            let mut sent = 0_usize;
            for n in 0.. {
                let bytes: Vec<u8> = (0..1000).flat_map(|m| flood.nth(1000 * n + m)).collect();
                if attacker.write.write_all(&bytes).await.is_err() {
                    break;
                }
                sent += bytes.len();
            }
            sent
        });
        let sent = sent.await.unwrap_or_else(|_| panic!("{flood:?} goes on"));
        assert!(sent < 64 << 20, "{flood:?}: {sent} bytes were taken");
        bystander.was_served(&proxy).await;
    }
}

#[tokio::test]
async fn frames_on_streams_that_nobody_opened_and_windows_that_overflow() {
    for bytes in [
        frame(frames::DATA, 0, 1, b"x"),
        frame(frames::WINDOW_UPDATE, 0, 0, &0_u32.to_be_bytes()),
        frame(frames::WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()),
    ] {
        let (app, _heads) = canned(HELLO).await;
        let proxy = certified(app, Limits::default()).await;
        let mut attacker = Attacker::at(&proxy).await;
        attacker.write.write_all(&bytes).await.unwrap();
        let end = tokio::time::timeout(SOON, end(&mut attacker.read)).await.expect("it goes on");
        assert!(matches!(end, End::GoAway(1 | 3) | End::Cut), "{end:?}");
    }
}

/// Asks a hundred times with these settings before, then answers nothing but pings, and takes `drops` of each answer now
/// and then. Returns when all streams have ended, and how much had come until then.
async fn takes_little(settings: Vec<u8>, answer: &'static str, drops: Option<u32>) -> usize {
    let (app, _heads) = canned(answer).await;
    let stall = Duration::from_millis(500);
    let proxy = certified(app, Limits { send_stall: stall, idle: stall, ..Limits::default() }).await;
    let mut attacker = Attacker::at(&proxy).await;
    let asks: Vec<u8> = (0..100).flat_map(frames::get_on).collect();
    attacker.write.write_all(&[settings, asks].concat()).await.unwrap();
    let mut write = attacker.write;
    let keeping = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let mut bytes = frame(frames::PING, 0, 0, &[0; 8]);
            for n in 0..drops.map_or(0, |_| 100) {
                let more = drops.unwrap_or(0).to_be_bytes();
                bytes.extend(frame(frames::WINDOW_UPDATE, 0, 2 * n + 1, &more));
            }
            if write.write_all(&bytes).await.is_err() {
                break;
            }
        }
    });
    let mut came = 0;
    let ended = tokio::time::timeout(SOON, async {
        let mut resets = 0;
        loop {
            let mut head = [0; 9];
            if attacker.read.read_exact(&mut head).await.is_err() || head[3] == frames::GOAWAY {
                break;
            }
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            attacker.read.read_exact(&mut payload).await.unwrap();
            came += if head[3] == frames::DATA { payload.len() } else { 0 };
            resets += usize::from(head[3] == frames::RST_STREAM);
        }
        resets
    });
    let resets = ended.await.expect("the streams stay open for ever");
    keeping.abort();
    assert_eq!(resets, 100, "after {came} bytes");
    came
}

#[tokio::test]
async fn a_window_that_is_never_opened_holds_no_stream_for_ever() {
    assert_eq!(takes_little(frames::window(0), HELLO, None).await, 0);
}

#[tokio::test]
async fn a_window_that_is_opened_by_drops_holds_none_either() {
    static LONG: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n{}", "x".repeat(500_000))
    });
    let came = takes_little(frames::window(0), &LONG, Some(10)).await;
    assert!((100..100_000).contains(&came), "{came} bytes");
}

/// One who takes her time, but takes.
#[tokio::test]
async fn a_slow_line_is_no_stall() {
    static LONG: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n{}", "x".repeat(300_000))
    });
    let (app, _heads) = canned(&LONG).await;
    let stall = Duration::from_millis(900);
    let proxy = certified(app, Limits { send_stall: stall, ..Limits::default() }).await;
    let io = TokioIo::new(Client::new("h2").connect(&proxy, "node").await);
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = builder.initial_stream_window_size(30_000).handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("https://node/").body(Empty::<Bytes>::new()).unwrap();
    let mut body = sender.send_request(request).await.unwrap().into_body();
    let (begun, mut came) = (Instant::now(), 0);
    while let Some(frame) = body.frame().await {
        came += frame.unwrap().into_data().unwrap().len();
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert_eq!(came, 300_000);
    assert!(begun.elapsed() > 2 * stall, "{:?}", begun.elapsed());
}
