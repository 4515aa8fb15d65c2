//! HTTP/2 through the proxy, over TLS as browsers speak it.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use http::{Method, Request, StatusCode, Version};
use http_body_util::{BodyExt, Empty, Full};
use hyper::{body::Bytes, client::conn::http2::SendRequest, ext::Protocol};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nginx_free::{Hooks, Limits};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::support::*;

/// A proxy with TLS, and a client that trusts it and offers these protocols.
pub(crate) async fn with_tls(app: std::net::SocketAddr, alpn: &[&[u8]]) -> (Running, TlsConnector) {
    let made = rcgen::generate_simple_self_signed(vec!["node".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let proxy = proxy_with(app, Limits::default(), Hooks::default(), Some(Arc::new(server))).await;
    (proxy, TlsConnector::from(Arc::new(client)))
}

pub(crate) async fn tls(
    proxy: &Running,
    connector: &TlsConnector,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    connector.connect(ServerName::try_from("node").unwrap(), proxy.connect().await).await.unwrap()
}

async fn http2<B>(proxy: &Running, connector: &TlsConnector) -> SendRequest<B>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let io = TokioIo::new(tls(proxy, connector).await);
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Asks for so many things at once, over one connection.
async fn ask_at_once(proxy: &Running, connector: &TlsConnector, count: usize) {
    let sender = http2::<Empty<Bytes>>(proxy, connector).await;
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..count {
        let mut sender = sender.clone();
        asked.spawn(async move {
            let request = Request::get("https://node:1/").body(Empty::new()).unwrap();
            let answer = sender.send_request(request).await.unwrap();
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "hello");
        });
    }
    assert_eq!(asked.join_all().await.len(), count);
}

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[tokio::test]
async fn an_app_that_answers_at_once_is_asked_few_things_at_a_time() {
    let few = Limits::default().at_once;
    let mut most = Vec::new();
    // Where this machine stands still for long, it is not told from an app that is slow.
    while most.len() < 20 && most.last().is_none_or(|most| *most > few) {
        let (app, mut heads) = canned(HELLO).await;
        let (proxy, connector) = with_tls(app, &[b"h2"]).await;
        ask_at_once(&proxy, &connector, 48).await;
        let mut connections = std::collections::HashSet::new();
        for _ in 0..48 {
            connections.insert(heads.recv().await.unwrap().0);
        }
        most.push(connections.len());
    }
    assert!(most.last().is_some_and(|most| *most <= few), "{most:?} connections");
}

#[tokio::test]
async fn an_app_that_answers_none_before_it_has_all_gets_all() {
    let all = Arc::new(tokio::sync::Barrier::new(90));
    let app = app(move |_, mut stream| {
        let all = Arc::clone(&all);
        async move {
            read_head(&mut stream).await?;
            all.wait().await;
            stream.write_all(HELLO.as_bytes()).await
        }
    })
    .await;
    let (proxy, connector) = with_tls(app, &[b"h2"]).await;
    ask_at_once(&proxy, &connector, 90).await;
    let metrics = proxy.proxy.metrics();
    let waits = metrics.waits.load(Relaxed);
    assert!(waits >= 90 - Limits::default().at_once as u64, "{waits}");
    assert_eq!(metrics.waiting.load(Relaxed), 0);
}

#[tokio::test]
async fn a_request_goes_through() {
    let (app, mut heads) =
        canned("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello").await;
    let (proxy, connector) = with_tls(app, &[b"h2"]).await;
    let mut sender = http2::<Empty<Bytes>>(&proxy, &connector).await;
    let request = Request::get("https://node:1/x?y=%20")
        .header("x-forwarded-for", "6.6.6.6")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(Empty::new())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!((answer.version(), answer.status()), (Version::HTTP_2, StatusCode::OK));
    assert_eq!(answer.headers().get("connection"), None);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "hello");
    let (_, head) = heads.recv().await.unwrap();
    assert!(head.starts_with("GET /x?y=%20 HTTP/1.1\r\n"), "{head}");
    assert_eq!(field(&head, "host"), Some("node:1"));
    assert_eq!(field(&head, "cookie"), Some("a=1; b=2"));
    assert_eq!(field(&head, "x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(field(&head, "x-forwarded-proto"), Some("https"));
    assert_eq!(head.matches("host: ").count(), 2, "host and x-forwarded-host: {head}");
}

#[tokio::test]
async fn a_body_of_unknown_length_becomes_chunks() {
    let app = app(|_, mut stream| async move {
        let head = read_head(&mut stream).await?;
        assert_eq!(field(&head, "transfer-encoding"), Some("chunked"));
        assert_eq!(read_exactly(&mut stream, 13).await, b"3\r\none\r\n0\r\n\r\n");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await
    })
    .await;
    let (proxy, connector) = with_tls(app, &[b"h2"]).await;
    let (body_in, body) = tokio::sync::mpsc::channel::<Bytes>(1);
    let mut sender = http2(&proxy, &connector).await;
    let request = Request::post("https://node/").body(Unsized(body)).unwrap();
    body_in.send(Bytes::from_static(b"one")).await.unwrap();
    drop(body_in);
    assert_eq!(sender.send_request(request).await.unwrap().status(), StatusCode::OK);
}

struct Unsized(tokio::sync::mpsc::Receiver<Bytes>);

impl http_body::Body for Unsized {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|chunk| chunk.map(|chunk| Ok(http_body::Frame::data(chunk))))
    }
}

