//! What a client may take of the proxy, and for how long.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use nginx_free::{Hooks, Limits};
use tokio::io::AsyncWriteExt;

use crate::{
    certified::{Client, certified},
    frames,
    support::*,
};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

async fn limited(limits: Limits) -> Running {
    let (app, _) = canned(HELLO).await;
    proxy_with(app, limits, Hooks::default(), None).await
}

#[tokio::test]
async fn one_client_cannot_take_all_connections() {
    let proxy = limited(Limits { connections_per_peer: 2, ..Limits::default() }).await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut client = proxy.connect().await;
        client.write_all(GET.as_bytes()).await.unwrap();
        assert_eq!(status(&read_head(&mut client).await.unwrap()), 200);
        kept.push(client);
    }
    let mut third = proxy.connect().await;
    let _ = third.write_all(GET.as_bytes()).await;
    let answer = read_all(&mut third).await;
    assert_eq!((status(&answer), field(&answer, "retry-after")), (503, Some("1")), "{answer}");
    assert_eq!(proxy.proxy.metrics().shed_connections.load(Relaxed), 1);
    drop(kept);
    // A place is free again once the proxy has seen them go.
    while proxy.proxy.metrics().connections_open.load(Relaxed) > 0 {
        tokio::task::yield_now().await;
    }
    let mut client = proxy.connect().await;
    client.write_all(GET.as_bytes()).await.unwrap();
    assert_eq!(status(&read_head(&mut client).await.unwrap()), 200);
}

#[tokio::test]
async fn even_those_who_are_turned_away_are_few() {
    let limits = Limits { connections: 1, connections_leaving: 1, ..Limits::default() };
    let proxy = limited(Limits { leave: Duration::from_millis(300), ..limits }).await;
    let mut first = proxy.connect().await;
    first.write_all(GET.as_bytes()).await.unwrap();
    assert_eq!(status(&read_head(&mut first).await.unwrap()), 200);
    let (begun, mut silent) = (Instant::now(), proxy.connect().await);
    let metrics = proxy.proxy.metrics();
    while metrics.shed_connections.load(Relaxed) < 1 {
        tokio::task::yield_now().await;
    }
    let mut cut = proxy.connect().await;
    let _ = cut.write_all(GET.as_bytes()).await;
    assert_eq!(read_all(&mut cut).await, "", "one is leaving, and takes its time");
    assert_eq!(read_all(&mut silent).await, "");
    assert!(begun.elapsed() >= Duration::from_millis(250), "{:?}", begun.elapsed());
    assert_eq!(metrics.shed_connections.load(Relaxed), 2);
    assert!(metrics.prometheus().contains("nginx_free_shed_total{limit=\"connections\"} 2\n"));
}

/// An app that answers nobody, and a number of requests to it.
async fn waiting(limits: Limits, count: usize) -> (Running, Vec<tokio::net::TcpStream>) {
    let (app, mut heads) = canned("").await;
    let proxy = proxy_with(app, limits, Hooks::default(), None).await;
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = proxy.connect().await;
        client.write_all(GET.as_bytes()).await.unwrap();
        heads.recv().await.unwrap();
        clients.push(client);
    }
    (proxy, clients)
}

