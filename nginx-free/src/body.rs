//! The bodies that go through: a client's towards the app, and an answer's towards the client. Neither is ever gathered.

use std::{
    pin::Pin,
    sync::{Arc, atomic::AtomicU64},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

use crate::{log::Entry, metrics::add, patience::Patience, stall::Taken, upstream::Carrier};

/// Why a body broke off.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub struct Body {
    source: Source,
    entry: Option<Box<Entry>>,
    taken: Option<Arc<Taken>>,
    /// What the source has given, and was not given on yet.
    rest: Bytes,
}

/// What is given to a stream of HTTP/2 at a time, one of its frames: what is not taken of it within the time to stall
/// is little enough that only a line slower than 550 bytes a second is cut, as elsewhere.
const PIECE: usize = 16 * 1024;

enum Source {
    Empty,
    Full(Bytes),
    App(AppBody),
    Stream(UnsyncBoxBody<Bytes, BodyError>),
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self { source: Source::Empty, entry: None, taken: None, rest: Bytes::new() }
    }

    /// A body that is there as a whole.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self { source: Source::Full(bytes.into()), entry: None, taken: None, rest: Bytes::new() }
    }

    /// A body made bit by bit, such as a stream of events.
    pub fn stream<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        use http_body_util::BodyExt;
        Self {
            source: Source::Stream(body.map_err(Into::into).boxed_unsync()),
            entry: None,
            taken: None,
            rest: Bytes::new(),
        }
    }

    /// The rest of an answer that comes over `carrier`.
    pub(crate) fn app(incoming: Incoming, carrier: Box<dyn Carrier>) -> Self {
        Self {
            source: Source::App(AppBody { incoming, carrier: Some(carrier), broken: None }),
            entry: None,
            taken: None,
            rest: Bytes::new(),
        }
    }

    /// Gives the connection back at once where there is nothing to come: nobody asks such a body for a frame.
    pub(crate) fn begin(&mut self, cx: &mut Context<'_>) {
        if let Source::App(app) = &mut self.source
            && app.incoming.is_end_stream()
        {
            app.give_back(cx);
        }
    }

    /// Counts this body's bytes into `entry`, which is logged when the body is dropped, and lets the stream it goes on
    /// know of them.
    pub(crate) fn logged(mut self, entry: Box<Entry>) -> Self {
        self.entry = Some(entry);
        self.taken = Taken::here();
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
        if let Some(taken) = &me.taken {
            taken.asked();
        }
        let mut frame = match &mut me.source {
            _ if !me.rest.is_empty() => Some(Ok(Frame::data(std::mem::take(&mut me.rest)))),
            Source::Empty => None,
            Source::Full(bytes) if bytes.is_empty() => None,
            Source::Full(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Source::App(app) => ready!(app.poll_frame(cx)),
            Source::Stream(body) => ready!(Pin::new(body).poll_frame(cx)),
        };
        if let (Some(taken), Some(Ok(frame))) = (&me.taken, &mut frame) {
            if let Some(bytes) = frame.data_mut().filter(|bytes| bytes.len() > PIECE) {
                me.rest = bytes.split_off(PIECE);
            }
            taken.gave(frame.data_ref().map_or(0, Bytes::len));
        }
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
        self.rest.is_empty()
            && match &self.source {
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
        let polled = match &mut self.carrier {
            Some(carrier) => carrier.poll_frame(&mut self.incoming, cx),
            None => Pin::new(&mut self.incoming).poll_frame(cx),
        };
        match ready!(polled) {
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
///
/// Boxed, for most requests have none, and hyper has room for 64 of them at each connection to an app.
pub(crate) struct RequestBody(Option<Box<Arriving>>);

struct Arriving {
    incoming: Incoming,
    patience: Patience,
    received: Arc<AtomicU64>,
}

impl RequestBody {
    /// `received` counts its bytes.
    pub(crate) fn new(
        incoming: Incoming,
        stall: Duration,
        received: impl FnOnce() -> Arc<AtomicU64>,
    ) -> Self {
        if incoming.is_end_stream() {
            return Self::empty();
        }
        Self(Some(Box::new(Arriving { incoming, patience: Patience::new(stall), received: received() })))
    }

    pub(crate) fn empty() -> Self {
        Self(None)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Sets how the app is to be told of this body's length (RFC 9112 §6), after the client's own framing was taken out.
    pub(crate) fn frame(&self, fields: &mut HeaderMap) {
        if self.0.is_some() && !fields.contains_key(header::CONTENT_LENGTH) {
            // Said in so many words: hyper's client takes a GET of unknown length for one without a body.
            fields.insert(header::TRANSFER_ENCODING, header::HeaderValue::from_static("chunked"));
        }
    }
}

/// A client's body that stood still.
#[derive(Debug, thiserror::Error)]
#[error("the client's body stood still")]
pub(crate) struct Stalled;

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(body) = &mut self.0 else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(&mut body.incoming).poll_frame(cx) else {
            ready!(body.patience.poll_out(cx));
            return Poll::Ready(Some(Err(Stalled.into())));
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) if frame.is_trailers() => None,
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                body.patience.moved(bytes);
                add(&body.received, bytes as u64);
                Some(Ok(frame))
            }
            Some(Err(error)) => Some(Err(error.into())),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|body| body.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |body| body.incoming.size_hint())
    }
}
