//! What the app receives, and what the client gets back, is byte for byte what a straight connection would have given,
//! but for what the table in README.md shows. Each made-up pair of request and answer goes straight to an app and over
//! the proxy, by HTTP/1.1, by HTTP/2 and under a prefix, and the two are compared.

mod made;
mod messages;
mod table;

use std::{
    cell::Cell,
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use nginx_free::{Admit, Gate, Head, Hooks, Limits, Listener, Prefix, Proxy, Upstream, Verdict};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};

use crate::{
    http2,
    support::{Running, SOON, Tcp, app},
};
use made::{Answer, Case, Request};
use messages::{Fields, Framing, Message, message, read, write_in_pieces};
use table::{Way, arrived, at_the_app, at_the_client};

/// As many cases as fit in this time: every machine tries some, and none waits.
const TIME: Duration = Duration::from_secs(8);
const CASES: u32 = 400;

const HOST: &str = "node:8080";
const PREFIX: &str = "/pod/3";
/// A field of all requests of this test.
const MARK: &str = "x-straight";

#[test]
fn a_proxied_exchange_is_the_straight_one_but_for_the_table() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = runtime.block_on(World::new());
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        max_shrink_iters: 400,
        max_shrink_time: 20_000,
        ..Config::default()
    };
    let (begun, tried) = (Instant::now(), Cell::new(0));
    let outcome = TestRunner::new(config).run(&made::case(), |case| {
        if begun.elapsed() > TIME && tried.get() >= 20 && !world.has_failed.get() {
            return Ok(());
        }
        tried.set(tried.get() + 1);
        let compared = std::panic::AssertUnwindSafe(|| runtime.block_on(world.compare(&case)));
        let outcome = std::panic::catch_unwind(compared)
            .unwrap_or_else(|_| Err(TestCaseError::fail("a step of it panicked; see above")));
        world.has_failed.set(world.has_failed.get() || outcome.is_err());
        outcome
    });
    eprintln!("{} cases in {:?}", tried.get(), begun.elapsed());
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// The app, and the proxies before it.
struct World {
    app: SocketAddr,
    /// What the app answers next.
    next: Arc<Mutex<Option<Answer>>>,
    /// What it received.
    received: tokio::sync::Mutex<mpsc::UnboundedReceiver<Message>>,
    plain: Front,
    under: Front,
    _http2: Running,
    sender: SendRequest<Chunks>,
    has_failed: Cell<bool>,
}

/// A proxy with the app behind it.
struct Front {
    address: SocketAddr,
    _closing: watch::Sender<bool>,
}

struct Under {
    upstream: Arc<Upstream<Tcp>>,
    hooks: Arc<Hooks>,
    prefix: Option<Arc<Prefix>>,
}

impl Admit for Under {
    type Dial = Tcp;

    async fn admit<'r>(&self, _head: &Head<'_>, gate: Gate<'r>) -> Verdict<'r, Tcp> {
        let admission = gate.open(&self.upstream).with(&self.hooks);
        Verdict::Forward(match &self.prefix {
            Some(prefix) => admission.under(prefix),
            None => admission,
        })
    }
}

async fn front(app: SocketAddr, prefix: Option<Prefix>) -> Front {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let limits = Limits { routed_segments: prefix.as_ref().map_or(1, Prefix::segments), ..Limits::default() };
    let hooks = Hooks { hides_cookie: Some(Box::new(|name| name == b"hidden")), ..Hooks::default() };
    let admit = Under {
        upstream: Upstream::new(Tcp(app), limits.clone()),
        hooks: Arc::new(hooks),
        prefix: prefix.map(Arc::new),
    };
    let (closing, closed) = watch::channel(false);
    let proxy = Proxy::new(admit, limits);
    tokio::spawn(async move { proxy.serve(Listener::tcp(socket), closed).await });
    Front { address, _closing: closing }
}

