//! Somebody's seat at a terminal: what he hears and what he may do.

use std::{ops::Deref, sync::Arc};

use bytes::Bytes;
use tokio::{sync::watch, time::Instant};

use super::{
    ClientId, TerminalId,
    answers::are_answers,
    relay::{Inner, Terminal},
    state::SeatId,
};
use crate::{
    sys::process::Exit,
    words::{Access, Size},
};

/// Who takes a seat.
pub struct Attach {
    /// What he may do, as whoever let him in has judged.
    pub access: Access,
    /// His page, where it counts what it types and may come back.
    pub client: Option<ClientId>,
    /// What a recording calls him.
    pub who: String,
    /// Output up to this offset is on his screen.
    pub have: Option<u64>,
    /// The size of his window; only an owner's matters.
    pub size: Option<Size>,
}

/// How a seat begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Began {
    /// What is on his screen does not join on: it is to be cleared.
    pub reset: bool,
    /// The offset of the output that comes first.
    pub from: u64,
    /// Questions in the output up to this offset have been answered.
    pub replay: u64,
    /// What his page has typed up to this offset has been taken.
    pub taken: u64,
    /// The terminal's size.
    pub size: Size,
    /// Whether that is his own.
    pub leads: bool,
}

/// What somebody at a terminal hears.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The program has written.
    Output {
        /// The offset of the first of these bytes.
        at: u64,
        /// At most 64 KiB.
        bytes: Bytes,
    },
    /// He was too slow, and what he has not seen is gone: his screen is to be cleared.
    Skip {
        /// As in [`Began`].
        from: u64,
        /// As in [`Began`].
        replay: u64,
    },
    /// What puts his screen right after he began in the middle; it is not part of the numbered output.
    Redraw(String),
    /// The size has changed.
    Size {
        /// To this.
        size: Size,
        /// Whether that is his own.
        leads: bool,
    },
    /// Something that the owner is to know.
    Notice(String),
    /// The program has ended, if it is known how. The last event.
    Ended(Option<Exit>),
}

/// What somebody sees who looks at the screen, and not at the output that makes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sight {
    /// It may look otherwise than before.
    Changed,
    /// The program has ended, if it is known how. The last sight.
    Ended(Option<Exit>),
}

/// A seat. Leaves when dropped.
pub struct Attachment {
    controls: Controls,
    news: watch::Receiver<()>,
    began: Began,
}

/// What somebody does in his seat, beside listening. After he has left it does nothing.
#[derive(Clone)]
pub struct Controls {
    inner: Arc<Inner>,
    seat: SeatId,
}

impl Attachment {
    pub(super) fn new(inner: Arc<Inner>, attach: Attach) -> Option<Self> {
        let news = inner.news.subscribe();
        let mut state = inner.state();
        if state.has_ended() {
            return None;
        }
        let (seat, began) = state.seat(attach, Instant::now());
        drop(state);
        // The size may be another one now, for others to see, and for the kernel to know.
        inner.stir();
        Some(Self { controls: Controls { inner, seat }, news, began })
    }

    /// What to do in it, for another task.
    pub fn controls(&self) -> Controls {
        self.controls.clone()
    }

    /// How it began.
    pub fn began(&self) -> Began {
        self.began
    }

    /// The terminal.
    pub fn terminal(&self) -> Terminal {
        Terminal(Arc::clone(&self.controls.inner))
    }

    /// Its number.
    pub fn id(&self) -> TerminalId {
        self.controls.inner.id
    }

    /// Waits for the next event. May be dropped while it waits without losing anything. After [`Event::Ended`] none comes.
    ///
    /// An owner who does not listen holds the program back for a while: see [`Controls::shown`].
    pub async fn next(&mut self) -> Event {
        loop {
            self.news.mark_unchanged();
            let Controls { inner, seat } = &self.controls;
            if let Some(event) = inner.state().next(*seat, Instant::now()) {
                return event;
            }
            // The sender lives in `inner`, as we do.
            let _ = self.news.changed().await;
        }
    }

    /// Waits until the screen has changed, for who has no use for all that the program wrote in between. May be dropped
    /// while it waits.
    pub async fn sight(&mut self) -> Sight {
        loop {
            self.news.mark_unchanged();
            let Controls { inner, seat } = &self.controls;
            if let Some(sight) = inner.state().pass_over(*seat) {
                return sight;
            }
            // The sender lives in `inner`, as we do.
            let _ = self.news.changed().await;
        }
    }

    /// Looks at the screen.
    pub fn look<T>(&self, look: impl FnOnce(&vt100::Screen) -> T) -> T {
        look(self.controls.inner.state().screen())
    }
}

impl Deref for Attachment {
    type Target = Controls;

    fn deref(&self) -> &Controls {
        &self.controls
    }
}

impl Controls {
    /// The output up to there is on his screen.
    pub fn shown(&self, at: u64) {
        self.inner.state().shown(self.seat, at, Instant::now());
        self.inner.progress.notify_one();
    }

    /// Types, and waits until the program can be given more. What a viewer types is dropped.
    pub async fn input(&self, bytes: Bytes) {
        self.type_in(None, bytes).await;
    }

    /// Types what stands at offset `at` of all that this page types, without what was taken already. Returns the offset up
    /// to which all has been.
    pub async fn numbered_input(&self, at: u64, bytes: Bytes) -> u64 {
        self.type_in(Some(at), bytes).await;
        self.inner.state().taken(self.seat)
    }

    async fn type_in(&self, at: Option<u64>, bytes: Bytes) {
        // A place first: what has been counted as taken must not be lost if this future is dropped.
        let Ok(place) = self.inner.input.reserve().await else { return };
        let input = self.inner.state().typed(self.seat, at, bytes);
        if !input.bytes.is_empty() {
            if !are_answers(&input.bytes) {
                self.inner.activity.typed();
            }
            place.send(input);
            self.inner.stir();
        }
    }

    /// His window has another size.
    pub fn resize(&self, size: Size) {
        self.inner.state().resize(self.seat, size);
        self.inner.stir();
    }

    /// Sends him away: he hears and types nothing any more, and what he has typed and no program has read goes with him.
    pub fn expel(&self) {
        self.inner.state().expel(self.seat, Instant::now());
        self.inner.stir();
    }

    /// He looks at it now: his window's size is the one that counts.
    pub fn focus(&self) {
        self.inner.state().take_lead(self.seat);
        self.inner.stir();
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let Controls { inner, seat } = &self.controls;
        inner.state().leave(*seat, Instant::now());
        inner.stir();
    }
}
