//! A guest at the owner's terminal, over ssh. He is shown a picture of her screen, drawn anew for his own: none of what her
//! programs write reaches his terminal, so they cannot ask it anything, and his size is no matter to them. What he types
//! goes through the relay, which drops it unless he may.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    inbound::Sink,
    session_channel::{Client, Control},
    sight::{LEAVE, Picture, READY},
};
use crate::{
    share::{News, Over, Visit},
    sys::process::Exit,
    terminal::{Attach, Attachment, Controls, Sight, Terminals},
    words::{Access, Size},
};

/// The least time between two pictures.
const FRAME: Duration = Duration::from_millis(20);
/// How often the time that is left is drawn anew.
const CLOCK: Duration = Duration::from_secs(20);
/// What is typed in one go.
const TYPED: usize = 16 * 1024;

/// A guest who has come.
pub(super) struct Reception {
    pub(super) visit: Visit,
    /// Whose terminal he sees.
    pub(super) owner: String,
    pub(super) size: Size,
    pub(super) client: Client,
    pub(super) control: mpsc::Receiver<Control>,
}

/// Shows him the terminal until he leaves, or has to.
pub(super) async fn run(terminals: Terminals, reception: Reception) {
    let Reception { visit, owner, size, client, control } = reception;
    if visit.is_over() {
        return leave(&client, "", "your visit is over").await;
    }
    let seat = terminals.get(visit.terminal()).and_then(|terminal| {
        let (access, who) = (visit.access(), visit.name().to_owned());
        terminal.attach(Attach { access, client: None, who, have: None, size: None })
    });
    let Some(seat) = seat else {
        return leave(&client, "", &format!("the terminal of {owner} is no more")).await;
    };
    let mut gone = client.lane.gone.clone();
    let controls = seat.controls();
    let show = Show { seat, visit: &visit, owner: &owner, picture: Picture::new(size), client: &client };
    // With his visit he types no more: also one who does not read, and so is not told.
    let types = async {
        tokio::select! {
            biased;
            _ = visit.over() => {
                controls.expel();
                std::future::pending().await
            }
            () = type_in(&controls, visit.access(), &client) => {}
        }
    };
    let why = tokio::select! {
        why = show.run(control) => Some(why),
        () = types => Some("you have left".to_owned()),
        () = gone.wait() => None,
    };
    if let Some(why) = why {
        leave(&client, LEAVE, &why).await;
    }
}

/// Puts his terminal back, and says why.
async fn leave(client: &Client, before: &str, why: &str) {
    // Whoever does not hear it has gone.
    let _ = client.channel.data_bytes(format!("{before}[shlogin: {why}]\r\n").into_bytes()).await;
    client.end(Some(Exit::Status(0))).await;
}

struct Show<'a> {
    seat: Attachment,
    visit: &'a Visit,
    owner: &'a str,
    picture: Picture,
    client: &'a Client,
}

impl Show<'_> {
    /// Draws until it is over, and says why.
    async fn run(mut self, mut control: mpsc::Receiver<Control>) -> String {
        let Some(mut presence) = self.visit.enter() else {
            return "you are here too often already".to_owned();
        };
        self.send(READY.to_owned()).await;
        let mut due = Some(Instant::now());
        let mut drawn = Instant::now();
        let mut pause = FRAME;
        loop {
            let next = due.unwrap_or(drawn + CLOCK);
            tokio::select! {
                sight = self.seat.sight() => match sight {
                    Sight::Changed => due = due.or(Some(drawn + pause)),
                    Sight::Ended(_) => return format!("the terminal of {} has ended", self.owner),
                },
                news = presence.next() => match news {
                    News::Over(Over::Expired) => return "your visit is over: its time is up".to_owned(),
                    News::Over(Over::Revoked) => return format!("your visit is over: {} has ended it", self.owner),
                    News::EndsSoon { .. } => due = Some(Instant::now()),
                },
                Some(said) = control.recv() => if let Control::Resize(size) = said {
                    self.picture.resize(size);
                    due = Some(Instant::now());
                },
                () = sleep_until(next) => {
                    let took = self.draw().await;
                    // A screen that is laborious to draw takes a small part of everybody's time all the same.
                    (drawn, due, pause) = (Instant::now(), None, FRAME.max(took * 10));
                }
            }
        }
    }

    /// Draws, and says how long that took.
    async fn draw(&mut self) -> Duration {
        let minutes = self.visit.left().as_secs().div_ceil(60);
        let may = match self.visit.access() {
            Access::View => "you watch; q leaves",
            Access::Type | Access::Owner => "you type as them; Enter ~ . leaves",
        };
        let status = format!(" the terminal of {} · {may} · {minutes} min left ", self.owner);
        let types = self.visit.access() >= Access::Type;
        let picture = &mut self.picture;
        let began = Instant::now();
        let frame = self.seat.look(|screen| picture.draw(screen, &status, types));
        let took = began.elapsed();
        self.send(frame).await;
        took
    }

    async fn send(&self, text: String) {
        if !text.is_empty() {
            // Whoever does not take it has gone, which is noticed elsewhere.
            let _ = self.client.channel.data_bytes(Bytes::from(text)).await;
        }
    }
}

/// Takes what he types, until he leaves: who may only watch does so with a key.
async fn type_in(controls: &Controls, access: Access, client: &Client) {
    let Ok((sender, mut receiver)) = pipe::pipe() else { return };
    let pour = client.lane.inbound.pour(Sink::Pipe(sender));
    let keys = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(TYPED);
            match receiver.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                // q, and what ends other programs: Ctrl-C and Ctrl-D
                Ok(_) if access < Access::Type && buffer.iter().any(|key| matches!(key, b'q' | 3 | 4)) => {
                    return;
                }
                Ok(_) => controls.input(buffer.split().freeze()).await,
            }
        }
    };
    tokio::select! {
        () = keys => {}
        // His keys are still to be read when nothing more comes.
        () = async { pour.await; std::future::pending::<()>().await } => {}
    }
}
