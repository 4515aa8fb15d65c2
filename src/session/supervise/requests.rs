//! What comes over the control socket, and its answers.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use tokio::{
    io::Interest,
    sync::{mpsc, oneshot, watch},
};

use super::{door::DoorHandle, life::Stop, sharing::Sharing};
use crate::{
    activity::Activity,
    gateway::Restart,
    host::{Channel, Host, HostError, Invocation, Started},
    sandbox::protocol,
    session::{
        IdleReport,
        control::{self, Answer, ExecSpec, Request},
    },
    ssh::Server,
    sys::{message, readiness, spawn::Streams},
    words::Size,
};

/// The most clients at once: each is a process of the owner's.
const MOST_CLIENTS: usize = 256;

/// What is needed to answer a client.
#[derive(Clone)]
pub(super) struct Requests {
    pub(super) host: Arc<Host>,
    pub(super) door: DoorHandle,
    pub(super) ssh: Server,
    pub(super) sharing: Sharing,
    pub(super) stop: mpsc::Sender<Stop>,
    pub(super) restart: mpsc::Sender<Restart>,
    pub(super) log_len: watch::Receiver<u64>,
    pub(super) idle: watch::Receiver<Option<IdleReport>>,
    pub(super) activity: Activity,
}

impl Requests {
    /// Makes the control socket in `session` and serves it on the current runtime.
    pub(super) fn listen(self, session: &Path) -> io::Result<()> {
        let listener = control::listen_at(&control::path_in(session))?;
        let listener = readiness::watch(listener, Interest::READABLE)?;
        let places = Arc::new(tokio::sync::Semaphore::new(MOST_CLIENTS));
        tokio::spawn(async move {
            while let Ok(place) = Arc::clone(&places).acquire_owned().await {
                let client =
                    listener.async_io(Interest::READABLE, |fd| control::accept_own(fd.as_fd())).await;
                let Ok(channel) = client.and_then(Channel::new) else { continue };
                let requests = self.clone();
                tokio::spawn(async move {
                    // A client that breaks off, or does not speak our language, concerns nobody else.
                    if let Err(error) = requests.serve(&channel).await {
                        tracing::debug!(%error, "a control client was cut off");
                    }
                    drop(place);
                });
            }
        });
        Ok(())
    }

    async fn serve(&self, client: &Channel) -> io::Result<()> {
        let mut buffer = vec![0; message::MAX_LEN];
        while let Some((request, fds)) = client.receive::<Request>(&mut buffer).await? {
            if let Some(what) = use_of(&request) {
                self.activity.did(what);
            }
            match request {
                Request::Url => {
                    let answer = match self.door.url() {
                        Ok(url) => Answer::Url { url },
                        Err(error) => Answer::Failed { why: format!("making a token: {error}") },
                    };
                    client.send(&answer, &[]).await?;
                }
                Request::Stop { grace } => {
                    client.send(&Answer::Stopping, &[]).await?;
                    // Full means that it is ending already.
                    let _ = self.stop.try_send(Stop { grace });
                }
                Request::Restart => {
                    let answer = match self.restart(fds.into_iter().next()).await {
                        Ok(()) => Answer::Started,
                        Err(why) => Answer::Failed { why },
                    };
                    client.send(&answer, &[]).await?;
                }
                Request::LogBeyond { len } => {
                    let mut seen = self.log_len.clone();
                    let now = *seen.wait_for(|now| *now != len).await.map_err(io::Error::other)?;
                    client.send(&Answer::Log { len: now }, &[]).await?;
                }
                Request::Share(spec) => {
                    let answer = self.sharing.share(spec).await.unwrap_or_else(|why| Answer::Failed { why });
                    client.send(&answer, &[]).await?;
                }
                Request::Idle => {
                    let report = self.idle.borrow().clone();
                    client.send(&Answer::Idle { report }, &[]).await?;
                }
                Request::Guests => {
                    client.send(&Answer::Guests { guests: self.sharing.guests.list() }, &[]).await?;
                }
                Request::Revoke { who } => {
                    let guests = &self.sharing.guests;
                    let visits = who.map_or_else(|| guests.revoke_all(), |who| guests.revoke(&who));
                    client.send(&Answer::Changed { visits }, &[]).await?;
                }
                Request::Extend { who, lasts } => {
                    let visits = self.sharing.guests.extend(&who, lasts);
                    client.send(&Answer::Changed { visits }, &[]).await?;
                }
                // There is no command yet.
                Request::Resized(_) => return Err(io::ErrorKind::InvalidData.into()),
                Request::Exec { terminal } => return self.exec(client, terminal, fds).await,
                Request::Ssh => {
                    let stream = fds.into_iter().next().filter(message::is_connected_stream);
                    let stream =
                        std::os::unix::net::UnixStream::from(stream.ok_or(io::ErrorKind::InvalidData)?);
                    let server = self.ssh.clone();
                    tokio::spawn(async move { server.serve_owner(stream).await });
                    client.send(&Answer::Started, &[]).await?;
                }
                Request::Sftp => {
                    let streams = fds.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
                    return self.attend(client, self.host.sftp(streams).await).await;
                }
            }
        }
        Ok(())
    }

