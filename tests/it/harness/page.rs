//! The terminal page's end of its WebSocket, without a browser: says what a page would say, or what none would.

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{
    self, Message, WebSocket, handshake::client::generate_key, http::Request,
};

use super::http::{Gate, Wire};

/// One connection of a page.
pub(crate) struct Page {
    socket: WebSocket<Box<dyn Wire>>,
    /// The answer to its `attach`.
    pub(crate) attached: Value,
    /// All output, in order, and the offset of what comes next.
    pub(crate) screen: Vec<u8>,
    pub(crate) have: u64,
    /// Input is numbered from here.
    pub(crate) typed: u64,
    /// What else was said, newest last.
    pub(crate) said: Vec<Value>,
    /// It acknowledges what it has.
    pub(crate) acknowledges: bool,
}

/// A page's name for itself.
pub(crate) fn client(n: usize) -> String {
    format!("page-{n:0>16}")
}

/// How long something may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const SIZE: (u16, u16) = (100, 30);

impl Page {
    /// Opens the owner's last terminal, as page number `n`.
    pub(crate) fn open(gate: &Gate, n: usize) -> Self {
        let (cols, rows) = SIZE;
        let size = json!({ "cols": cols, "rows": rows });
        let attach = json!({ "type": "attach", "client": client(n), "terminal": null, "new": false, "have": null, "size": size });
        Self::attach(gate, &attach)
    }

    /// Comes back after a connection that broke.
    pub(crate) fn again(gate: &Gate, n: usize, have: u64) -> Self {
        let (cols, rows) = SIZE;
        let size = json!({ "cols": cols, "rows": rows });
        Self::attach(
            gate,
            &json!({ "type": "attach", "client": client(n), "terminal": null, "new": false, "have": have, "size": size }),
        )
    }

    /// Opens a connection and says this first.
    ///
    /// # Panics
    /// When it is not answered with `attached`.
    pub(crate) fn attach(gate: &Gate, attach: &Value) -> Self {
        let mut page = Self::connect(gate).unwrap_or_else(|status| panic!("no WebSocket: {status}"));
        page.say(attach);
        let attached = page.hear_of("attached");
        page.have = attached["from"].as_u64().unwrap();
        page.typed = attached["taken"].as_u64().unwrap();
        page.attached = attached;
        page
    }

    /// Opens a connection and says nothing.
    ///
    /// # Errors
    /// The status, where it is not 101.
    pub(crate) fn connect(gate: &Gate) -> Result<Self, u16> {
        let request = Request::get(format!("wss://{}/-/terminal/socket", gate.authority))
            .header("Host", &gate.authority)
            .header("Origin", gate.origin())
            .header("Cookie", gate.cookies.join("; "))
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", generate_key())
            .body(())
            .unwrap();
        match tungstenite::client(request, gate.connect().unwrap()) {
            Ok((socket, _)) => Ok(Self {
                socket,
                attached: Value::Null,
                screen: Vec::new(),
                have: 0,
                typed: 0,
                said: Vec::new(),
                acknowledges: true,
            }),
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
                Err(answer.status().as_u16())
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Says this.
    pub(crate) fn say(&mut self, message: &Value) {
        self.send(Message::text(message.to_string()));
    }

    /// Sends whatever it is. A connection that was cut meanwhile is noticed by who listens.
    pub(crate) fn send(&mut self, message: Message) {
        let _ = self.socket.send(message);
    }

    /// Types, numbered.
    pub(crate) fn keys(&mut self, text: &str) {
        self.keys_at(self.typed, text.as_bytes());
        self.typed += text.len() as u64;
    }

    /// Types at an offset.
    pub(crate) fn keys_at(&mut self, at: u64, bytes: &[u8]) {
        self.send(Message::Binary([&at.to_be_bytes()[..], bytes].concat().into()));
    }

    /// The next message but for pings: what was said, or `null` for output, which is taken in. `None` where the connection
    /// is closed.
    ///
    /// # Panics
    /// When output does not join on.
    pub(crate) fn next(&mut self) -> Option<Value> {
        let began = Instant::now();
        loop {
            // The gateway's pulse keeps the connection from being silent.
            assert!(began.elapsed() < PATIENCE, "nothing was said for long: {}", self.text());
            match self.socket.read() {
                Ok(Message::Binary(bytes)) => {
                    let (at, bytes) = bytes.split_at(8);
                    let at = u64::from_be_bytes(at.try_into().unwrap());
                    assert_eq!(at, self.have, "what is shown does not join on");
                    self.have += bytes.len() as u64;
                    self.screen.extend_from_slice(bytes);
                    if self.acknowledges {
                        self.say(&json!({ "type": "ack", "at": self.have }));
                    }
                    return Some(Value::Null);
                }
                Ok(Message::Text(text)) => {
                    let said: Value = serde_json::from_str(&text).unwrap();
                    if said["type"] == "skip" {
                        self.have = said["from"].as_u64().unwrap();
                        self.screen.clear();
                    }
                    if said["type"] == "redraw" {
                        // What a guest begins with.
                        self.screen.extend_from_slice(said["text"].as_str().unwrap().as_bytes());
                    }
                    self.said.push(said.clone());
                    return Some(said);
                }
                Ok(Message::Close(_)) => return None,
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    panic!("nothing was said for long: {}", self.text());
                }
                Err(_) => return None,
            }
        }
    }

    /// Listens until a message of this type comes.
    pub(crate) fn hear_of(&mut self, kind: &str) -> Value {
        loop {
            match self.next() {
                Some(said) if said["type"] == kind => return said,
                Some(_) => {}
                None => panic!("closed before {kind}: {:?}", self.said),
            }
        }
    }

    /// Listens until this is on the screen.
    pub(crate) fn wait_for(&mut self, text: &str) {
        self.wait_until(text, |screen| screen.contains(text));
    }

    /// Listens until the screen is as it should be.
    pub(crate) fn wait_until(&mut self, what: &str, mut is_there: impl FnMut(&str) -> bool) {
        let began = Instant::now();
        while !is_there(&self.text()) {
            assert!(began.elapsed() < PATIENCE, "not in time: {what:?} on {:?}", self.text());
            assert!(self.next().is_some(), "closed before {what:?}: {:?}, {:?}", self.text(), self.said);
        }
    }

    /// Listens until the connection is closed, and says how long that took.
    pub(crate) fn until_closed(&mut self) -> Duration {
        let began = Instant::now();
        while self.next().is_some() {}
        began.elapsed()
    }

    /// What it has seen.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.screen).into_owned()
    }
}
