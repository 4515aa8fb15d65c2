//! What is known of one terminal: its output, its screen, who is there and how far he is. Decides, and does no I/O.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Attach, Began, ClientId, Event, Keep, Recording, Sight, emulator::Emulator, history::History, hold::Hold,
    relay::Input, typed::Typed,
};
use crate::{
    sys::process::Exit,
    words::{Access, Size},
};

/// The most that is handed out at once.
const PORTION: usize = 64 * 1024;
/// The most that somebody is told before he listens.
const NOTICES: usize = 16;

/// What an owner is told whose recording has ended before she ended it.
const RECORDED_NO_MORE: &str =
    "this terminal is recorded no more: the file cannot be written fast enough, or not at all";

pub(super) type SeatId = u64;

/// One terminal.
pub(super) struct State {
    history: History,
    screen: Emulator,
    label: String,
    size: Size,
    keep: Keep,
    seats: BTreeMap<SeatId, Seat>,
    last_seat: SeatId,
    /// Those who were sent away.
    expelled: BTreeSet<SeatId>,
    /// Whose size counts, and who answers what programs ask of a terminal.
    lead: Option<SeatId>,
    absent: VecDeque<(ClientId, Hold)>,
    typed: Typed,
    /// What the leading page has been sent: programs' questions in it have been answered, or never will be.
    answered: u64,
    last_used: Instant,
    /// Somebody who owns it was there.
    visited: bool,
    /// It is to be hung up, whoever is there.
    closing: bool,
    /// How its program ended; none where that is not known.
    ended: Option<Option<Exit>>,
    recording: Option<Recording>,
}

/// Somebody who is there.
struct Seat {
    access: Access,
    client: Option<ClientId>,
    who: String,
    /// The offset of what he is sent next.
    at: u64,
    hold: Hold,
    own_size: Option<Size>,
    /// The size that he knows, and whether it is his.
    told: (Size, bool),
    notices: VecDeque<String>,
    /// He began in the middle: his screen is put right when he has caught up.
    redraw: bool,
    /// He has heard of the end.
    over: bool,
}

/// So many connections that broke off are remembered.
const ABSENT: usize = 16;

impl State {
    pub(super) fn new(size: Size, keep: Keep, label: String) -> Self {
        Self {
            history: History::default(),
            screen: Emulator::new(size),
            label,
            size,
            keep,
            seats: BTreeMap::new(),
            last_seat: 0,
            expelled: BTreeSet::new(),
            lead: None,
            absent: VecDeque::new(),
            typed: Typed::default(),
            answered: 0,
            last_used: Instant::now(),
            visited: false,
            closing: false,
            ended: None,
            recording: None,
        }
    }

    /// Takes in of what the program has written as much as there is time for; the rest stays where it is.
    pub(super) fn output(&mut self, written: &mut Bytes, now: Instant) {
        for seat in self.seats.values_mut() {
            seat.hold.rest(self.history.end(), now);
        }
        let taken = self.screen.take(written);
        let bytes = written.split_to(taken);
        if let Some(recording) = &mut self.recording {
            recording.output(&bytes);
        }
        self.check_recording();
        self.history.push(bytes);
    }

    /// Until when its program is to be held back, if it is.
    pub(super) fn held(&mut self, now: Instant) -> Option<Instant> {
        self.absent.retain(|(_, hold)| !hold.is_over(now));
        let end = self.history.end();
        let owners = self.seats.values().filter(|seat| seat.access == Access::Owner).map(|seat| &seat.hold);
        owners.chain(self.absent.iter().map(|(_, hold)| hold)).filter_map(|hold| hold.holds(end, now)).min()
    }

    /// Whether it is to be hung up.
    pub(super) fn is_abandoned(&self) -> bool {
        let owned = self.seats.values().any(|seat| seat.access == Access::Owner);
        self.closing || self.keep == Keep::WhileAttached && self.visited && !owned
    }

    pub(super) fn close(&mut self) {
        self.closing = true;
    }

