//! The app's port: found by watching what listens inside, or the one that was named; and the way to it.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use nginx_free::trunk::Channel;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::either::Either;

use super::{Host, Link, LinkError, far::FarListener};
use crate::sandbox::{protocol::Endpoint, reachable};

/// How long to wait between looks while an app starts: a fiftieth of what it has taken so far, so that looking neither
/// delays an app that is quick nor (at some 50 µs a look) burdens a node where one is slow.
fn next_look(waited: Duration) -> Duration {
    (waited / 50).clamp(Duration::from_millis(1), Duration::from_millis(50))
}
/// How long something that listens may take to answer its first request before it is asked again.
const PATIENCE: Duration = Duration::from_secs(30);
/// When to ask again something that did not speak HTTP.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// Which port is the app's.
#[derive(Clone, Debug)]
pub enum Target {
    /// The first that answers HTTP.
    Found,
    /// This one.
    Port(u16),
    /// The unix socket at this path ([`crate::words::Isolation::Socket`]).
    Socket(std::path::PathBuf),
}

/// Waits until the app answers HTTP, and says where. Does not end before that: the caller bounds it.
///
/// # Errors
/// [`LinkError::Gone`].
pub(super) async fn answers(link: &Link, target: &Target) -> Result<Endpoint, LinkError> {
    let mut asked: HashMap<Endpoint, Instant> = HashMap::new();
    let mut asking = JoinSet::new();
    let begun = Instant::now();
    let mut look = begun;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(look) => look = Instant::now() + next_look(begun.elapsed()),
            Some(answer) = asking.join_next() => {
                if let Ok((endpoint, true)) = answer {
                    return Ok(endpoint);
                }
                continue;
            }
        }
        let candidates = match target {
            Target::Socket(path) => vec![Endpoint::Unix(path.clone())],
            Target::Found => all(link, |_| true).await?,
            Target::Port(port) => all(link, |address| address.port() == *port).await?,
        };
        for endpoint in candidates {
            let now = Instant::now();
            let due = asked.get(&endpoint).is_none_or(|last| now.duration_since(*last) > ASK_AGAIN);
            if due && asking.len() < 64 {
                asked.insert(endpoint.clone(), now);
                let link = link.clone();
                asking.spawn(async move {
                    let spoke = timeout(PATIENCE, speaks_http(&link, &endpoint)).await;
                    (endpoint, matches!(spoke, Ok(Ok(true))))
                });
            }
        }
    }
}

async fn all(link: &Link, wanted: impl Fn(&SocketAddr) -> bool) -> Result<Vec<Endpoint>, LinkError> {
    let listeners = link.listeners().await?;
    Ok(listeners
        .addresses
        .into_iter()
        .filter(wanted)
        .map(|address| Endpoint::Tcp(reachable(address)))
        .collect())
}

/// Asks for the head of `/` and looks whether what comes back begins as HTTP does.
async fn speaks_http(link: &Link, endpoint: &Endpoint) -> io::Result<bool> {
    let mut stream = connect(link, endpoint.clone()).await?;
    stream.write_all(b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut start = [0; 5];
    stream.read_exact(&mut start).await?;
    Ok(&start == b"HTTP/")
}

pub(super) async fn connect(link: &Link, endpoint: Endpoint) -> io::Result<AppStream> {
    let unix = matches!(endpoint, Endpoint::Unix(_));
    AppStream::new(link.dial(endpoint).await.map_err(reason)?, unix)
}

pub(super) async fn listen(link: &Link, endpoint: Endpoint) -> io::Result<InsideListener> {
    let bound = match &endpoint {
        Endpoint::Tcp(_) => None,
        Endpoint::Unix(path) => Some(Bound { path: path.clone(), link: link.clone() }),
    };
    InsideListener::new(link.listen(endpoint).await.map_err(reason)?, bound)
}

fn reason(error: LinkError) -> io::Error {
    match error {
        LinkError::Refused(error) => error,
        LinkError::Gone => io::Error::new(io::ErrorKind::NotConnected, "the sandbox has ended"),
    }
}

/// A listener inside, for programs of the session.
pub enum InsideListener {
    /// In the sandbox's network.
    Tcp(TcpListener),
    /// At a socket in the filesystem, as init sees it, which is removed with this.
    Unix(UnixListener, Bound),
    /// On another machine.
    Far(FarListener),
}

/// A unix socket that init has made. Removed when dropped.
pub struct Bound {
    path: PathBuf,
    link: Link,
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.link.unlink(std::mem::take(&mut self.path));
    }
}

impl InsideListener {
    fn new(socket: OwnedFd, bound: Option<Bound>) -> io::Result<Self> {
        if let Some(bound) = bound {
            let listener = std::os::unix::net::UnixListener::from(socket);
            listener.set_nonblocking(true)?;
            return Ok(Self::Unix(UnixListener::from_std(listener)?, bound));
        }
        let listener = std::net::TcpListener::from(socket);
        listener.set_nonblocking(true)?;
        Ok(Self::Tcp(TcpListener::from_std(listener)?))
    }

    /// Waits for the next client, and says where it comes from: nothing of the kind with a unix socket.
    ///
    /// # Errors
    /// As `accept(2)`.
    pub async fn accept(&self) -> io::Result<(AppStream, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((AppStream::Tcp(stream), Some(from)))
            }
            Self::Unix(listener, _) => Ok((AppStream::Unix(listener.accept().await?.0), None)),
            Self::Far(listener) => listener.accept().await,
        }
    }

    /// Its port, with TCP.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(|address| address.port()),
            Self::Unix(..) => None,
            Self::Far(listener) => listener.port(),
        }
    }
}

/// The way to the app, for a gateway: a new connection each time it is asked.
#[derive(Clone)]
pub struct Dialer {
    host: Arc<Host>,
    endpoint: watch::Receiver<Option<Endpoint>>,
}

impl Dialer {
    /// Connects to whatever `endpoint` holds at the moment of asking.
    pub fn new(host: Arc<Host>, endpoint: watch::Receiver<Option<Endpoint>>) -> Self {
        Self { host, endpoint }
    }
}

impl nginx_free::Dial for Dialer {
    type Stream = Either<AppStream, Channel>;

    async fn dial(&self) -> io::Result<Self::Stream> {
        let endpoint = self.endpoint.borrow().clone();
        let endpoint = endpoint
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the app does not answer yet"))?;
        match &*self.host {
            Host::Local(host) => host.connect(endpoint).await.map(Either::Left),
            Host::Far(host) => host.dial(&endpoint).await.map(Either::Right),
        }
    }
}

/// A connection to the app.
pub enum AppStream {
    /// Over the sandbox's loopback.
    Tcp(TcpStream),
    /// Over a socket in the filesystem.
    Unix(UnixStream),
}

impl AppStream {
    fn new(socket: OwnedFd, unix: bool) -> io::Result<Self> {
        if unix {
            let stream = std::os::unix::net::UnixStream::from(socket);
            stream.set_nonblocking(true)?;
            return Ok(Self::Unix(UnixStream::from_std(stream)?));
        }
        let stream = std::net::TcpStream::from(socket);
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(TcpStream::from_std(stream)?))
    }
}

macro_rules! on_either {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            AppStream::Tcp($stream) => $call,
            AppStream::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for AppStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_either!(self, stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for AppStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on_either!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_either!(self, stream => Pin::new(stream).poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_either!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_either!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
