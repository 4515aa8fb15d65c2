//! One page's WebSocket: reads what the page says, and tells it what happens, in two loops that do not wait for each
//! other. An interrupt gets through however much output is on its way.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt, stream::SplitSink, stream::SplitStream};
use jiff::Timestamp;
use tokio::{
    io::DuplexStream,
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, accept_async_with_config,
    tungstenite::{Error as SocketError, Message, protocol::WebSocketConfig},
};

use super::{
    Desk,
    message::{FromPage, Person, TerminalSummary, ToPage},
};
use crate::{
    gateway::Phase,
    host::Invocation,
    share::{Guest, News, Presence, Visit},
    terminal::{Attach, Attachment, Began, Controls, Event, Keep, New, Terminal, TerminalId},
    words::{Access, Size},
};

/// How long a page may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a page is asked whether it is still there.
const PULSE: Duration = Duration::from_secs(15);
/// After so long without a word from it, it is not.
const SILENCE: Duration = Duration::from_secs(40);
/// How long a page that has been told to go may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// The longest message of a page, in bytes: a paste comes in pieces.
const LONGEST: usize = 64 * 1024;
/// So much of what a page has typed may wait for the terminal, in bytes: more than a page that keeps to its own window
/// sends.
const UNTYPED: usize = 256 * 1024;
/// The most output that may be on its way to a page, in bytes: less is shown late, more makes an interrupt late.
const WINDOW: u64 = 192 * 1024;

/// Who is at the other end.
#[derive(Clone)]
pub(crate) enum Caller {
    /// The owner.
    Owner,
    /// A guest.
    Guest(Visit),
}

impl Caller {
    /// Waits until he may not be here any more.
    async fn over(&self) {
        match self {
            Self::Owner => std::future::pending().await,
            Self::Guest(visit) => drop(visit.over().await),
        }
    }
}

type Socket = WebSocketStream<DuplexStream>;
type Out = SplitSink<Socket, Message>;

/// Why a connection ends without anybody's fault: the page has gone, or breaks the rules.
#[derive(Debug, thiserror::Error)]
enum Gone {
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("the page says nothing")]
    Silent,
    #[error("the page does not keep to the messages")]
    Unruly,
    #[error("the page does not hear that its visit is over")]
    Deaf,
}

impl Desk {
    /// Serves one page until it goes, or has to go.
    pub(super) async fn serve(self, stream: DuplexStream, caller: Caller) {
        let config = WebSocketConfig::default()
            .max_message_size(Some(LONGEST + 8))
            .max_frame_size(Some(LONGEST + 8))
            .write_buffer_size(0);
        // The page's key and version have been looked at by the proxy; what it may not be is refused here all the same.
        let Ok(Ok(socket)) = timeout(PATIENCE, accept_async_with_config(stream, Some(config))).await else {
            return;
        };
        if let Err(gone) = self.talk(socket, caller).await {
            tracing::debug!(%gone, "a terminal's page has gone");
        }
    }

