//! TLS as clients see it: which certificate they are shown, before and after it changes, and how long they may take.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use nginx_free::Limits;
use rustls::HandshakeKind;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};
use tokio_rustls::client::TlsStream;

use crate::{
    certified::{Client, Folder, certified, showing},
    support::*,
};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: node\r\n\r\n";

async fn is_served(stream: &mut TlsStream<TcpStream>) {
    stream.write_all(GET).await.unwrap();
    assert_eq!(status(&read_head(stream).await.unwrap()), 200);
    assert_eq!(read_exactly(stream, 5).await, b"hello");
}

#[tokio::test]
async fn the_name_that_is_asked_for_picks_the_certificate() {
    let (app, _heads) = canned(HELLO).await;
    let folder = Folder::new();
    let files = vec![folder.certificate("one.example"), folder.certificate("two.example")];
    let (proxy, certificates) = showing(app, Limits::default(), files).await;
    let mut shown = Vec::new();
    for name in ["one.example", "two.example", "elsewhere.example", "10.0.0.1"] {
        let client = Client::new("http/1.1");
        is_served(&mut client.connect(&proxy, name).await).await;
        shown.push(client.shown().0);
    }
    assert_eq!(shown[0], certificates.first().unwrap());
    assert_ne!(shown[1], shown[0]);
    assert_eq!((&shown[2], &shown[3]), (&shown[0], &shown[0]));
}

#[tokio::test]
async fn a_second_connection_resumes_the_first_one_s_session() {
    let (app, _heads) = canned(HELLO).await;
    let proxy = certified(app, Limits::default()).await;
    let client = Client::new("http/1.1");
    for expected in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
        let mut stream = client.connect(&proxy, "node").await;
        // The ticket for the next comes with the first bytes.
        is_served(&mut stream).await;
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(expected));
    }
}

#[tokio::test]
async fn a_ticket_comes_with_the_first_answer_or_with_the_end() {
    let (app, _heads) = canned(HELLO).await;
    let proxy = certified(app, Limits::default()).await;
    let client = Client::new("http/1.1");
    let mut served = client.connect(&proxy, "node").await;
    let mut buffer = [0; 1];
    let nothing = tokio::time::timeout(Duration::from_millis(100), served.read(&mut buffer)).await;
    assert!(
        nothing.is_err() && served.get_ref().1.tls13_tickets_received() == 0,
        "it takes no packet of its own"
    );
    is_served(&mut served).await;
    assert_eq!(served.get_ref().1.tls13_tickets_received(), 1);

    let mut silent = client.connect(&proxy, "node").await;
    silent.shutdown().await.unwrap();
    assert_eq!(silent.read(&mut buffer).await.unwrap(), 0);
    assert_eq!(silent.get_ref().1.tls13_tickets_received(), 1);
}

#[tokio::test]
async fn an_ocsp_response_is_handed_out_and_renewed() {
    let (app, _heads) = canned(HELLO).await;
    let folder = Folder::new();
    let mut files = folder.certificate("node");
    let response = folder.path().join("ocsp");
    std::fs::write(&response, b"the first").unwrap();
    files.ocsp = Some(response.clone());
    let (proxy, certificates) = showing(app, Limits::default(), vec![files]).await;
    let stapled = async || {
        let client = Client::new("h2");
        drop(client.connect(&proxy, "node").await);
        client.shown().1
    };
    assert_eq!(stapled().await, b"the first");
    std::fs::write(&response, b"the second one").unwrap();
    assert!(certificates.reload().unwrap());
    assert_eq!(stapled().await, b"the second one");
}

/// What the app sends, as much as it is told to, on as many connections as there are.
struct Source {
    address: std::net::SocketAddr,
    opened: mpsc::UnboundedReceiver<mpsc::UnboundedSender<&'static [u8]>>,
}

