//! Who may pass, in this order: the host must be ours; the browser must act on behalf of our own pages; a token is taken
//! for a cookie; without a cookie there is nothing but a page on how to get one; then the session's phase decides.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use http::{HeaderValue, Method, Response, StatusCode, header};
use nginx_free::{Admit, Body, Dial, Gate, Head, Hooks, Kind, Limits, Metrics, Upstream, Verdict};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Options, Phase, Restart, Seen,
    cookies::{self, Cookies, Holder},
    filter,
    follow::Follow,
    origin::{self, Behalf},
    pages,
    query::{self, Query},
    terminal::{Caller, Desk, Way},
    tokens::{Presented, Tokens},
};
use crate::activity::{Activity, Carries, Request};

/// What begins the paths that are the gateway's own.
const OWN: &str = "/-/";
/// The page with a terminal, below [`OWN`]; its parts and its WebSocket are below it.
const TERMINAL: &str = "terminal";

/// Prometheus' text format.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The ways to the app: one, or two where its use is counted, for bytes of WebSockets count otherwise than those of requests.
pub(crate) struct App<D: Dial> {
    requests: Arc<Upstream<Way<Arc<D>>>>,
    sockets: Arc<Upstream<Way<Arc<D>>>>,
    activity: Activity,
}

impl<D: Dial> App<D> {
    /// The app called `name`, whose use is counted by `activity`.
    pub(crate) fn new(name: &str, dial: D, limits: &Limits, activity: &Activity) -> Self {
        let (dial, mut limits) = (Arc::new(dial), limits.clone());
        if activity.counts() {
            // Together they are as many as there would be by one way.
            limits.connections_per_app /= 2;
        }
        let way = |carries| {
            let (dial, activity) = (Arc::clone(&dial), activity.clone());
            Upstream::named(name, Way::App { dial, activity, carries }, limits.clone())
        };
        let requests = way(Carries::Requests);
        let sockets = if activity.counts() { way(Carries::Messages) } else { Arc::clone(&requests) };
        Self { requests, sockets, activity: activity.clone() }
    }

    /// The way for this request, which is noted.
    fn way(&self, head: &Head<'_>) -> &Arc<Upstream<Way<Arc<D>>>> {
        if self.activity.counts() {
            let one = |name: &str| origin::one(head.fields, name);
            self.activity.requested(Request {
                method: head.method,
                path: head.path,
                length: one("content-length").and_then(|length| length.parse().ok()),
                opens_page: one("sec-fetch-mode") == Some("navigate")
                    && one("sec-fetch-dest") == Some("document"),
            });
        }
        match head.kind {
            Kind::Plain => &self.requests,
            Kind::WebSocket => &self.sockets,
        }
    }
}

/// The door of one session.
pub(crate) struct Door<D: Dial> {
    options: Options,
    app: App<D>,
    limits: Limits,
    hooks: Arc<Hooks>,
    phase: watch::Receiver<Phase>,
    log_length: watch::Receiver<u64>,
    desk: Desk,
    restart: mpsc::Sender<Restart>,
    metrics: Arc<Metrics>,
    keys: Mutex<Keys>,
}

/// What opens the door.
struct Keys {
    tokens: Tokens,
    cookies: Cookies,
}

impl<D: Dial> Door<D> {
    pub(crate) fn new(
        options: Options,
        app: App<D>,
        limits: Limits,
        metrics: Arc<Metrics>,
        seen: Seen,
    ) -> Self {
        let name = options.name.clone();
        let hooks = Hooks {
            hides_cookie: Some(Box::new(cookies::is_ours)),
            edit_answer: Some(Box::new(filter::edit_answer)),
            on_failure: Some(Box::new(move |failed| match failed.wants_page {
                true => pages::no_answer(&name, failed.failure),
                false => pages::plain(failed.failure.status(), "the app does not answer"),
            })),
        };
        let keys = Keys {
            tokens: Tokens::new(options.token_lifetime),
            cookies: Cookies::new(options.session, options.cookie_lifetime, options.bind_cookie.into()),
        };
        let (hooks, keys) = (Arc::new(hooks), Mutex::new(keys));
        let Seen { phase, log_len: log_length, terminals, guests, ends, restart, activity: _ } = seen;
        let desk = Desk { terminals, guests, phase: phase.clone(), ends };
        Self { options, app, limits, hooks, phase, log_length, desk, restart, metrics, keys }
    }