    async fn talk(self, socket: Socket, caller: Caller) -> Result<(), Gone> {
        let (mut out, mut pages) = socket.split();
        let attach = timeout(PATIENCE, pages.next()).await.map_err(|_| Gone::Silent)?;
        let first = attach.ok_or(Gone::Silent)??;
        let Ok(FromPage::Attach { client, terminal, new, have, size }) = parse(&first) else {
            return Err(Gone::Unruly);
        };
        let Ok(client) = client.parse() else { return Err(Gone::Unruly) };
        let (access, who) = match &caller {
            Caller::Owner => (Access::Owner, "owner".to_owned()),
            Caller::Guest(visit) => (visit.access(), visit.name().to_owned()),
        };
        let presence = match &caller {
            Caller::Owner => None,
            Caller::Guest(visit) => visit.enter(),
        };
        let found = match &caller {
            Caller::Owner => self.owner_s(terminal.map(TerminalId::from), new, size).await,
            Caller::Guest(visit) if visit.is_over() => Err("Your visit is over.".to_owned()),
            Caller::Guest(_) if presence.is_none() => Err("You are here too often already.".to_owned()),
            Caller::Guest(visit) => {
                self.terminals.get(visit.terminal()).ok_or_else(|| "The terminal is no more.".to_owned())
            }
        };
        let attachment = found.and_then(|terminal| {
            let attach = Attach { access, client: Some(client), who, have, size: Some(size) };
            terminal.attach(attach).ok_or_else(|| "The terminal has just ended.".to_owned())
        });
        let attachment = match attachment {
            Ok(attachment) => attachment,
            Err(why) => {
                say(&mut out, &ToPage::Refused { why }).await?;
                return Ok(out.close().await?);
            }
        };
        let Began { reset, from, replay, taken, size, leads } = attachment.began();
        let terminal = attachment.id().value();
        say(&mut out, &ToPage::Attached { terminal, access, size, leads, reset, from, replay, taken })
            .await?;
        let seat = attachment.controls();
        let (acknowledge, acknowledged) = watch::channel(from);
        let (reply, replies) = mpsc::channel(16);
        let (pulse, heard) = watch::channel(Instant::now());
        let listening =
            Listening { desk: &self, controls: attachment.controls(), access, acknowledge, reply, pulse };
        let telling = Telling {
            desk: &self,
            attachment,
            presence,
            caller: &caller,
            acknowledged,
            replies,
            heard,
            sent: from,
        };
        // With his visit, a guest is heard no more: also one who does not read, and so is not told.
        let hearing = async {
            tokio::select! {
                biased;
                () = caller.over() => {
                    seat.expel();
                    std::future::pending().await
                }
                heard = listening.run(&mut pages) => heard,
            }
        };
        let deaf = async {
            caller.over().await;
            sleep(FAREWELL).await;
        };
        // Whichever ends first ends both: with the reading, the writing.
        tokio::select! {
            told = telling.run(&mut out) => told?,
            heard = hearing => match heard? {},
            () = deaf => return Err(Gone::Deaf),
        }
        out.close().await?;
        // What the page has sent meanwhile is read, and heeded no more: a connection that is closed with something unread
        // in it takes the last words with it.
        let _ = timeout(FAREWELL, async { while let Some(Ok(_)) = pages.next().await {} }).await;
        Ok(())
    }

    /// The terminal that the owner's page asks for; a new one, where it asks for that or there is none.
    async fn owner_s(&self, wanted: Option<TerminalId>, new: bool, size: Size) -> Result<Terminal, String> {
        if let (Some(wanted), false) = (wanted, new) {
            return self.terminals.get(wanted).ok_or_else(|| "This terminal has ended.".to_owned());
        }
        if let (Some(last), false) = (self.terminals.last_used(), new) {
            return Ok(last);
        }
        let mut phase = self.phase.clone();
        // The sender lives as long as the session.
        let _ = phase.wait_for(|phase| !matches!(phase, Phase::Waiting { .. } | Phase::Starting)).await;
        let env = [("TERM", "xterm-256color"), ("COLORTERM", "truecolor")];
        let env = env.map(|(name, value)| (name.into(), value.into())).to_vec();
        let new = New { what: Invocation::Login, env, size, modes: None, keep: Keep::UntilItEnds };
        self.terminals.open(new).await.map_err(|error| format!("No terminal: {error}."))
    }
}

fn parse(message: &Message) -> Result<FromPage, Gone> {
    match message {
        Message::Text(text) => serde_json::from_str(text).map_err(|_| Gone::Unruly),
        _ => Err(Gone::Unruly),
    }
}

async fn say(out: &mut Out, message: &ToPage) -> Result<(), Gone> {
    // Our own types do not fail to become JSON; should one, the page goes without it.
    let text = serde_json::to_string(message).unwrap_or_default();
    Ok(out.send(Message::text(text)).await?)
}

/// The loop that hears the page.
struct Listening<'a> {
    desk: &'a Desk,
    controls: Controls,
    access: Access,
    acknowledge: watch::Sender<u64>,
    reply: mpsc::Sender<ToPage>,
    pulse: watch::Sender<Instant>,
}

