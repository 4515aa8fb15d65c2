//! Forwarded connections: the client's, into the session's network and to its unix sockets, and the session's, out to the
//! client. Nothing is ever dialled from outside.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use russh::{
    ChannelOpenFailure, ChannelWriteHalf,
    server::{ChannelOpenHandle, Msg},
};
use tokio::{
    net::lookup_host,
    time::{sleep, timeout},
};

use super::{
    channels::{Channels, Lane},
    inbound::Sink,
    outbound::{As, Source, pump},
};
use crate::{
    host::{AppStream, Host},
    sandbox::protocol::Endpoint,
};

/// How long it may take to get through to somebody.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a client has to close a channel over which both sides have said all.
const CLOSING: Duration = Duration::from_secs(10);

/// Where a client wants to get to.
pub(super) enum Destination {
    /// A host and a port, as the session sees them.
    Tcp(String, u16),
    /// A unix socket, as the session sees it.
    Unix(String),
}

/// Connects inside, answers the client, and relays to the end of both directions.
pub(super) async fn open(
    host: Arc<Host>,
    to: Destination,
    channel: ChannelWriteHalf<Msg>,
    reply: ChannelOpenHandle,
    channels: Arc<Channels>,
    lane: Lane,
) {
    let id = lane.id;
    let mut gone = lane.gone.clone();
    tokio::select! {
        () = async {
            match timeout(PATIENCE, connect(&host, to)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => {
                    reply.accept().await;
                    relay(stream, &channel, &lane).await;
                }
                Err(error) => {
                    // 2: SSH_OPEN_CONNECT_FAILED (RFC 4254, 5.1). The owner may know the reason.
                    reply.reject(ChannelOpenFailure::Other { code: 2, reason: error.to_string() }).await;
                }
            }
        } => {}
        // The connection is no more, or its client has closed this channel.
        () = gone.wait() => {}
    }
    channels.remove(id);
}

/// Relays until both sides have ended, each by itself, and closes the channel. Its client is to do that first, as OpenSSH's
/// does at once: of a channel that we close, russh keeps a few kilobytes for as long as the connection is there.
pub(super) async fn relay(stream: AppStream, channel: &ChannelWriteHalf<Msg>, lane: &Lane) {
    let (source, sink) = halves(stream);
    tokio::join!(lane.inbound.pour(sink), async {
        pump(source, channel, As::Data, &lane.activity).await;
        let _ = channel.eof().await;
    });
    sleep(CLOSING).await;
    let _ = channel.close().await;
}

fn halves(stream: AppStream) -> (Source, Sink) {
    match stream {
        AppStream::Tcp(stream) => {
            let (source, sink) = stream.into_split();
            (Source::Tcp(source), Sink::Tcp(sink))
        }
        AppStream::Unix(stream) => {
            let (source, sink) = stream.into_split();
            (Source::Unix(source), Sink::Unix(sink))
        }
    }
}

async fn connect(host: &Host, to: Destination) -> io::Result<AppStream> {
    let (name, port) = match to {
        Destination::Unix(path) => return host.connect(Endpoint::Unix(path.into())).await,
        Destination::Tcp(name, port) => (name, port),
    };
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses(&name, port).await? {
        match host.connect(Endpoint::Tcp(address)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The addresses of a name. Only asking for them happens outside.
async fn addresses(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = name.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    if is_localhost(name) {
        return Ok(loopback().map(|ip| SocketAddr::new(ip, port)).to_vec());
    }
    Ok(lookup_host((name, port)).await?.collect())
}

/// What stands for the session's own loopback, whatever the node's files make of it (RFC 6761, 6.3).
pub(super) fn is_localhost(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
}

/// The addresses of the loopback device.
pub(super) fn loopback() -> [IpAddr; 2] {
    [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
}

/// A port as the protocol has it, if it is one to connect to.
pub(super) fn port(number: u32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port != 0)
}
