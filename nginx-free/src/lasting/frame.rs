//! What goes over a connection: a hello, then frames. All numbers are big-endian; nothing here is longer than [`LONGEST`],
//! for the payload of data is not part of its frame's head.

use super::Broken;

/// The first bytes of a hello. The last of them is the version.
const MAGIC: [u8; 8] = *b"lasting\x01";

/// The first words of each end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hello {
    /// The sender's end.
    pub(crate) me: u64,
    /// The end that the sender has met, or 0.
    pub(crate) you: u64,
    pub(crate) progress: Progress,
}

/// How far an end has got.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Progress {
    /// Up to which byte it has received.
    pub(crate) received: u64,
    /// Up to which byte it may be sent.
    pub(crate) granted: u64,
}

/// What is said after the hello.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Frame {
    /// So many bytes of the stream follow.
    Data(u32),
    Progress(Progress),
    /// The sender writes nothing more.
    End,
    /// The sender neither reads nor writes any more.
    Gone,
}

/// The length of a hello.
pub(crate) const HELLO: usize = 40;

/// The longest of what is written and read here.
pub(crate) const LONGEST: usize = HELLO;

const DATA: u8 = 1;
const PROGRESS: u8 = 2;
const END: u8 = 3;
const GONE: u8 = 4;

impl Hello {
    pub(crate) fn write(&self, to: &mut impl Extend<u8>) {
        to.extend(MAGIC);
        for number in [self.me, self.you, self.progress.received, self.progress.granted] {
            to.extend(number.to_be_bytes());
        }
    }

    /// Reads one; `None` where more is needed.
    ///
    /// # Errors
    /// [`Broken::Foreign`] at the first byte that is of no hello.
    pub(crate) fn read(bytes: &[u8]) -> Result<Option<Self>, Broken> {
        let first = bytes.len().min(MAGIC.len());
        if bytes[..first] != MAGIC[..first] {
            return Err(Broken::Foreign);
        }
        let Some(bytes) = bytes.get(..HELLO) else { return Ok(None) };
        let progress = Progress { received: number(bytes, 24), granted: number(bytes, 32) };
        Ok(Some(Self { me: number(bytes, 8), you: number(bytes, 16), progress }))
    }
}

impl Frame {
    pub(crate) fn write(&self, to: &mut impl Extend<u8>) {
        match self {
            Self::Data(length) => {
                to.extend([DATA]);
                to.extend(length.to_be_bytes());
            }
            Self::Progress(progress) => {
                to.extend([PROGRESS]);
                to.extend(progress.received.to_be_bytes());
                to.extend(progress.granted.to_be_bytes());
            }
            Self::End => to.extend([END]),
            Self::Gone => to.extend([GONE]),
        }
    }

    /// Reads one, and how long it is; `None` where more is needed.
    ///
    /// # Errors
    /// [`Broken::Rules`] for one that there is not.
    pub(crate) fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, Broken> {
        let Some(kind) = bytes.first() else { return Ok(None) };
        let length = match *kind {
            DATA => 5,
            PROGRESS => 17,
            END | GONE => 1,
            _ => return Err(Broken::Rules("an unknown frame")),
        };
        let Some(bytes) = bytes.get(..length) else { return Ok(None) };
        let frame = match *kind {
            DATA => Self::Data(u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]])),
            PROGRESS => Self::Progress(Progress { received: number(bytes, 1), granted: number(bytes, 9) }),
            END => Self::End,
            _ => Self::Gone,
        };
        Ok(Some((frame, length)))
    }
}

/// The number that stands at `at`.
fn number(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRESS: Progress = Progress { received: 0x0102_0304_0506_0708, granted: u64::MAX - 1 };

    #[test]
    fn what_is_written_is_read_and_half_of_it_is_not() {
        let hello = Hello { me: 7, you: u64::MAX, progress: PROGRESS };
        let mut bytes = Vec::new();
        hello.write(&mut bytes);
        assert_eq!(bytes.len(), HELLO);
        assert_eq!(Hello::read(&bytes).unwrap(), Some(hello));
        for less in 0..HELLO {
            assert_eq!(Hello::read(&bytes[..less]).unwrap(), None);
        }
        for frame in [Frame::Data(65_536), Frame::Progress(PROGRESS), Frame::End, Frame::Gone] {
            let mut bytes = Vec::new();
            frame.write(&mut bytes);
            assert!(bytes.len() <= LONGEST);
            assert_eq!(Frame::read(&bytes).unwrap(), Some((frame, bytes.len())));
            for less in 0..bytes.len() {
                assert_eq!(Frame::read(&bytes[..less]).unwrap(), None);
            }
        }
    }

    #[test]
    fn what_is_something_else_is_refused_at_once() {
        for foreign in ["H", "GET / HTTP/1.1\r\n", "lasting\x02"] {
            assert!(matches!(Hello::read(foreign.as_bytes()), Err(Broken::Foreign)), "{foreign:?}");
        }
        for unknown in [0, 5, b'G', 255] {
            assert!(matches!(Frame::read(&[unknown]), Err(Broken::Rules(_))), "{unknown}");
        }
    }
}
