//! HTTP/1.1 through the proxy.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use nginx_free::Limits;
use tokio::{io::AsyncWriteExt, sync::Barrier, task::JoinSet};

use crate::support::*;

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[tokio::test]
async fn a_request_goes_through_with_our_word_on_the_client() {
    let (app, mut heads) = canned(HELLO).await;
    let proxy = proxy(app).await;
    let answer = proxy
        .talk(
            "GET /x/a%2Fb?q=%20 HTTP/1.1\r\nHost: node:1\r\nX-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\n\
             Connection: close, X-Secret\r\nX-Secret: 1\r\nCookie: a=1; b=2\r\n\r\n",
        )
        .await;
    assert_eq!(status(&answer), 200);
    assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
    let (_, head) = heads.recv().await.unwrap();
    assert!(head.starts_with("GET /x/a%2Fb?q=%20 HTTP/1.1\r\n"), "{head}");
    assert_eq!(field(&head, "host"), Some("node:1"));
    assert_eq!(field(&head, "x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(field(&head, "forwarded"), Some("for=127.0.0.1;proto=http"));
    assert_eq!(field(&head, "cookie"), Some("a=1; b=2"));
    assert!(!head.contains("6.6.6.6") && field(&head, "x-secret").is_none(), "{head}");
}

/// How many of 64 requests, each on a connection of its own, an app has at once that answers when it has 32.
async fn most_at_once() -> usize {
    let (has, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (seen, enough) = (Arc::clone(&most), Arc::new(Barrier::new(32)));
    let app = app(move |_, mut stream| {
        let (has, seen, enough) = (Arc::clone(&has), Arc::clone(&seen), Arc::clone(&enough));
        async move {
            while !read_head(&mut stream).await?.is_empty() {
                seen.fetch_max(1 + has.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
                enough.wait().await;
                has.fetch_sub(1, Ordering::SeqCst);
                stream.write_all(HELLO.as_bytes()).await?;
            }
            Ok(())
        }
    })
    .await;
    let proxy = Arc::new(proxy(app).await);
    let mut clients = JoinSet::new();
    for _ in 0..64 {
        let proxy = Arc::clone(&proxy);
        clients
            .spawn(async move { proxy.talk("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await });
    }
    assert!(clients.join_all().await.iter().all(|answer| status(answer) == 200));
    most.load(Ordering::SeqCst)
}

#[tokio::test]
async fn an_app_that_answers_at_once_is_asked_few_things_at_a_time() {
    assert_eq!(Limits::default().at_once, 32);
    let mut most = Vec::new();
    // Where this machine stands still for long, it is not told from an app that is slow.
    while most.len() < 20 && !most.contains(&32) {
        most.push(most_at_once().await);
    }
    assert!(most.contains(&32), "{most:?} requests");
}

#[tokio::test]
async fn bodies_stream_both_ways_before_either_has_ended() {
    let app = app(|_, mut stream| async move {
        let head = read_head(&mut stream).await?;
        assert_eq!(field(&head, "transfer-encoding"), Some("chunked"));
        assert_eq!(read_exactly(&mut stream, 8).await, b"3\r\none\r\n");
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").await?;
        assert_eq!(read_exactly(&mut stream, 13).await, b"3\r\ntwo\r\n0\r\n\r\n");
        stream.write_all(b"1\r\nb\r\n0\r\n\r\n").await
    })
    .await;
    let proxy = proxy(app).await;
    let mut client = proxy.connect().await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(status(&read_head(&mut client).await.unwrap()), 200);
    assert_eq!(read_exactly(&mut client, 6).await, b"1\r\na\r\n");
    client.write_all(b"3\r\ntwo\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n").await.unwrap();
    assert_eq!(read_all(&mut client).await, "1\r\nb\r\n0\r\n\r\n");
}

#[tokio::test]
async fn a_get_with_chunks_keeps_them() {
    let app = app(|_, mut stream| async move {
        let head = read_head(&mut stream).await?;
        assert_eq!(field(&head, "transfer-encoding"), Some("chunked"));
        assert_eq!(read_exactly(&mut stream, 13).await, b"3\r\none\r\n0\r\n\r\n");
        stream.write_all(HELLO.as_bytes()).await
    })
    .await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n";
    assert_eq!(status(&proxy(app).await.talk(request).await), 200);
}

#[tokio::test]
async fn a_client_is_told_to_continue_when_its_body_is_wanted() {
    let app = app(|_, mut stream| async move {
        let head = read_head(&mut stream).await?;
        assert_eq!(field(&head, "expect"), None);
        assert_eq!(read_exactly(&mut stream, 3).await, b"abc");
        stream.write_all(HELLO.as_bytes()).await
    })
    .await;
    let proxy = proxy(app).await;
    let mut client = proxy.connect().await;
    let head =
        "PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read_head(&mut client).await.unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"abc").await.unwrap();
    assert_eq!(status(&read_all(&mut client).await), 200);
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    for (method, answer) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n"),
    ] {
        let (app, _heads) = canned(answer).await;
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let got = proxy(app).await.talk(&request).await;
        assert!(got.ends_with("\r\n\r\n") && got.matches("\r\n\r\n").count() == 1, "{got}");
        assert_eq!(field(&got, "content-length"), field(answer, "content-length"), "{got}");
    }
}

#[tokio::test]
async fn what_is_of_one_connection_does_not_reach_the_client() {
    let (app, _heads) = canned(
        "HTTP/1.1 200 Fine\r\nContent-Length: 0\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nX-End: 1\r\n\r\n",
    )
    .await;
    let got = proxy(app).await.talk("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    for name in ["x-hop", "keep-alive", "proxy-authenticate", "upgrade"] {
        assert_eq!(field(&got, name), None, "{got}");
    }
    assert_eq!(field(&got, "x-end"), Some("1"));
}

#[tokio::test]
async fn an_app_that_is_away_is_a_502_that_does_not_say_where_it_was() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let got = proxy(address).await.talk("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&got), 502);
    assert!(!got.contains("127.0.0.1") && !got.contains(&address.port().to_string()), "{got}");
}