impl World {
    async fn new() -> Self {
        let next: Arc<Mutex<Option<Answer>>> = Arc::default();
        let (heard, received) = mpsc::unbounded_channel();
        let answers = Arc::clone(&next);
        let app = app(move |_, stream| recording(stream, Arc::clone(&answers), heard.clone())).await;
        let plain = front(app, None).await;
        let under = front(app, Some(Prefix::stripped(PREFIX).unwrap())).await;
        let (http2, connector) = http2::with_tls(app, &[b"h2"]).await;
        let io = TokioIo::new(http2::tls(&http2, &connector).await);
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let received = tokio::sync::Mutex::new(received);
        Self { app, next, received, plain, under, _http2: http2, sender, has_failed: Cell::new(false) }
    }

    async fn compare(&self, case: &Case) -> Result<(), TestCaseError> {
        let straight = self.by_http1(self.app, case, "").await?;
        let plain = Way { host: HOST, port: "8080", version: 1, stripped: None, hidden: Some("hidden") };
        let proxied = self.by_http1(self.plain.address, case, "").await?;
        same("HTTP/1.1", &straight, &proxied, &plain)?;

        let under = Way { stripped: Some(PREFIX), ..plain };
        let proxied = self.by_http1(self.under.address, case, PREFIX).await?;
        same("HTTP/1.1 under a prefix", &straight, &proxied, &under)?;

        let case = without_hops(case);
        let http2 = Way { version: 2, stripped: None, hidden: None, ..under };
        let straight = self.by_http1(self.app, &case, "").await?;
        let proxied = self.by_http2(&case).await?;
        same("HTTP/2", &straight, &proxied, &http2)
    }

    /// What the app received, and what the client got back.
    async fn exchange(
        &self,
        answer: &Answer,
        got: impl Future<Output = Result<Message, TestCaseError>>,
    ) -> Result<(Message, Message), TestCaseError> {
        *self.next.lock().unwrap() = Some(answer.clone());
        let mut received = self.received.lock().await;
        while received.try_recv().is_ok() {}
        let got = tokio::time::timeout(SOON, got)
            .await
            .map_err(|_| failed("no answer", &"nothing came in time"))??;
        let received = received
            .try_recv()
            .map_err(|_| failed("the app has not heard of it; the client got", &shown(&got)))?;
        Ok((received, got))
    }

    async fn by_http1(
        &self,
        address: SocketAddr,
        case: &Case,
        prefix: &str,
    ) -> Result<(Message, Message), TestCaseError> {
        let Request { method, target, fields, body, pieces } = &case.request;
        let mut all = vec![("Host".to_owned(), Bytes::from(HOST)), (MARK.to_owned(), Bytes::new())];
        all.extend_from_slice(fields);
        let bytes = message(&format!("{method} {prefix}{target} HTTP/1.1"), &all, body, true);
        let got = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (read_half, mut write_half) = stream.split();
            let mut read_half = BufReader::new(read_half);
            let writing = async {
                // Who refuses a request closes before it has come.
                let _ = write_in_pieces(&mut write_half, &bytes, pieces).await;
            };
            let (got, ()) = tokio::join!(read(&mut read_half, true, method == "HEAD"), writing);
            got?.ok_or(io::ErrorKind::UnexpectedEof.into())
        };
        let got = async { got.await.map_err(|error: io::Error| failed("no answer", &error)) };
        self.exchange(&case.answer, got).await
    }

    async fn by_http2(&self, case: &Case) -> Result<(Message, Message), TestCaseError> {
        let Request { method, target, fields, body, .. } = &case.request;
        let mut request = http::Request::builder()
            .method(method.as_str())
            .uri(format!("https://{HOST}{target}"))
            .header(MARK, "");
        for (name, value) in fields {
            request = request.header(name, &value[..]);
        }
        if let (Framing::Length, Some((name, value))) = (&body.framing, body.fields()) {
            request = request.header(name, value);
        }
        let chunks: Vec<_> = body.chunks().into_iter().filter(|chunk| !chunk.is_empty()).collect();
        let request =
            request.body(Chunks(chunks.into_iter())).map_err(|error| failed("not to be sent", &error))?;
        let mut sender = self.sender.clone();
        let got = async {
            let answer = sender.send_request(request).await.map_err(|error| failed("no answer", &error))?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await.map_err(|error| failed("the answer broke off", &error))?;
            Ok(Message {
                first: format!("HTTP/2 {}", head.status.as_str()),
                fields: listed(&head.headers),
                trailers: body.trailers().map(listed).unwrap_or_default(),
                body: body.to_bytes().to_vec(),
            })
        };
        self.exchange(&case.answer, got).await
    }
}

