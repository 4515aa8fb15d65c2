//! The host's half of a trunk: HTTP/2's server, which is asked for channels and takes nothing but CONNECT. What a channel
//! is connected to is for the caller to judge.

use std::{
    fmt,
    pin::pin,
    sync::{Arc, atomic::AtomicUsize},
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    ext::Protocol,
    server::{Builder, SendResponse},
};
use http::{Method, Request, Response, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use super::{Channel, Ended, FRAME, HEAD, Place, TrunkError, TrunkLimits, beat, channel, error::broken};

/// Serves the channels that the holder of a [`Trunk`](super::Trunk) opens over `stream`, until that has ended; says why it
/// has. A future dropped earlier cuts the trunk, and all its channels break off.
///
/// Each channel that is asked for is given to `answer`, in a task of its own, which goes on to its end whatever becomes of
/// the trunk. A request of another method than CONNECT gets 405, one without a port 400. Of [`TrunkLimits`], `open` counts
/// at the other end alone.
pub async fn serve<S, F, A>(stream: S, limits: TrunkLimits, answer: F) -> Ended
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    F: Fn(Asked) -> A,
    A: Future<Output = ()> + Send + 'static,
{
    let mut connection = match timeout(limits.handshake, builder(&limits).handshake(stream)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return broken(error),
        Err(_) => return Ended::Silent,
    };
    let Some(pings) = connection.ping_pong() else { return Ended::Closed };
    let mut beating = pin!(beat(pings, &limits, || ()));
    let open = Arc::default();
    loop {
        tokio::select! {
            // First, for where the connection has broken, no answer to a ping comes, either.
            biased;
            asked = connection.accept() => match asked {
                Some(Ok((request, respond))) => {
                    if let Some(asked) = Asked::new(request, respond, &open, &limits) {
                        let place = Arc::clone(&asked.place);
                        let answered = answer(asked);
                        tokio::spawn(async move {
                            answered.await;
                            drop(place);
                        });
                    }
                }
                Some(Err(error)) => return broken(error),
                None => return Ended::Closed,
            },
            () = &mut beating => return Ended::Silent,
        }
    }
}

/// A channel that is asked for. Dropped, it is refused by a reset.
pub struct Asked {
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    place: Arc<Place>,
}

impl Asked {
    /// `None` where it has been refused already.
    fn new(
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        open: &Arc<AtomicUsize>,
        limits: &TrunkLimits,
    ) -> Option<Self> {
        let place = Arc::new(Place::take(open));
        // h2 counts streams; those that are reset while they are answered, as often as the other end likes, it does not.
        // Twice as many, for the other end knows first that one has ended.
        if place.number > 2 * limits.channels as usize {
            respond.send_reset(Reason::REFUSED_STREAM);
            return None;
        }
        let asked = Self { request, respond, place };
        if asked.request.method() != Method::CONNECT {
            asked.refuse(StatusCode::METHOD_NOT_ALLOWED);
            return None;
        }
        if super::target(asked.authority()).is_err() {
            asked.refuse(StatusCode::BAD_REQUEST);
            return None;
        }
        Some(asked)
    }

    /// What to connect to, as `host:port`.
    pub fn authority(&self) -> &str {
        self.request.uri().authority().map_or("", |authority| authority.as_str())
    }

    /// What is to be spoken, of an extended CONNECT (RFC 8441 §4).
    pub fn protocol(&self) -> Option<&str> {
        self.request.extensions().get::<Protocol>().map(Protocol::as_str)
    }

    /// The path and query of an extended CONNECT; a plain one has none.
    pub fn path(&self) -> Option<&str> {
        self.request.uri().path_and_query().map(|path| path.as_str())
    }

    /// Opens the channel.
    ///
    /// # Errors
    /// [`TrunkError::Withdrawn`] where the other end does not want it any more, or the trunk has ended.
    pub fn accept(mut self) -> Result<Channel, TrunkError> {
        let send = self
            .respond
            .send_response(Response::new(()), false)
            .map_err(|error| TrunkError::Withdrawn(channel::broken(error)))?;
        Ok(Channel::new(send, self.request.into_body(), self.place))
    }

    /// Refuses the channel: the other end gets [`TrunkError::Refused`] with this status. One that would open it (2xx), or
    /// is none that an answer ends with (1xx), becomes a 500.
    pub fn refuse(mut self, status: StatusCode) {
        let opens = status.is_success() || status.is_informational();
        let mut answer = Response::new(());
        *answer.status_mut() = if opens { StatusCode::INTERNAL_SERVER_ERROR } else { status };
        // It fails where nobody waits for it any more.
        let _ = self.respond.send_response(answer, true);
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (to, protocol) = (self.authority(), self.protocol());
        f.debug_struct("Asked").field("to", &to).field("protocol", &protocol).finish_non_exhaustive()
    }
}

fn builder(limits: &TrunkLimits) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_connect_protocol()
        .max_concurrent_streams(limits.channels)
        .initial_window_size(limits.window)
        .initial_connection_window_size(limits.whole_window())
        .data_frame_budget(limits.small_frames())
        .max_frame_size(FRAME)
        .max_send_buffer_size(limits.window as usize)
        .max_header_list_size(HEAD);
    builder
}