/// An app whose answers are made while they are under way; WebSockets echo.
async fn source() -> Source {
    let (open, opened) = mpsc::unbounded_channel();
    let address = app(move |_, mut stream| {
        let open = open.clone();
        async move {
            let head = read_head(&mut stream).await?;
            if field(&head, "upgrade").is_some() {
                let fields = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
                // To the key of RFC 6455 §1.3.
                let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
                let answer = format!("HTTP/1.1 101 Hi\r\n{fields}{accept}\r\n\r\n");
                stream.write_all(answer.as_bytes()).await?;
                let (mut read, mut write) = stream.split();
                return tokio::io::copy(&mut read, &mut write).await.map(drop);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            let (say, mut said) = mpsc::unbounded_channel::<&'static [u8]>();
            drop(open.send(say));
            while let Some(bytes) = said.recv().await {
                stream.write_all(bytes).await?;
            }
            Ok(())
        }
    })
    .await;
    Source { address, opened }
}

#[tokio::test]
async fn a_changed_certificate_is_shown_to_newcomers_and_ends_nobody_s_connection() {
    let mut source = source().await;
    let folder = Folder::new();
    let (proxy, certificates) =
        showing(source.address, Limits::default(), vec![folder.certificate("node")]).await;
    let before = certificates.first().unwrap();

    let mut download = Client::new("http/1.1").connect(&proxy, "node").await;
    download.write_all(b"GET / HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").await.unwrap();
    assert_eq!(status(&read_head(&mut download).await.unwrap()), 200);
    let say_to_download = source.opened.recv().await.unwrap();

    let io = TokioIo::new(Client::new("h2").connect(&proxy, "node").await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let get = || Request::get("https://node/").body(Empty::<Bytes>::new()).unwrap();
    let mut stream = sender.send_request(get()).await.unwrap().into_body();
    let say_to_stream = source.opened.recv().await.unwrap();

    let mut socket = Client::new("http/1.1").connect(&proxy, "node").await;
    let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let open = format!("GET / HTTP/1.1\r\nHost: node\r\n{fields}{key}\r\n\r\n");
    socket.write_all(open.as_bytes()).await.unwrap();
    assert_eq!(status(&read_head(&mut socket).await.unwrap()), 101);

    // Twice, for the first change could go unnoticed where the second does not.
    let mut shown = vec![before];
    for piece in ["one".as_bytes(), b"two"] {
        folder.certificate("node");
        assert!(certificates.reload().unwrap());
        let newcomer = Client::new("http/1.1");
        drop(newcomer.connect(&proxy, "node").await);
        let now = newcomer.shown().0;
        assert_eq!(Some(&now), certificates.first().as_ref());
        assert!(!shown.contains(&now));
        shown.push(now);

        say_to_download.send(piece).unwrap();
        assert!(read_chunk(&mut download).await.contains(std::str::from_utf8(piece).unwrap()));
        say_to_stream.send(piece).unwrap();
        assert_eq!(stream.frame().await.unwrap().unwrap().into_data().unwrap(), piece);
        socket.write_all(piece).await.unwrap();
        assert_eq!(read_exactly(&mut socket, piece.len()).await, piece);
    }
    drop((say_to_download, say_to_stream));
    assert!(stream.collect().await.unwrap().to_bytes().is_empty());
    assert!(read_all(&mut download).await.ends_with("0\r\n\r\n"), "the download has no end");
    // The same connection still takes requests.
    let again = tokio::spawn(sender.send_request(get()));
    drop(source.opened.recv().await.unwrap());
    assert_eq!(again.await.unwrap().unwrap().status(), 200);
}

/// A chunk of three bytes, with its framing.
async fn read_chunk(stream: &mut TlsStream<TcpStream>) -> String {
    String::from_utf8(read_exactly(stream, "3\r\none\r\n".len()).await).unwrap()
}

#[tokio::test]
async fn a_handshake_has_to_end_in_time() {
    let (app, _heads) = canned(HELLO).await;
    let proxy = certified(app, Limits { handshake: Duration::from_millis(200), ..Limits::default() }).await;
    // Silence, and the beginning of a ClientHello.
    for begin in [&b""[..], &[22, 3, 1, 2, 0, 1]] {
        let mut stream = proxy.connect().await;
        stream.write_all(begin).await.unwrap();
        assert_eq!(read_all(&mut stream).await, "");
    }
    let metrics = proxy.proxy.metrics();
    while metrics.connections_open.load(Relaxed) > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(metrics.handshakes_failed.load(Relaxed), 2);
}

#[tokio::test]
async fn an_idle_connection_of_http2_ends_with_goaway() {
    let (app, _heads) = canned(HELLO).await;
    let proxy = certified(app, Limits { idle: Duration::from_millis(200), ..Limits::default() }).await;
    let mut stream = Client::new("h2").connect(&proxy, "node").await;
    stream.write_all(&crate::frames::opening()).await.unwrap();
    let mut all = Vec::new();
    // In the end it is cut, for this client does not answer.
    let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut all)).await.expect("it stays open");
    let goaway = |at: &[u8]| at[3] == crate::frames::GOAWAY && at[..3] == [0, 0, 8];
    assert!(all.windows(17).any(goaway), "{all:?}");
}

#[tokio::test]
async fn an_idle_connection_of_http11_ends_over_tls_as_well() {
    let (app, _heads) = canned(HELLO).await;
    let proxy = certified(app, Limits { head: Duration::from_millis(200), ..Limits::default() }).await;
    let mut stream = Client::new("http/1.1").connect(&proxy, "node").await;
    is_served(&mut stream).await;
    assert_eq!(read_all(&mut stream).await, "");
}

/// HTTP/2: the client is told, streams that are open go on to their end, and none begins.
#[tokio::test]
async fn a_shutdown_tells_clients_of_http2_and_lets_their_streams_end() {
    let mut source = source().await;
    let mut proxy = certified(source.address, Limits::default()).await;
    let io = TokioIo::new(Client::new("h2").connect(&proxy, "node").await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let get = || Request::builder().method(Method::GET).uri("https://node/");
    let answer = sender.send_request(get().body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    let say = source.opened.recv().await.unwrap();
    proxy.closing.send_replace(true);
    // No more connections, and no more streams on this one.
    while TcpStream::connect(proxy.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    while sender.ready().await.is_ok() {
        let more = sender.send_request(get().body(Empty::<Bytes>::new()).unwrap());
        assert!(more.await.is_err(), "a stream was begun after the shutdown was");
    }
    say.send(b"the rest").unwrap();
    drop(say);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "the rest");
    tokio::time::timeout(SOON, &mut proxy.task).await.unwrap().unwrap();
    let _ = connection.await.unwrap();
}

/// What does not end in time is cut: a request that waits for its app, a WebSocket.
#[tokio::test]
async fn a_shutdown_waits_no_longer_than_it_is_to() {
    let source = source().await;
    let limits = Limits { drain: Duration::from_millis(300), ..Limits::default() };
    let mut proxy = certified(source.address, limits).await;
    let mut stream = Client::new("http/1.1").connect(&proxy, "node").await;
    stream.write_all(GET).await.unwrap();
    assert_eq!(status(&read_head(&mut stream).await.unwrap()), 200);
    let begun = std::time::Instant::now();
    proxy.closing.send_replace(true);
    tokio::time::timeout(SOON, &mut proxy.task).await.unwrap().unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(250), "{:?}", begun.elapsed());
    assert!(!read_all(&mut stream).await.ends_with("0\r\n\r\n"), "a cut answer looks whole");
}
