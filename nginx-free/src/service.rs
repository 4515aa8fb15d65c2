//! One request from its head to its answer: checked, judged, carried out, logged.

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock, atomic::AtomicU64},
    time::{Duration, Instant},
};

use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use tokio::sync::{mpsc, watch};

use crate::{
    Admission, Admit, Body, Dial, FailedRequest, Failure, Gate, Head, Host, Kind, Peer, Upstream, Verdict,
    admit::RequestMark,
    body::RequestBody,
    check,
    check::{Checked, Refusal},
    cookies, fields,
    fields::{Scheme, Word},
    forward,
    forward::Way,
    io::ClientIo,
    log::Entry,
    metrics::{Counted, add},
    proxy::Shared,
    rewrite::Place,
    room::Seat,
    tunnel::{self, AppSide, Carried},
    turns::Turn,
    websocket,
    wire::Hold,
};

/// One client connection's share in the proxy.
pub(crate) struct Service<A> {
    pub(crate) shared: Arc<Shared<A>>,
    pub(crate) seat: Arc<Seat>,
    pub(crate) peer: Peer,
    pub(crate) scheme: Scheme,
    pub(crate) run: Run,
    /// What apps are told of the client, and of the host that its first request was for.
    pub(crate) word: OnceLock<Word>,
    /// The connection itself, where it speaks HTTP/1.1.
    pub(crate) hold: Option<Hold<ClientIo>>,
}

/// What ties a connection and its tunnels to the run of the listener they came through.
#[derive(Clone)]
pub(crate) struct Run {
    /// Turns true when the run is to end.
    pub(crate) closing: watch::Receiver<bool>,
    /// Held by all that is still open.
    pub(crate) _alive: mpsc::Sender<Infallible>,
}

impl Run {
    /// Whether there is news of its end since it was handed out. Cheap.
    pub(crate) fn has_news(&self) -> bool {
        // An error is its sender's end.
        self.closing.has_changed().unwrap_or(true)
    }

    /// Returns when the run is to end.
    pub(crate) async fn ended(&self) {
        let mut closing = self.closing.clone();
        drop(closing.wait_for(|closing| *closing).await);
    }
}

/// A request, as it came. Boxed, for it is needed until the app has its own, and the answer takes longer: what futures
/// keep room for is cold memory when they are polled again.
struct Asked {
    parts: http::request::Parts,
    body: Incoming,
}

impl Asked {
    /// What the app is sent of it; `received` counts the bytes of its body.
    fn for_app(
        self: Box<Self>,
        stall: Duration,
        received: impl FnOnce() -> Arc<AtomicU64>,
    ) -> Box<Request<RequestBody>> {
        let Self { mut parts, body } = *self;
        let body = RequestBody::new(body, stall, received);
        body.frame(&mut parts.headers);
        forward::request(parts, body)
    }
}

impl<A: Admit> Service<A> {
    /// Answers one request.
    pub(crate) fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> {
        let (parts, body) = request.into_parts();
        self.answer_asked(Box::new(Asked { parts, body }))
    }

    async fn answer_asked(self: Arc<Self>, asked: Box<Asked>) -> Result<Response<Body>, Infallible> {
        let (turn, is_one_too_many) = match self.seat.turn() {
            Ok(turn) => (turn, false),
            Err(turn) => (turn, true),
        };
        let entry = Entry::new(turn, &asked.parts.method, asked.parts.uri.path());
        let mut entry = Box::new(entry);
        let version = asked.parts.version;
        let outcome = match is_one_too_many {
            true => Outcome::Answer(last(busy("too many requests are open"))),
            false => self.carry_out(asked, &mut entry).await,
        };
        let mut answer = match outcome {
            Outcome::Answer(answer) => answer,
            Outcome::Tunnel(answer, tunnel) => {
                entry.status = answer.status();
                tokio::spawn(Arc::clone(&self).carry(tunnel, entry));
                return Ok(answer);
            }
        };
        entry.status = answer.status();
        if version == Version::HTTP_2 {
            answer.headers_mut().remove(header::CONNECTION);
        }
        Ok(answer.map(|body| body.logged(entry)))
    }

    /// Carries a WebSocket until either side ends it or the run does.
    async fn carry(self: Arc<Self>, tunnel: Tunnel<<A::Dial as Dial>::Stream>, mut entry: Box<Entry>) {
        let metrics = self.seat.metrics();
        add(&metrics.tunnels, 1);
        let _open = Counted::in_gauge(&metrics.tunnels_open);
        let mut carried = Carried::default();
        tokio::select! {
            ended = tunnel::run(tunnel.client, tunnel.app, &mut carried) => if let Err(error) = ended {
                tracing::debug!(%error, "a WebSocket broke off");
                entry.broken();
            },
            () = self.run.ended() => entry.broken(),
        }
        entry.tunnelled(carried.from_client, carried.from_app);
        metrics.touch(Instant::now());
    }

