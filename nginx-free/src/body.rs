//! The bodies that go through: a client's towards the app, and an answer's towards the client. Neither is ever gathered.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::{log::Entry, upstream::Carrier};

/// Why a body broke off.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub struct Body {
    source: Source,
    entry: Option<Box<Entry>>,
}

enum Source {
    Empty,
    Full(Bytes),
    App(AppBody),
    Stream(UnsyncBoxBody<Bytes, BodyError>),
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self { source: Source::Empty, entry: None }
    }

    /// A body that is there as a whole.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self { source: Source::Full(bytes.into()), entry: None }
    }

    /// A body made bit by bit, such as a stream of events.
    pub fn stream<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        use http_body_util::BodyExt;
        Self { source: Source::Stream(body.map_err(Into::into).boxed_unsync()), entry: None }
    }

    /// The rest of an answer that comes over `carrier`.
    pub(crate) fn app(incoming: Incoming, carrier: Box<dyn Carrier>) -> Self {
        Self { source: Source::App(AppBody { incoming, carrier: Some(carrier), broken: None }), entry: None }
    }

    /// Gives the connection back at once where there is nothing to come: nobody asks such a body for a frame.
    pub(crate) fn begin(&mut self, cx: &mut Context<'_>) {
        if let Source::App(app) = &mut self.source
            && app.incoming.is_end_stream()
        {
            app.give_back(cx);
        }
    }

    /// Counts this body's bytes into `entry`, which is logged when the body is dropped.
    pub(crate) fn logged(mut self, entry: Box<Entry>) -> Self {
        self.entry = Some(entry);
        self
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let me = &mut *self;
        let frame = match &mut me.source {
            Source::Empty => None,
            Source::Full(bytes) if bytes.is_empty() => None,
            Source::Full(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Source::App(app) => ready!(app.poll_frame(cx)),
            Source::Stream(body) => ready!(Pin::new(body).poll_frame(cx)),
        };
        if let Some(entry) = &mut me.entry {
            match &frame {
                Some(Ok(frame)) => entry.sent(frame.data_ref().map_or(0, Bytes::len)),
                Some(Err(_)) => entry.broken(),
                None => {}
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Full(bytes) => bytes.is_empty(),
            Source::App(app) => app.incoming.is_end_stream(),
            Source::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::App(app) => app.incoming.size_hint(),
            Source::Stream(body) => body.size_hint(),
        }
    }
}

/// What the app has still to send, and the connection that brings it.
struct AppBody {
    incoming: Incoming,
    carrier: Option<Box<dyn Carrier>>,
    broken: Option<hyper::Error>,
}

impl AppBody {
    /// The next frame. With the last one, the connection is given back; with a broken one, closed.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error.into())));
        }
        if let Some(carrier) = &mut self.carrier {
            carrier.carry(cx);
        }
        match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
            Some(Err(error)) => {
                // hyper drops what it has not sent yet when a body breaks, so it has to be let send it first.
                self.carrier = None;
                self.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Ok(frame)) => {
                if self.incoming.is_end_stream() {
                    self.give_back(cx);
                }
                Poll::Ready(Some(Ok(without_protected(frame))))
            }
            None => {
                self.give_back(cx);
                Poll::Ready(None)
            }
        }
    }

    fn give_back(&mut self, cx: &mut Context<'_>) {
        if let Some(carrier) = self.carrier.take() {
            carrier.give_back(cx);
        }
    }
}

/// Trailers may not bring what a head was checked for (RFC 9110 §6.5.1): framing, routing, cookies, the browser's rules.
fn without_protected(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(trailers) => {
            let kept: HeaderMap = trailers
                .iter()
                .filter(|(name, _)| !crate::fields::is_protected_in_trailers(name.as_str()))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            Frame::trailers(kept)
        }
        Err(data) => data,
    }
}

/// A client's body on its way to the app. It ends with an error where the client stands still for too long, and its
/// trailers are dropped, as RFC 9110 §6.5.1 allows: an app may merge them with the head's fields, which were checked.
pub(crate) struct RequestBody {
    incoming: Option<Incoming>,
    stall: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, stall: Duration) -> Self {
        let incoming = Some(incoming).filter(|body| !body.is_end_stream());
        Self { incoming, stall, timer: None }
    }

    pub(crate) fn empty() -> Self {
        Self { incoming: None, stall: Duration::ZERO, timer: None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.incoming.is_none()
    }

    /// Sets how the app is to be told of this body's length (RFC 9112 §6), after the client's own framing was taken out.
    pub(crate) fn frame(&self, fields: &mut HeaderMap) {
        if self.incoming.is_some() && !fields.contains_key(header::CONTENT_LENGTH) {
            // Said in so many words: hyper's client takes a GET of unknown length for one without a body.
            fields.insert(header::TRANSFER_ENCODING, header::HeaderValue::from_static("chunked"));
        }
    }
}

/// A client's body that stood still.
#[derive(Debug, thiserror::Error)]
#[error("the client's body stood still for {0:?}")]
pub(crate) struct Stalled(Duration);

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let me = &mut *self;
        let Some(incoming) = &mut me.incoming else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(incoming).poll_frame(cx) {
            if let Some(timer) = &mut me.timer {
                timer.as_mut().reset(Instant::now() + me.stall);
            }
            return Poll::Ready(match frame {
                Some(Ok(frame)) if frame.is_trailers() => None,
                Some(frame) => Some(frame.map_err(Into::into)),
                None => None,
            });
        }
        let stall = me.stall;
        let timer = me.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Some(Err(Stalled(stall).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}