#[tokio::test]
async fn requests_are_held_to_the_same_rules() {
    let (app, mut heads) = canned("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let (proxy, connector) = with_tls(app, &[b"h2"]).await;
    let mut sender = http2::<Full<Bytes>>(&proxy, &connector).await;
    let request = |method: Method, uri: &str| {
        Request::builder().method(method).uri(uri.to_owned()).body(Full::new(Bytes::new())).unwrap()
    };
    for (request, expected) in [
        (request(Method::GET, "https://node/../x"), 400),
        (request(Method::GET, "https://node//evil"), 400),
        (request(Method::GET, "https://u:p@node/"), 400),
        (request(Method::TRACE, "https://node/"), 501),
        (request(Method::CONNECT, "node:443"), 501),
    ] {
        let what = format!("{} {}", request.method(), request.uri());
        assert_eq!(sender.send_request(request).await.unwrap().status(), expected, "{what}");
    }
    let mut contradicting = request(Method::GET, "https://node/");
    contradicting.headers_mut().insert("host", "other".parse().unwrap());
    assert_eq!(sender.send_request(contradicting).await.unwrap().status(), 400);
    assert!(heads.try_recv().is_err());
}

#[tokio::test]
async fn a_websocket_over_http2_is_one_of_http11_to_the_app() {
    let app = app(|_, mut stream| async move {
        let head = read_head(&mut stream).await?;
        assert!(head.starts_with("GET /ws?a HTTP/1.1\r\n"), "{head}");
        assert_eq!(field(&head, "upgrade"), Some("websocket"));
        assert_eq!(field(&head, "host"), Some("node"));
        assert_eq!(field(&head, "sec-websocket-protocol"), Some("tty"));
        assert_eq!(field(&head, "x-forwarded-for"), Some("127.0.0.1"));
        let accept = accept(field(&head, "sec-websocket-key").unwrap());
        let fields = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: tty\r\n";
        let answer = format!("HTTP/1.1 101 Hi\r\n{fields}Sec-WebSocket-Accept: {accept}\r\n\r\nearly");
        stream.write_all(answer.as_bytes()).await?;
        let four = read_exactly(&mut stream, 4).await;
        stream.write_all(&four).await
    })
    .await;
    let (proxy, connector) = with_tls(app, &[b"h2"]).await;
    let mut sender = http2::<Empty<Bytes>>(&proxy, &connector).await;
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri("https://node/ws?a")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "tty")
        .header("x-forwarded-for", "6.6.6.6")
        .body(Empty::new())
        .unwrap();
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["sec-websocket-protocol"], "tty");
    assert_eq!(answer.headers().get("sec-websocket-accept"), None);
    let mut socket = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    assert_eq!(read_exactly(&mut socket, 5).await, b"early");
    socket.write_all(b"ping").await.unwrap();
    assert_eq!(read_exactly(&mut socket, 4).await, b"ping");
    assert_eq!(socket.read(&mut [0; 1]).await.unwrap(), 0);
}

pub(crate) fn accept(key: &str) -> String {
    use base64::Engine;
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(digest)
}

#[tokio::test]
async fn a_refused_websocket_over_http2_is_no_tunnel() {
    for (answer, expected) in [
        ("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno", 403),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 502),
    ] {
        let (app, _heads) = canned(answer).await;
        let (proxy, connector) = with_tls(app, &[b"h2"]).await;
        let mut sender = http2::<Empty<Bytes>>(&proxy, &connector).await;
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri("https://node/ws")
            .header("sec-websocket-version", "13")
            .body(Empty::new())
            .unwrap();
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        assert_eq!(sender.send_request(request).await.unwrap().status(), expected);
    }
}

#[tokio::test]
async fn a_client_without_http2_speaks_http11_over_tls() {
    let (app, _heads) = canned("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
    let (proxy, connector) = with_tls(app, &[b"http/1.1"]).await;
    let mut stream = tls(&proxy, &connector).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(read_all(&mut stream).await.ends_with("hello"));
}