    /// A new token.
    pub(crate) fn issue(&self) -> std::io::Result<crate::words::Secret> {
        self.keys().tokens.issue(Instant::now())
    }

    /// Spends a token; whether it was good.
    pub(crate) fn spend(&self, token: &str) -> bool {
        self.keys().tokens.spend(token, Instant::now()) == Presented::Valid
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge(&self, head: &Head<'_>) -> Judgement {
        if !self.is_here(head) {
            return Judgement::answer(pages::notice(
                StatusCode::MISDIRECTED_REQUEST,
                "Not here",
                "There is nothing under this name.",
            ));
        }
        if origin::behalf(head) == Behalf::Foreign {
            return Judgement::answer(pages::notice(
                StatusCode::FORBIDDEN,
                "Not from there",
                "This was sent by a page from elsewhere.",
            ));
        }
        let holder = self.keys().cookies.holder(head.fields, head.peer, Instant::now());
        if let Some(answer) = self.take_token(head, holder.as_ref()) {
            return Judgement::answer(answer);
        }
        let Some(holder) = holder else { return Judgement::answer(pages::sign_in()) };
        let own = head.path.strip_prefix(OWN);
        if let Some(rest) = own.and_then(|own| own.strip_prefix(TERMINAL)) {
            return self.terminal(rest, head, holder);
        }
        match (own, holder) {
            // Whoever is let in to a terminal is let in to nothing else.
            (_, Holder::Guest(_)) => Judgement::answer(pages::only_the_terminal()),
            (Some("restart"), Holder::Owner) if sends_form(head) => {
                Judgement::Restart { back_to: back_to(head.query) }
            }
            (Some(own), Holder::Owner) => Judgement::answer(self.own(own, head)),
            (None, Holder::Owner) => self.by_phase(head),
        }
    }

    /// The page with a terminal, its parts, and its WebSocket.
    fn terminal(&self, rest: &str, head: &Head<'_>, holder: Holder) -> Judgement {
        if rest == "/socket" && head.kind == Kind::WebSocket {
            return Judgement::Terminals(match holder {
                Holder::Owner => Caller::Owner,
                Holder::Guest(visit) => Caller::Guest(visit),
            });
        }
        Judgement::answer(match rest {
            _ if !reads(head) => pages::plain(StatusCode::METHOD_NOT_ALLOWED, "only GET"),
            "" => pages::terminal_page(&self.options.name),
            _ => match rest.strip_prefix("/assets/").and_then(|name| pages::asset(name, head)) {
                Some(asset) => asset,
                None => pages::notice(StatusCode::NOT_FOUND, "Not found", "The gateway has no such page."),
            },
        })
    }

    /// Whether this is a name of ours, or an address: those can't be rebound by whoever owns a name.
    fn is_here(&self, head: &Head<'_>) -> bool {
        let name = head.host.name();
        head.host.ip().is_some() || self.options.names.iter().any(|ours| ours.eq_ignore_ascii_case(name))
    }

    /// Takes a token out of the query, if one of ours is there or somebody who is not signed in presents anything as one.
    ///
    /// Only a GET spends it, and only one by which a person opens a page: not a HEAD, not a prefetch, not an image.
    /// Somebody who is signed in goes on without it, so that a reload of the token's URL works; an app's
    /// own `token=` (Jupyter has one) passes untouched. A guest's code is taken in the same way, but is not spent: it is
    /// good for as long as he may stay, and for him alone.
    fn take_token(&self, head: &Head<'_>, holder: Option<&Holder>) -> Option<Response<Body>> {
        let signed_in = holder.is_some();
        let query = Query::of(head.query?);
        let now = Instant::now();
        let mut keys = self.keys();
        let found: Vec<(&str, Presented)> =
            query.tokens().take(4).map(|token| (token, keys.tokens.look(token, now))).collect();
        let ours = found.iter().find(|(_, is)| *is != Presented::Unknown).or(found.first()).copied();
        let (token, is) = ours?;
        if is == Presented::Unknown && signed_in {
            return None;
        }
        if head.kind == Kind::WebSocket || !matches!(*head.method, Method::GET | Method::HEAD) {
            return Some(pages::token_refused());
        }
        if signed_in {
            // It was seen, so it is spent all the same; the cookie stays as it is.
            if *head.method == Method::GET && !is_ahead(head) {
                keys.tokens.spend(token, now);
            }
            return Some(redirect(&query::without(head.path, &query, token), None));
        }
        if *head.method == Method::HEAD {
            return Some(pages::sign_in());
        }
        if is_ahead(head) {
            return Some(pages::not_now());
        }
        let holder = match keys.tokens.spend(token, now) {
            Presented::Valid => Holder::Owner,
            Presented::Spent => return Some(pages::token_refused()),
            Presented::Unknown => match self.desk.guests.claim(token, head.peer) {
                Some(visit) => Holder::Guest(visit),
                None => return Some(pages::token_refused()),
            },
        };
        Some(match keys.cookies.issue(holder, head.peer, now) {
            Ok(cookie) => redirect(&query::without(head.path, &query, token), Some(&cookie)),
            Err(error) => {
                tracing::error!(%error, "no cookie could be made");
                pages::notice(StatusCode::INTERNAL_SERVER_ERROR, "Not signed in", "Try a new link.")
            }
        })
    }

    /// The gateway's own paths.
    fn own(&self, path: &str, head: &Head<'_>) -> Response<Body> {
        let reads = reads(head);
        match path {
            "starting/log" if reads => {
                let from = origin::one(head.fields, "last-event-id").and_then(|id| id.parse().ok());
                let follow = Follow {
                    log: self.options.log.clone(),
                    length: self.log_length.clone(),
                    phase: self.phase.clone(),
                    from,
                };
                pages::with_fields(StatusCode::OK, "text/event-stream", Body::stream(follow.begin()))
            }
            "metrics" if reads => {
                pages::with_fields(StatusCode::OK, PROMETHEUS, Body::full(self.metrics.prometheus()))
            }
            "starting/log" | "metrics" => pages::plain(StatusCode::METHOD_NOT_ALLOWED, "only GET"),
            "restart" => pages::plain(StatusCode::METHOD_NOT_ALLOWED, "only POST"),
            _ => pages::notice(StatusCode::NOT_FOUND, "Not found", "The gateway has no such page."),
        }
    }

    /// Has the session started again, and goes back to where that was asked for.
    async fn restart(&self, back_to: &str) -> Response<Body> {
        if !matches!(*self.phase.borrow(), Phase::Interrupted { .. }) {
            // It has been already, or another page was quicker.
            return redirect(back_to, None);
        }
        let (answer, answered) = oneshot::channel();
        let told = self.restart.send(Restart { follower: None, answer }).await;
        match told.ok().and(answered.await.ok()) {
            Some(Ok(())) => redirect(back_to, None),
            Some(Err(why)) => pages::notice(StatusCode::CONFLICT, "Not started again", &why),
            None => pages::notice(
                StatusCode::CONFLICT,
                "Not started again",
                "This session runs in no job, or has just ended.",
            ),
        }
    }

    fn by_phase(&self, head: &Head<'_>) -> Judgement {
        let page = reads(head)
            && head
                .fields
                .get_all(header::ACCEPT)
                .iter()
                .any(|v| v.to_str().is_ok_and(|v| v.contains("text/html")));
        Judgement::answer(match &*self.phase.borrow() {
            Phase::Running => return Judgement::App,
            Phase::Waiting { summary } if page => pages::waiting(&self.options.name, summary),
            Phase::Waiting { .. } => {
                pages::plain(StatusCode::SERVICE_UNAVAILABLE, "no node runs the app yet")
            }
            Phase::Starting if page => pages::starting(&self.options.name),
            Phase::Starting => pages::plain(StatusCode::SERVICE_UNAVAILABLE, "the app is starting"),
            Phase::Interrupted { summary } if page => {
                pages::interrupted(&self.options.name, summary, query::value(head.path))
            }
            Phase::Interrupted { .. } => {
                pages::plain(StatusCode::SERVICE_UNAVAILABLE, "the app's job is over")
            }
            Phase::Ended { summary } if page => pages::ended(&self.options.name, summary),
            Phase::Ended { .. } => pages::plain(StatusCode::GONE, "the app has ended"),
        })
    }
}

enum Judgement {
    App,
    Restart {
        /// A place on this host.
        back_to: String,
    },
    Terminals(Caller),
    Answer(Box<Response<Body>>),
}

impl Judgement {
    fn answer(answer: Response<Body>) -> Self {
        Self::Answer(Box::new(answer))
    }
}

impl<D: Dial> Admit for Door<D> {
    type Dial = Way<Arc<D>>;