impl Listening<'_> {
    async fn run(self, pages: &mut SplitStream<Socket>) -> Result<Infallible, Gone> {
        // The terminal takes it when its program reads. The owner is heard meanwhile: what she says may be that whoever
        // has filled it is to go.
        let (mut waiting, mut bytes) = (VecDeque::new(), 0);
        loop {
            let message = tokio::select! {
                taken = self.type_in(waiting.front()), if !waiting.is_empty() => {
                    taken?;
                    bytes -= waiting.pop_front().map_or(0, |input: Bytes| input.len());
                    continue;
                }
                message = pages.next(), if bytes < UNTYPED => message.ok_or(Gone::Silent)??,
            };
            self.pulse.send_replace(Instant::now());
            match message {
                Message::Binary(input) => {
                    bytes += input.len();
                    waiting.push_back(input);
                }
                Message::Text(_) => self.obey(parse(&message)?).await?,
                // Its answer to our pulse; its own pulse is answered by the library.
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Close(_) => return Err(Gone::Socket(SocketError::ConnectionClosed)),
                Message::Frame(_) => return Err(Gone::Unruly),
            }
        }
    }

    /// Types a message. May be dropped before it is done: nothing has been typed then.
    async fn type_in(&self, input: Option<&Bytes>) -> Result<(), Gone> {
        let mut bytes = input.cloned().unwrap_or_default();
        let offset = bytes.split_to_checked(8).ok_or(Gone::Unruly)?;
        let at = offset.as_ref().try_into().map(u64::from_be_bytes).map_err(|_| Gone::Unruly)?;
        let place = self.reply.reserve().await.map_err(|_| Gone::Silent)?;
        let taken = self.controls.numbered_input(at, bytes).await;
        place.send(ToPage::Taken { at: taken });
        Ok(())
    }

    async fn obey(&self, message: FromPage) -> Result<(), Gone> {
        let owner = self.access == Access::Owner;
        match message {
            FromPage::Attach { .. } => return Err(Gone::Unruly),
            FromPage::Resize { size } => self.controls.resize(size),
            FromPage::Focus {} => self.controls.focus(),
            FromPage::Ack { at } => {
                self.controls.shown(at);
                self.acknowledge.send_replace(at);
            }
            // What follows is the owner's alone.
            FromPage::End { .. } | FromPage::Revoke { .. } if !owner => return Err(Gone::Unruly),
            FromPage::End { terminal } => {
                if let Some(terminal) = self.desk.terminals.get(terminal.into()) {
                    terminal.close();
                }
            }
            FromPage::Revoke { guest } => {
                let guests = &self.desk.guests;
                let ended = guest.map_or_else(|| guests.revoke_all(), |guest| guests.revoke(&guest));
                if ended == 0 {
                    self.tell(ToPage::Notice { text: "That visit is over already.".to_owned() }).await?;
                }
            }
        }
        Ok(())
    }

    async fn tell(&self, message: ToPage) -> Result<(), Gone> {
        self.reply.send(message).await.map_err(|_| Gone::Silent)
    }
}

/// Cuts off the first bytes, where there are so many.
trait SplitChecked: Sized {
    fn split_to_checked(&mut self, at: usize) -> Option<Self>;
}

impl SplitChecked for Bytes {
    fn split_to_checked(&mut self, at: usize) -> Option<Self> {
        (self.len() >= at).then(|| self.split_to(at))
    }
}

/// The loop that tells the page.
struct Telling<'a> {
    desk: &'a Desk,
    attachment: Attachment,
    presence: Option<Presence>,
    caller: &'a Caller,
    acknowledged: watch::Receiver<u64>,
    replies: mpsc::Receiver<ToPage>,
    heard: watch::Receiver<Instant>,
    /// Output up to this offset has been sent.
    sent: u64,
}

