//! Clients that ask for much and read nothing of it for a minute, over HTTP/1.1 and HTTP/2; and WebSockets that send much
//! to an app that reads nothing.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Bytes, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Barrier,
};

use crate::{
    app,
    frames::{self, frame},
    harness::{Site, seconds, until},
    stage::{CORES, Stage, was_served},
    wire,
};

/// The word in `argv[1]` for who asks and does not read; then the address, and her cookie.
pub(crate) const ROLE: &str = "@deaf";

const MINUTE: Duration = Duration::from_secs(60);
/// Connections of each kind.
const EACH: usize = 50;
/// What the gateway may hold for them, in bytes; all that was asked for is 150 GiB.
const ROOM: u64 = 80 << 20;
/// What the owner has open besides.
const ORDINARY: usize = 48;

/// How a connection does not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Way {
    /// HTTP/1.1, whose socket fills.
    Http1,
    /// HTTP/2 with windows that never close: the socket fills.
    Http2Wide,
    /// HTTP/2 that answers pings, and whose stream's window is not opened any further: the socket stays empty.
    Http2Closed,
}

/// How it ended.
#[derive(Debug, Serialize, Deserialize)]
struct Ended {
    way: Way,
    /// Bytes that had come, when it was read at last.
    came: usize,
    /// Whether that was all.
    whole: bool,
}

pub(crate) fn for_a_minute(site: &Site) {
    let stage = Stage::new(site);
    let gateway = stage.gateway();
    let calm = stage.owner_loads(30);
    let cookie = stage.cookie_of_the_world();
    let base = gateway.descriptors();
    let owner = stage.owner_works();
    let begun = Instant::now();
    let attack = stage.runs_in_world(&[ROLE, &stage.address().to_string(), &cookie]);
    attack.wait_for(seconds(30), "asked");
    // One to each client, and one to the app for it.
    until(seconds(15), "the attack takes hold", || {
        (gateway.descriptors() >= base + 2 * 3 * EACH).then_some(())
    });
    // A connection of HTTP/2 goes on when its stream is reset, and so does its own descriptor.
    gateway.until_at_most(base + EACH + ORDINARY, seconds(45), "who reads nothing is cut");
    let cut = begun.elapsed();
    let said = attack.finish(seconds(60)).ok().stdout;
    let attacked = owner.stops();
    let ended: Vec<Ended> = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    for way in [Way::Http1, Way::Http2Wide, Way::Http2Closed] {
        let of_it: Vec<_> = ended.iter().filter(|ended| ended.way == way).collect();
        let came = of_it.iter().map(|ended| ended.came).max().unwrap();
        eprintln!("{way:?}: at most {came} bytes came of each");
        assert_eq!(of_it.len(), EACH);
        assert!(of_it.iter().all(|ended| !ended.whole), "{of_it:?}");
    }
    eprintln!(
        "who reads nothing: cut after {cut:?}, {} MiB at most, {} MiB after",
        gateway.peak() >> 20,
        gateway.resident() >> 20
    );
    was_served("who reads nothing", &calm, &attacked);
    assert!(gateway.peak() < ROOM, "{} bytes", gateway.peak());
    gateway.until_at_most(base, seconds(15), "descriptors are back to base");
    stage.close();
}

/// The role.
pub(crate) fn run(address: &str, cookie: &str) {
    let address = address.parse().unwrap();
    let ended = wire::runtime().block_on(async {
        let asked = Arc::new(Barrier::new(3 * EACH + 1));
        let mut all = tokio::task::JoinSet::new();
        for way in [Way::Http1, Way::Http2Wide, Way::Http2Closed] {
            for _ in 0..EACH {
                let (asked, cookie) = (Arc::clone(&asked), cookie.to_owned());
                all.spawn(async move {
                    let came = match way {
                        Way::Http1 => {
                            let head =
                                format!("GET /large HTTP/1.1\r\nHost: {address}\r\nCookie: {cookie}\r\n\r\n");
                            raw(b"http/1.1", address, head.as_bytes(), &asked).await
                        }
                        Way::Http2Wide => raw(b"h2", address, &wide(address, &cookie), &asked).await,
                        Way::Http2Closed => closed(address, &cookie, &asked).await,
                    };
                    Ended { way, came, whole: came >= app::LARGE }
                });
            }
        }
        asked.wait().await;
        println!("asked");
        all.join_all().await
    });
    println!("{}", serde_json::to_string(&ended).unwrap());
}

/// Says this much, and reads nothing for a minute.
async fn raw(alpn: &[u8], address: SocketAddr, says: &[u8], asked: &Barrier) -> usize {
    let mut stream = wire::connect(address, &[alpn]).await;
    stream.write_all(says).await.unwrap();
    asked.wait().await;
    tokio::time::sleep(MINUTE).await;
    let (mut came, mut chunk) = (0, vec![0; 64 << 10]);
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        came += count;
    }
    came
}

