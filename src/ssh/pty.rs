//! A session channel with a terminal, relayed by the terminal's own relay: the client has the owner's seat at it.

use bytes::{Bytes, BytesMut};
use russh::Pty;
use tokio::{io::AsyncReadExt, net::unix::pipe, sync::mpsc};

use super::{
    inbound::Sink,
    modes,
    session_channel::{self, Client, Control, Job, What},
};
use crate::{
    host::HostError,
    share::Guests,
    sys::process::Exit,
    terminal::{Attach, Attachment, Controls, Event, Keep, New, OpenError, Terminal, TerminalId, Terminals},
    words::{Access, Size},
};

/// What is typed in one go.
const TYPED: usize = 16 * 1024;

/// The terminal that a client has asked for.
pub(super) struct Screen {
    pub(super) term: String,
    pub(super) size: Size,
    pub(super) modes: Vec<(Pty, u32)>,
}

/// Runs it on a terminal of its own, to its end. Where the client goes first, it is hung up.
pub(super) async fn run(terminals: Terminals, guests: Guests, screen: Screen, job: Job) {
    let what = match job.what {
        What::Program(ref what) => what.clone(),
        // It speaks a protocol, which a terminal would spoil.
        What::FileTransfer => return session_channel::run(job).await,
    };
    let Job { mut env, client, control, .. } = job;
    env.push(("TERM".into(), screen.term.into()));
    let modes = modes::termios(&screen.modes).ok();
    let new = New { what, env, size: screen.size, modes, keep: Keep::WhileAttached };
    let terminal = match terminals.open(new).await {
        Ok(terminal) => terminal,
        Err(OpenError::Host(error)) => return client.not_run(&error).await,
        Err(error) => return client.not_run(&HostError::Sandbox(error.to_string())).await,
    };
    let seat = Attach {
        access: Access::Owner,
        client: None,
        who: "ssh".to_owned(),
        have: None,
        size: Some(screen.size),
    };
    let Some(seat) = terminal.attach(seat) else { return client.end(None).await };
    let mut gone = client.lane.gone.clone();
    let controls = seat.controls();
    let ended = tokio::select! {
        exit = show(seat, &client) => Some(exit),
        // Neither ends before the program or the connection does.
        () = async { tokio::join!(type_in(&controls, &client, &guests, terminal.id()), heed(&terminal, &controls, control)); } => None,
        () = gone.wait() => None,
    };
    if let Some(exit) = ended {
        client.end(exit).await;
    }
}

/// Sends what the program writes, to its end.
async fn show(mut seat: Attachment, client: &Client) -> Option<Exit> {
    loop {
        let (bytes, upto) = match seat.next().await {
            Event::Output { at, bytes } => {
                let upto = at + bytes.len() as u64;
                (bytes, Some(upto))
            }
            Event::Redraw(text) => (Bytes::from(text), None),
            Event::Notice(text) => (Bytes::from(format!("\r\n[shlogin: {text}]\r\n")), None),
            Event::Skip { .. } | Event::Size { .. } => continue,
            Event::Ended(exit) => return exit,
        };
        // Whoever does not take it has gone, which is noticed elsewhere.
        let _ = client.channel.data_bytes(bytes).await;
        if let Some(upto) = upto {
            seat.shown(upto);
        }
    }
}

/// Types what the client sends.
async fn type_in(controls: &Controls, client: &Client, guests: &Guests, terminal: TerminalId) {
    let Ok((sender, mut receiver)) = pipe::pipe() else { return };
    let pour = client.lane.inbound.pour(Sink::Pipe(sender));
    let keys = async {
        let (mut buffer, mut waiting) = (BytesMut::with_capacity(TYPED), Bytes::new());
        // The key that ends visits is heard also while a guest has filled what the terminal has not read.
        loop {
            tokio::select! {
                () = controls.input(waiting.clone()), if !waiting.is_empty() => waiting.clear(),
                read = receiver.read_buf(&mut buffer), if buffer.len() < TYPED => match read {
                    Ok(0) | Err(_) => break,
                    Ok(_) => guests.heed_end_key(terminal, &mut buffer),
                },
            }
            if waiting.is_empty() {
                waiting = buffer.split().freeze();
                buffer.reserve(TYPED);
            }
        }
        for rest in [waiting, buffer.freeze()] {
            controls.input(rest).await;
        }
    };
    tokio::join!(pour, keys);
    // The end of input is no end of a terminal: there, a person types it.
    std::future::pending::<()>().await;
}

/// Does what the client says beside typing.
async fn heed(terminal: &Terminal, controls: &Controls, mut control: mpsc::Receiver<Control>) {
    while let Some(said) = control.recv().await {
        match said {
            Control::Resize(size) => controls.resize(size),
            Control::Signal(signal) => terminal.signal(signal).await,
        }
    }
    std::future::pending::<()>().await;
}
