//! The talk over one connection, without the connection: bytes in, bytes out.

use std::{collections::VecDeque, io, task::Waker};

use bytes::{Buf, Bytes, BytesMut};

use super::{
    Broken, Misfit,
    frame::{Frame, HELLO, Hello, LONGEST},
    state::{Fate, Shared, State, wake},
};

/// What is made ready to be sent in advance.
const AHEAD: usize = 256 * 1024;

/// One end of the talk.
pub(crate) struct Session<'c> {
    shared: &'c Shared,
    met: &'c mut Option<u64>,
    me: u64,
    expects: Expects,
    begun: Begun,
    out: Out,
    parting: Parting,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expects {
    Hello,
    Frame,
    /// The rest of a frame's data.
    Data(u32),
}

/// Whether there is anything left to be carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Parting {
    NotYet,
    /// Once all is sent that is [ready](Session::out), this end has nothing more to say or to hear.
    Here,
    /// The other end is gone.
    There,
}

/// When the other end is told how far this one has got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tell {
    /// As soon as it might wait for it.
    Urgent,
    /// Now, whether or not there is any news.
    Now,
}

impl<'c> Session<'c> {
    /// Begins with a hello. `met` is the other end, once it has been met.
    pub(super) fn new(shared: &'c Shared, me: u64, met: &'c mut Option<u64>) -> Self {
        let mut out = Out::default();
        let hello = Hello { me, you: met.unwrap_or(0), progress: shared.lock().receiving.tell() };
        out.head(|bytes| hello.write(bytes));
        Self {
            shared,
            met,
            me,
            expects: Expects::Hello,
            begun: Begun { bytes: [0; LONGEST], length: 0 },
            out,
            parting: Parting::NotYet,
        }
    }

    /// Takes in what has come.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let shared = self.shared;
        let mut state = shared.lock();
        let before = (state.receiving.progress().received, state.sending.room());
        let taken = self.take_in(&mut state, bytes);
        let reader = if state.receiving.progress().received > before.0 { state.reader.take() } else { None };
        let writer = if state.sending.room() > before.1 { state.writer.take() } else { None };
        drop(state);
        wake(reader);
        wake(writer);
        if self.parting == Parting::There {
            shared.settle(Fate::Gone);
        }
        taken
    }

    fn take_in(&mut self, state: &mut State, mut rest: &[u8]) -> Result<(), Broken> {
        while !rest.is_empty() && self.parting != Parting::There {
            match self.expects {
                Expects::Hello => {
                    let read = |bytes: &[u8]| Ok(Hello::read(bytes)?.map(|hello| (hello, HELLO)));
                    let Some(hello) = self.begun.read(&mut rest, read)? else { break };
                    if self.met.is_some_and(|met| met != hello.me) || ![0, self.me].contains(&hello.you) {
                        return Err(Misfit::Stranger.into());
                    }
                    state.sending.resume(hello.progress)?;
                    *self.met = Some(hello.me);
                    self.expects = Expects::Frame;
                }
                Expects::Frame => {
                    let Some(frame) = self.begun.read(&mut rest, Frame::read)? else { break };
                    match frame {
                        Frame::Data(length) => {
                            check(state, length)?;
                            self.expects = Expects::Data(length);
                        }
                        Frame::Progress(progress) => state.sending.progress(progress)?,
                        Frame::End if state.receiving.has_ended() => {
                            return Err(Broken::Rules("a second end"));
                        }
                        Frame::End => state.receiving.end(),
                        Frame::Gone => self.parting = Parting::There,
                    }
                }
                Expects::Data(left) => {
                    let now = rest.len().min(left as usize);
                    state.receiving.receive(&rest[..now]);
                    rest = &rest[now..];
                    // No more than `left`.
                    let left = left - u32::try_from(now).unwrap_or(left);
                    self.expects = if left == 0 { Expects::Frame } else { Expects::Data(left) };
                }
            }
        }
        Ok(())
    }

    /// Makes ready what there is to say. Where that is nothing, `waker` is woken when there is.
    pub(crate) fn fill(&mut self, tell: Tell, waker: &Waker) {
        if self.expects == Expects::Hello || self.parting != Parting::NotYet {
            return;
        }
        let mut state = self.shared.lock();
        let mut writing = false;
        // Whoever has dropped the stream without an end is gone; after an end, once that has arrived.
        if state.left && (!state.sending.has_ended() || state.sending.has_arrived()) {
            if !(state.sending.has_arrived() && state.receiving.has_ended()) {
                self.out.head(|bytes| Frame::Gone.write(bytes));
                self.parting = Parting::Here;
                return;
            }
        } else {
            while self.out.length < AHEAD {
                let Some(piece) = state.sending.take() else { break };
                // A piece is a chunk at most.
                let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
                self.out.head(|bytes| Frame::Data(length).write(bytes));
                self.out.push(piece);
                writing = true;
            }
            if state.sending.take_end() {
                self.out.head(|bytes| Frame::End.write(bytes));
                writing = true;
            }
        }
        let news = writing && state.receiving.is_untold();
        if tell == Tell::Now || news || state.receiving.is_urgent() {
            let progress = state.receiving.tell();
            self.out.head(|bytes| Frame::Progress(progress).write(bytes));
        }
        if state.sending.has_arrived() && state.receiving.has_ended() {
            self.parting = Parting::Here;
        }
        if self.out.is_empty() && !state.carrier.as_ref().is_some_and(|known| known.will_wake(waker)) {
            state.carrier = Some(waker.clone());
        }
    }

    /// Whether there is news for the other end that can wait a little.
    pub(crate) fn is_untold(&self) -> bool {
        self.expects != Expects::Hello && self.shared.lock().receiving.is_untold()
    }

    /// What is ready to be sent.
    pub(crate) fn out(&mut self) -> &mut Out {
        &mut self.out
    }

    pub(crate) fn parting(&self) -> Parting {
        self.parting
    }
}

