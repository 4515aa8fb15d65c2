//! One request from its head to its answer: checked, judged, carried out, logged.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use tokio::sync::{mpsc, watch};

use crate::{
    Admission, Admit, Body, Dial, FailedRequest, Failure, Gate, Head, Host, Kind, Peer, Verdict,
    admit::RequestMark,
    body::RequestBody,
    check, cookies, fields,
    fields::{Origin, Scheme},
    forward,
    forward::Way,
    log::{Entry, Open},
    proxy::{Shared, Slot},
    rewrite::Place,
    tunnel::{self, AppSide, Carried},
    websocket,
    wire::Note,
};

/// One client connection's share in the proxy.
pub(crate) struct Service<A> {
    pub(crate) shared: Arc<Shared<A>>,
    pub(crate) peer: Peer,
    pub(crate) scheme: Scheme,
    /// Requests that came over this connection.
    pub(crate) begun: AtomicUsize,
    /// Those of them whose answer has not ended.
    pub(crate) open: Arc<AtomicUsize>,
    pub(crate) run: Run,
    /// What the client was found to do on the wire.
    pub(crate) note: Note,
    pub(crate) _slot: Slot<A>,
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
    /// Returns when the run is to end.
    pub(crate) async fn ended(&self) {
        let mut closing = self.closing.clone();
        drop(closing.wait_for(|closing| *closing).await);
    }
}

impl<A: Admit> Service<A> {
    /// Answers one request.
    pub(crate) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let counters = &self.shared.counters;
        counters.touch();
        self.begun.fetch_add(1, Ordering::Relaxed);
        let id = counters.requests.fetch_add(1, Ordering::Relaxed);
        let entry =
            Entry::new(id, self.peer, request.method().clone(), request.uri().clone(), Open::new(&self.open));
        let mut entry = Box::new(entry);
        let version = request.version();
        let answer = self.carry_out(request, &mut entry).await;
        let (mut answer, entry) = match answer {
            Outcome::Answer(answer) => (answer, Some(entry)),
            Outcome::Tunnel(answer, tunnel) => {
                tokio::spawn(Arc::clone(&self).carry(tunnel, entry));
                (answer, None)
            }
        };
        let Some(mut entry) = entry else { return Ok(answer) };
        entry.status = answer.status();
        if version == Version::HTTP_2 {
            answer.headers_mut().remove(header::CONNECTION);
        }
        Ok(answer.map(|body| body.logged(entry)))
    }

    /// Carries a WebSocket until either side ends it or the run does.
    async fn carry(self: Arc<Self>, tunnel: Tunnel<<A::Dial as Dial>::Stream>, mut entry: Box<Entry>) {
        let counters = &self.shared.counters;
        counters.tunnels.fetch_add(1, Ordering::Relaxed);
        let mut carried = Carried::default();
        tokio::select! {
            ended = tunnel::run(tunnel.client, tunnel.app, &mut carried) => if let Err(error) = ended {
                tracing::debug!(%error, "a WebSocket broke off");
                entry.broken();
            },
            () = self.run.ended() => entry.broken(),
        }
        entry.tunnelled(carried.from_client, carried.from_app);
        counters.tunnels.fetch_sub(1, Ordering::Relaxed);
        counters.touch();
    }

    async fn carry_out(
        &self,
        request: Request<Incoming>,
        entry: &mut Entry,
    ) -> Outcome<<A::Dial as Dial>::Stream> {
        let (mut parts, body) = request.into_parts();
        // What follows such a request on its connection may be meant for others than us (see `wire`).
        let is_last = parts.headers.contains_key(header::UPGRADE)
            || parts.headers.contains_key(header::TRANSFER_ENCODING);
        let segments = self.shared.limits.routed_segments;
        let checked = match self.note.get() {
            Some(refusal) => Err(*refusal),
            None => check::check(&parts, self.scheme, segments),
        };
        let checked = match checked {
            Ok(checked) => checked,
            Err(refusal) => return Outcome::Answer(last(plain(refusal.status(), &refusal.to_string()))),
        };
        let Some(host) = Host::parse(&checked.host) else {
            return Outcome::Answer(last(plain(StatusCode::BAD_REQUEST, "the Host is not valid")));
        };
        let mark = RequestMark;
        let head = Head {
            method: if checked.kind == Kind::WebSocket { &http::Method::GET } else { &parts.method },
            host,
            path: parts.uri.path(),
            query: parts.uri.query(),
            fields: &parts.headers,
            peer: &self.peer,
            kind: checked.kind,
        };
        let admission = match self.shared.admit.admit(&head, Gate::of(&mark)).await {
            Verdict::Forward(admission) => admission,
            Verdict::Answer(answer) if is_last => return Outcome::Answer(last(answer)),
            Verdict::Answer(answer) => return Outcome::Answer(answer),
        };

        let wants_page = checked.kind == Kind::Plain
            && parts.headers.get(header::ACCEPT).is_some_and(|v| contains(v.as_bytes(), b"text/html"));
        if checked.kind == Kind::WebSocket && !admission.any_origin && !self.is_own_page(&parts, host) {
            return Outcome::Answer(last(plain(StatusCode::FORBIDDEN, "this page is of another origin")));
        }
        let prefix = admission.prefix.clone();
        let asked = parts.uri.path().to_owned();
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
        let origin = Origin { peer: &self.peer, host, scheme: self.scheme, stripped };
        fields::to_app(&mut parts.headers, &checked.named, origin);
        let hides = admission.hooks.as_ref().and_then(|hooks| hooks.hides_cookie.as_ref());
        cookies::cut(&mut parts.headers, |name| hides.is_some_and(|hides| hides(name)));

        match (checked.kind, client_side) {
            (Kind::WebSocket, Some(client_side)) => {
                self.socket(parts, &admission, &way, client_side, entry).await
            }
            (Kind::WebSocket, None) => Outcome::Answer(failed(&admission, Failure::BrokenRequest, false)),
            (Kind::Plain, _) => {
                let body = RequestBody::new(body, self.shared.limits.body_stall);
                body.frame(&mut parts.headers);
                let request = forward::request(parts.method, parts.uri, parts.headers, body);
                let sent = forward::forward(&admission.upstream, &way, request).await;
                let answer = sent.unwrap_or_else(|failure| failed(&admission, failure, wants_page));
                Outcome::Answer(if is_last { last(answer) } else { answer })
            }
        }
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
        match websocket::open(&admission.upstream, way, parts.version, parts.uri, parts.headers).await {
            Ok(websocket::Opened { answer, app: Some(app) }) => {
                entry.status = answer.status();
                Outcome::Tunnel(answer, Tunnel { client: client_side, app })
            }
            Ok(websocket::Opened { answer, app: None }) => Outcome::Answer(last(answer)),
            Err(failure) => Outcome::Answer(last(failed(admission, failure, false))),
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

fn failed<D: Dial>(admission: &Admission<'_, D>, failure: Failure, wants_page: bool) -> Response<Body> {
    match admission.hooks.as_ref().and_then(|hooks| hooks.on_failure.as_ref()) {
        Some(make) => make(&FailedRequest { failure, wants_page }),
        None => plain(failure.status(), &failure.to_string()),
    }
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

/// To a path of this host, for now.
fn temporary_redirect(path: &str) -> Response<Body> {
    let mut answer = plain(StatusCode::TEMPORARY_REDIRECT, path);
    if let Ok(location) = HeaderValue::from_str(path) {
        answer.headers_mut().insert(header::LOCATION, location);
    }
    answer
}

/// The last answer on its HTTP/1.1 connection.
fn last(mut answer: Response<Body>) -> Response<Body> {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}
