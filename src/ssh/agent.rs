//! The client's ssh agent, for programs that were started over its connection: a socket in a folder of its own, which only
//! the owner can enter, and which goes with the connection.

use std::{
    ffi::OsString,
    fs, io,
    os::{
        fd::AsFd,
        unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use russh::server::Handle;
use tokio::{
    net::UnixListener,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};

use super::{
    channels::{Channels, Gone},
    listening::through,
};
use crate::{
    host::{AppStream, Host},
    sandbox::protocol::Endpoint,
    sys::descriptor::{place, self_path},
};

/// The most connections to the agent at once.
const UNDER_WAY: usize = 32;
const SOCKET: &str = "agent";

/// The folder of temporary files that programs of the session see.
#[derive(Clone, Debug)]
pub struct Temporary {
    /// As it is called outside.
    pub outside: PathBuf,
    /// As it is called inside.
    pub inside: PathBuf,
}

/// A client's agent, to be reached inside. Dropped, it is gone.
pub(super) struct Agent {
    /// What we have made on this machine.
    folder: Option<PathBuf>,
    inside: PathBuf,
    here: watch::Sender<()>,
}

impl Agent {
    /// Makes the socket and listens.
    ///
    /// # Errors
    /// As `mkdir(2)` and `bind(2)`.
    pub(super) fn open(temporary: &Temporary, handle: Handle, channels: Arc<Channels>) -> io::Result<Self> {
        let name = format!("ssh-{}", random()?);
        let folder = temporary.outside.join(&name);
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let here = watch::Sender::new(());
        let listener = bind(&folder);
        let inside = temporary.inside.join(name).join(SOCKET);
        // From here on what was made is removed.
        let agent = Self { folder: Some(folder), inside, here };
        let listener = listener?;
        let mut gone = Gone::of(&agent.here);
        tokio::spawn(async move {
            tokio::select! {
                () = accept(listener, handle, channels) => {}
                () = gone.wait() => {}
            }
        });
        Ok(agent)
    }

    /// The same in a session on another machine: a socket that init makes there, for its own user alone.
    ///
    /// # Errors
    /// As `bind(2)`.
    pub(super) async fn open_far(host: &Host, handle: Handle, channels: Arc<Channels>) -> io::Result<Self> {
        let inside = PathBuf::from(format!("/tmp/ssh-{}.{SOCKET}", random()?));
        let listener = host.listen(Endpoint::Unix(inside.clone())).await?;
        let here = watch::Sender::new(());
        let agent = Self { folder: None, inside, here };
        let mut gone = Gone::of(&agent.here);
        tokio::spawn(async move {
            let places = Arc::new(Semaphore::new(UNDER_WAY));
            let accepting = async {
                while let Ok(place) = Arc::clone(&places).acquire_owned().await {
                    let Ok((stream, _)) = listener.accept().await else {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    };
                    pass_on(stream, &handle, &channels, place);
                }
            };
            tokio::select! {
                () = accepting => {}
                () = gone.wait() => {}
            }
        });
        Ok(agent)
    }

    /// What programs find it by.
    pub(super) fn variable(&self) -> (OsString, OsString) {
        ("SSH_AUTH_SOCK".into(), self.inside.clone().into())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Only what we have made: the app may have put something else there, which is its own affair.
        if let Some(folder) = &self.folder {
            let _ = fs::remove_file(folder.join(SOCKET));
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Binds the socket in the very folder that was made, however long its path is.
fn bind(folder: &Path) -> io::Result<UnixListener> {
    let folder = place(folder)?;
    let at = self_path(folder.as_fd());
    let meta = fs::metadata(&at)?;
    if !meta.is_dir() || meta.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let socket = at.join(SOCKET);
    let listener = UnixListener::bind(&socket)?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn accept(listener: UnixListener, handle: Handle, channels: Arc<Channels>) {
    let places = Arc::new(Semaphore::new(UNDER_WAY));
    let own = nix::unistd::geteuid().as_raw();
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        // The folder keeps others out; the kernel is asked all the same, for keys are worth it.
        if !stream.peer_cred().is_ok_and(|who| who.uid() == own) {
            continue;
        }
        pass_on(AppStream::Unix(stream), &handle, &channels, place);
    }
}

/// Gives the client's agent one connection.
fn pass_on(stream: AppStream, handle: &Handle, channels: &Arc<Channels>, place: OwnedSemaphorePermit) {
    let (handle, channels) = (handle.clone(), Arc::clone(channels));
    tokio::spawn(async move {
        if let Ok(channel) = handle.channel_open_agent().await {
            through(channel, stream, &channels).await;
        }
        drop(place);
    });
}

fn random() -> io::Result<String> {
    let mut bytes = [0_u8; 8];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
