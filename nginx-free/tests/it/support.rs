//! An app that does as it is told, a proxy in front of it, and clients that speak raw bytes.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use nginx_free::{Admit, Dial, Gate, Head, Hooks, Limits, Listener, Proxy, Upstream, Verdict};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};

/// Nothing here takes longer unless it hangs.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Tcp(pub(crate) SocketAddr);

impl Dial for Tcp {
    type Stream = TcpStream;

    async fn dial(&self) -> io::Result<TcpStream> {
        TcpStream::connect(self.0).await
    }
}

/// Lets everything through.
pub(crate) struct Open {
    pub(crate) upstream: Arc<Upstream<Tcp>>,
    pub(crate) hooks: Arc<Hooks>,
}

impl Admit for Open {
    type Dial = Tcp;

    async fn admit<'r>(&self, _head: &Head<'_>, gate: Gate<'r>) -> Verdict<'r, Tcp> {
        Verdict::Forward(gate.open(&self.upstream).with(&self.hooks))
    }
}

/// A proxy at work. It ends when this is dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) proxy: Arc<Proxy<Open>>,
    pub(crate) closing: watch::Sender<bool>,
    pub(crate) task: tokio::task::JoinHandle<()>,
}

/// An app whose connections are each handled by `handle`, which also gets the connection's number, from 0.
pub(crate) async fn app<F, R>(handle: F) -> SocketAddr
where
    F: Fn(usize, TcpStream) -> R + Send + 'static,
    R: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(handle(number, stream));
        }
    });
    address
}

/// An app that answers each request head with `answer`, on kept connections; the heads are passed out.
pub(crate) async fn canned(answer: &'static str) -> (SocketAddr, mpsc::UnboundedReceiver<(usize, String)>) {
    let (heads, seen) = mpsc::unbounded_channel();
    let address = app(move |number, mut stream| {
        let heads = heads.clone();
        async move {
            loop {
                let head = read_head(&mut stream).await?;
                if head.is_empty() {
                    return Ok(());
                }
                drop(heads.send((number, head)));
                stream.write_all(answer.as_bytes()).await?;
            }
        }
    })
    .await;
    (address, seen)
}

pub(crate) async fn proxy(app: SocketAddr) -> Running {
    proxy_with(app, Limits::default(), Hooks::default(), None).await
}

pub(crate) async fn proxy_with(
    app: SocketAddr,
    limits: Limits,
    hooks: Hooks,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> Running {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let upstream = Upstream::new(Tcp(app), limits.clone());
    let proxy = Arc::new(Proxy::new(Open { upstream, hooks: Arc::new(hooks) }, limits));
    let mut listener = Listener::tcp(socket);
    if let Some(config) = tls {
        listener = listener.with_tls(config);
    }
    let (closing, closed) = watch::channel(false);
    let serving = Arc::clone(&proxy);
    let task = tokio::spawn(async move { serving.serve(listener, closed).await });
    Running { address, proxy, closing, task }
}

impl Running {
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends raw bytes and returns all that comes until the proxy closes.
    pub(crate) async fn talk(&self, bytes: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        read_all(&mut stream).await
    }
}

/// All that comes until the end; a reset is an end, too.
pub(crate) async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    let read = async {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut chunk).await {
            all.extend_from_slice(&chunk[..count]);
        }
    };
    tokio::time::timeout(SOON, read).await.expect("the connection stayed open");
    String::from_utf8_lossy(&all).into_owned()
}

/// A head, with its empty line; empty where the connection ends first.
pub(crate) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match tokio::time::timeout(SOON, stream.read_u8()).await.expect("a head takes too long") {
            Ok(byte) => head.push(byte),
            Err(_) if head.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Exactly as many bytes.
pub(crate) async fn read_exactly(stream: &mut (impl AsyncRead + Unpin), count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    tokio::time::timeout(SOON, stream.read_exact(&mut bytes)).await.expect("too slow").unwrap();
    bytes
}

/// The value of a field in a raw head.
pub(crate) fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The status of a raw answer.
pub(crate) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}
