//! Many byte streams over one: HTTP/2 (RFC 9113), each channel a CONNECT (§8.5).
//!
//! A host that no port leads to, such as a compute node behind a firewall, dials out instead, and what it dialled becomes
//! a [`Trunk`]: any connected stream, with the host as HTTP/2's server, which [`serve`] is. Whoever holds the trunk opens
//! channels to what the host reaches; a [`Dial`](crate::Dial) that does so lets an [`Upstream`](crate::Upstream) speak
//! HTTP/1.1 through it. A trunk over a [`lasting`](crate::lasting) stream outlives the connection that was dialled.
//!
//! ```no_run
//! use std::io;
//!
//! use nginx_free::{Dial, trunk::{Channel, Trunk, TrunkError}};
//! use tokio::sync::watch;
//!
//! /// An app on the host that has dialled last.
//! struct Far(watch::Receiver<Trunk>);
//!
//! impl Dial for Far {
//!     type Stream = Channel;
//!     async fn dial(&self) -> io::Result<Channel> {
//!         let trunk = self.0.borrow().clone();
//!         Ok(trunk.open("localhost:8888").await?)
//!     }
//! }
//! ```
//!
//! At the host, [`Channel::join`] is the rest of the way to what a channel was opened for.
//!
//! # What is refused
//! Nothing but an answer of 2xx opens a channel; the body of any other is not read, its stream is reset. Pushed streams
//! are refused. A host that does not answer in time, to the first ping or to any later one, has no trunk any more. A host
//! takes nothing but CONNECT.
//!
//! # What is an end, and what is not
//! `END_STREAM` ends a channel's one direction, as FIN does in TCP; the other goes on. A reset, by whatever code, and the
//! loss of the trunk are errors of all that reads and writes, never an end: an answer that ends with its connection would
//! pass for a whole one. That is why h2 is used here as it is: hyper's upgraded streams read a reset with `CANCEL` or
//! `NO_ERROR` as an end, and cannot send one. A channel that is dropped before [`shutdown`] resets its stream, and
//! what was written last may be lost.
//!
//! # Nobody starves
//! What a channel's reader leaves unread is bounded by its own window ([`TrunkLimits::window`]), and the trunk's window
//! has room for all of them: so however many stand still, the others go on. What is written is for the other end to bound
//! likewise, and [`serve`] does. Only small pieces are dear: more than a million of single bytes, which nobody reads, end
//! a trunk as an attack, though never those of one channel alone.
//!
//! [`shutdown`]: tokio::io::AsyncWriteExt::shutdown

mod channel;
mod error;
mod host;
mod joined;

use std::{
    fmt,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong,
    client::{Builder, Connection, SendRequest},
    ext::Protocol,
};
use http::{Method, Request, Uri, uri::Authority};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, watch},
    time::{sleep, timeout},
};

pub use channel::Channel;
pub use error::{Ended, TrunkError};
use error::{broken, refused};
pub use host::{Asked, serve};

/// What a trunk spends at most, at either end.
#[derive(Clone, Debug)]
pub struct TrunkLimits {
    /// Channels open at a time. The host may allow fewer (`SETTINGS_MAX_CONCURRENT_STREAMS`).
    pub channels: u32,
    /// Bytes that one channel holds for a reader who does not read. At most this times [`channels`](Self::channels) is in
    /// memory. It is also what is under way in one round trip between two busy ends, and so bounds their speed.
    pub window: u32,
    /// Time for the other end to show that it speaks HTTP/2.
    pub handshake: Duration,
    /// Time for the host to answer a CONNECT.
    pub open: Duration,
    /// Time between pings. With [`Duration::MAX`], none follows the first.
    pub ping: Duration,
    /// Time for the other end to answer one, after which the trunk has ended. [`Duration::MAX`] is for a stream that says
    /// itself when it has broken, as a [`Lasting`](crate::lasting::Lasting) does.
    pub pong: Duration,
}

impl Default for TrunkLimits {
    fn default() -> Self {
        Self {
            channels: 256,
            window: 1024 * 1024,
            handshake: Duration::from_secs(10),
            open: Duration::from_secs(10),
            ping: Duration::from_secs(15),
            pong: Duration::from_secs(20),
        }
    }
}

/// A connection that a host has dialled, over which channels are opened. A clone is another handle of the same; it ends
/// when all of them and all channels are dropped.
#[derive(Clone)]
pub struct Trunk {
    streams: SendRequest<Bytes>,
    state: watch::Receiver<State>,
    shared: Arc<Shared>,
}

