//! What a host in a job that is lent sees to itself, for the job does not end with it: it hears whoever began it, reads in the
//! record that the session was ended while no gateway was there, and puts its own end down where no gateway has heard it.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{sync::mpsc, task::spawn_blocking, time::sleep};

use super::{here::FromHostHere, manner::Manner};
use crate::{
    config::paths::PrivateFolder,
    host::Channel,
    sandbox::protocol,
    session::{
        State, forget_secrets,
        record::{read, write},
        supervise::{End, FromLauncher, life::put_down},
    },
    sys::{
        descriptor::{INHERITED, inherited},
        message, process,
    },
};

/// How often to look at the record: the folder is on a server that all nodes share.
const LOOK: Duration = Duration::from_secs(5);

/// A host's own end.
pub(super) struct OwnEnd {
    folder: PathBuf,
    launcher: Option<OwnedFd>,
}

/// What somebody wants who is no gateway.
pub(super) enum Wish {
    /// It goes on by itself.
    Detach,
    /// It ends.
    Stop,
    /// It ends now.
    Kill,
    /// It has ended, says its record: nobody is left to be told how.
    Over,
}

impl OwnEnd {
    /// Of a host that came to be in this manner; none of one whose job is the session's own.
    ///
    /// # Errors
    /// Where the launching process has left no descriptor.
    pub(super) fn of(manner: Manner, folder: &Path) -> io::Result<Option<Self>> {
        let launcher = match manner {
            Manner::Job => return Ok(None),
            Manner::Step => None,
            Manner::Start => Some(inherited(INHERITED)?),
        };
        Ok(Some(Self { folder: folder.to_owned(), launcher }))
    }

    /// Says that it waits, with its process in the record.
    ///
    /// # Errors
    /// Where the record cannot be read or written.
    pub(super) fn begin(&self) -> io::Result<()> {
        let Some(launcher) = &self.launcher else { return Ok(()) };
        let folder = self.opened()?;
        let mut record = read(&folder).map_err(io::Error::other)?.ok_or(io::ErrorKind::NotFound)?;
        record.pid = std::process::id();
        record.pid_began = process::start_ticks(nix::unistd::Pid::this()).ok();
        write(&folder, &record).map_err(io::Error::other)?;
        protocol::send(launcher.as_fd(), &FromHostHere::Waits, &[])
    }

    /// All that is wished from here on; on the current runtime.
    ///
    /// # Errors
    /// As `fcntl(2)`.
    pub(super) fn wishes(&self) -> io::Result<mpsc::Receiver<Wish>> {
        let (wish, wishes) = mpsc::channel(4);
        if let Some(launcher) = &self.launcher {
            let launcher = Channel::new(launcher.try_clone()?)?;
            tokio::spawn(hear_launcher(launcher, wish.clone()));
        }
        let folder = self.folder.clone();
        tokio::spawn(async move {
            loop {
                sleep(LOOK).await;
                let folder = folder.clone();
                if matches!(spawn_blocking(move || has_ended(&folder)).await, Ok(true)) {
                    // Nobody hears it where the host ends already.
                    let _ = wish.send(Wish::Over).await;
                }
            }
        });
        Ok(wishes)
    }

    /// Tells whoever began it. One that has gone hears nothing.
    pub(super) fn tell(&self, what: &FromHostHere) {
        if let Some(launcher) = &self.launcher {
            let _ = protocol::send(launcher.as_fd(), what, &[]);
        }
    }

    /// Puts down an end that no gateway has heard, when nothing is left on this node.
    ///
    /// # Errors
    /// Where the record cannot be read or written.
    pub(super) fn put_down(&self, end: &End) -> io::Result<()> {
        let folder = self.opened()?;
        if let Some(mut record) = read(&folder).map_err(io::Error::other)? {
            put_down(&mut record, end);
            write(&folder, &record).map_err(io::Error::other)?;
        }
        forget_secrets(&folder)
    }

    fn opened(&self) -> io::Result<PrivateFolder> {
        let opened = PrivateFolder::existing(&self.folder).map_err(io::Error::other)?;
        opened.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

async fn hear_launcher(launcher: Channel, wish: mpsc::Sender<Wish>) {
    let mut buffer = vec![0; message::MAX_LEN];
    loop {
        let said = launcher.receive::<FromLauncher>(&mut buffer).await;
        let wished = match said.ok().flatten().map(|(said, _)| said) {
            Some(FromLauncher::Detach) => Wish::Detach,
            Some(FromLauncher::Stop) => Wish::Stop,
            // One that has gone without a word takes the session with it.
            Some(FromLauncher::Kill) | None => Wish::Kill,
        };
        let last = matches!(wished, Wish::Detach | Wish::Kill);
        if wish.send(wished).await.is_err() || last {
            return;
        }
    }
}

/// Whether the record says so, or is no more. What cannot be read at the moment says nothing.
fn has_ended(folder: &Path) -> bool {
    match PrivateFolder::existing(folder) {
        Ok(Some(folder)) => matches!(read(&folder), Ok(Some(record)) if record.state == State::Ended),
        Ok(None) => true,
        Err(_) => false,
    }
}