/// Whether so much data may come now.
fn check(state: &State, length: u32) -> Result<(), Broken> {
    if state.receiving.has_ended() {
        return Err(Broken::Rules("data after the end"));
    }
    if length == 0 {
        return Err(Broken::Rules("data of no length"));
    }
    if u64::from(length) > state.receiving.expected() {
        return Err(Broken::Rules("more data than was granted"));
    }
    Ok(())
}

/// The beginning of a hello or of a frame whose rest has not come.
struct Begun {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Begun {
    /// Reads one from what was kept and what has come, by what says how long it is. Where that is not all of it, it is kept.
    fn read<T>(
        &mut self,
        rest: &mut &[u8],
        read: impl Fn(&[u8]) -> Result<Option<(T, usize)>, Broken>,
    ) -> Result<Option<T>, Broken> {
        let before = self.length;
        if before == 0
            && let Some((head, length)) = read(rest)?
        {
            *rest = &rest[length..];
            return Ok(Some(head));
        }
        // Nothing is longer than there is room for.
        let more = rest.len().min(LONGEST - before);
        self.bytes[before..before + more].copy_from_slice(&rest[..more]);
        let all = &self.bytes[..before + more];
        let (head, taken) = match read(all)? {
            Some((head, length)) => (Some(head), length - before),
            None => (None, more),
        };
        self.length = if head.is_some() { 0 } else { before + more };
        *rest = &rest[taken..];
        Ok(head)
    }
}

/// Bytes that wait to be sent.
#[derive(Default)]
pub(crate) struct Out {
    queue: VecDeque<Bytes>,
    length: usize,
    heads: BytesMut,
}

impl Out {
    fn head(&mut self, write: impl FnOnce(&mut BytesMut)) {
        write(&mut self.heads);
        let head = self.heads.split().freeze();
        self.push(head);
    }

    fn push(&mut self, bytes: Bytes) {
        self.length += bytes.len();
        self.queue.push_back(bytes);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The first of what waits; how many slices of it.
    pub(crate) fn slices<'o>(&'o self, into: &mut [io::IoSlice<'o>]) -> usize {
        let mut count = 0;
        for (slice, bytes) in into.iter_mut().zip(&self.queue) {
            *slice = io::IoSlice::new(bytes);
            count += 1;
        }
        count
    }

    /// So much of it was sent.
    pub(crate) fn sent(&mut self, mut count: usize) {
        self.length -= count;
        while let Some(front) = self.queue.front_mut() {
            if count < front.len() {
                front.advance(count);
                break;
            }
            count -= front.len();
            self.queue.pop_front();
        }
    }
}
