//! A sandbox on this node, from its making to the app in it.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{
    AppSpec, AppStream, Container, ImageError, InsideListener, Invocation, Link, LinkError, Target,
    app::CommandError,
    gpu,
    image::{self, Scripts},
    invocation,
    link::{Health, Started},
    port,
};
use crate::{
    activity::Gpu,
    sandbox::{SandboxSpec, protocol::Endpoint},
    sys::{
        process::Exit,
        spawn::{Program, Streams},
    },
    words::Isolation,
};

/// How long a program whose client has gone has after SIGHUP.
const HANGUP_GRACE: Duration = Duration::from_secs(2);

/// Why the app does not run.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The sandbox was not made, or has ended.
    #[error("{0}")]
    Sandbox(String),
    /// The image cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// There is nothing to run.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The runtime could not set the room up; the log has its words.
    #[error("{program} could not start the image ({exit})")]
    Room {
        /// The runtime's program.
        program: String,
        /// How it ended.
        exit: Exit,
    },
    /// A program could not be started.
    #[error("cannot run {program}: {source}")]
    Spawn {
        /// Its first word.
        program: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A file of ours could not be made.
    #[error("cannot write {path}: {source}")]
    File {
        /// Where.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// A sandbox on this node, and the app that belongs in it.
pub struct LocalHost {
    link: Link,
    app: AppSpec,
    /// What shlogin tells the app.
    session_env: Vec<(OsString, OsString)>,
    /// The runtime's own files, from outside.
    room: PathBuf,
    /// The same folder, as it is called inside.
    room_inside: PathBuf,
    isolation: Isolation,
    /// The person's own.
    login_shell: OsString,
}

/// What a session's processes have used, and use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Usage {
    /// Their time on processors; none where it cannot be read.
    pub cpu: Option<Duration>,
    /// Their GPUs.
    pub gpu: Gpu,
}

/// The app, started.
pub struct Running(Started);

impl Running {
    /// Its number, for [`LocalHost::signal`].
    pub fn id(&self) -> u64 {
        self.0.id()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Where the sandbox ended first.
    pub async fn exit(self) -> Result<Exit, LinkError> {
        self.0.exit().await
    }
}

impl LocalHost {
    /// A host over an open link; nothing runs yet.
    pub fn new(
        link: Link,
        sandbox: &SandboxSpec,
        app: AppSpec,
        session_env: Vec<(OsString, OsString)>,
        login_shell: OsString,
    ) -> Self {
        let room = sandbox.footprint.room();
        let room_inside = match sandbox.isolation {
            Isolation::Namespace => sandbox.cover.clone(),
            Isolation::Socket => room.clone(),
        };
        let isolation = sandbox.isolation;
        Self { link, app, session_env, room, room_inside, isolation, login_shell }
    }

    /// The link, for those who dial.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Sets the room up and starts the app, both with `log` as their output.
    ///
    /// # Errors
    /// As [`HostError`].
    pub async fn start(&self, log: &File) -> Result<Running, HostError> {
        let (scripts, ()) = tokio::try_join!(self.scripts(), self.set_up_room(log))?;
        if let Some(script) = &scripts.start {
            let path = Container::script_file(&self.room);
            // In place: the runtime has bound this very file, and the shell that idles has read all of its one line.
            let written = File::options().write(true).truncate(true).open(&path);
            let written = written.and_then(|mut file| file.write_all(script.text().as_bytes()));
            written.map_err(|source| HostError::File { path, source })?;
        }
        let command = self.app.command(&scripts, &self.room_inside, &self.session_env)?;
        self.spawn(&command, log).await.map(Running)
    }

    async fn scripts(&self) -> Result<Scripts, HostError> {
        match &self.app.container {
            Some(container) if !container.exec => {
                Ok(image::inspect(&container.image, &container.runtime, &self.app.env).await?)
            }
            _ => Ok(Scripts::default()),
        }
    }

    async fn set_up_room(&self, log: &File) -> Result<(), HostError> {
        self.sandbox_ready().await?;
        let Some(command) = self.app.room(&self.room_inside) else { return Ok(()) };
        let script = Container::script_file(&self.room);
        idle_script(&script).map_err(|source| HostError::File { path: script, source })?;
        let program =
            command.argv.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
        let exit = self.spawn(&command, log).await?.exit().await.map_err(|_| self.lost())?;
        if exit != Exit::Status(0) {
            return Err(HostError::Room { program, exit });
        }
        self.link.watch_room().await.map_err(|_| self.lost())
    }

    async fn sandbox_ready(&self) -> Result<(), HostError> {
        let mut health = self.link.health();
        // The sender lives as long as the link's task, which tells before it ends.
        let _ = health.wait_for(|health| *health != Health::Starting).await;
        let ready = *health.borrow() == Health::Ready;
        if ready { Ok(()) } else { Err(self.lost()) }
    }

    fn lost(&self) -> HostError {
        HostError::Sandbox(match &*self.link.health().borrow() {
            Health::Failed(why) => format!("cannot make the sandbox: {why}"),
            Health::RoomBroken(name) => format!("{name}, which holds the image, has ended"),
            Health::Closed(why) => format!("the sandbox has ended: {why}"),
            Health::Starting | Health::Ready => "the sandbox has ended".to_owned(),
        })
    }

    /// Waits until the sandbox is no more, or no more whole, and says why.
    pub async fn broken(&self) -> HostError {
        let mut health = self.link.health();
        let _ = health.wait_for(|health| !matches!(health, Health::Starting | Health::Ready)).await;
        self.lost()
    }

    /// Waits until the app answers HTTP. The caller bounds it.
    ///
    /// # Errors
    /// Where the sandbox ends first.
    pub async fn answers(&self, target: &Target) -> Result<Endpoint, HostError> {
        port::answers(&self.link, target).await.map_err(|_| self.lost())
    }

    /// Runs any command in the room, as the app would run, with `extra_env` besides the app's environment.
    ///
    /// # Errors
    /// As [`HostError`].
    pub async fn exec(
        &self,
        what: Invocation,
        extra_env: &[(OsString, OsString)],
        streams: Streams,
    ) -> Result<Started, HostError> {
        let env: Vec<_> = self.session_env.iter().chain(extra_env).cloned().collect();
        let program = match invocation::words(what, &self.app, &self.login_shell) {
            Some(words) => self.app.enter(words, &self.room_inside, &env)?,
            None => self.app.shell(&self.room_inside, &env),
        };
        self.spawn_with(&program, streams).await
    }

    /// Serves the session's files over SFTP on these stdin, stdout and stderr: what its programs see, with nothing needed
    /// from the image. It ends when its stdin does.
    ///
    /// # Errors
    /// As [`HostError`].
    pub async fn sftp(&self, streams: [OwnedFd; 3]) -> Result<Started, HostError> {
        self.link.sftp(&self.app.files(), streams).await.map_err(|error| self.not_spawned("sftp", error))
    }

    /// Connects to `to`, inside: what listens there sees a client in the session.
    ///
    /// # Errors
    /// As `connect(2)`; `NotConnected` where the sandbox has ended.
    pub async fn connect(&self, to: Endpoint) -> io::Result<AppStream> {
        port::connect(&self.link, to).await
    }

    /// Listens at `at`, inside: for programs of the session.
    ///
    /// # Errors
    /// As `bind(2)`; `NotConnected` where the sandbox has ended.
    pub async fn listen(&self, at: Endpoint) -> io::Result<InsideListener> {
        port::listen(&self.link, at).await
    }

    /// How the session is fenced: without namespaces, its network is the node's.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// What its processes have used.
    ///
    /// # Errors
    /// Where the sandbox has ended.
    pub async fn usage(&self) -> Result<Usage, LinkError> {
        let (cpu, gpu) = tokio::join!(self.link.usage(), gpu::busy(&self.app));
        Ok(Usage { cpu: cpu?, gpu })
    }

    /// Hangs a program up whose client has gone: SIGHUP, and SIGKILL for what does not heed it. `exit` is its end. What it
    /// has left behind when it ended is not touched.
    ///
    /// # Errors
    /// Where the sandbox has ended, and the program with it.
    pub async fn hang_up(&self, id: u64, exit: impl Future) -> Result<(), LinkError> {
        self.signal(id, Signal::SIGHUP).await?;
        if timeout(HANGUP_GRACE, exit).await.is_err() {
            self.signal(id, Signal::SIGKILL).await?;
        }
        Ok(())
    }

    /// Signals the process group of a started program.
    ///
    /// # Errors
    /// Where the sandbox has ended.
    pub async fn signal(&self, id: u64, signal: Signal) -> Result<(), LinkError> {
        self.link.signal(id, signal).await
    }

    async fn spawn(&self, program: &Program, log: &File) -> Result<Started, HostError> {
        let spawn = |source| HostError::Spawn { program: "/dev/null".to_owned(), source };
        let null: OwnedFd = File::open("/dev/null").map_err(spawn)?.into();
        let output = || log.try_clone().map(OwnedFd::from).map_err(spawn);
        self.spawn_with(program, Streams::Separate([null, output()?, output()?])).await
    }

    async fn spawn_with(&self, program: &Program, streams: Streams) -> Result<Started, HostError> {
        self.link.spawn(program, streams).await.map_err(|error| {
            let name = program.argv.first().map(|word| word.to_string_lossy()).unwrap_or_default();
            self.not_spawned(&name, error)
        })
    }

    fn not_spawned(&self, program: &str, error: LinkError) -> HostError {
        match error {
            LinkError::Gone => self.lost(),
            LinkError::Refused(source) => HostError::Spawn { program: program.to_owned(), source },
        }
    }
}

/// What the instance itself runs: a shell that stops itself, and does so again should anybody continue it.
///
/// Apptainer's init ends the instance if its start script has ended when the first signal comes, and its own start sends
/// one: without a script that stays, whether an instance comes up is a matter of luck. A shell can do this by itself, so
/// the image need not have `sleep`.
const IDLE: &str = "#!/bin/sh\nwhile :; do kill -STOP $$; done\n";

fn idle_script(path: &Path) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o700).open(path)?;
    file.write_all(IDLE.as_bytes())
}