impl Telling<'_> {
    async fn run(mut self, out: &mut Out) -> Result<(), Gone> {
        let mut pulse = interval(PULSE);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut people, mut terminals) = (self.desk.guests.changed(), self.desk.terminals.changed());
        let mut ends = self.desk.ends.clone();
        self.tell_people(out).await?;
        self.tell_terminals(out).await?;
        if ends.borrow_and_update().is_some() {
            self.tell_time(out).await?;
        }
        loop {
            let room = self.sent.saturating_sub(*self.acknowledged.borrow_and_update()) < WINDOW;
            tokio::select! {
                event = self.attachment.next(), if room => {
                    if !self.pass_on(event, out).await? {
                        return Ok(());
                    }
                }
                acknowledged = self.acknowledged.changed(), if !room => acknowledged.map_err(|_| Gone::Silent)?,
                Some(reply) = self.replies.recv() => say(out, &reply).await?,
                news = visit_news(&mut self.presence) => match news {
                    News::EndsSoon { minutes } => {
                        self.tell_people(out).await?;
                        let text = format!("Your visit ends in {minutes} minutes.");
                        say(out, &ToPage::Notice { text }).await?;
                    }
                    News::Over(why) => {
                        let why = format!("Your visit is over: {why}.");
                        return say(out, &ToPage::Refused { why }).await;
                    }
                },
                _ = people.changed() => self.tell_people(out).await?,
                _ = terminals.changed() => self.tell_terminals(out).await?,
                // Where nothing limits a session, nobody is there who could change that.
                Ok(()) = ends.changed() => self.tell_time(out).await?,
                _ = pulse.tick() => {
                    if self.heard.borrow().elapsed() > SILENCE {
                        return Err(Gone::Silent);
                    }
                    out.send(Message::Ping(Bytes::new())).await?;
                }
            }
        }
    }

    /// Passes an event on. `false` after the last one.
    async fn pass_on(&mut self, event: Event, out: &mut Out) -> Result<bool, Gone> {
        match event {
            Event::Output { at, bytes } => {
                let mut message = BytesMut::with_capacity(8 + bytes.len());
                message.put_u64(at);
                message.extend_from_slice(&bytes);
                self.sent = at + bytes.len() as u64;
                out.send(Message::Binary(message.freeze())).await?;
            }
            Event::Skip { from, replay } => {
                self.sent = from;
                say(out, &ToPage::Skip { from, replay }).await?;
            }
            Event::Redraw(text) => say(out, &ToPage::Redraw { text }).await?,
            Event::Size { size, leads } => say(out, &ToPage::Size { size, leads }).await?,
            Event::Notice(text) => say(out, &ToPage::Notice { text }).await?,
            Event::Ended(exit) => {
                let summary =
                    exit.map_or_else(|| "It was ended.".to_owned(), |exit| format!("It ended with {exit}."));
                say(out, &ToPage::Ended { summary }).await?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn tell_time(&self, out: &mut Out) -> Result<(), Gone> {
        let ends = *self.desk.ends.borrow();
        let left = ends.map(|ends| ends.duration_since(Timestamp::now()).as_secs().max(0));
        let left = left.map(|left| u32::try_from(left).unwrap_or(u32::MAX));
        say(out, &ToPage::Time { left }).await
    }

    /// To the owner, everybody; to a guest, himself.
    async fn tell_people(&self, out: &mut Out) -> Result<(), Gone> {
        let all = self.desk.guests.list();
        let people = match self.caller {
            Caller::Owner => all.into_iter().map(person).collect(),
            Caller::Guest(visit) => {
                let own = visit.id().to_string();
                all.into_iter().filter(|guest| guest.id == own).map(person).collect()
            }
        };
        say(out, &ToPage::People { people }).await
    }

    async fn tell_terminals(&self, out: &mut Out) -> Result<(), Gone> {
        if !matches!(self.caller, Caller::Owner) {
            return Ok(());
        }
        let terminals = self.desk.terminals.list();
        let terminals = terminals.iter().map(|terminal| TerminalSummary {
            id: terminal.id().value(),
            title: terminal.title(),
            shared: self.desk.guests.shares(terminal.id()),
        });
        say(out, &ToPage::Terminals { terminals: terminals.collect() }).await
    }
}

async fn visit_news(presence: &mut Option<Presence>) -> News {
    match presence {
        Some(presence) => presence.next().await,
        None => std::future::pending().await,
    }
}

fn person(guest: Guest) -> Person {
    let Guest { id, label, access, connections, seconds_left, .. } = guest;
    Person {
        name: label.unwrap_or_else(|| id.clone()),
        guest: id,
        access,
        here: connections > 0,
        seconds_left: u32::try_from(seconds_left).unwrap_or(u32::MAX),
    }
}