/// `GET /large` after windows that are as wide as can be (RFC 9113 §6.5.2, §6.9.1).
fn wide(address: SocketAddr, cookie: &str) -> Vec<u8> {
    const MOST: u32 = (1 << 31) - 1;
    let mut block = vec![0x82, 0x87];
    // literals without indexing, by the static table's names: `:path`, `:authority`, `cookie` (RFC 7541 §6.2.2)
    for (name, value) in [(&[4][..], "/large"), (&[1], &address.to_string()), (&[0x0f, 0x11], cookie)] {
        block.extend(name);
        block.push(u8::try_from(value.len()).ok().filter(|length| *length < 127).unwrap());
        block.extend(value.as_bytes());
    }
    let of_connection = frame(frames::WINDOW_UPDATE, 0, 0, &(MOST - 65_535).to_be_bytes());
    let head = frame(frames::HEADERS, frames::END_STREAM | frames::END_HEADERS, 1, &block);
    [frames::opening(), frames::window(MOST), of_connection, head].concat()
}

/// By a library, which answers pings, and opens no window for a body that nobody asks for.
async fn closed(address: SocketAddr, cookie: &str, asked: &Barrier) -> usize {
    let io = TokioIo::new(wire::connect(address, &[b"h2"]).await);
    let (mut ask, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(format!("https://{address}/large"))
        .header(header::COOKIE, cookie)
        .body(Empty::<Bytes>::new())
        .unwrap();
    let answer = ask.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    asked.wait().await;
    tokio::time::sleep(MINUTE).await;
    let (mut body, mut came) = (answer.into_body(), 0);
    while let Some(Ok(frame)) = body.frame().await {
        came += frame.data_ref().map_or(0, Bytes::len);
    }
    came
}

/// The word in `argv[1]` for who sends to a WebSocket; then the address, and her cookie.
pub(crate) const TUNNEL: &str = "@tunnel";

/// WebSockets.
const TUNNELS: usize = 100;
/// What each of them tries to send.
const FRAME: u64 = 1 << 30;
/// When nothing moves for so long, nothing will.
const STUCK: Duration = Duration::from_secs(2);

/// Threat 23: frames that no client may send, and one of a gibibyte, to an app that reads none of it.
pub(crate) fn apps_hold_their_websockets_back(site: &Site) {
    // They carry a gigabyte or two before they stand still.
    let _alone = CORES.write();
    let stage = Stage::new(site);
    let gateway = stage.gateway();
    let calm = stage.owner_loads(30);
    let cookie = stage.cookie_of_the_world();
    let base = gateway.descriptors();
    let owner = stage.owner_works();
    let attack = stage.runs_in_world(&[TUNNEL, &stage.address().to_string(), &cookie]);
    let all = || (gateway.descriptors() >= base + 2 * TUNNELS).then_some(());
    until(seconds(30), "the WebSockets are open", all);
    attack.wait_for(seconds(60), "stuck");
    let held = gateway.peak();
    // then she has the app end them all
    attack.wait_for(seconds(30), "ended");
    let said = attack.finish(seconds(30)).ok().stdout;
    let attacked = owner.stops();
    eprintln!("WebSockets: {}; {} MiB at most", said.lines().collect::<Vec<_>>().join(", "), held >> 20);
    was_served("WebSockets", &calm, &attacked);
    assert!(held < ROOM, "{held} bytes");
    gateway.until_at_most(base, seconds(15), "descriptors are back to base");
    stage.close();
}

/// The role.
pub(crate) fn tunnel(address: &str, cookie: &str) {
    let address: SocketAddr = address.parse().unwrap();
    wire::runtime().block_on(async {
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..TUNNELS {
            let cookie = cookie.to_owned();
            all.spawn(async move { fill(address, &cookie).await });
        }
        let filled = all.join_all().await;
        let most = filled.iter().map(|(_, sent)| *sent).max().unwrap();
        assert!(most < FRAME, "an app that reads nothing has taken all");
        println!("stuck after {most} bytes each");
        let mut other = wire::connect(address, &[b"http/1.1"]).await;
        let ask = format!(
            "GET /let-go HTTP/1.1\r\nHost: {address}\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n"
        );
        other.write_all(ask.as_bytes()).await.unwrap();
        for (mut stream, _) in filled {
            while let Ok(1..) = stream.read(&mut [0; 1024]).await {}
        }
        println!("ended");
    });
}

/// Opens one, and sends until nobody takes any more.
async fn fill(address: SocketAddr, cookie: &str) -> (wire::Stream, u64) {
    let mut stream = wire::connect(address, &[b"http/1.1"]).await;
    let ask = format!(
        "GET /deaf HTTP/1.1\r\nHost: {address}\r\nCookie: {cookie}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    // unmasked; a ping in two parts; a text of a gibibyte
    let begin = [
        &[0x81, 2, b'h', b'i', 0x09, 0x80, 0, 0, 0, 0, 0x80, 0x80, 0, 0, 0, 0, 0x81, 127][..],
        &FRAME.to_be_bytes(),
    ];
    stream.write_all(&begin.concat()).await.unwrap();
    let (chunk, mut sent) = (vec![b'x'; 64 << 10], 0);
    while sent < FRAME {
        match tokio::time::timeout(STUCK, stream.write(&chunk)).await {
            Ok(written) => sent += written.unwrap() as u64,
            Err(_) => break,
        }
    }
    (stream, sent)
}
