//! Large answers whose bytes are counted, and not decrypted.
//!
//! A client that decrypts what a proxy encrypts has as much to do as the proxy, and then its speed is what is measured. So one
//! connection's answers are read and checked as all others are; of the rest it is seen that as much came, by the lengths of
//! TLS's records (RFC 8446 §5.2).

use std::io::{self, Write};

use proxy_bench::Result;
use rustls::ClientConnection;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// How much is read at once.
const READ: usize = 256 * 1024;

/// A connection at rest whose next answers are as long as its last.
pub(crate) struct Counter {
    tcp: TcpStream,
    tls: ClientConnection,
    records: Records,
    answer: usize,
    buffer: Box<[u8]>,
}

impl Counter {
    /// `answer` is how many bytes an answer has, its head included.
    pub(crate) fn new(stream: TlsStream<BufReader<TcpStream>>, answer: usize) -> Result<Self> {
        let (tcp, tls) = stream.into_inner();
        if !tcp.buffer().is_empty() {
            return Err("more came than was asked for".into());
        }
        let buffer = vec![0; READ].into_boxed_slice();
        Ok(Self { tcp: tcp.into_inner(), tls, records: Records::default(), answer, buffer })
    }

    /// Sends `message`, and waits for its answer.
    pub(crate) async fn once(&mut self, message: &[u8]) -> Result<()> {
        self.tls.writer().write_all(message)?;
        let mut records = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut records)?;
        }
        self.tcp.write_all(&records).await?;
        let mut left = self.answer;
        while left > 0 || !self.records.at_end() {
            let came = match self.tcp.read(&mut self.buffer).await? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                came => self.records.content(&self.buffer[..came])?,
            };
            left = left.checked_sub(came).ok_or("more bytes than the answer has")?;
        }
        Ok(())
    }
}

/// Where one record ends and the next begins.
#[derive(Default)]
struct Records {
    header: [u8; 5],
    have: usize,
    /// Of the record whose header was read last, what has not come yet.
    rest: usize,
}

/// The type of what is encrypted, and the tag.
const BESIDES: usize = 1 + 16;

impl Records {
    /// How many bytes of content there are in the records that begin in `bytes`.
    fn content(&mut self, mut bytes: &[u8]) -> Result<usize> {
        let mut sum = 0;
        while !bytes.is_empty() {
            if self.rest > 0 {
                let passed = self.rest.min(bytes.len());
                self.rest -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            self.header[self.have] = bytes[0];
            self.have += 1;
            bytes = &bytes[1..];
            if self.have == self.header.len() {
                let [23, 3, 3, high, low] = self.header else { return Err("not a record of data".into()) };
                self.rest = usize::from(u16::from_be_bytes([high, low]));
                self.have = 0;
                sum += self.rest.checked_sub(BESIDES).ok_or("a record without content")?;
            }
        }
        Ok(sum)
    }

    fn at_end(&self) -> bool {
        self.have == 0 && self.rest == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(length: usize) -> Vec<u8> {
        let whole = u16::try_from(length + BESIDES).unwrap();
        [&[23, 3, 3][..], &whole.to_be_bytes(), &vec![7; length + BESIDES]].concat()
    }

    #[test]
    fn content_is_counted_however_it_is_cut() {
        let bytes = [record(1), record(16_384), record(300)].concat();
        for step in [1, 2, 5, 17, 1000, bytes.len()] {
            let mut records = Records::default();
            let sum: usize = bytes.chunks(step).map(|part| records.content(part).unwrap()).sum();
            assert_eq!((sum, records.at_end()), (1 + 16_384 + 300, true), "in steps of {step}");
        }
        let mut records = Records::default();
        records.content(&bytes[..bytes.len() - 1]).unwrap();
        assert!(!records.at_end());
    }

    #[test]
    fn what_is_not_data_is_an_error() {
        assert!(Records::default().content(&[21, 3, 3, 0, 19]).is_err());
        assert!(Records::default().content(&[23, 3, 3, 0, 16]).is_err());
    }
}
