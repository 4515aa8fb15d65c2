//! Hosts that dial in and connect CONNECTs to what they reach over TCP, by hyper's HTTP/2 server; and a proxy whose app
//! is on the host that has dialled last.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use h2::Reason;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, combinators::UnsyncBoxBody};
use hyper::{
    body::{Bytes, Frame, Incoming},
    ext::Protocol,
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nginx_free::{
    Admit, Dial, Gate, Head, Limits, Listener, Proxy, Upstream, Verdict,
    trunk::{Channel, Trunk, TrunkLimits},
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use crate::support::read_all;

/// An authority at which nothing listens, and whose refusal goes on for ever.
pub(super) const BABBLER: &str = "babbler:1";

/// A stream that a host has dialled: the host's end, and ours.
pub(super) async fn dialled() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (host, listener.accept().await.unwrap().0)
}

/// What a host's HTTP/2 is like, where nothing else is said: it has room for all that may stand still.
pub(super) fn roomy() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .enable_connect_protocol()
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(32 * 1024 * 1024);
    builder
}

/// A host at work. It is gone without a word when this is aborted.
pub(super) fn host(stream: TcpStream, builder: &http2::Builder<TokioExecutor>) -> JoinHandle<()> {
    stream.set_nodelay(true).unwrap();
    let serving = builder.serve_connection(TokioIo::new(stream), service_fn(connect));
    tokio::spawn(async move { drop(serving.await) })
}

/// A trunk to a host.
pub(super) async fn trunk(limits: TrunkLimits) -> (Trunk, JoinHandle<()>) {
    let (theirs, ours) = dialled().await;
    let host = host(theirs, &roomy());
    ours.set_nodelay(true).unwrap();
    (Trunk::over(ours, limits).await.unwrap(), host)
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

async fn connect(mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    assert_eq!(request.method(), Method::CONNECT);
    let authority = request.uri().authority().unwrap().to_string();
    if authority == BABBLER {
        return answer(StatusCode::FORBIDDEN, Babble.boxed_unsync());
    }
    if let Some(protocol) = request.extensions().get::<Protocol>() {
        let asked = format!("{} {authority}{}\n", protocol.as_str(), request.uri().path());
        tokio::spawn(async move {
            let channel = TokioIo::new(hyper::upgrade::on(&mut request).await.unwrap());
            let (mut read, mut write) = tokio::io::split(channel);
            write.write_all(asked.as_bytes()).await?;
            tokio::io::copy(&mut read, &mut write).await?;
            write.shutdown().await
        });
        return answer(StatusCode::OK, Empty::new().boxed_unsync());
    }
    let Ok(mut app) = TcpStream::connect(authority).await else {
        return answer(StatusCode::BAD_GATEWAY, Empty::new().boxed_unsync());
    };
    tokio::spawn(async move {
        let mut channel = TokioIo::new(hyper::upgrade::on(&mut request).await.unwrap());
        tokio::io::copy_bidirectional(&mut channel, &mut app).await
    });
    answer(StatusCode::OK, Empty::new().boxed_unsync())
}

fn answer(status: StatusCode, body: Body) -> Result<Response<Body>, Infallible> {
    Ok(Response::builder().status(status).body(body).unwrap())
}

/// A body without end.
struct Babble;

impl http_body::Body for Babble {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'!'; 16 * 1024])))))
    }
}

/// A host that answers each CONNECT and sends half an HTTP answer, then resets the stream for this reason.
pub(super) async fn resetting(stream: TcpStream, reason: Reason) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut answer))) = connection.accept().await {
        tokio::spawn(async move {
            let mut send = answer.send_response(Response::new(()), false).unwrap();
            let mut body = request.into_body();
            drop(body.data().await);
            send.send_data("HTTP/1.1 200 OK\r\n\r\nhalf".into(), false).unwrap();
            // The other end has read that, and goes on.
            drop(body.data().await);
            send.send_reset(reason);
        });
    }
}

/// An app on the host that has dialled last.
pub(super) struct Far {
    hosts: watch::Receiver<Option<Trunk>>,
    app: String,
}

impl Dial for Far {
    type Stream = Channel;

    async fn dial(&self) -> io::Result<Channel> {
        let trunk = self.hosts.borrow().clone().ok_or(io::ErrorKind::NotConnected)?;
        Ok(trunk.open(&self.app).await?)
    }
}

struct Open(Arc<Upstream<Far>>);

impl Admit for Open {
    type Dial = Far;

    async fn admit<'r>(&self, _head: &Head<'_>, gate: Gate<'r>) -> Verdict<'r, Far> {
        Verdict::Forward(gate.open(&self.0))
    }
}

/// A proxy before an app of this authority on the host that is in `hosts`.
pub(super) struct Gateway {
    pub(super) address: SocketAddr,
    pub(super) hosts: watch::Sender<Option<Trunk>>,
    _closing: watch::Sender<bool>,
}

pub(super) async fn gateway(app: &str, first: Option<Trunk>) -> Gateway {
    let (hosts, seen) = watch::channel(first);
    let upstream = Upstream::new(Far { hosts: seen, app: app.to_owned() }, Limits::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let proxy = Proxy::new(Open(upstream), Limits::default());
    let (closing, closed) = watch::channel(false);
    tokio::spawn(async move { proxy.serve(Listener::tcp(listener), closed).await });
    Gateway { address, hosts, _closing: closing }
}

impl Gateway {
    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends raw bytes and returns all that comes until the proxy closes.
    pub(super) async fn talk(&self, bytes: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        read_all(&mut stream).await
    }
}