    async fn admit<'r>(&self, head: &Head<'_>, gate: Gate<'r>) -> Verdict<'r, Way<Arc<D>>> {
        match self.judge(head) {
            Judgement::App => Verdict::Forward(gate.open(self.app.way(head)).with(&self.hooks)),
            Judgement::Terminals(caller) => {
                // One for each caller, so that no connection made for one is ever another's.
                let way = Way::Terminals { desk: self.desk.clone(), caller };
                Verdict::Forward(gate.open(&Upstream::named("terminal", way, self.limits.clone())))
            }
            Judgement::Restart { back_to } => Verdict::Answer(self.restart(&back_to).await),
            Judgement::Answer(answer) => Verdict::Answer(*answer),
        }
    }
}

/// Whether it is what a form sends: a POST by which, where a browser says so, a page is opened. A script's `fetch` is none.
fn sends_form(head: &Head<'_>) -> bool {
    let says = |name, value| origin::one(head.fields, name).is_none_or(|said| said == value);
    head.kind == Kind::Plain
        && *head.method == Method::POST
        && says("sec-fetch-mode", "navigate")
        && says("sec-fetch-dest", "document")
}

/// Where a page was from which something was done: the `to` of its query.
pub(super) fn back_to(query: Option<&str>) -> String {
    let to = query.and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("to=")));
    query::place(to.unwrap_or("/"))
}

fn reads(head: &Head<'_>) -> bool {
    head.kind == Kind::Plain && matches!(*head.method, Method::GET | Method::HEAD)
}

/// Whether something other than a person's opening of a page asks: a browser that fetches ahead, or a part of a page.
fn is_ahead(head: &Head<'_>) -> bool {
    let ahead = |name: &str| {
        origin::one(head.fields, name).is_some_and(|value| value.to_ascii_lowercase().contains("prefetch"))
    };
    ahead("sec-purpose")
        || ahead("purpose")
        || ahead("x-moz")
        || origin::one(head.fields, "sec-fetch-dest").is_some_and(|dest| dest != "document")
}

/// To a path of this gateway; `cookie` is a `Set-Cookie` field.
fn redirect(path: &str, cookie: Option<&str>) -> Response<Body> {
    let mut answer = pages::with_fields(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", Body::empty());
    if let Ok(location) = HeaderValue::from_str(path) {
        answer.headers_mut().insert(header::LOCATION, location);
    }
    if let Some(Ok(cookie)) = cookie.map(HeaderValue::from_str) {
        answer.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    answer
}