    async fn carry_out(
        &self,
        mut request: Box<Asked>,
        entry: &mut Entry,
    ) -> Outcome<<A::Dial as Dial>::Stream> {
        let parts = &mut request.parts;
        let checked = match self.check(parts) {
            Ok(checked) => checked,
            Err(refusal) => {
                add(&self.seat.metrics().refused, 1);
                return Outcome::Answer(last(plain(refusal.status(), &refusal.to_string())));
            }
        };
        let (host, is_last) = (checked.host.host(), checked.is_last);
        let mark = RequestMark;
        let admission = match self.judge(parts, &checked, &mark).await {
            Verdict::Forward(admission) => admission,
            Verdict::Answer(answer) if is_last => return Outcome::Answer(last(answer)),
            Verdict::Answer(answer) => return Outcome::Answer(answer),
        };
        entry.goes_to(admission.upstream.name());

        let wants_page = fields::accepts_page(&parts.headers);
        if checked.kind == Kind::WebSocket && !admission.any_origin && !self.is_own_page(parts, host) {
            return Outcome::Answer(last(plain(StatusCode::FORBIDDEN, "this page is of another origin")));
        }
        let prefix = admission.prefix.clone();
        let asked = prefix.as_ref().map(|_| parts.uri.path().to_owned()).unwrap_or_default();
        let place =
            prefix.as_deref().map(|prefix| Place { prefix, host, scheme: self.scheme, asked: &asked });
        if let Some(prefix) = &prefix {
            if let Some(led) = prefix.with_slash(&parts.uri).filter(|_| checked.kind == Kind::Plain) {
                let answer = temporary_redirect(&led);
                return Outcome::Answer(if is_last { last(answer) } else { answer });
            }
            match prefix.target(std::mem::take(&mut parts.uri)) {
                Some(target) => parts.uri = target,
                None => return Outcome::Answer(last(plain(StatusCode::NOT_FOUND, "nothing is served here"))),
            }
        }
        let way = Way { place, hooks: admission.hooks.as_deref() };
        let client_side = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
        let stripped = prefix.as_deref().filter(|prefix| prefix.is_added());
        let word = self.word.get_or_init(|| Word::new(&self.peer, &checked.host, self.scheme));
        if Arc::ptr_eq(word.host(), &checked.host) {
            fields::to_app(&mut parts.headers, &checked.ending, word, stripped);
        } else {
            let word = Word::new(&self.peer, &checked.host, self.scheme);
            fields::to_app(&mut parts.headers, &checked.ending, &word, stripped);
        }
        let hides = admission.hooks.as_ref().and_then(|hooks| hooks.hides_cookie.as_ref());
        cookies::cut(&mut parts.headers, |name| hides.is_some_and(|hides| hides(name)));

        match (checked.kind, client_side) {
            (Kind::WebSocket, Some(client_side)) => {
                // Boxed, as all that is seldom done: what a request may become takes room in every request.
                Box::pin(self.socket(request.parts, &admission, &way, client_side, entry)).await
            }
            (Kind::WebSocket, None) => {
                Outcome::Answer(self.failed(&admission, Failure::BrokenRequest, false))
            }
            (Kind::Plain, _) => {
                let version = parts.version;
                let stall = self.shared.room.limits.body_stall;
                let mut request = request.for_app(stall, || entry.received());
                // RFC 9110 §15.2: none for HTTP/1.0. h2 0.4 sends none at all.
                if let Some(hold) = self.hold.as_ref().filter(|_| version == Version::HTTP_11) {
                    forward::pass_on_interim(&mut request, hold.meanwhile());
                }
                let _turn = match admission.upstream.try_turn() {
                    Some(turn) => turn,
                    // Boxed, as all that is seldom done.
                    None => Box::pin(self.turn(&admission.upstream)).await,
                };
                let sent = forward::forward(&admission.upstream, &way, request).await;
                let took = entry.answered();
                let mut answer = match sent {
                    Ok(answer) => answer,
                    Err(failure) => self.failed(&admission, failure, wants_page),
                };
                if self.shared.server_timing {
                    say_timing(&mut answer, took);
                }
                Outcome::Answer(if is_last { last(answer) } else { answer })
            }
        }
    }

