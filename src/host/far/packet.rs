//! Packets on a channel: what kind, how long, and so many bytes.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use nginx_free::trunk::Channel;
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio_util::codec::{Decoder, Encoder, FramedRead, FramedWrite};

/// What is read of a stream in one go.
pub(super) const PIECE: usize = 64 * 1024;
/// The longest packet: a command with all its environment.
const MOST: usize = 8 * 1024 * 1024;
const HEAD: usize = 5;

/// What a packet carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A message, as JSON.
    Message,
    /// Standard input. No bytes: its end.
    Input,
    /// Standard output, or all of a terminal's. No bytes: its end.
    Output,
    /// Standard error. No bytes: its end.
    Errors,
}

impl Kind {
    fn from_byte(byte: u8) -> io::Result<Self> {
        let kinds = [Self::Message, Self::Input, Self::Output, Self::Errors];
        kinds.get(usize::from(byte)).copied().ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// One packet.
pub(super) struct Packet {
    pub(super) kind: Kind,
    pub(super) bytes: Bytes,
}

struct Codec;

impl Encoder<Packet> for Codec {
    type Error = io::Error;

    fn encode(&mut self, Packet { kind, bytes }: Packet, out: &mut BytesMut) -> io::Result<()> {
        let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        out.reserve(HEAD + bytes.len());
        out.put_u8(kind as u8);
        out.put_u32(len);
        out.put(bytes);
        Ok(())
    }
}

impl Decoder for Codec {
    type Item = Packet;
    type Error = io::Error;

    fn decode(&mut self, from: &mut BytesMut) -> io::Result<Option<Packet>> {
        let Some(mut head) = from.get(..HEAD) else { return Ok(None) };
        let kind = Kind::from_byte(head.get_u8())?;
        let len = usize::try_from(head.get_u32()).unwrap_or(usize::MAX);
        if len > MOST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if from.len() < HEAD + len {
            // No more than a piece ahead of what has come: the length is only said so far.
            from.reserve((HEAD + len - from.len()).min(PIECE));
            return Ok(None);
        }
        from.advance(HEAD);
        Ok(Some(Packet { kind, bytes: from.split_to(len).freeze() }))
    }
}

/// The packets that come.
pub(super) struct Incoming(FramedRead<ReadHalf<Channel>, Codec>);

/// The packets that go.
pub(super) struct Outgoing(FramedWrite<WriteHalf<Channel>, Codec>);

/// A channel as packets.
pub(super) fn packets(channel: Channel) -> (Incoming, Outgoing) {
    let (read, write) = tokio::io::split(channel);
    let mut outgoing = FramedWrite::new(write, Codec);
    // Each packet goes at once: a person waits for it, or it is large.
    outgoing.set_backpressure_boundary(1);
    (Incoming(FramedRead::new(read, Codec)), Outgoing(outgoing))
}

impl Incoming {
    /// The next one; `None` at the end. May be dropped while it waits.
    ///
    /// # Errors
    /// Where the channel breaks, or what comes is no packet.
    pub(super) async fn next(&mut self) -> io::Result<Option<Packet>> {
        self.0.next().await.transpose()
    }

    /// The next one, which is to be a message.
    ///
    /// # Errors
    /// As [`Incoming::next`]; `UnexpectedEof` at the end.
    pub(super) async fn message<M: DeserializeOwned>(&mut self) -> io::Result<M> {
        let packet = self.next().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        packet.message()
    }
}

impl Packet {
    /// What it says.
    ///
    /// # Errors
    /// `InvalidData` where it is no message of this kind.
    pub(super) fn message<M: DeserializeOwned>(&self) -> io::Result<M> {
        match self.kind {
            Kind::Message => Ok(serde_json::from_slice(&self.bytes)?),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl Outgoing {
    /// Says something.
    ///
    /// # Errors
    /// Where the channel breaks.
    pub(super) async fn say<M: Serialize>(&mut self, message: &M) -> io::Result<()> {
        self.send(Kind::Message, serde_json::to_vec(message)?.into()).await
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// Where the channel breaks.
    pub(super) async fn send(&mut self, kind: Kind, bytes: Bytes) -> io::Result<()> {
        self.0.send(Packet { kind, bytes }).await
    }

    /// Nothing more goes.
    ///
    /// # Errors
    /// Where the channel breaks.
    pub(super) async fn close(&mut self) -> io::Result<()> {
        self.0.get_mut().shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_out_as_they_went_in_however_they_are_cut() {
        let mut sent = BytesMut::new();
        let all = [
            (Kind::Message, &b"{}"[..]),
            (Kind::Input, b""),
            (Kind::Output, &[7; 70_000]),
            (Kind::Errors, b"x"),
        ];
        for (kind, bytes) in all {
            Codec.encode(Packet { kind, bytes: Bytes::from_static(bytes) }, &mut sent).unwrap();
        }
        for cut in [1, 3, 4096, sent.len()] {
            let (mut come, mut got) = (BytesMut::new(), Vec::new());
            for piece in sent.chunks(cut) {
                come.extend_from_slice(piece);
                while let Some(Packet { kind, bytes }) = Codec.decode(&mut come).unwrap() {
                    got.push((kind, bytes));
                }
            }
            assert!(got.iter().map(|(kind, bytes)| (*kind, &bytes[..])).eq(all), "{cut}");
        }
    }

    #[test]
    fn what_is_no_packet_is_refused_before_memory_is_taken_for_it() {
        let mut long = BytesMut::from(&[0, 0xff, 0xff, 0xff, 0xff][..]);
        assert!(Codec.decode(&mut long).is_err());
        let mut strange = BytesMut::from(&[9, 0, 0, 0, 1, 0][..]);
        assert!(Codec.decode(&mut strange).is_err());
        let mut begun = BytesMut::from(&[0, 0, 0x7f, 0, 0][..]);
        assert!(Codec.decode(&mut begun).unwrap().is_none());
        assert!(begun.capacity() < 2 * PIECE + 64, "{}", begun.capacity());
    }
}
