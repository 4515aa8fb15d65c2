//! Where clients connect to, and what is written down of them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, LazyLock, Mutex},
};

use nginx_free::{Hooks, Limits, Listener, Proxy, Upstream, log};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream},
    sync::watch,
};

use crate::support::*;

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[tokio::test]
async fn clients_of_a_unix_socket_have_no_address() {
    let folder = std::env::temp_dir().join(format!("nginx-free-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("socket");
    let (app, mut heads) = canned(HELLO).await;
    let upstream = Upstream::new(Tcp(app), Limits::default());
    let proxy = Proxy::new(Open { upstream, hooks: Arc::new(Hooks::default()) }, Limits::default());
    let listener = Listener::unix(UnixListener::bind(&path).unwrap());
    let (_running, closing) = watch::channel(false);
    tokio::spawn(async move { proxy.serve(listener, closing).await });

    let mut client = UnixStream::connect(&path).await.unwrap();
    let request =
        "GET / HTTP/1.1\r\nHost: localhost:8443\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    assert!(read_all(&mut client).await.ends_with("hello"));
    let (_, head) = heads.recv().await.unwrap();
    assert_eq!(field(&head, "x-forwarded-for"), None);
    assert_eq!(field(&head, "forwarded"), Some("for=unknown;proto=http"));
    assert_eq!(field(&head, "x-forwarded-port"), Some("8443"));
    std::fs::remove_dir_all(folder).unwrap();
}

/// Users of this machine, told apart by what the listener was given: here, by the last byte of their address.
#[tokio::test]
async fn limits_are_each_local_user_s_own() {
    let (app, _heads) = canned(HELLO).await;
    let limits = Limits { connections_per_peer: 1, ..Limits::default() };
    let upstream = Upstream::new(Tcp(app), limits.clone());
    let proxy = Proxy::new(Open { upstream, hooks: Arc::new(Hooks::default()) }, limits);
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ours = socket.local_addr().unwrap();
    let listener = Listener::tcp(socket).identified_by(move |own, theirs| match theirs.ip() {
        IpAddr::V4(ip) if own == ours && ip.octets()[3] < 100 => Some(ip.octets()[3].into()),
        _ => None,
    });
    let (_running, closing) = watch::channel(false);
    tokio::spawn(async move { proxy.serve(listener, closing).await });

    let mut kept = Vec::new();
    // Each user gets one, whatever the others have; those who are not known get one together.
    for (from, expected) in [(2, 200), (2, 503), (3, 200), (2, 503), (100, 200), (101, 503), (4, 200)] {
        let client = TcpSocket::new_v4().unwrap();
        client.bind((Ipv4Addr::new(127, 0, 0, from), 0).into()).unwrap();
        let mut client = client.connect(ours).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(status(&read_head(&mut client).await.unwrap()), expected, "127.0.0.{from}");
        kept.push(client);
    }
}

/// A place to write log lines to.
/// All that is logged in this process, down to the least: a subscriber for one thread misses what other tests' threads
/// have switched off for all.
static LINES: LazyLock<Lines> = LazyLock::new(|| {
    let lines = Lines::default();
    let (writer, all) = (lines.clone(), tracing::Level::TRACE);
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).with_max_level(all).with_writer(move || writer.clone());
    tracing::subscriber::set_global_default(subscriber.finish()).unwrap();
    lines
});

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn each_request_is_logged_escaped_and_without_its_query() {
    let lines = &*LINES;
    let (app, _heads) = canned(HELLO).await;
    let proxy = proxy(app).await;
    let get = |target: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nCookie: s=SECRET\r\n\r\n")
    };
    assert!(proxy.talk(&get("/logged/%0a?token=SECRET")).await.ends_with("hello"));
    assert_eq!(status(&proxy.talk(&get("/logged\"{}\u{9b}?token=SECRET")).await), 400);
    // The last entry is written when the proxy lets go of the connection.
    while proxy.proxy.metrics().connections_open.load(std::sync::atomic::Ordering::Relaxed) > 0 {
        tokio::task::yield_now().await;
    }
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let access: Vec<&str> = text
        .lines()
        .filter(|line| line.contains(nginx_free::log::TARGET) && line.contains("logged"))
        .collect();
    assert_eq!(access.len(), 2, "{access:?}");
    assert!(access[0].contains("path=\"/logged/%0a\" status=200 received=0 sent=5"), "{access:?}");
    assert!(access[1].contains("path=\"/logged\\\"{}\\u{9b}\" status=400"), "{access:?}");
    assert!(!text.contains("SECRET"));
}

#[tokio::test]
async fn a_log_of_its_own_is_told_of_each_request_and_nobody_else_is() {
    let others = &*LINES;
    let own = Lines::default();
    let (app, _heads) = canned(HELLO).await;
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let upstream = Upstream::named("hello", Tcp(app), Limits::default());
    let proxy = Proxy::new(Open { upstream, hooks: Arc::new(Hooks::default()) }, Limits::default())
        .with_access_log(log::Lines::new(log::Format::Text, own.clone()));
    let (closing, closed) = watch::channel(false);
    let serving = tokio::spawn(async move { proxy.serve(Listener::tcp(socket), closed).await });
    let mut client = TcpStream::connect(address).await.unwrap();
    let request =
        "POST /its-own?token=SECRET HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc";
    client.write_all(request.as_bytes()).await.unwrap();
    assert!(read_all(&mut client).await.ends_with("hello"));
    closing.send(true).unwrap();
    serving.await.unwrap();
    let text = String::from_utf8(own.0.lock().unwrap().clone()).unwrap();
    let peer = client.local_addr().unwrap();
    let line = format!(
        r#" request=0 app="hello" peer="{peer}" method="POST" path="/its-own" status=200 received=3 sent=5 micros="#
    );
    assert!(text.contains(&line) && text.ends_with(" end=\"done\"\n") && text.lines().count() == 1, "{text}");
    let others = String::from_utf8(others.0.lock().unwrap().clone()).unwrap();
    assert!(!others.lines().any(|line| line.contains(log::TARGET) && line.contains("its-own")), "{others}");
}
