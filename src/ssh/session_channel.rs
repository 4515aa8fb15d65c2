//! A session channel: one program on three pipes, and how it ends. ([`super::pty`] has those on a terminal.)

use std::{
    ffi::OsString,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::signal::Signal,
    unistd::pipe2,
};
use russh::{
    ChannelWriteHalf,
    server::{Handle, Msg},
};
use tokio::{net::unix::pipe, sync::mpsc};

use super::{
    channels::{Channels, Lane},
    inbound::Sink,
    outbound::{As, Source, pump},
    signals,
};
use crate::{
    host::{Host, HostError, Invocation, Started},
    sys::{process::Exit, spawn::Streams},
    words::Size,
};

/// What a pipe that may carry much holds. Not more: the kernel counts those of all of a user's processes
/// (`/proc/sys/fs/pipe-user-pages-soft`).
const PIPE: i32 = 256 * 1024;

/// What a client says of a program that runs.
pub(super) enum Control {
    /// Signal its process group.
    Signal(Signal),
    /// Its terminal has another size.
    Resize(Size),
}

/// A program of the session, or what stands in for one.
pub(super) enum What {
    /// Run in the room.
    Program(Invocation),
    /// The server of sftp.
    FileTransfer,
}

/// What is to run, and who hears of it.
pub(super) struct Job {
    pub(super) host: Arc<Host>,
    pub(super) what: What,
    pub(super) env: Vec<(OsString, OsString)>,
    pub(super) client: Client,
    pub(super) control: mpsc::Receiver<Control>,
}

/// The client's side of a session channel. Dropped, the channel is no longer known.
pub(super) struct Client {
    pub(super) handle: Handle,
    pub(super) channel: ChannelWriteHalf<Msg>,
    pub(super) channels: Arc<Channels>,
    pub(super) lane: Lane,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.channels.remove(self.lane.id);
    }
}

impl Client {
    /// Tells how a program ended, after all that it said, and closes the channel. `None` where the session has ended, and
    /// the program with it.
    pub(super) async fn end(&self, exit: Option<Exit>) {
        // Whoever does not hear it has gone.
        let _ = self.channel.eof().await;
        match exit {
            Some(Exit::Status(status)) => drop(self.channel.exit_status(u32::from(status)).await),
            Some(Exit::Signal(number)) => {
                let (name, id) = (signals::to_client(number), self.lane.id);
                let _ = self.handle.exit_signal_request(id, name, false, String::new(), String::new()).await;
            }
            None => {}
        }
        let _ = self.channel.close().await;
    }

    /// Tells why there is no program, as a shell would.
    pub(super) async fn not_run(&self, error: &HostError) {
        let text = format!("shlogin: {error}\r\n");
        let _ = self.channel.extended_data_bytes(1, text.into_bytes()).await;
        let status = match error {
            HostError::Spawn { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            HostError::Spawn { .. } => 126,
            _ => 255,
        };
        self.end(Some(Exit::Status(status))).await;
    }
}

/// Runs it to its end. Where the client goes first, it is hung up.
pub(super) async fn run(job: Job) {
    let Job { host, what, env, client, mut control } = job;
    let (started, ours) = match start(&host, what, &env).await {
        Ok(begun) => begun,
        Err(error) => return client.not_run(&error).await,
    };
    let id = started.id();
    let mut exit = Box::pin(started.exit());
    let mut ended = None;
    let mut gone = client.lane.gone.clone();
    let relayed = {
        let mut said = Box::pin(async {
            tokio::join!(
                pump(ours.stdout, &client.channel, As::Data, &client.lane.activity),
                pump(ours.stderr, &client.channel, As::Stderr, &client.lane.activity)
            )
        });
        let mut heard = Box::pin(client.lane.inbound.pour(ours.stdin));
        let (mut silent, mut deaf) = (false, false);
        loop {
            tokio::select! {
                how = &mut exit, if ended.is_none() => ended = Some(how.ok()),
                _ = &mut said, if !silent => silent = true,
                () = &mut heard, if !deaf => deaf = true,
                Some(Control::Signal(signal)) = control.recv() => drop(host.signal(id, signal).await),
                () = gone.wait() => break false,
            }
            // Heard to the end of what it says, for as long as anybody holds the pipes: as with sshd.
            if silent && ended.is_some() {
                break true;
            }
        }
    };
    match (relayed, ended) {
        (true, how) => client.end(how.flatten()).await,
        // Where the sandbox has ended, so has the program.
        (false, None) => drop(host.hang_up(id, exit).await),
        (false, Some(_)) => {}
    }
}

/// Our ends of a program's pipes.
struct Ours {
    stdin: Sink,
    stdout: Source,
    stderr: Source,
}

async fn start(host: &Host, what: What, env: &[(OsString, OsString)]) -> Result<(Started, Ours), HostError> {
    let (ours, theirs) =
        pipes().map_err(|source| HostError::Spawn { program: "a pipe".to_owned(), source })?;
    let started = match what {
        What::Program(what) => host.exec(what, env, Streams::Separate(theirs)).await?,
        What::FileTransfer => host.sftp(theirs).await?,
    };
    Ok((started, ours))
}

fn pipes() -> io::Result<(Ours, [OwnedFd; 3])> {
    let ((stdin, to_it), (from_it, stdout), (errors, stderr)) =
        (pipe2(OFlag::O_CLOEXEC)?, pipe2(OFlag::O_CLOEXEC)?, pipe2(OFlag::O_CLOEXEC)?);
    for pipe in [&to_it, &from_it] {
        // Where that is not to be had, it only takes more turns.
        let _ = fcntl(pipe.as_fd(), FcntlArg::F_SETPIPE_SZ(PIPE));
    }
    let ours = Ours {
        stdin: Sink::Pipe(pipe::Sender::from_owned_fd(to_it)?),
        stdout: Source::Pipe(pipe::Receiver::from_owned_fd(from_it)?),
        stderr: Source::Pipe(pipe::Receiver::from_owned_fd(errors)?),
    };
    Ok((ours, [stdin, stdout, stderr]))
}
