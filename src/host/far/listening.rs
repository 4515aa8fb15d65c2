//! Listeners on the other machine, for programs of the session: who comes in there is brought over one by one.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use nginx_free::trunk::{Channel, Trunk};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};

use super::{
    Answer, Ask, LISTEN, TAKE,
    gateway_end::{joined, open},
    host_end::Reach,
    packet::packets,
};
use crate::host::{AppStream, InsideListener};

/// Those who have come in and were not taken yet.
const WAITING: usize = 32;
/// How long one who came in waits to be taken.
const PATIENCE: Duration = Duration::from_secs(60);

/// A listener on the other machine. Dropped, it is closed.
pub struct FarListener {
    trunk: Trunk,
    port: Option<u16>,
    incoming: Mutex<mpsc::Receiver<(u64, Option<SocketAddr>)>>,
}

/// Asks for one.
pub(super) async fn listen(trunk: Trunk, at: crate::sandbox::protocol::Endpoint) -> io::Result<FarListener> {
    let (mut incoming, mut outgoing) = packets(open(&trunk, LISTEN, "/").await?);
    outgoing.say(&Ask::Listen { at }).await?;
    let port = match incoming.message().await? {
        Answer::Listening { port } => port,
        Answer::NotListening { errno } => return Err(io::Error::from_raw_os_error(errno)),
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    let (sender, come) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        // Held for as long as somebody listens: the host closes it when this goes.
        let _open = outgoing;
        loop {
            let told = tokio::select! {
                told = incoming.message() => told,
                () = sender.closed() => return,
            };
            let Ok(Answer::Incoming { number, from }) = told else { return };
            if sender.send((number, from)).await.is_err() {
                return;
            }
        }
    });
    Ok(FarListener { trunk, port, incoming: Mutex::new(come) })
}

impl FarListener {
    /// Waits for the next one.
    ///
    /// # Errors
    /// Where the host is gone, or whoever came has gone again.
    pub async fn accept(&self) -> io::Result<(AppStream, Option<SocketAddr>)> {
        let next = self.incoming.lock().await.recv().await;
        let Some((number, from)) = next else {
            // Whoever asks again is not to ask in a loop.
            return std::future::pending().await;
        };
        let channel = open(&self.trunk, TAKE, &format!("/{number}")).await?;
        Ok((joined(channel)?, from))
    }

    /// Its port, with TCP.
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

/// The next one, when there is a place to wait in: a program of the session's may come as often as it likes.
async fn next(
    listener: &InsideListener,
    places: &Arc<Semaphore>,
) -> io::Result<((AppStream, Option<SocketAddr>), OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    Ok((listener.accept().await?, place))
}

/// The host's half: listens inside, and says who comes.
pub(super) async fn serve(reach: &Arc<Reach>, channel: Channel) -> io::Result<()> {
    let (mut incoming, mut outgoing) = packets(channel);
    let Ask::Listen { at } = incoming.message().await? else { return Err(io::ErrorKind::InvalidData.into()) };
    let listener = match reach.host().listen(at).await {
        Ok(listener) => listener,
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            outgoing.say(&Answer::NotListening { errno }).await?;
            return outgoing.close().await;
        }
    };
    outgoing.say(&Answer::Listening { port: listener.port() }).await?;
    let places = Arc::new(Semaphore::new(WAITING));
    loop {
        tokio::select! {
            come = next(&listener, &places) => {
                let ((stream, from), place) = come?;
                let number = reach.keep(stream, place, PATIENCE);
                outgoing.say(&Answer::Incoming { number, from }).await?;
            }
            // It says nothing more: whatever comes is its end.
            _ = incoming.next() => return Ok(()),
        }
    }
}
