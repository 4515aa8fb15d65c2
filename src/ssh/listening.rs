//! Where a client has the session's programs listened to: the listeners of `-R`, of TCP and of unix sockets, inside; each
//! goes when its client cancels it, and all with the connection.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use russh::server::Handle;
use tokio::sync::{Semaphore, watch};

use super::{
    channels::{Channels, Gone},
    forward::{is_localhost, loopback, relay},
};
use crate::{
    host::{AppStream, Host, InsideListener},
    sandbox::protocol::Endpoint,
};

/// The most listeners of one connection.
const MOST: usize = 64;
/// The most connections that wait for a client to take them, or go through it.
const UNDER_WAY: usize = 256;

/// The listeners of one connection.
pub(super) struct Listening {
    host: Arc<Host>,
    channels: Arc<Channels>,
    places: Arc<Semaphore>,
    /// Dropped, a listener's tasks end.
    open: HashMap<Key, watch::Sender<()>>,
}

/// What a client calls a listener.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Key {
    /// By host and port.
    Tcp(String, u16),
    /// By path.
    Unix(String),
}

impl Listening {
    pub(super) fn new(host: Arc<Host>, channels: Arc<Channels>) -> Self {
        Self { host, channels, places: Arc::new(Semaphore::new(UNDER_WAY)), open: HashMap::new() }
    }

    /// Listens at a host and port, 0 for any; returns the port.
    ///
    /// # Errors
    /// As `bind(2)`.
    pub(super) async fn tcp(&mut self, handle: &Handle, name: &str, port: u16) -> io::Result<u16> {
        self.make_room()?;
        let mut listeners = Vec::new();
        let mut port = port;
        for ip in addresses(name)? {
            let at = Endpoint::Tcp(SocketAddr::new(ip, port));
            match self.host.listen(at).await {
                Ok(listener) => {
                    port = listener.port().unwrap_or(port);
                    listeners.push(listener);
                }
                // The second family need not be there.
                Err(_) if !listeners.is_empty() => {}
                Err(error) => return Err(error),
            }
        }
        self.serve(handle, Key::Tcp(name.to_owned(), port), listeners)?;
        Ok(port)
    }

    /// Listens at a unix socket.
    ///
    /// # Errors
    /// As `bind(2)`.
    pub(super) async fn unix(&mut self, handle: &Handle, path: &str) -> io::Result<()> {
        self.make_room()?;
        let listener = self.host.listen(Endpoint::Unix(path.into())).await?;
        self.serve(handle, Key::Unix(path.to_owned()), vec![listener])
    }

    /// Listens there no more. `false` where it did not.
    pub(super) fn cancel(&mut self, key: &Key) -> bool {
        self.open.remove(key).is_some()
    }

    fn make_room(&self) -> io::Result<()> {
        if self.open.len() < MOST { Ok(()) } else { Err(io::ErrorKind::QuotaExceeded.into()) }
    }

    fn serve(&mut self, handle: &Handle, key: Key, listeners: Vec<InsideListener>) -> io::Result<()> {
        if self.open.contains_key(&key) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let here = watch::Sender::new(());
        for listener in listeners {
            let accepting = Accepting {
                handle: handle.clone(),
                key: key.clone(),
                channels: Arc::clone(&self.channels),
                places: Arc::clone(&self.places),
            };
            let mut gone = Gone::of(&here);
            tokio::spawn(async move {
                tokio::select! {
                    () = accepting.run(listener) => {}
                    () = gone.wait() => {}
                }
            });
        }
        self.open.insert(key, here);
        Ok(())
    }
}

/// The addresses that a client means. Those that stand for all are the loopback's alone: nobody from outside can come, and
/// inside it makes no difference.
fn addresses(name: &str) -> io::Result<Vec<IpAddr>> {
    match name.parse::<IpAddr>() {
        Ok(ip) if !ip.is_unspecified() => Ok(vec![ip]),
        Ok(_) => Ok(loopback().to_vec()),
        Err(_) if is_localhost(name) || matches!(name, "" | "*") => Ok(loopback().to_vec()),
        Err(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}

struct Accepting {
    handle: Handle,
    key: Key,
    channels: Arc<Channels>,
    places: Arc<Semaphore>,
}

impl Accepting {
    async fn run(self, listener: InsideListener) {
        while let Ok(place) = Arc::clone(&self.places).acquire_owned().await {
            // Out of descriptors, for one; whoever waits is heard later.
            let Ok((stream, from)) = listener.accept().await else {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            };
            let (handle, key, channels) = (self.handle.clone(), self.key.clone(), Arc::clone(&self.channels));
            tokio::spawn(async move {
                pass_on(&handle, &key, &channels, stream, from).await;
                drop(place);
            });
        }
    }
}

async fn pass_on(
    handle: &Handle,
    key: &Key,
    channels: &Channels,
    stream: AppStream,
    from: Option<SocketAddr>,
) {
    let opened = match key {
        Key::Tcp(host, port) => {
            let (ip, its_port) = from.map_or_else(
                || (String::new(), 0),
                |from| (from.ip().to_canonical().to_string(), u32::from(from.port())),
            );
            handle.channel_open_forwarded_tcpip(host.clone(), u32::from(*port), ip, its_port).await
        }
        Key::Unix(path) => handle.channel_open_forwarded_streamlocal(path.clone()).await,
    };
    // A client that refuses it is told nothing more.
    let Ok(channel) = opened else { return };
    through(channel, stream, channels).await;
}

/// Relays one connection through a channel that we have opened.
pub(super) async fn through(
    channel: russh::Channel<russh::server::Msg>,
    stream: AppStream,
    channels: &Channels,
) {
    let (reading, channel) = channel.split();
    // Its data comes to `Connection`.
    drop(reading);
    let id = channel.id();
    // Taken in when the client confirmed it; not there where there are too many, or it is closed already.
    let Some(lane) = channels.lane(id) else {
        let _ = channel.close().await;
        return;
    };
    let mut gone = lane.gone.clone();
    tokio::select! {
        () = relay(stream, &channel, &lane) => {}
        () = gone.wait() => {}
    }
    channels.remove(id);
}