struct Shared {
    limits: TrunkLimits,
    open: Arc<AtomicUsize>,
    cut: Arc<Notify>,
}

#[derive(Clone, PartialEq, Eq)]
enum State {
    /// The host has not said a word.
    New,
    Open,
    Ended(Ended),
}

impl Trunk {
    /// Speaks HTTP/2 over a connected stream, and waits until the other end has shown that it does, too.
    ///
    /// # Errors
    /// [`TrunkError::Ended`] where it does not, [`TrunkError::TimedOut`] where it does not say anything.
    pub async fn over<S>(stream: S, limits: TrunkLimits) -> Result<Self, TrunkError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let deadline = limits.handshake;
        let opened = async {
            let (streams, mut connection) =
                builder(&limits).handshake::<_, Bytes>(stream).await.map_err(broken)?;
            let Some(pings) = connection.ping_pong() else { return Err(Ended::Closed.into()) };
            let (tell, mut state) = watch::channel(State::New);
            let cut = Arc::new(Notify::new());
            let trunk = Self {
                streams,
                state: state.clone(),
                shared: Arc::new(Shared { limits: limits.clone(), open: Arc::default(), cut }),
            };
            // It ends by itself where nobody holds the trunk any more, as when this here comes too late.
            tokio::spawn(drive(connection, pings, tell, limits.clone(), Arc::clone(&trunk.shared.cut)));
            // The answer to a ping comes after the host's settings (RFC 9113 §3.4), which say what it allows.
            match state.wait_for(|state| *state != State::New).await.as_deref() {
                Ok(State::Open) => Ok(trunk),
                Ok(State::Ended(why)) => Err(why.clone().into()),
                Ok(State::New) | Err(_) => Err(Ended::Closed.into()),
            }
        };
        timeout(deadline, opened).await.unwrap_or(Err(TrunkError::TimedOut))
    }

    /// Opens a channel to `authority`, a `host:port` as the host understands it (RFC 9113 §8.5).
    ///
    /// # Errors
    /// As [`TrunkError`] has them. None but [`TrunkError::Ended`] says anything of the other channels.
    pub async fn open(&self, authority: &str) -> Result<Channel, TrunkError> {
        self.connect(Uri::from(target(authority)?), None).await
    }

    /// Opens a channel that speaks `protocol`, for what `path` names at `authority` (RFC 8441 §4).
    ///
    /// # Errors
    /// As for [`Trunk::open`], and [`TrunkError::NotExtended`].
    pub async fn open_protocol(
        &self,
        authority: &str,
        path: &str,
        protocol: &str,
    ) -> Result<Channel, TrunkError> {
        let uri = Uri::builder()
            .scheme("http")
            .authority(target(authority)?)
            .path_and_query(path)
            .build()
            .map_err(|_| TrunkError::BadTarget(path.to_owned()))?;
        if !self.streams.is_extended_connect_protocol_enabled() {
            return Err(TrunkError::NotExtended);
        }
        self.connect(uri, Some(Protocol::from(protocol))).await
    }

    /// Channels that are open.
    pub fn channels(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Why it has ended, if it has.
    pub fn has_ended(&self) -> Option<Ended> {
        match &*self.state.borrow() {
            State::Ended(why) => Some(why.clone()),
            State::New | State::Open => None,
        }
    }

    /// Waits until it has ended. All its channels have broken off then, and the host has to be reached anew.
    pub async fn ended(&self) -> Ended {
        let mut state = self.state.clone();
        match state.wait_for(|state| matches!(state, State::Ended(_))).await.as_deref() {
            Ok(State::Ended(why)) => why.clone(),
            // The task that drives it ended without a word: its runtime is gone.
            _ => Ended::Cut,
        }
    }

    /// Ends it at once, with all its channels: for a host that has dialled anew, or is not to be reached any more.
    pub fn cut(&self) {
        self.shared.cut.notify_one();
    }

    async fn connect(&self, uri: Uri, protocol: Option<Protocol>) -> Result<Channel, TrunkError> {
        if let Some(why) = self.has_ended() {
            return Err(why.into());
        }
        let place = Arc::new(Place::take(&self.shared.open));
        // One more would wait for another to end, and hold up all that are opened after it.
        let most = self.streams.current_max_send_streams().min(self.shared.limits.channels as usize);
        if place.number > most {
            return Err(TrunkError::Full);
        }
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = uri;
        if let Some(protocol) = protocol {
            request.extensions_mut().insert(protocol);
        }
        let opened = async {
            let mut streams = self.streams.clone().ready().await.map_err(refused)?;
            let (answer, send) = streams.send_request(request, false).map_err(refused)?;
            let answer = answer.await.map_err(refused)?;
            // To drop the others resets their streams, so that what they have to say is neither read nor kept.
            if !answer.status().is_success() {
                return Err(TrunkError::Refused(answer.status()));
            }
            Ok(Channel::new(send, answer.into_body(), place))
        };
        timeout(self.shared.limits.open, opened).await.unwrap_or(Err(TrunkError::TimedOut))
    }
}

