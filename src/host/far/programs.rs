//! Programs on the other machine whose streams are on this one.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use nginx_free::trunk::Trunk;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use tokio::sync::oneshot;

use super::{
    Answer, Ask, RUN, Tty,
    gateway_end::{open, tell},
    packet::{Incoming, Kind, Outgoing, packets},
    side::Side,
};
use crate::{
    host::{HostError, Started},
    sys::{process::Exit, spawn::Streams, terminal},
};

/// A program's streams, as they are bridged. For a terminal, both are the program's end of it.
struct Bridge {
    input: Side,
    output: Option<Side>,
    errors: Option<Side>,
}

/// Asks for a program, and joins its streams with these.
///
/// # Errors
/// As [`HostError`].
pub(super) async fn start(trunk: Trunk, mut ask: Ask, streams: Streams) -> Result<Started, HostError> {
    let lost = |error: io::Error| HostError::Sandbox(error.to_string());
    let bridge = bridge(streams, &mut ask).map_err(lost)?;
    let (mut incoming, mut outgoing) = packets(open(&trunk, RUN, "/").await.map_err(lost)?);
    outgoing.say(&ask).await.map_err(lost)?;
    let id = match incoming.message().await.map_err(lost)? {
        Answer::Started { id } => id,
        Answer::NotRun(refusal) => return Err(refusal.into()),
        _ => return Err(lost(io::ErrorKind::InvalidData.into())),
    };
    let (exited, exit) = oneshot::channel();
    let Bridge { input, output, errors } = bridge;
    tokio::spawn(async move {
        tokio::select! {
            // Ends when the program has, and all that it said has been written.
            () = show(&trunk, id, incoming, [output, errors], exited) => {}
            () = type_in(input, outgoing) => {}
        }
    });
    Ok(Started::new(id, exit))
}

fn bridge(streams: Streams, ask: &mut Ask) -> io::Result<Bridge> {
    match streams {
        Streams::Separate([input, output, errors]) => Ok(Bridge {
            input: Side::new(input)?,
            output: Some(Side::new(output)?),
            errors: Some(Side::new(errors)?),
        }),
        Streams::Terminal(tty) => {
            if let Ask::Run { terminal, .. } = ask {
                *terminal = Some(into_raw(&tty)?);
            }
            let output = Some(Side::new(tty.try_clone()?)?);
            Ok(Bridge { input: Side::new(tty)?, output, errors: None })
        }
    }
}

/// What the terminal is, for one like it to be made over there; this one then changes nothing of what goes through it.
fn into_raw(tty: &OwnedFd) -> io::Result<Tty> {
    let modes = tcgetattr(tty)?;
    let told = Tty::new(terminal::size(tty.as_fd())?, &modes);
    let mut raw = modes;
    cfmakeraw(&mut raw);
    tcsetattr(tty, SetArg::TCSANOW, &raw)?;
    Ok(told)
}

/// Writes what the program says, to the end of it.
async fn show(
    trunk: &Trunk,
    id: u64,
    mut incoming: Incoming,
    mut sides: [Option<Side>; 2],
    exited: oneshot::Sender<Exit>,
) {
    let mut exited = Some(exited);
    // Broken off, it has no exit to tell: whoever waits for it learns just that.
    while let Ok(Some(packet)) = incoming.next().await {
        let which = match packet.kind {
            Kind::Output => 0,
            Kind::Errors => 1,
            Kind::Message => {
                if let (Ok(Answer::Exited { exit: Some(exit) }), Some(exited)) =
                    (packet.message(), exited.take())
                {
                    // Whoever does not wait for it has gone.
                    let _ = exited.send(exit);
                }
                continue;
            }
            Kind::Input => return,
        };
        if packet.bytes.is_empty() {
            sides[which] = None;
        } else if let Some(side) = &mut sides[which]
            && side.write(&packet.bytes).await.is_err()
        {
            sides[which] = None;
            // It is to learn of it, as it would from its own pipe.
            let _ = tell(trunk, &Ask::Deaf { id, errors: which == 1 }).await;
        }
    }
}

/// Sends what is typed, to the end of it.
async fn type_in(mut input: Side, mut outgoing: Outgoing) {
    loop {
        let bytes = input.read().await.unwrap_or_default();
        let ended = bytes.is_empty();
        // A program that has ended takes no more, and what it said last is still to be shown.
        if outgoing.send(Kind::Input, bytes).await.is_err() || ended {
            break;
        }
    }
    // The end of this is told by the other way alone.
    std::future::pending().await
}
