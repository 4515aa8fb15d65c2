//! The stream: packets cut out of it, and replies put into it.

use std::io::{self, Read, Write};

use super::{
    request::Packet,
    server::Server,
    wire::{MAX_PACKET, Malformed, Replies},
};

/// What is read ahead. A client has many requests under way, so one read brings many of them.
const READ_AHEAD: usize = 2 * MAX_PACKET;
/// Replies wait for each other up to this many bytes, as long as there is a request at hand.
const SEND_FROM: usize = 64 * 1024;

/// Why a client is served no longer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    /// The streams.
    #[error(transparent)]
    Stream(#[from] io::Error),
    /// A packet that does not fit, after which nothing can be trusted to.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A packet of no length, or of more than is taken.
    #[error("a packet of {0} bytes")]
    Length(usize),
    /// The stream ended in a packet.
    #[error("the client has gone in the middle of a packet")]
    CutOff,
    /// Something else first, or twice.
    #[error("the client did not begin with its version")]
    NoVersion,
}

/// Serves a client until it has no more to ask.
pub(super) fn serve(
    mut input: impl Read,
    mut output: impl Write,
    mut server: Server,
) -> Result<(), ConnectionError> {
    let mut inbox = Inbox::new();
    let mut replies = Replies::default();
    let mut greeted = false;
    loop {
        while let Some(packet) = inbox.packet()? {
            match (Packet::parse(packet)?, greeted) {
                (Packet::Init, false) => {
                    greeted = true;
                    Server::greet(&mut replies);
                }
                (Packet::Request { id, request }, true) => server.answer(id, request, &mut replies),
                _ => return Err(ConnectionError::NoVersion),
            }
            if replies.len() >= SEND_FROM {
                replies.send(&mut output)?;
            }
        }
        replies.send(&mut output)?;
        if inbox.fill(&mut input)? == 0 {
            return if inbox.is_empty() { Ok(()) } else { Err(ConnectionError::CutOff) };
        }
    }
}

/// What has come and is not yet answered.
struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    fn new() -> Self {
        Self { buffer: vec![0; READ_AHEAD], start: 0, end: 0 }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The next packet, where all of it is there.
    fn packet(&mut self) -> Result<Option<&[u8]>, ConnectionError> {
        let waiting = &self.buffer[self.start..self.end];
        let Some((length, rest)) = waiting.split_first_chunk() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length == 0 || length > MAX_PACKET {
            return Err(ConnectionError::Length(length));
        }
        let packet = rest.get(..length);
        if packet.is_some() {
            self.start += 4 + length;
        }
        Ok(packet)
    }

    /// Reads what there is; 0 is the end.
    fn fill(&mut self, from: &mut impl Read) -> io::Result<usize> {
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.start < 4 + MAX_PACKET {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        loop {
            match from.read(&mut self.buffer[self.end..]) {
                Ok(got) => {
                    self.end += got;
                    return Ok(got);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
