//! Between two requests, and between a request and its answer.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use nginx_free::{Hooks, Limits};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};

use crate::support::*;

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// Long enough for the proxy to let go of all that it keeps for a busy connection.
const LONGER_THAN_A_LULL: Duration = Duration::from_millis(400);

async fn ask(client: &mut TcpStream, request: &str) -> String {
    client.write_all(request.as_bytes()).await.unwrap();
    answer(client).await
}

async fn answer(client: &mut TcpStream) -> String {
    let head = read_head(client).await.unwrap();
    let body = read_exactly(client, 5).await;
    assert_eq!((status(&head), &body[..]), (200, &b"hello"[..]), "{head}");
    head
}

#[tokio::test]
async fn a_connection_serves_on_after_any_pause() {
    let (app, mut heads) = canned(HELLO).await;
    let proxy = proxy(app).await;
    let mut client = proxy.connect().await;
    for pause in [Duration::ZERO, LONGER_THAN_A_LULL, Duration::from_millis(250), LONGER_THAN_A_LULL] {
        ask(&mut client, GET).await;
        tokio::time::sleep(pause).await;
    }
    // A head that comes in pieces, the first of them into the pause.
    for piece in ["G", "ET /late HTTP/1.1\r\nHo", "st: a\r\n\r\n"] {
        client.write_all(piece.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    answer(&mut client).await;
    tokio::time::sleep(LONGER_THAN_A_LULL).await;
    // Two requests at once, and one with a body longer than what is read in a pause.
    client.write_all(GET.repeat(2).as_bytes()).await.unwrap();
    answer(&mut client).await;
    answer(&mut client).await;
    for _ in 0..7 {
        heads.recv().await.unwrap();
    }
    assert_eq!(proxy.proxy.metrics().connections.load(Relaxed), 1);
}

#[tokio::test]
async fn a_body_that_comes_into_a_pause_comes_whole() {
    let app = app(|_, mut stream| async move {
        loop {
            let head = read_head(&mut stream).await?;
            let length = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
            let body = read_exactly(&mut stream, length).await;
            assert!(body.iter().enumerate().all(|(at, byte)| *byte == u8::try_from(at % 251).unwrap()));
            stream.write_all(HELLO.as_bytes()).await?;
        }
    })
    .await;
    let proxy = proxy(app).await;
    let mut client = proxy.connect().await;
    let body: Vec<u8> = (0..100_000).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let mut post =
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    post.extend(body);
    for _ in 0..2 {
        client.write_all(&post).await.unwrap();
        answer(&mut client).await;
        tokio::time::sleep(LONGER_THAN_A_LULL).await;
    }
}

#[tokio::test]
async fn an_answer_that_is_not_read_is_not_lost_in_a_pause() {
    const LENGTH: usize = 8 << 20;
    let app = app(|_, mut stream| async move {
        read_head(&mut stream).await?;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&vec![b'x'; LENGTH]).await?;
        read_head(&mut stream).await.map(drop)
    })
    .await;
    let proxy = proxy(app).await;
    let mut client = proxy.connect().await;
    client.write_all(GET.as_bytes()).await.unwrap();
    let head = read_head(&mut client).await.unwrap();
    assert_eq!(field(&head, "content-length"), Some(LENGTH.to_string().as_str()));
    let mut left = LENGTH;
    while left > 0 {
        // The last of it is read after the proxy has had time to think it done.
        if left < 300_000 {
            tokio::time::sleep(LONGER_THAN_A_LULL).await;
        }
        let count = left.min(100_000);
        assert!(read_exactly(&mut client, count).await.iter().all(|byte| *byte == b'x'));
        left -= count;
    }
}

#[tokio::test]
async fn a_pause_ends_with_the_client_the_limit_or_the_run() {
    let (app, _heads) = canned(HELLO).await;
    let limits = Limits { head: Duration::from_secs(1), ..Limits::default() };
    let proxy = proxy_with(app, limits, Hooks::default(), None).await;
    let metrics = proxy.proxy.metrics();
    let gone = async || {
        while metrics.connections_open.load(Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
    };
    let mut client = proxy.connect().await;
    ask(&mut client, GET).await;
    tokio::time::sleep(LONGER_THAN_A_LULL).await;
    drop(client);
    tokio::time::timeout(SOON, gone()).await.expect("it is open without its client");

    let mut client = proxy.connect().await;
    ask(&mut client, GET).await;
    let begun = std::time::Instant::now();
    assert_eq!(tokio::time::timeout(SOON, client.read(&mut [0])).await.unwrap().unwrap(), 0);
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    tokio::time::timeout(SOON, gone()).await.expect("it is open after its time");

    let mut client = proxy.connect().await;
    ask(&mut client, GET).await;
    tokio::time::sleep(LONGER_THAN_A_LULL).await;
    proxy.closing.send(true).unwrap();
    assert_eq!(tokio::time::timeout(SOON, client.read(&mut [0])).await.unwrap().unwrap(), 0);
    tokio::time::timeout(SOON, proxy.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn early_hints_come_before_the_answer_with_their_links_alone() {
    let seen = Arc::new(Notify::new());
    let told = Arc::clone(&seen);
    let app = app(move |_, mut stream| {
        let seen = Arc::clone(&told);
        async move {
            read_head(&mut stream).await?;
            stream
                .write_all(
                    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Odd\r\n\
                      Link: </a.css>; rel=preload\r\nSet-Cookie: evil=1\r\nContent-Length: 4\r\n\
                      Link: </b.js>\r\n\r\n",
                )
                .await?;
            seen.notified().await;
            stream.write_all(HELLO.as_bytes()).await
        }
    })
    .await;
    let interim = "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\
                   link: </b.js>\r\n\r\n";
    let proxy = proxy(app).await;
    for (version, expected) in [("1.1", interim), ("1.0", "")] {
        let mut client = proxy.connect().await;
        client.write_all(format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        let early = read_exactly(&mut client, expected.len()).await;
        assert_eq!(String::from_utf8(early).unwrap(), expected);
        seen.notify_one();
        answer(&mut client).await;
    }
}