    async fn restart(&self, follower: Option<OwnedFd>) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let told = self.restart.send(Restart { follower, answer }).await;
        told.ok()
            .and(answered.await.ok())
            .unwrap_or_else(|| Err("it runs in no job, or has just ended".to_owned()))
    }

    async fn exec(&self, client: &Channel, terminal: bool, fds: Vec<OwnedFd>) -> io::Result<()> {
        let mut fds = fds.into_iter();
        let spec: ExecSpec = protocol::from_file(fds.next().ok_or(io::ErrorKind::InvalidData)?)?;
        let streams = match (terminal, fds.next(), fds.next(), fds.next()) {
            (true, Some(tty), None, None) => Streams::Terminal(tty),
            (false, Some(input), Some(output), Some(error)) => Streams::Separate([input, output, error]),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        let what = if spec.words.is_empty() { Invocation::Shell } else { Invocation::Words(spec.words) };
        let watched = match &streams {
            Streams::Terminal(tty) => self.activity.watch(tty),
            Streams::Separate(_) => None,
        };
        let attended = self.attend(client, self.host.exec(what, &spec.env, streams).await).await;
        drop(watched);
        attended
    }

    /// Tells a client of what it had started, and ends that with it.
    async fn attend(&self, client: &Channel, started: Result<Started, HostError>) -> io::Result<()> {
        let started = match started {
            Ok(started) => started,
            Err(error) => return client.send(&refusal(&error), &[]).await,
        };
        let told_so = client.send(&Answer::Started, &[]).await;
        let id = started.id();
        let mut exit = Box::pin(started.exit());
        let (sizes, size) = watch::channel(Size::near(0, 0));
        // Whoever has gone meanwhile leaves a program that has to be hung up.
        if told_so.is_ok() {
            tokio::select! {
                exit = &mut exit => return match exit {
                    Ok(exit) => client.send(&Answer::Exited { exit }, &[]).await,
                    Err(_) => Ok(()),
                },
                () = hear_sizes(client, &sizes) => {}
                () = async {
                    self.host.follow_size(id, size).await;
                    std::future::pending().await
                } => {}
            }
        }
        self.host.hang_up(id, exit).await.map_err(|_| io::ErrorKind::NotConnected.into())
    }
}

/// What the owner does by a command of hers, where that is to use the session and not to look at it.
fn use_of(request: &Request) -> Option<&'static str> {
    match request {
        Request::Url => Some("shlogin url"),
        Request::Exec { .. } => Some("shlogin exec or shell"),
        Request::Ssh => Some("shlogin ssh"),
        Request::Sftp => Some("shlogin sftp-server"),
        Request::Share(_) | Request::Extend { .. } => Some("shlogin share"),
        // It had no app to be used.
        Request::Restart
        | Request::Stop { .. }
        | Request::LogBeyond { .. }
        | Request::Resized(_)
        | Request::Idle
        | Request::Guests
        | Request::Revoke { .. } => None,
    }
}

/// Hears how large the client's terminal is, until the client has gone: it says nothing else any more.
async fn hear_sizes(client: &Channel, sizes: &watch::Sender<Size>) {
    let mut buffer = vec![0; message::MAX_LEN];
    while let Ok(Some((Request::Resized(size), _))) = client.receive::<Request>(&mut buffer).await {
        sizes.send_replace(size);
    }
}

fn refusal(error: &HostError) -> Answer {
    let why = error.to_string();
    match error {
        HostError::Spawn { source, .. } => {
            let status = if source.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
            Answer::NotRun { why, status }
        }
        _ => Answer::Failed { why },
    }
}