#[tokio::test]
async fn one_client_cannot_take_all_requests() {
    for limits in
        [Limits { requests_per_peer: 2, ..Limits::default() }, Limits { requests: 2, ..Limits::default() }]
    {
        let (proxy, clients) = waiting(limits, 2).await;
        let answer = proxy.talk(GET).await;
        assert_eq!((status(&answer), field(&answer, "retry-after")), (503, Some("1")), "{answer}");
        assert_eq!(proxy.proxy.metrics().shed_requests.load(Relaxed), 1);
        drop(clients);
        while proxy.proxy.metrics().requests_open.load(Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
        let mut client = proxy.connect().await;
        client.write_all(GET.as_bytes()).await.unwrap();
        while proxy.proxy.metrics().requests_open.load(Relaxed) < 1 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn streams_too_many_are_told_so() {
    let (app, mut heads) = canned("").await;
    let limits = Limits { requests_per_peer: 2, streams: 10, ..Limits::default() };
    let proxy = certified(app, limits).await;
    let mut client = Client::new("h2").connect(&proxy, "node").await;
    let asks: Vec<u8> = (0..10).flat_map(frames::get_on).collect();
    client.write_all(&[frames::opening(), asks].concat()).await.unwrap();
    for _ in 0..2 {
        heads.recv().await.unwrap();
    }
    let metrics = proxy.proxy.metrics();
    tokio::time::timeout(SOON, async {
        while metrics.answers(5) < 8 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("all but two are told");
    assert_eq!(metrics.shed_requests.load(Relaxed), 8);
    assert!(heads.try_recv().is_err(), "the app hears of two");
}

#[tokio::test]
async fn one_app_cannot_take_all_connections() {
    let limits = Limits { connections_per_app: 2, ..Limits::default() };
    let (proxy, clients) = waiting(limits, 2).await;
    let mut client = proxy.connect().await;
    client.write_all(GET.as_bytes()).await.unwrap();
    let answer = read_head(&mut client).await.unwrap();
    assert_eq!((status(&answer), field(&answer, "retry-after")), (503, Some("1")), "{answer}");
    assert_eq!(proxy.proxy.metrics().shed_by_app.load(Relaxed), 1);
    assert_eq!(proxy.proxy.admit().upstream.connections(), 2);
    drop(clients);
    while proxy.proxy.admit().upstream.connections() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_slow_or_silent_head_ends_in_time() {
    let proxy = limited(Limits { head: Duration::from_millis(200), ..Limits::default() }).await;
    for begin in ["", "GET / HTTP/1.1\r\nHost: a\r\nX-"] {
        let begun = Instant::now();
        let got = proxy.talk(begin).await;
        assert!(got.is_empty() || status(&got) == 408, "{got}");
        assert!(begun.elapsed() >= Duration::from_millis(150));
    }
    let got = proxy.talk(GET).await;
    assert!(got.ends_with("hello"), "an idle connection ends as well: {got}");
}

#[tokio::test]
async fn a_slow_body_ends_in_time() {
    let (app, _) = canned("").await;
    let limits = Limits { body_stall: Duration::from_millis(200), ..Limits::default() };
    let proxy = proxy_with(app, limits, Hooks::default(), None).await;
    let got = proxy.talk("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nslow").await;
    assert_eq!(status(&got), 408, "{got}");
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_and_the_app_is_held_back() {
    let (written, mut count) = tokio::sync::mpsc::unbounded_channel();
    let app = app(move |_, mut stream| {
        let written = written.clone();
        async move {
            read_head(&mut stream).await?;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            let (chunk, mut total) = (vec![0; 64 * 1024], 0_usize);
            while stream.write_all(&chunk).await.is_ok() && total < 1 << 30 {
                total += chunk.len();
            }
            let _ = written.send(total);
            Ok(())
        }
    })
    .await;
    let limits = Limits { send_stall: Duration::from_millis(300), ..Limits::default() };
    let proxy = proxy_with(app, limits, Hooks::default(), None).await;
    let mut client = proxy.connect().await;
    client.write_all(GET.as_bytes()).await.unwrap();
    let total = tokio::time::timeout(SOON, count.recv()).await.unwrap().unwrap();
    assert!(total < 64 << 20, "{total} bytes were taken from the app");
}

#[tokio::test]
async fn an_app_that_does_not_answer_is_a_504() {
    let (app, _) = canned("").await;
    let limits = Limits { answer: Duration::from_millis(200), ..Limits::default() };
    let proxy = proxy_with(app, limits, Hooks::default(), None).await;
    let got = proxy.talk("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&got), 504, "{got}");
}

#[tokio::test]
async fn a_shutdown_lets_open_requests_end_and_takes_no_more() {
    let (asked, mut answer_now) = tokio::sync::mpsc::unbounded_channel();
    let app = app(move |_, mut stream| {
        let asked = asked.clone();
        async move {
            read_head(&mut stream).await?;
            let (go, gone) = tokio::sync::oneshot::channel::<()>();
            drop(asked.send(go));
            drop(gone.await);
            stream.write_all(HELLO.as_bytes()).await
        }
    })
    .await;
    let mut proxy = proxy(app).await;
    let (mut busy, mut idle) = (proxy.connect().await, proxy.connect().await);
    busy.write_all(GET.as_bytes()).await.unwrap();
    let go = answer_now.recv().await.unwrap();
    proxy.closing.send_replace(true);
    assert_eq!(read_all(&mut idle).await, "");
    go.send(()).unwrap();
    assert!(read_all(&mut busy).await.ends_with("hello"));
    tokio::time::timeout(SOON, &mut proxy.task).await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(proxy.address).await.is_err());
}
