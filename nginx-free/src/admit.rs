//! Who may pass. One function judges every request, before HTTP and WebSocket part ways, and what forwards a request
//! demands the value that only this judgement yields.

use std::{future::Future, marker::PhantomData, sync::Arc};

use http::{HeaderMap, Method, Response, response};

use crate::{Body, Dial, Host, Peer, Prefix, Upstream};

/// Judges requests.
pub trait Admit: Send + Sync + 'static {
    /// How this judge's apps are reached.
    type Dial: Dial;

    /// Judges one request. `gate` opens for this request alone.
    fn admit<'r>(
        &self,
        head: &Head<'_>,
        gate: Gate<'r>,
    ) -> impl Future<Output = Verdict<'r, Self::Dial>> + Send;
}

/// The head of a request that kept all the rules of HTTP, as its judge sees it.
#[derive(Debug)]
pub struct Head<'h> {
    /// The method. `GET` for every WebSocket, also for one that HTTP/2 opens with an extended CONNECT.
    pub method: &'h Method,
    /// The one host that the request is for.
    pub host: Host<'h>,
    /// The path as it was sent, escapes and all.
    pub path: &'h str,
    /// The query as it was sent.
    pub query: Option<&'h str>,
    /// All fields as they were sent, but for `Host` in HTTP/2.
    pub fields: &'h HeaderMap,
    /// The client.
    pub peer: &'h Peer,
    /// What the request wants to become.
    pub kind: Kind,
}

/// What a request wants to become.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A request and its answer.
    Plain,
    /// A WebSocket (RFC 6455, or RFC 8441 over HTTP/2).
    WebSocket,
}

/// The way to the app, for one request. Only the proxy makes one, and it can't be kept for another request:
///
/// ```compile_fail,E0521
/// # use std::sync::Mutex;
/// # use nginx_free::{Admit, Body, Dial, Gate, Head, Verdict};
/// struct Keeps<D>(Mutex<Vec<Gate<'static>>>, std::marker::PhantomData<fn() -> D>);
///
/// impl<D: Dial> Admit for Keeps<D> {
///     type Dial = D;
///     async fn admit<'r>(&self, _head: &Head<'_>, gate: Gate<'r>) -> Verdict<'r, D> {
///         self.0.lock().unwrap().push(gate);
///         Verdict::Answer(http::Response::new(Body::empty()))
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Gate<'r>(PhantomData<fn(&'r ()) -> &'r ()>);

impl<'r> Gate<'r> {
    pub(crate) fn of(_request: &'r RequestMark) -> Self {
        Self(PhantomData)
    }

    /// Lets this request through to `upstream`.
    pub fn open<D: Dial>(self, upstream: &Arc<Upstream<D>>) -> Admission<'r, D> {
        Admission {
            upstream: Arc::clone(upstream),
            hooks: None,
            prefix: None,
            any_origin: false,
            gate: self.0,
        }
    }
}

/// The one request that a [`Gate`] belongs to.
pub(crate) struct RequestMark;

/// A request that may pass, and how.
pub struct Admission<'r, D: Dial> {
    pub(crate) upstream: Arc<Upstream<D>>,
    pub(crate) hooks: Option<Arc<Hooks>>,
    pub(crate) prefix: Option<Arc<Prefix>>,
    pub(crate) any_origin: bool,
    gate: PhantomData<fn(&'r ()) -> &'r ()>,
}

impl<D: Dial> Admission<'_, D> {
    /// What is to be changed on the way.
    pub fn with(mut self, hooks: &Arc<Hooks>) -> Self {
        self.hooks = Some(Arc::clone(hooks));
        self
    }

    /// The app stands under this prefix. A request that is not under it gets 404, whoever let it through.
    pub fn under(mut self, prefix: &Arc<Prefix>) -> Self {
        self.prefix = Some(Arc::clone(prefix));
        self
    }

    /// A WebSocket may be opened by a page of any origin. Without this, one whose `Origin` is not the host that it
    /// asks gets 403 (RFC 6455 §10.2): browsers send cookies along with it, whosever page it is.
    pub fn from_any_origin(mut self) -> Self {
        self.any_origin = true;
        self
    }
}

/// The judgement.
#[must_use = "a request is neither answered nor forwarded until its verdict is carried out"]
pub enum Verdict<'r, D: Dial> {
    /// It gets this answer, and the app never hears of it.
    Answer(Response<Body>),
    /// It may pass.
    Forward(Admission<'r, D>),
}

/// Whether a cookie of this name is kept from the app.
pub type HidesCookie = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;
/// Edits the head of an app's answer.
pub type EditAnswer = Box<dyn Fn(&mut response::Parts) + Send + Sync>;
/// Makes an answer for a request that the app did not answer.
pub type OnFailure = Box<dyn Fn(&FailedRequest) -> Response<Body> + Send + Sync>;

/// What is changed on the way, made once and used for many requests.
#[derive(Default)]
pub struct Hooks {
    /// Whether a request's cookie of this name is kept from the app.
    pub hides_cookie: Option<HidesCookie>,
    /// Edits the head of the app's answer, after the hop-by-hop fields were taken out.
    pub edit_answer: Option<EditAnswer>,
    /// Makes the answer for a request that the app did not answer. Without it, that is a plain text.
    pub on_failure: Option<OnFailure>,
}

/// A request that the app did not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FailedRequest {
    /// Why.
    pub failure: Failure,
    /// Whether the client asked for a page (`Accept: text/html`) rather than for data.
    pub wants_page: bool,
}

/// Why the app did not answer. What a stranger is told of it is for the hook to decide; the reason goes to the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// No connection to the app.
    #[error("the app could not be reached")]
    Unreachable,
    /// The connection broke, or the answer broke the rules of HTTP.
    #[error("the app's answer cannot be used")]
    BadAnswer,
    /// No answer in time.
    #[error("the app did not answer in time")]
    TimedOut,
    /// The app has as many connections as it may.
    #[error("the app is busy")]
    Overloaded,
    /// The client's own body broke off or stood still.
    #[error("the request's body did not arrive")]
    BrokenRequest,
}

impl Failure {
    /// The status for it.
    pub fn status(self) -> http::StatusCode {
        match self {
            Self::Unreachable | Self::BadAnswer => http::StatusCode::BAD_GATEWAY,
            Self::TimedOut => http::StatusCode::GATEWAY_TIMEOUT,
            Self::Overloaded => http::StatusCode::SERVICE_UNAVAILABLE,
            Self::BrokenRequest => http::StatusCode::REQUEST_TIMEOUT,
        }
    }
}
