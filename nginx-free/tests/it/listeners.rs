//! Where clients connect to, and what is written down of them.

use std::{
    io,
    sync::{Arc, LazyLock, Mutex},
};

use nginx_free::{Hooks, Limits, Listener, Proxy, Upstream};
use tokio::{
    io::AsyncWriteExt,
    net::{UnixListener, UnixStream},
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
