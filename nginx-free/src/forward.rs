//! A plain request on its way to the app, and the answer on its way back.

use std::{future::poll_fn, sync::Arc, task::Poll};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, request,
    uri::PathAndQuery,
};
use hyper::body::Incoming;

use crate::{
    Body, Dial, Failure, Hooks, Upstream,
    body::RequestBody,
    fields,
    rewrite::Place,
    upstream::{Connection, Source, Unanswered},
    wire::Meanwhile,
};

/// Sends a request, whose fields were made the app's, and returns the answer, whose fields were made the client's.
pub(crate) async fn forward<D: Dial>(
    upstream: &Arc<Upstream<D>>,
    way: &Way<'_>,
    request: Box<Request<RequestBody>>,
) -> Result<Response<Body>, Failure> {
    let (connection, answer) = send(upstream, request).await?;
    let answer = readable(answer)?;
    connection.head_came();
    Ok(way.answer(answer, connection).await)
}

/// What changes an answer on its way back.
pub(crate) struct Way<'w> {
    pub(crate) place: Option<Place<'w>>,
    pub(crate) hooks: Option<&'w Hooks>,
}

impl Way<'_> {
    /// Makes an answer the client's. Its connection is given back where no body comes.
    pub(crate) fn answer<D: Dial>(
        &self,
        answer: Response<Incoming>,
        connection: Box<Connection<D>>,
    ) -> impl Future<Output = Response<Body>> + use<D> {
        let (mut head, body) = answer.into_parts();
        self.prepare(&mut head);
        let mut answer = Response::from_parts(head, Body::app(body, connection));
        async move {
            poll_fn(|cx| {
                answer.body_mut().begin(cx);
                Poll::Ready(())
            })
            .await;
            answer
        }
    }

    /// Makes an answer's head the client's.
    pub(crate) fn prepare(&self, head: &mut http::response::Parts) {
        fields::to_client(&mut head.headers);
        // A reason phrase carries no meaning (RFC 9112 §4), and up to a head's limit of the app's text.
        head.extensions.clear();
        head.version = Version::HTTP_11;
        if let Some(place) = &self.place {
            place.rewrite(head);
        }
        if let Some(edit) = self.hooks.and_then(|hooks| hooks.edit_answer.as_ref()) {
            edit(head);
        }
    }
}

/// Sends on a kept connection where there is one, else on a new one. Where a kept one turns out to be dead before anything
/// left, the next is taken; where before the app said a word, and doing it again can do no harm (RFC 9110 §9.2.2), it is
/// sent once more, on a new one.
async fn send<D: Dial>(
    upstream: &Arc<Upstream<D>>,
    mut request: Box<Request<RequestBody>>,
) -> Result<(Box<Connection<D>>, Response<Incoming>), Failure> {
    loop {
        let (mut connection, source) = upstream.connection().await?;
        let may_be_repeated = source == Source::Pool && may_be_repeated(&request);
        let mut error = match connection.exchange(request, may_be_repeated).await {
            Ok(answer) => return Ok((connection, answer)),
            Err(Unanswered::TimedOut) => return Err(Failure::TimedOut),
            Err(Unanswered::Broken(error)) => error,
        };
        let unsent = error.take_message();
        let error = error.into_error();
        tracing::debug!(%error, ?source, "a connection to the app was dead");
        match unsent {
            Some(unsent) if source == Source::Pool => request = Box::new(unsent),
            None if source == Source::Pool && !connection.has_answered() => {
                let again = from_head(&connection.copy()).ok_or_else(|| why(&error))?;
                return Box::pin(once_more(upstream, again)).await;
            }
            _ => return Err(why(&error)),
        }
    }
}

async fn once_more<D: Dial>(
    upstream: &Arc<Upstream<D>>,
    request: Box<Request<RequestBody>>,
) -> Result<(Box<Connection<D>>, Response<Incoming>), Failure> {
    let mut connection = upstream.fresh().await?;
    match connection.exchange(request, false).await {
        Ok(answer) => Ok((connection, answer)),
        Err(Unanswered::TimedOut) => Err(Failure::TimedOut),
        Err(Unanswered::Broken(error)) => Err(why(&error.into_error())),
    }
}

fn why(error: &hyper::Error) -> Failure {
    tracing::debug!(%error, cause = std::error::Error::source(error).map(tracing::field::display), "no answer of the app");
    if error.is_user() { Failure::BrokenRequest } else { Failure::BadAnswer }
}

/// Whether a request can be sent again: it has no body, and doing it twice is as good as once.
fn may_be_repeated(request: &Request<RequestBody>) -> bool {
    request.body().is_empty() && request.method().is_idempotent()
}