    pub(super) fn end(&mut self, exit: Option<Exit>) {
        self.ended.get_or_insert(exit);
        self.recording = None;
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    pub(super) fn size(&self) -> Size {
        self.size
    }

    pub(super) fn last_used(&self) -> Instant {
        self.last_used
    }

    pub(super) fn title(&self) -> String {
        let title = self.screen.title();
        if title.is_empty() { self.label.clone() } else { title.to_owned() }
    }

    pub(super) fn record(&mut self, recording: Option<Recording>) {
        self.recording = recording;
    }

    /// Tells the owner where nothing is recorded any more: she may have let somebody in because it is.
    fn check_recording(&mut self) {
        if self.recording.as_ref().is_some_and(Recording::has_failed) {
            self.recording = None;
            self.notify_owner(RECORDED_NO_MORE);
        }
    }

    pub(super) fn is_recorded(&self) -> bool {
        self.recording.is_some()
    }

    /// Gives somebody a seat. A guest begins with what is on the screen at that moment: what was shown before he was let in
    /// is not for him, whatever he says that he has.
    pub(super) fn seat(&mut self, attach: Attach, now: Instant) -> (SeatId, Began) {
        let Attach { access, client, who, have, size } = attach;
        // He is back, or has opened another connection.
        self.absent.retain(|(its, _)| Some(its) != client.as_ref());
        let owner = access == Access::Owner;
        let kept = self.history.start()..=self.history.end();
        let known = have.filter(|at| owner && kept.contains(at));
        let beginning = if owner { self.history.beginning() } else { self.history.end() };
        let from = known.unwrap_or(beginning);
        let replay = known.unwrap_or(self.answered.max(from));
        let taken = client.as_ref().map_or(0, |client| self.typed.taken(client));
        self.last_seat += 1;
        let id = self.last_seat;
        let hold = if client.is_some() { Hold::present(from, now) } else { Hold::unforgiving(from, now) };
        let seat = Seat {
            access,
            client,
            who,
            at: from,
            hold,
            own_size: size.filter(|_| access == Access::Owner),
            told: (self.size, false),
            notices: VecDeque::new(),
            redraw: known.is_none() && from > 0,
            over: false,
        };
        self.seats.insert(id, seat);
        if access == Access::Owner {
            self.visited = true;
            self.take_lead(id);
        }
        let leads = self.lead == Some(id);
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.told = (self.size, leads);
        }
        (id, Began { reset: known.is_none(), from, replay, taken, size: self.size, leads })
    }

    /// Whether who had this seat was sent away.
    pub(super) fn is_expelled(&self, id: SeatId) -> bool {
        self.expelled.contains(&id)
    }

    /// Sends somebody away: his seat is no good any more, nor is what he has typed and no program has read.
    pub(super) fn expel(&mut self, id: SeatId, now: Instant) {
        if self.seats.contains_key(&id) {
            self.leave(id, now);
            self.expelled.insert(id);
        }
    }

    /// Takes a seat away.
    pub(super) fn leave(&mut self, id: SeatId, now: Instant) {
        let Some(seat) = self.seats.remove(&id) else { return };
        if let (Access::Owner, Some(client)) = (seat.access, seat.client) {
            if self.absent.len() == ABSENT {
                self.absent.pop_front();
            }
            self.absent.push_back((client, seat.hold.absent(now)));
        }
        if self.lead == Some(id) {
            self.lead = None;
            let next = self.seats.iter().rev().find(|(_, seat)| seat.own_size.is_some()).map(|(id, _)| *id);
            if let Some(next) = next {
                self.take_lead(next);
            }
        }
    }

    /// Makes this window's size the one that counts. Only an owner's can.
    pub(super) fn take_lead(&mut self, id: SeatId) {
        let Some(size) = self.seats.get(&id).and_then(|seat| seat.own_size) else { return };
        self.lead = Some(id);
        self.last_used = Instant::now();
        self.set_size(size);
    }

    pub(super) fn resize(&mut self, id: SeatId, size: Size) {
        let Some(seat) = self.seats.get_mut(&id) else { return };
        if seat.access != Access::Owner {
            return;
        }
        seat.own_size = Some(size);
        if self.lead == Some(id) {
            self.set_size(size);
        } else if self.lead.is_none() {
            self.take_lead(id);
        }
    }

    fn set_size(&mut self, size: Size) {
        if size == self.size {
            return;
        }
        self.size = size;
        self.screen.resize(size);
        if let Some(recording) = &mut self.recording {
            recording.resize(size);
        }
    }

