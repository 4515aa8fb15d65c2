//! Threat 23: what goes through a WebSocket after its handshake is the app's own business, whatever it is. It is held by
//! the slower side, ends with the app, and is nobody else's.

use std::{io, net::SocketAddr, time::Duration};

use http::{Method, Request};
use http_body_util::Empty;
use hyper::{body::Bytes, ext::Protocol};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nginx_free::Limits;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::{broadcast, mpsc},
};

use crate::{
    certified::{Client, certified},
    http2::accept,
    support::*,
    websocket::HANDSHAKE,
};

trait Duplex: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Duplex for S {}

/// A WebSocket that is open through a proxy, by HTTP/1.1 or by HTTP/2 (RFC 8441).
async fn opened(proxy: &Running, alpn: &str) -> Box<dyn Duplex> {
    let mut stream = Client::new(alpn).connect(proxy, "node").await;
    if alpn == "http/1.1" {
        stream.write_all(format!("{HANDSHAKE}\r\n").as_bytes()).await.unwrap();
        assert_eq!(status(&read_head(&mut stream).await.unwrap()), 101);
        return Box::new(stream);
    }
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder().method(Method::CONNECT).uri("https://node/ws");
    let mut request = request.header("sec-websocket-version", "13").body(Empty::<Bytes>::new()).unwrap();
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    Box::new(TokioIo::new(hyper::upgrade::on(answer).await.unwrap()))
}

const BOTH: [&str; 2] = ["http/1.1", "h2"];

/// An app that gives its WebSockets to `tunnel`, says hello to all else, and passes the heads out.
async fn app_with<F, R>(tunnel: F) -> (SocketAddr, mpsc::UnboundedReceiver<(usize, String)>)
where
    F: Fn(TcpStream) -> R + Clone + Send + 'static,
    R: Future<Output = io::Result<()>> + Send + 'static,
{
    let (heads, seen) = mpsc::unbounded_channel();
    let address = app(move |number, mut stream| {
        let (heads, tunnel) = (heads.clone(), tunnel.clone());
        async move {
            loop {
                let head = read_head(&mut stream).await?;
                if head.is_empty() {
                    return Ok(());
                }
                let key = field(&head, "sec-websocket-key").map(accept);
                heads.send((number, head)).unwrap();
                let Some(accept) = key else {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await?;
                    continue;
                };
                let fields = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
                let agreed = format!("HTTP/1.1 101 Hi\r\n{fields}Sec-WebSocket-Accept: {accept}\r\n\r\n");
                stream.write_all(agreed.as_bytes()).await?;
                return tunnel(stream).await;
            }
        }
    })
    .await;
    (address, seen)
}

/// Somebody else is served, on another connection to the app than `not`.
async fn others_are_served(
    proxy: &Running,
    heads: &mut mpsc::UnboundedReceiver<(usize, String)>,
    not: usize,
) {
    let mut client = Client::new("http/1.1").connect(proxy, "node").await;
    client.write_all(b"GET /else HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(read_all(&mut client).await.ends_with("hello"));
    let (number, head) = heads.recv().await.unwrap();
    assert!(head.starts_with("GET /else "), "{head}");
    assert_ne!(number, not);
}

/// Frames that break the rules of RFC 6455, and what is no frame at all.
const FRAMES: [&[u8]; 7] = [
    b"\x81\x02hi",                         // §5.1: not masked
    b"\xff\x80\0\0\0\0",                   // §5.2: an unknown kind, all reserved bits
    b"\x09\x80\0\0\0\0\x80\x80\0\0\0\0",   // §5.4: a ping in two parts
    b"\x88\x81\0\0\0\0\x03",               // §5.5.1: half a status
    b"\x8a\xfe\x01\0\0\0\0\0",             // §5.5: a pong of 256 bytes, of which none comes
    b"\x82\xff\0\0\0\0\x40\0\0\0\0\0\0\0", // a gibibyte, of which this is what comes:
    b"GET /smuggled HTTP/1.1\r\nHost: node\r\n\r\n",
];

#[tokio::test]
async fn frames_that_no_client_may_send_reach_the_app_as_they_are_and_nobody_else() {
    let (passed, mut received) = mpsc::unbounded_channel();
    let (app, mut heads) = app_with(move |mut stream| {
        let passed = passed.clone();
        async move {
            passed.send(read_exactly(&mut stream, FRAMES.concat().len()).await).unwrap();
            stream.write_all(&FRAMES.concat()).await
        }
    })
    .await;
    let proxy = certified(app, Limits::default()).await;
    for alpn in BOTH {
        let mut client = opened(&proxy, alpn).await;
        let (number, head) = heads.recv().await.unwrap();
        assert!(head.starts_with("GET /ws "), "{head}");
        client.write_all(&FRAMES.concat()).await.unwrap();
        client.flush().await.unwrap();
        assert_eq!(received.recv().await.unwrap(), FRAMES.concat());
        assert_eq!(read_exactly(&mut client, FRAMES.concat().len()).await, FRAMES.concat());
        // The app has gone after that, and its connection is not one that others are given.
        assert_eq!(read_all(&mut client).await, "");
        others_are_served(&proxy, &mut heads, number).await;
    }
}

#[tokio::test]
async fn what_an_app_does_not_read_is_not_taken_from_its_client() {
    let (let_go, _) = broadcast::channel::<()>(1);
    let told = let_go.clone();
    let (app, mut heads) = app_with(move |stream| {
        let mut told = told.subscribe();
        async move {
            drop(told.recv().await);
            drop(stream);
            Ok(())
        }
    })
    .await;
    let proxy = certified(app, Limits::default()).await;
    for alpn in BOTH {
        let mut client = opened(&proxy, alpn).await;
        let (number, _) = heads.recv().await.unwrap();
        client.write_all(FRAMES[5]).await.unwrap();
        let (chunk, mut sent) = (vec![b'x'; 64 * 1024], 0);
        // What is not taken within this time is not taken at all.
        while let Ok(written) = tokio::time::timeout(Duration::from_millis(500), client.write(&chunk)).await {
            sent += written.unwrap();
            assert!(sent < 64 << 20, "{sent} bytes were taken, and nobody reads them");
        }
        others_are_served(&proxy, &mut heads, number).await;
        let_go.send(()).unwrap();
        assert_eq!(read_all(&mut client).await, "", "the app has ended it");
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_of_a_websocket_is_cut_and_its_app_is_held_back() {
    let (counted, mut count) = mpsc::unbounded_channel();
    let (app, mut heads) = app_with(move |mut stream| {
        let counted = counted.clone();
        async move {
            let (chunk, mut total) = (vec![0; 64 * 1024], 0_usize);
            while stream.write_all(&chunk).await.is_ok() && total < 1 << 30 {
                total += chunk.len();
            }
            counted.send(total).unwrap();
            Ok(())
        }
    })
    .await;
    let limits = Limits { send_stall: Duration::from_millis(300), ..Limits::default() };
    let proxy = certified(app, limits).await;
    let _client = opened(&proxy, "http/1.1").await;
    let (number, _) = heads.recv().await.unwrap();
    let total = tokio::time::timeout(SOON, count.recv()).await.expect("it is not cut").unwrap();
    assert!(total < 64 << 20, "{total} bytes were taken from the app");
    others_are_served(&proxy, &mut heads, number).await;
}