/// A request from its head as it left: to keep a copy of those bytes takes a tenth of what a copy of the request does,
/// and it is seldom needed.
fn from_head(head: &[u8]) -> Option<Box<Request<RequestBody>>> {
    let mut lines = head
        .strip_suffix(b"\n\r\n")?
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut words = lines.next()?.split(|byte| *byte == b' ');
    let mut request = Box::new(Request::new(RequestBody::empty()));
    *request.method_mut() = Method::from_bytes(words.next()?).ok()?;
    *request.uri_mut() = PathAndQuery::try_from(words.next()?).ok()?.into();
    for line in lines {
        let colon = memchr::memchr(b':', line)?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = HeaderValue::from_bytes(line[colon + 1..].strip_prefix(b" ")?).ok()?;
        request.headers_mut().append(name, value);
    }
    Some(request)
}

/// Refuses an answer that a neighbour could read otherwise (RFC 9112 §6.3). hyper takes the chunks where both lengths
/// are given, reads to the end where an encoding is unknown, and takes any 101 for an upgrade.
fn readable(answer: Response<Incoming>) -> Result<Response<Incoming>, Failure> {
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS || !framed_once(answer.headers()) {
        tracing::debug!(status = answer.status().as_u16(), "an answer of the app breaks the rules of HTTP");
        return Err(Failure::BadAnswer);
    }
    Ok(answer)
}

/// Whether an answer says its length at most once, and in the one way that everybody reads alike. In one pass: to ask the map
/// twice takes longer.
pub(crate) fn framed_once(fields: &HeaderMap) -> bool {
    let mut framings = 0;
    for (name, value) in fields {
        let value = value.as_bytes();
        let is_plain = match *name {
            header::TRANSFER_ENCODING => value.eq_ignore_ascii_case(b"chunked"),
            header::CONTENT_LENGTH => !value.is_empty() && value.iter().all(u8::is_ascii_digit),
            _ => continue,
        };
        framings += 1;
        if !is_plain || framings > 1 {
            return false;
        }
    }
    true
}

/// A request line for the app: the path and query as the client sent them, byte for byte.
pub(crate) fn to_origin_form(uri: Uri) -> Uri {
    uri.into_parts().path_and_query.map_or_else(Uri::default, Uri::from)
}

/// A request for the app: what a head says, but for its extensions. Boxed, as it goes through one future after the other,
/// which would each keep room for it.
pub(crate) fn request(head: request::Parts, body: RequestBody) -> Box<Request<RequestBody>> {
    let mut request = Box::new(Request::new(body));
    *request.method_mut() = head.method;
    *request.uri_mut() = to_origin_form(head.uri);
    *request.headers_mut() = head.headers;
    request
}

/// Passes interim answers of the app on as they come (RFC 9110 §15.2), but for 100, which is answered here, and 101.
pub(crate) fn pass_on_interim<S: Send + 'static>(request: &mut Request<RequestBody>, client: Meanwhile<S>) {
    hyper::ext::on_informational(request, move |answer| {
        if !matches!(answer.status(), StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS) {
            client.say(&interim_head(answer.status(), answer.headers()));
        }
    });
}

/// The head of an interim answer. Of its fields `Link` alone is kept, which is what it is for (RFC 8297): all else would
/// have to be judged as in the answer itself.
fn interim_head(status: StatusCode, fields: &HeaderMap) -> Vec<u8> {
    // RFC 9112 §4: the space stays where there is no reason.
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    for value in fields.get_all(header::LINK) {
        head.extend_from_slice(b"link: ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_from_its_head_as_it_was() {
        let head = b"DELETE /a?b=%0a HTTP/1.1\r\nhost: a:1\r\nx: \r\nx: a: b\r\ny: \xff\t:\r\n\r\n";
        let again = from_head(head).unwrap();
        assert_eq!((again.method(), again.uri().to_string().as_str()), (&Method::DELETE, "/a?b=%0a"));
        let fields: Vec<_> =
            again.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(fields, [("host", &b"a:1"[..]), ("x", b""), ("x", b"a: b"), ("y", b"\xff\t:")]);
        for part in [&b""[..], b"\r\n\r\n", b"DELETE\r\n\r\n", &head[..head.len() - 1], &head[..30]] {
            assert!(from_head(part).is_none());
        }
    }

    #[test]
    fn what_could_do_harm_is_not_repeated() {
        let with = |method: &str| {
            may_be_repeated(&Request::builder().method(method).body(RequestBody::empty()).unwrap())
        };
        assert!(with("GET") && with("DELETE") && with("OPTIONS"));
        assert!(!with("POST") && !with("PATCH") && !with("ANY"));
    }

    #[test]
    fn an_answer_has_one_length() {
        let with = |fields: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in fields {
                map.append(*name, value.parse().unwrap());
            }
            framed_once(&map)
        };
        assert!(with(&[]));
        assert!(with(&[("content-length", "5")]));
        assert!(with(&[("transfer-encoding", "chunked")]));
        assert!(!with(&[("content-length", "5"), ("transfer-encoding", "chunked")]));
        assert!(!with(&[("content-length", "5"), ("content-length", "5")]));
        assert!(!with(&[("content-length", "5, 5")]));
        assert!(!with(&[("transfer-encoding", "gzip, chunked")]));
        assert!(!with(&[("transfer-encoding", "identity")]));
    }
}
