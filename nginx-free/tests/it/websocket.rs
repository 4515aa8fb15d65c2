//! WebSockets through the proxy.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::*;

pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: node\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test]
async fn a_websocket_goes_through_both_ways() {
    let app = app(|_, mut stream| async move {
        let head = read_head(&mut stream).await?;
        assert_eq!(field(&head, "sec-websocket-key"), Some(KEY));
        assert_eq!(field(&head, "x-forwarded-for"), Some("127.0.0.1"));
        stream
            .write_all(b"HTTP/1.1 101 Hi\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nearly")
            .await?;
        let mut four = [0; 4];
        stream.read_exact(&mut four).await?;
        stream.write_all(&four).await
    })
    .await;
    let proxy = proxy(app).await;
    let mut client = proxy.connect().await;
    client.write_all(format!("{HANDSHAKE}X-Forwarded-For: 6.6.6.6\r\n\r\nping").as_bytes()).await.unwrap();
    let head = read_head(&mut client).await.unwrap();
    assert_eq!(status(&head), 101);
    assert_eq!(field(&head, "sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(read_exactly(&mut client, 9).await, b"earlyping");
    assert_eq!(read_all(&mut client).await, "");
}

#[tokio::test]
async fn nothing_is_forwarded_before_the_app_agrees() {
    let app = app(|_, mut stream| async move {
        read_head(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno").await?;
        let rest = read_all(&mut stream).await;
        assert_eq!(rest, "", "what followed the handshake reached the app");
        Ok(())
    })
    .await;
    let proxy = proxy(app).await;
    let got = proxy.talk(&format!("{HANDSHAKE}\r\nGET /smuggled HTTP/1.1\r\nHost: node\r\n\r\n")).await;
    assert_eq!(status(&got), 403);
    assert_eq!(field(&got, "connection"), Some("close"));
    assert!(got.ends_with("no") && got.matches("HTTP/1.1").count() == 1, "{got}");
}

#[tokio::test]
async fn a_page_of_another_origin_opens_none() {
    let (app, mut heads) = canned("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n").await;
    let proxy = proxy(app).await;
    for origin in
        ["http://evil", "https://node", "http://node:1", "http://node.evil", "null", "", "http://evil@node"]
    {
        let got = proxy.talk(&format!("{HANDSHAKE}Origin: {origin}\r\n\r\n")).await;
        assert_eq!(status(&got), 403, "{origin}: {got}");
    }
    let twice = format!("{HANDSHAKE}Origin: http://node\r\nOrigin: http://node\r\n\r\n");
    assert_eq!(status(&proxy.talk(&twice).await), 403);
    assert!(heads.try_recv().is_err(), "the app hears nothing of them");
    for origin in ["http://node", "http://NODE:80"] {
        proxy.talk(&format!("{HANDSHAKE}Origin: {origin}\r\n\r\n")).await;
        assert_eq!(field(&heads.recv().await.unwrap().1, "origin"), Some(origin));
    }
}

#[tokio::test]
async fn a_101_that_is_no_handshake_is_a_502() {
    for fields in [
        "Upgrade: websocket\r\nConnection: Upgrade\r\n",
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: wrong\r\n",
        "Upgrade: h2c\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
    ] {
        let app = app(move |_, mut stream| async move {
            read_head(&mut stream).await?;
            stream.write_all(format!("HTTP/1.1 101 Hi\r\n{fields}\r\nevil").as_bytes()).await?;
            read_all(&mut stream).await;
            Ok(())
        })
        .await;
        let got = proxy(app).await.talk(&format!("{HANDSHAKE}\r\n")).await;
        assert_eq!(status(&got), 502, "{got}");
        assert!(!got.contains("evil"), "{got}");
    }
}

#[tokio::test]
async fn a_handshake_is_a_handshake() {
    let (app, mut heads) = canned("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let proxy = proxy(app).await;
    for (from, to, expected) in [
        ("Version: 13", "Version: 8", 426),
        ("dGhlIHNhbXBsZSBub25jZQ==", "short", 400),
        ("GET /ws", "POST /ws", 400),
        ("HTTP/1.1", "HTTP/1.0", 400),
        ("Connection: keep-alive, Upgrade", "Connection: keep-alive", 501),
        ("Upgrade: websocket", "Upgrade: websocket, h2c", 501),
        ("Host: node", "Host: node\r\nContent-Length: 5", 400),
        ("Host: node", "Host: node\r\nTransfer-Encoding: chunked", 400),
    ] {
        let got = proxy.talk(&format!("{}\r\n", HANDSHAKE.replace(from, to))).await;
        assert_eq!(status(&got), expected, "{to}: {got}");
    }
    assert!(heads.try_recv().is_err());
}