impl fmt::Debug for Trunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (channels, ended) = (self.channels(), self.has_ended());
        f.debug_struct("Trunk").field("channels", &channels).field("ended", &ended).finish()
    }
}

/// One of the channels that may be open.
struct Place {
    open: Arc<AtomicUsize>,
    number: usize,
}

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Self {
        let before = open.fetch_add(1, Ordering::Relaxed);
        Self { open: Arc::clone(open), number: before + 1 }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A frame's payload that is taken at most (`SETTINGS_MAX_FRAME_SIZE`).
const FRAME: u32 = 64 * 1024;

/// What h2 reckons that a frame of data costs in memory.
const SMALL_FRAME: usize = 256;

/// What a CONNECT and its answer may say.
const HEAD: u32 = 16 * 1024;

/// RFC 9113 §6.9.1.
const LARGEST_WINDOW: u64 = (1 << 31) - 1;

impl TrunkLimits {
    /// The window of all channels together: for one more than there are, so that the last one's is never the others' only
    /// hope.
    fn whole_window(&self) -> u32 {
        let all = u64::from(self.window) * (u64::from(self.channels) + 1);
        u32::try_from(all.min(LARGEST_WINDOW)).unwrap_or(u32::MAX >> 1)
    }

    /// What small frames that nobody has read may cost besides their bytes, before the other end is taken for an attacker:
    /// as much as h2 would allow, and one channel's window full of single bytes, so that none ends the others with it.
    fn small_frames(&self) -> usize {
        self.whole_window() as usize / 2 + SMALL_FRAME * self.window as usize
    }
}

fn builder(limits: &TrunkLimits) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .max_concurrent_streams(0)
        .initial_window_size(limits.window)
        .initial_connection_window_size(limits.whole_window())
        .data_frame_budget(limits.small_frames())
        .max_frame_size(FRAME)
        .max_send_buffer_size(limits.window as usize)
        .max_header_list_size(HEAD);
    builder
}

/// CONNECT is for a host and a port, and nothing else (RFC 9110 §9.3.6).
fn target(authority: &str) -> Result<Authority, TrunkError> {
    let target = authority.parse::<Authority>().ok();
    target
        .filter(|target| target.port_u16().is_some() && !target.as_str().contains('@'))
        .ok_or_else(|| TrunkError::BadTarget(authority.to_owned()))
}

/// Moves the trunk's bytes, and tells when it has ended.
async fn drive<S>(
    connection: Connection<S>,
    pings: PingPong,
    state: watch::Sender<State>,
    limits: TrunkLimits,
    cut: Arc<Notify>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let why = {
        // Dropped before anybody is told: by then all channels have broken off.
        let mut connection = pin!(connection);
        let beating = beat(pings, &limits, || {
            state.send_if_modified(|state| {
                let first = *state == State::New;
                *state = State::Open;
                first
            });
        });
        tokio::select! {
            // First, for where the connection has broken, no answer to a ping comes, either.
            biased;
            ended = &mut connection => ended.map_or_else(broken, |()| Ended::Closed),
            () = beating => Ended::Silent,
            () = cut.notified() => Ended::Cut,
        }
    };
    tracing::debug!(%why, "a trunk has ended");
    state.send_replace(State::Ended(why));
}

/// Ends when the other end does not answer.
async fn beat(mut pings: PingPong, limits: &TrunkLimits, answered: impl Fn()) {
    while let Ok(Ok(_)) = timeout(limits.pong, pings.ping(Ping::opaque())).await {
        answered();
        sleep(limits.ping).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_host_and_a_port() {
        for good in ["localhost:8888", "10.0.0.1:1", "[::1]:65535", "node-7.cluster:80"] {
            assert!(target(good).is_ok(), "{good}");
        }
        for bad in
            ["", "localhost", "localhost:", "me@localhost:1", "localhost:66000", "a b:1", "/x:1", "a:1/x"]
        {
            assert!(matches!(target(bad), Err(TrunkError::BadTarget(_))), "{bad}");
        }
    }
}