    /// A turn at an app that is asked much already.
    async fn turn<'u>(&self, upstream: &'u Upstream<A::Dial>) -> Turn<'u> {
        let metrics = self.seat.metrics();
        add(&metrics.waits, 1);
        let _waiting = Counted::in_gauge(&metrics.waiting);
        upstream.turn().await
    }

    /// Reads a head, after what was found on the wire.
    fn check(&self, parts: &http::request::Parts) -> Result<Checked, Refusal> {
        match self.hold.as_ref().and_then(Hold::refusal) {
            Some(refusal) => Err(refusal),
            None => {
                let usual = self.word.get().map(Word::host);
                check::check(parts, self.scheme, self.shared.room.limits.routed_segments, usual)
            }
        }
    }

    /// Asks who may pass.
    async fn judge<'r>(
        &self,
        parts: &http::request::Parts,
        checked: &Checked,
        mark: &'r RequestMark,
    ) -> Verdict<'r, A::Dial> {
        let head = Head {
            method: if checked.kind == Kind::WebSocket { &http::Method::GET } else { &parts.method },
            host: checked.host.host(),
            path: parts.uri.path(),
            query: parts.uri.query(),
            fields: &parts.headers,
            peer: &self.peer,
            kind: checked.kind,
        };
        self.shared.admit.admit(&head, Gate::of(mark)).await
    }

    /// The answer to a request that the app did not answer.
    fn failed(
        &self,
        admission: &Admission<'_, A::Dial>,
        failure: Failure,
        wants_page: bool,
    ) -> Response<Body> {
        self.seat.metrics().failed(failure);
        let mut answer = match admission.hooks.as_ref().and_then(|hooks| hooks.on_failure.as_ref()) {
            Some(make) => make(&FailedRequest { failure, wants_page }),
            None => plain(failure.status(), &failure.to_string()),
        };
        if failure == Failure::Overloaded {
            answer.headers_mut().entry(header::RETRY_AFTER).or_insert(RETRY);
        }
        answer
    }

    /// Whether a WebSocket is opened by a page of the host that it asks, or by no page at all (RFC 6455 §10.2).
    fn is_own_page(&self, head: &http::request::Parts, host: Host<'_>) -> bool {
        let mut origins = head.headers.get_all(header::ORIGIN).iter();
        let Some(origin) = origins.next() else { return true };
        let scheme = match self.scheme {
            Scheme::Http => "http://",
            Scheme::Https => "https://",
        };
        let page = origin.to_str().ok().and_then(|text| text.strip_prefix(scheme)).and_then(Host::parse);
        page.is_some_and(|page| page.same_as(&host, self.scheme.port())) && origins.next().is_none()
    }

    async fn socket(
        &self,
        parts: http::request::Parts,
        admission: &Admission<'_, A::Dial>,
        way: &Way<'_>,
        client_side: hyper::upgrade::OnUpgrade,
        entry: &mut Entry,
    ) -> Outcome<<A::Dial as Dial>::Stream> {
        match websocket::open(&admission.upstream, way, parts).await {
            Ok(websocket::Opened { answer, app: Some(app) }) => {
                entry.status = answer.status();
                Outcome::Tunnel(answer, Tunnel { client: client_side, app })
            }
            Ok(websocket::Opened { answer, app: None }) => Outcome::Answer(last(answer)),
            Err(failure) => Outcome::Answer(last(self.failed(admission, failure, false))),
        }
    }
}

/// How a request ends.
enum Outcome<S> {
    Answer(Response<Body>),
    Tunnel(Response<Body>, Tunnel<S>),
}

/// The two sides of a WebSocket that was agreed on.
pub(crate) struct Tunnel<S> {
    pub(crate) client: hyper::upgrade::OnUpgrade,
    pub(crate) app: AppSide<S>,
}

/// An answer of the proxy's own, in plain text.
pub(crate) fn plain(status: StatusCode, why: &str) -> Response<Body> {
    let mut answer = Response::new(Body::full(format!("{status}: {why}\n")));
    *answer.status_mut() = status;
    let fields = answer.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::UPGRADE_REQUIRED {
        fields.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    answer
}

/// When it is worth trying again, in seconds (RFC 9110 §10.2.3).
const RETRY: HeaderValue = HeaderValue::from_static("1");

/// A limit is reached.
pub(crate) fn busy(why: &str) -> Response<Body> {
    let mut answer = plain(StatusCode::SERVICE_UNAVAILABLE, why);
    answer.headers_mut().insert(header::RETRY_AFTER, RETRY);
    answer
}

/// How long the app took, in milliseconds.
fn say_timing(answer: &mut Response<Body>, took: Duration) {
    let micros = took.as_micros();
    let text = format!("app;dur={}.{:03}", micros / 1000, micros % 1000);
    if let Ok(value) = HeaderValue::from_str(&text) {
        answer.headers_mut().append(SERVER_TIMING, value);
    }
}

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// To a path of this host, for now.
fn temporary_redirect(path: &str) -> Response<Body> {
    let mut answer = plain(StatusCode::TEMPORARY_REDIRECT, path);
    if let Ok(location) = HeaderValue::from_str(path) {
        answer.headers_mut().insert(header::LOCATION, location);
    }
    answer
}

/// The last answer on its HTTP/1.1 connection.
pub(crate) fn last(mut answer: Response<Body>) -> Response<Body> {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}