    /// Judges what somebody types: what of it is new, if he may. `at` is its offset in what his page has typed.
    pub(super) fn typed(&mut self, id: SeatId, at: Option<u64>, bytes: Bytes) -> Input {
        let Some(seat) = self.seats.get(&id).filter(|seat| seat.access >= Access::Type) else {
            return Input::default();
        };
        let seat_of_a_guest = (seat.access != Access::Owner).then_some(id);
        let new = match (at, &seat.client) {
            (Some(at), Some(client)) => self.typed.take(client, at, bytes),
            _ => bytes,
        };
        if let (Some(recording), false) = (&mut self.recording, new.is_empty()) {
            recording.input(&seat.who, &new);
        }
        if seat.access == Access::Owner {
            self.last_used = Instant::now();
            if self.lead != Some(id) {
                self.take_lead(id);
            }
        }
        self.check_recording();
        Input { guest: seat_of_a_guest, bytes: new }
    }

    /// How much of what this page has typed has been taken.
    pub(super) fn taken(&self, id: SeatId) -> u64 {
        let client = self.seats.get(&id).and_then(|seat| seat.client.as_ref());
        client.map_or(0, |client| self.typed.taken(client))
    }

    /// He has seen the output up to there.
    pub(super) fn shown(&mut self, id: SeatId, at: u64, now: Instant) {
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.hold.advance(at.min(seat.at), now);
        }
    }

    /// Tells the owner, wherever she looks at it.
    pub(super) fn notify_owner(&mut self, text: &str) {
        for seat in self.seats.values_mut().filter(|seat| seat.access == Access::Owner) {
            if seat.notices.len() < NOTICES {
                seat.notices.push_back(text.to_owned());
            }
        }
    }

    /// Passes over what this seat has not heard: it looks at the screen instead. Says whether there was anything, and whether
    /// it was the end.
    pub(super) fn pass_over(&mut self, id: SeatId) -> Option<Sight> {
        let (end, size) = (self.history.end(), (self.size, self.lead == Some(id)));
        let seat = self.seats.get_mut(&id)?;
        let changed = seat.at < end || seat.told != size || std::mem::take(&mut seat.redraw);
        (seat.at, seat.told) = (end, size);
        if changed {
            return Some(Sight::Changed);
        }
        let ended = self.ended.filter(|_| !seat.over)?;
        seat.over = true;
        Some(Sight::Ended(ended))
    }

    /// What is on the screen.
    pub(super) fn screen(&mut self) -> &vt100::Screen {
        self.screen.screen()
    }

    /// What this seat is to hear next. None for now.
    pub(super) fn next(&mut self, id: SeatId, now: Instant) -> Option<Event> {
        let (end, start) = (self.history.end(), self.history.start());
        let size = (self.size, self.lead == Some(id));
        let answered = self.answered;
        let seat = self.seats.get_mut(&id)?;
        if seat.told != size {
            seat.told = size;
            return Some(Event::Size { size: size.0, leads: size.1 });
        }
        if let Some(text) = seat.notices.pop_front() {
            return Some(Event::Notice(text));
        }
        if seat.at < start {
            let from = self.history.beginning();
            (seat.at, seat.redraw, seat.hold) = (from, true, Hold::present(from, now));
            return Some(Event::Skip { from, replay: answered.max(from) });
        }
        if seat.at < end {
            let (at, bytes) = (seat.at, self.history.read(seat.at, PORTION));
            seat.at += bytes.len() as u64;
            if size.1 {
                self.answered = answered.max(seat.at);
            }
            return Some(Event::Output { at, bytes });
        }
        if std::mem::take(&mut seat.redraw) {
            return Some(Event::Redraw(redraw(self.screen.screen())));
        }
        if let (Some(exit), false) = (self.ended, seat.over) {
            seat.over = true;
            return Some(Event::Ended(exit));
        }
        None
    }
}

/// What puts a screen right that has seen only the last part of the output.
fn redraw(screen: &vt100::Screen) -> String {
    let buffer = if screen.alternate_screen() { "\x1b[?1049h" } else { "\x1b[?1049l" };
    format!("\x1b[0m\x1b[r{buffer}{}", screen.state_formatted())
}