/// Chunks that are there at once, without a word on how many they are.
struct Chunks(std::vec::IntoIter<Vec<u8>>);

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.next().map(|chunk| Ok(Frame::data(Bytes::from(chunk)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.len() == 0
    }
}

/// An app that notes what it receives and answers as it is told.
async fn recording(
    stream: TcpStream,
    answers: Arc<Mutex<Option<Answer>>>,
    heard: mpsc::UnboundedSender<Message>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (read_half, mut write_half) = stream.into_split();
    let mut read_half = BufReader::new(read_half);
    while let Some(request) = read(&mut read_half, false, false).await? {
        // Whatever else looks at this machine's ports is not the test's.
        if !request.fields.iter().any(|(name, _)| name == MARK) {
            return Ok(());
        }
        let answer = answers.lock().unwrap().clone().expect("nobody asked for anything");
        let Answer { status, fields, body, pieces, interim } = &answer;
        let bodiless = request.first.starts_with("HEAD ") || matches!(status, 204 | 304);
        drop(heard.send(request));
        if *interim {
            write_half.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await?;
        }
        let bytes = message(&format!("HTTP/1.1 {status} So Be It"), fields, body, !bodiless);
        write_in_pieces(&mut write_half, &bytes, pieces).await?;
        if body.framing == Framing::Close && !bodiless {
            return write_half.shutdown().await;
        }
    }
    Ok(())
}

/// Compares what went straight with what went over the proxy: the app's side, and the client's.
fn same(
    how: &str,
    straight: &(Message, Message),
    proxied: &(Message, Message),
    way: &Way,
) -> Result<(), TestCaseError> {
    let pairs = [
        ("the app received", at_the_app(&straight.0, way), arrived(&proxied.0, false, &straight.0)),
        ("the client received", at_the_client(straight, way), arrived(&proxied.1, true, &straight.1)),
    ];
    for (who, expected, got) in pairs {
        let told = |message: &Message| Message { body: Vec::new(), ..message.clone() };
        if told(&expected) != told(&got) {
            let what = format!("{how}: {who}\n{}and was to receive", shown(&got));
            return Err(failed(&what, &shown(&expected)));
        }
        if expected.body != got.body {
            let at = expected.body.iter().zip(&got.body).take_while(|(a, b)| a == b).count();
            let (lengths, what) =
                ((expected.body.len(), got.body.len()), format!("{how}: {who} another body"));
            return Err(failed(&what, &format!("{lengths:?} bytes, alike up to {at}")));
        }
    }
    Ok(())
}

fn shown(message: &Message) -> String {
    let mut out = format!("    {}\n", message.first);
    for (name, value) in &message.fields {
        out += &format!("    {name}: {}\n", value.escape_ascii());
    }
    for (name, value) in &message.trailers {
        out += &format!("    (trailer) {name}: {}\n", value.escape_ascii());
    }
    out
}

fn failed(what: &str, why: &dyn std::fmt::Display) -> TestCaseError {
    TestCaseError::fail(format!("{what}:\n{why}"))
}

/// The case as HTTP/2 can carry it (RFC 9113 §8.2.2).
fn without_hops(case: &Case) -> Case {
    let mut case = case.clone();
    case.request.fields.retain(|(name, _)| {
        !["connection", "keep-alive", "proxy-connection"].iter().any(|hop| name.eq_ignore_ascii_case(hop))
    });
    case
}

fn listed(fields: &http::HeaderMap) -> Fields {
    fields
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes())))
        .collect()
}
