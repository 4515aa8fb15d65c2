//! Apps on hosts that have dialled in, over CONNECTs of HTTP/2.

mod ends;
mod far;
mod host;
mod joined;
mod limits;

use std::{io, sync::Arc, time::Instant};

use aws_lc_rs::digest::{Context, SHA256};
use h2::Reason;
use nginx_free::trunk::{Trunk, TrunkError, TrunkLimits};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Barrier,
    time::timeout,
};

use crate::support::*;
use far::*;

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn a_request_goes_through() {
    let (app, mut heads) = canned(HELLO).await;
    let (trunk, _host) = trunk(TrunkLimits::default()).await;
    let gateway = gateway(&app.to_string(), Some(trunk)).await;
    for _ in 0..3 {
        let got = gateway.talk(GET).await;
        assert!(got.ends_with("hello"), "{got}");
        let (number, head) = heads.recv().await.unwrap();
        assert_eq!(number, 0, "one channel is kept, as a connection would be");
        assert!(head.starts_with("GET / HTTP/1.1\r\nhost: a\r\n"), "{head}");
    }
}

const SIZE: usize = 64 << 20;

/// The nth piece of a body in which no two are alike.
fn piece(number: usize) -> Vec<u8> {
    let mut state = number as u64 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()
    };
    (0..64 * 1024 / 8).flat_map(|_| next()).collect()
}

/// Sends all pieces; their digest.
async fn send_all(to: &mut (impl AsyncWriteExt + Unpin)) -> io::Result<Vec<u8>> {
    let mut digest = Context::new(&SHA256);
    for number in 0..SIZE / (64 * 1024) {
        let piece = piece(number);
        digest.update(&piece);
        timeout(SOON, to.write_all(&piece)).await??;
    }
    Ok(digest.finish().as_ref().to_vec())
}

/// The digest of as many bytes as [`send_all`] sends.
async fn receive_all(from: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Vec<u8>> {
    let (mut digest, mut buffer, mut left) = (Context::new(&SHA256), vec![0; 64 * 1024], SIZE);
    while left > 0 {
        let most = buffer.len().min(left);
        let count = timeout(SOON, from.read(&mut buffer[..most])).await??;
        assert_ne!(count, 0, "{left} bytes are missing");
        digest.update(&buffer[..count]);
        left -= count;
    }
    Ok(digest.finish().as_ref().to_vec())
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let app = app(|_, mut stream| async move {
        let head = read_head(&mut stream).await?;
        if head.starts_with("POST") {
            let digest = receive_all(&mut stream).await?;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 32\r\n\r\n").await?;
            return stream.write_all(&digest).await;
        }
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes()).await?;
        send_all(&mut stream).await.map(drop)
    })
    .await;
    let (trunk, _host) = trunk(TrunkLimits::default()).await;
    let gateway = gateway(&app.to_string(), Some(trunk)).await;

    let mut up = gateway.connect().await;
    let begun = Instant::now();
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n");
    up.write_all(head.as_bytes()).await.unwrap();
    let sent = send_all(&mut up).await.unwrap();
    assert_eq!(status(&read_head(&mut up).await.unwrap()), 200);
    assert_eq!(read_exactly(&mut up, 32).await, sent);
    eprintln!("64 MiB up in {:?}", begun.elapsed());

    let mut down = gateway.connect().await;
    let begun = Instant::now();
    down.write_all(GET.as_bytes()).await.unwrap();
    assert_eq!(status(&read_head(&mut down).await.unwrap()), 200);
    assert_eq!(receive_all(&mut down).await.unwrap(), sent, "the same bytes came down");
    eprintln!("64 MiB down in {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_websocket_goes_through() {
    let app = app(|_, mut stream| async move {
        read_head(&mut stream).await?;
        stream
            .write_all(b"HTTP/1.1 101 Hi\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nearly")
            .await?;
        let (mut read, mut write) = stream.into_split();
        tokio::io::copy(&mut read, &mut write).await.map(drop)
    })
    .await;
    let (trunk, _host) = trunk(TrunkLimits::default()).await;
    let gateway = gateway(&app.to_string(), Some(trunk)).await;
    let mut client = gateway.connect().await;
    let key = crate::websocket::KEY;
    let head = format!(
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    );
    client.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(status(&read_head(&mut client).await.unwrap()), 101);
    assert_eq!(read_exactly(&mut client, 5).await, b"early");
    for number in 0..100_u8 {
        client.write_all(&[number; 300]).await.unwrap();
        assert_eq!(read_exactly(&mut client, 300).await, [number; 300]);
    }
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut client).await, "", "the app has seen the end, and ended as well");
}

#[tokio::test]
async fn fifty_requests_are_under_way_at_once() {
    let all_there = Arc::new(Barrier::new(50));
    let app = app(move |_, mut stream| {
        let all_there = Arc::clone(&all_there);
        async move {
            let head = read_head(&mut stream).await?;
            all_there.wait().await;
            let path = head.split(' ').nth(1).unwrap();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len());
            stream.write_all(answer.as_bytes()).await
        }
    })
    .await;
    let (trunk, _host) = trunk(TrunkLimits::default()).await;
    let gateway = Arc::new(gateway(&app.to_string(), Some(trunk.clone())).await);
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..50 {
        let gateway = Arc::clone(&gateway);
        asking.spawn(async move {
            let path = format!("/number/{number}");
            let got = gateway.talk(&GET.replace(" / ", &format!(" {path} "))).await;
            assert!(got.ends_with(&format!("\r\n\r\n{path}")), "{got}");
        });
    }
    asking.join_all().await;
    drop(gateway);
    timeout(SOON, async {
        while trunk.channels() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("channels are left");
}

#[tokio::test]
async fn a_channel_can_speak_a_protocol_of_its_own() {
    let (extended, _host) = trunk(TrunkLimits::default()).await;
    let mut terminal = extended.open_protocol("session:1", "/pty", "terminal").await.unwrap();
    assert_eq!(read_exactly(&mut terminal, 23).await, b"terminal session:1/pty\n");
    terminal.write_all(b"ls").await.unwrap();
    assert_eq!(read_exactly(&mut terminal, 2).await, b"ls");

    let (theirs, ours) = dialled().await;
    tokio::spawn(resetting(theirs, Reason::CANCEL));
    let plain = Trunk::over(ours, TrunkLimits::default()).await.unwrap();
    let refused = plain.open_protocol("session:1", "/pty", "terminal").await;
    assert!(matches!(refused, Err(TrunkError::NotExtended)), "{refused:?}");
}
