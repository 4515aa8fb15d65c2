//! The gateway's end: what [`LocalHost`](crate::host::LocalHost) is for a sandbox on this machine, for one on another. Programs,
//! connections and listeners are descriptors of this process here as there, with a task each that brings their bytes over.

use std::{ffi::OsString, io, os::fd::OwnedFd};

use http::StatusCode;
use nginx_free::trunk::{Channel, Trunk, TrunkError};
use nix::sys::signal::Signal;
use tokio::{net::UnixStream, sync::watch};

use super::{
    Answer, Ask, DIAL, TELL, listening,
    packet::{Outgoing, packets},
    programs, to_request_path,
};
use crate::{
    host::{AppStream, HostError, InsideListener, Invocation, LinkError, Started, Usage},
    sandbox::protocol::Endpoint,
    sys::spawn::Streams,
    words::{Isolation, Size},
};

/// What stands for the session where HTTP wants a host and a port.
const SESSION: &str = "session:1";

/// A sandbox on another machine, for as long as a trunk to it is there.
pub struct FarHost {
    trunk: watch::Receiver<Option<Trunk>>,
    isolation: Isolation,
}

impl FarHost {
    /// The host at the end of whatever trunk there is at the moment of asking.
    pub fn new(trunk: watch::Receiver<Option<Trunk>>, isolation: Isolation) -> Self {
        Self { trunk, isolation }
    }

    fn trunk(&self) -> io::Result<Trunk> {
        let nobody = || io::Error::new(io::ErrorKind::NotConnected, "no node runs the session at the moment");
        self.trunk.borrow().clone().ok_or_else(nobody)
    }

    /// As [`LocalHost::exec`](crate::host::LocalHost::exec).
    ///
    /// # Errors
    /// As there; [`HostError::Sandbox`] where no node runs the session.
    pub async fn exec(
        &self,
        what: Invocation,
        env: &[(OsString, OsString)],
        streams: Streams,
    ) -> Result<Started, HostError> {
        self.start(Ask::Run { what, env: env.to_vec(), terminal: None }, streams).await
    }

    /// As [`LocalHost::sftp`](crate::host::LocalHost::sftp).
    ///
    /// # Errors
    /// As there; [`HostError::Sandbox`] where no node runs the session.
    pub async fn sftp(&self, streams: [OwnedFd; 3]) -> Result<Started, HostError> {
        self.start(Ask::Sftp, Streams::Separate(streams)).await
    }

    async fn start(&self, ask: Ask, streams: Streams) -> Result<Started, HostError> {
        let trunk = self.trunk().map_err(|error| HostError::Sandbox(error.to_string()))?;
        programs::start(trunk, ask, streams).await
    }

    /// Connects to `to`, inside.
    ///
    /// # Errors
    /// As `connect(2)`; `NotConnected` where no node runs the session.
    pub async fn dial(&self, to: &Endpoint) -> io::Result<Channel> {
        let trunk = self.trunk()?;
        match to {
            Endpoint::Tcp(address) => trunk.open(&address.to_string()).await.map_err(reason),
            Endpoint::Unix(path) => open(&trunk, DIAL, &to_request_path(path)).await,
        }
    }

    /// The same, as a socket of this process.
    ///
    /// # Errors
    /// As [`FarHost::dial`].
    pub async fn connect(&self, to: Endpoint) -> io::Result<AppStream> {
        joined(self.dial(&to).await?)
    }

    /// Listens at `at`, inside.
    ///
    /// # Errors
    /// As `bind(2)`; `NotConnected` where no node runs the session.
    pub async fn listen(&self, at: Endpoint) -> io::Result<InsideListener> {
        Ok(InsideListener::Far(listening::listen(self.trunk()?, at).await?))
    }

    /// How the session is fenced.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// Signals the process group of a started program.
    ///
    /// # Errors
    /// Where the session's host is gone.
    pub async fn signal(&self, id: u64, signal: Signal) -> Result<(), LinkError> {
        self.tell(&Ask::Signal { id, signal: signal as i32 }).await
    }

    /// Its terminal has this size now.
    ///
    /// # Errors
    /// Where the session's host is gone.
    pub async fn resize(&self, id: u64, size: Size) -> Result<(), LinkError> {
        self.tell(&Ask::Resize { id, rows: size.rows(), cols: size.cols() }).await
    }

    /// What its processes have used.
    ///
    /// # Errors
    /// Where the session's host is gone, or is an older one that does not tell.
    pub async fn usage(&self) -> Result<Usage, LinkError> {
        let trunk = self.trunk().map_err(|_| LinkError::Gone)?;
        match ask(&trunk, &Ask::Usage).await {
            Ok(Answer::Usage(Some(usage))) => Ok(usage),
            _ => Err(LinkError::Gone),
        }
    }

    async fn tell(&self, what: &Ask) -> Result<(), LinkError> {
        let trunk = self.trunk().map_err(|_| LinkError::Gone)?;
        tell(&trunk, what).await.map_err(|_| LinkError::Gone)
    }
}

/// Opens a channel that speaks `protocol`.
///
/// # Errors
/// As [`reason`] has it.
pub(super) async fn open(trunk: &Trunk, protocol: &str, path: &str) -> io::Result<Channel> {
    trunk.open_protocol(SESSION, path, protocol).await.map_err(reason)
}

/// Tells something of a program, and waits until it is done.
pub(super) async fn tell(trunk: &Trunk, what: &Ask) -> io::Result<()> {
    match ask(trunk, what).await? {
        Answer::Done => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Says one thing, and hears one.
async fn ask(trunk: &Trunk, what: &Ask) -> io::Result<Answer> {
    let (mut incoming, mut outgoing): (_, Outgoing) = packets(open(trunk, TELL, "/").await?);
    outgoing.say(what).await?;
    let answer = incoming.message().await?;
    outgoing.close().await?;
    Ok(answer)
}

/// A channel as a socket of this process, with a task in between. A unix socket knows no broken end: what breaks over there
/// is an end here, as it is to all who read one.
pub(super) fn joined(channel: Channel) -> io::Result<AppStream> {
    let (ours, theirs) = UnixStream::pair()?;
    tokio::spawn(async move {
        // Where it fails, both are dropped.
        let _ = channel.join(theirs).await;
    });
    Ok(AppStream::Unix(ours))
}

/// The kernel's reason over there, told by a status: [`host_end`](super::host_end) has the other half.
fn reason(error: TrunkError) -> io::Error {
    let errno = match &error {
        TrunkError::Refused(StatusCode::BAD_GATEWAY) => libc::ECONNREFUSED,
        TrunkError::Refused(StatusCode::GATEWAY_TIMEOUT) => libc::ETIMEDOUT,
        TrunkError::Refused(StatusCode::NOT_FOUND) => libc::ENOENT,
        TrunkError::Refused(StatusCode::FORBIDDEN) => libc::EACCES,
        TrunkError::Refused(StatusCode::INSUFFICIENT_STORAGE) => libc::EMFILE,
        _ => return error.into(),
    };
    io::Error::from_raw_os_error(errno)
}
