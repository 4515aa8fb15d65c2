//! WebSockets: the handshake with the app, and then a tunnel. Not one byte of the client's goes to the app before the
//! app has said 101 (RFC 9110 §7.8, RFC 9931), and where it says anything else, the client's connection ends with that answer:
//! what the client may have sent after its handshake is never read as another request.

use std::sync::Arc;

use aws_lc_rs::{digest, rand};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, Method, Response, StatusCode, Version, header, request};

use crate::{
    Body, Dial, Failure, Upstream,
    body::RequestBody,
    fields, forward,
    forward::Way,
    tunnel::AppSide,
    upstream::{Connection, Unanswered},
};

/// What the client gets, and the app's side of the tunnel, where there is to be one.
pub(crate) struct Opened<S> {
    pub(crate) answer: Response<Body>,
    pub(crate) app: Option<AppSide<S>>,
}

/// Whether a `Sec-WebSocket-Key` is 16 bytes in base64 (RFC 6455 §4.1).
pub(crate) fn is_key(key: &[u8]) -> bool {
    key.len() == 24 && STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

/// The `Sec-WebSocket-Accept` that answers a key (RFC 6455 §4.2.2).
fn accept_for(key: &[u8]) -> String {
    let mut text = key.to_vec();
    text.extend_from_slice(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &text))
}

/// Asks the app for a WebSocket, over a connection of its own. `head` is the client's, its fields made the app's.
pub(crate) async fn open<D: Dial>(
    upstream: &Arc<Upstream<D>>,
    way: &Way<'_>,
    mut head: request::Parts,
) -> Result<Opened<D::Stream>, Failure> {
    let client = head.version;
    let sent = &mut head.headers;
    let key = match sent.get(header::SEC_WEBSOCKET_KEY) {
        Some(key) if client != Version::HTTP_2 => key.clone(),
        _ => new_key()?,
    };
    let accept = accept_for(key.as_bytes());
    sent.insert(header::SEC_WEBSOCKET_KEY, key);
    sent.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    sent.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    sent.remove(header::CONTENT_LENGTH);
    head.method = Method::GET;
    let request = forward::request(head, RequestBody::empty());

    let mut connection = upstream.fresh().await?;
    let answer = connection.exchange(request, false).await.map_err(|why| match why {
        Unanswered::TimedOut => Failure::TimedOut,
        Unanswered::Broken(error) => {
            let error = error.into_error();
            tracing::debug!(%error, "no answer of the app to a WebSocket");
            Failure::BadAnswer
        }
    })?;
    connection.head_came();

    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return refused(answer, connection, way, client).await;
    }
    let spoken = answer.headers();
    let kept = fields::has_token(spoken, &header::UPGRADE, "websocket")
        && spoken
            .get(header::SEC_WEBSOCKET_ACCEPT)
            .is_some_and(|value| value.as_bytes() == accept.as_bytes());
    if !kept {
        tracing::debug!("the app's 101 is no WebSocket handshake");
        return Err(Failure::BadAnswer);
    }
    let (stream, early) = connection.into_stream().ok_or(Failure::BadAnswer)?;
    let (mut head, _) = answer.into_parts();
    way.prepare(&mut head);
    head.headers.remove(header::CONTENT_LENGTH);
    if client == Version::HTTP_2 {
        // RFC 8441 §5: 200 stands for 101, and there is no key to answer.
        head.status = StatusCode::OK;
        head.headers.remove(header::SEC_WEBSOCKET_ACCEPT);
    } else {
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        head.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    Ok(Opened { answer: Response::from_parts(head, Body::empty()), app: Some(AppSide { stream, early }) })
}

/// The app's other answer. In HTTP/2 a 2xx would mean that the tunnel stands, so there it is none.
async fn refused<D: Dial>(
    answer: Response<hyper::body::Incoming>,
    connection: Box<Connection<D>>,
    way: &Way<'_>,
    client: Version,
) -> Result<Opened<D::Stream>, Failure> {
    let success = answer.status().is_success();
    if !forward::framed_once(answer.headers()) || (client == Version::HTTP_2 && success) {
        return Err(Failure::BadAnswer);
    }
    Ok(Opened { answer: way.answer(answer, connection).await, app: None })
}

fn new_key() -> Result<HeaderValue, Failure> {
    let mut bytes = [0_u8; 16];
    rand::fill(&mut bytes).map_err(|_| Failure::Unreachable)?;
    HeaderValue::from_str(&STANDARD.encode(bytes)).map_err(|_| Failure::Unreachable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_the_key_of_rfc_6455() {
        assert_eq!(accept_for(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(is_key(b"dGhlIHNhbXBsZSBub25jZQ=="));
        assert!(is_key(new_key().unwrap().as_bytes()));
        for key in
            [&b""[..], b"dGhlIHNhbXBsZSBub25jZQ", b"dGhlIHNhbXBsZSBub25jZQ=x", b"!GhlIHNhbXBsZSBub25jZQ=="]
        {
            assert!(!is_key(key));
        }
    }
}
