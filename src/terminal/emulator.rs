//! The screen that a program's output makes, kept with `vt100`, within bounds of time and of memory: the output is a
//! stranger's. A few bytes can cost much (`CSI 65535 b` prints 65,535 characters, `ESC c` makes a screen of 500 by 500
//! anew), so it is taken in only for as long as others can wait; and a string without an end is not kept.
//!
//! Plain text, of which there is most, is put on the screen only when somebody looks, or something else follows: what has
//! scrolled away by then was never drawn.

use std::{
    num::NonZeroU16,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use crate::words::Size;

/// How long output is taken in at a time, but for the last piece.
const TURN: Duration = Duration::from_millis(4);
/// The longest piece that is taken in without a look at the clock. Each has one escape sequence at most.
const PIECE: usize = 4 * 1024;
/// The longest operating system command (`OSC`) that is listened to: of titles, far less is kept.
const STRING: usize = 8 * 1024;
/// So much plain text may wait to be drawn.
const PLAIN: usize = 64 * 1024;
/// The longest title that is kept, in characters.
const TITLE: usize = 200;

const ESCAPE: u8 = 0x1b;

/// A screen, and what puts output on it.
pub(super) struct Emulator {
    parser: vt100::Parser<Title>,
    size: Size,
    within: Within,
    /// What is still to be drawn: printable characters, tabs and line ends.
    plain: Vec<u8>,
    /// The program has set a scrolling region: below it, lines do not scroll away.
    margins: bool,
}

/// Where in the output the next byte stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    /// None of the others.
    Text,
    /// Behind an ESC.
    Escape,
    /// Behind an ESC and what is not its last byte.
    Intermediate,
    /// In a control sequence.
    Control,
    /// In a string that is none of an operating system command.
    Opaque,
    /// In an operating system command, of which so much has come.
    String(usize),
}

/// The title that a program gives its window.
#[derive(Default)]
struct Title(String);

impl vt100::Callbacks for Title {
    fn set_window_title(&mut self, _: &mut vt100::Screen, title: &[u8]) {
        let title = String::from_utf8_lossy(title);
        self.0 = title.chars().filter(|c| !c.is_control()).take(TITLE).collect();
    }
}

impl Emulator {
    /// An empty screen.
    pub(super) fn new(size: Size) -> Self {
        Self { parser: parser(size), size, within: Within::Text, plain: Vec::new(), margins: false }
    }

    /// Takes in as much of this output as there is time for, and says how much that is: some of it always.
    pub(super) fn take(&mut self, output: &[u8]) -> usize {
        let until = Instant::now() + TURN;
        let mut taken = 0;
        while let Some(rest) = output.get(taken..).filter(|rest| !rest.is_empty()) {
            let plain = self.plain_part(rest);
            if plain.is_empty() {
                self.draw();
                let piece = piece(rest);
                self.feed(piece);
                taken += piece.len();
            } else {
                self.plain.extend_from_slice(plain);
                taken += plain.len();
                if self.plain.len() >= PLAIN {
                    self.forget_what_scrolls_away();
                }
            }
            if Instant::now() >= until {
                break;
            }
        }
        taken
    }

    /// What comes first and is nothing but text, where it can wait.
    fn plain_part<'o>(&self, output: &'o [u8]) -> &'o [u8] {
        if self.within != Within::Text || self.margins {
            return &[];
        }
        let is_plain = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n');
        let len =
            output.iter().take(PIECE).position(|byte| !is_plain(byte)).unwrap_or(output.len().min(PIECE));
        output.get(..len).unwrap_or_default()
    }

    /// Draws what waits.
    fn draw(&mut self) {
        if !self.plain.is_empty() {
            self.forget_what_scrolls_away();
            let plain = std::mem::take(&mut self.plain);
            self.process(&plain);
            self.plain = plain;
            self.plain.clear();
        }
    }

    /// Lets go of the lines that are followed by two screens of others: nothing is left to be seen of them. From a line's
    /// beginning, for what stood before it decides on where it begins otherwise. What is left waits on, or, where there is
    /// no such beginning, is drawn.
    fn forget_what_scrolls_away(&mut self) {
        let follows = 2 * usize::from(self.size.rows());
        let ends = self.plain.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
        let kept = ends
            .skip(follows)
            .find(|at| at.checked_sub(1).and_then(|before| self.plain.get(before)) == Some(&b'\r'));
        if let Some(last) = kept {
            // In its place, for the cursor is still where the screen has it.
            self.plain.drain(..last);
            if let Some(first) = self.plain.first_mut() {
                *first = b'\r';
            }
        }
        if self.plain.len() >= PLAIN {
            let plain = std::mem::take(&mut self.plain);
            self.process(&plain);
        }
    }

    /// Takes in a piece, without what a string has too much of.
    fn feed(&mut self, piece: &[u8]) {
        let mut heard = 0;
        for (at, byte) in piece.iter().copied().enumerate() {
            self.within = match (self.within, byte) {
                (_, ESCAPE) => Within::Escape,
                // CAN and SUB end whatever it is.
                (_, 0x18 | 0x1a) => Within::Text,
                (Within::Text, _) => break,
                (Within::Escape, b']') => Within::String(0),
                (Within::Escape, b'[') => Within::Control,
                (Within::Escape, b'P' | b'X' | b'^' | b'_') => Within::Opaque,
                (Within::Escape | Within::Intermediate, 0x20..=0x2f) => Within::Intermediate,
                (Within::Intermediate, 0x30..=0x7e) => Within::Text,
                (Within::Control, last @ 0x40..=0x7e) => {
                    self.margins |= last == b'r';
                    Within::Text
                }
                (same @ (Within::Intermediate | Within::Control | Within::Opaque), _) => same,
                // The emulator passes over these there.
                (Within::Escape, 0..0x20 | 0x7f..) => Within::Escape,
                (Within::Escape, b'c') => {
                    self.margins = false;
                    Within::Text
                }
                (Within::Escape, _) | (Within::String(_), 0x07) => Within::Text,
                (Within::String(length), _) if length < STRING => Within::String(length + 1),
                (Within::String(_), _) => {
                    self.process(piece.get(heard..at).unwrap_or_default());
                    heard = at + 1;
                    continue;
                }
            };
        }
        self.process(piece.get(heard..).unwrap_or_default());
    }

    fn process(&mut self, bytes: &[u8]) {
        // Should they find a fault in the emulator, the screen it keeps is lost, and nothing else.
        if catch_unwind(AssertUnwindSafe(|| self.parser.process(bytes))).is_err() {
            self.parser = parser(self.size);
        }
    }

    pub(super) fn resize(&mut self, size: Size) {
        self.draw();
        self.size = size;
        let (rows, cols) = (cells(size.rows()), cells(size.cols()));
        if catch_unwind(AssertUnwindSafe(|| self.parser.set_size(rows, cols))).is_err() {
            self.parser = parser(size);
        }
    }

    /// What is on it.
    pub(super) fn screen(&mut self) -> &vt100::Screen {
        self.draw();
        self.parser.screen()
    }

    /// The title that the program gave it; empty where it gave none.
    pub(super) fn title(&self) -> &str {
        &self.parser.callbacks().0
    }
}

/// The first piece: up to the next escape sequence.
fn piece(output: &[u8]) -> &[u8] {
    let longest = output.get(..PIECE).unwrap_or(output);
    let next = longest.iter().skip(1).position(|byte| *byte == ESCAPE);
    next.map_or(longest, |next| longest.split_at(next + 1).0)
}

fn parser(size: Size) -> vt100::Parser<Title> {
    vt100::Parser::new_with_callbacks(cells(size.rows()), cells(size.cols()), 0, Title::default())
}

fn cells(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).unwrap_or(NonZeroU16::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(emulator: &mut Emulator, mut output: &[u8]) -> u32 {
        let mut turns = 0;
        while !output.is_empty() {
            let taken = emulator.take(output);
            output = output.get(taken..).unwrap();
            turns += 1;
        }
        turns
    }

    /// Threat 39: a few bytes that cost much do not keep others from their turn.
    #[test]
    fn threat_39_costly_output_is_taken_in_turns() {
        for (size, costly) in [
            (Size::default(), "x\x1b[65535b"),
            (Size::near(500, 500), "\x1bc"),
            (Size::near(500, 500), "\x1b[2J"),
        ] {
            let mut emulator = Emulator::new(size);
            let output = costly.repeat(8);
            let begun = Instant::now();
            let turns = take_all(&mut emulator, output.as_bytes());
            let longest = begun.elapsed() / turns;
            // One piece, and what it takes until the clock is looked at: however slow this machine, no more than a few.
            assert!(turns >= 2 || begun.elapsed() < TURN * 2, "{costly:?}: {turns} turns of {longest:?}");
        }
    }

    /// Threat 39: a string without an end fills no memory, however it begins and however it comes.
    #[test]
    fn threat_39_a_string_without_end_is_not_kept() {
        for begin in ["\x1b]2;", "\x1b\x08]2;", "\x1b[1\x1b]2;", "\x1bP\x1b]2;", "\x1b]9;y\x1b]2;"] {
            for step in [1, 7, 4096] {
                let mut emulator = Emulator::new(Size::default());
                let output = format!("{begin}{}", "x".repeat(100 * 1024));
                for bytes in output.as_bytes().chunks(step) {
                    take_all(&mut emulator, bytes);
                }
                assert!(matches!(emulator.within, Within::String(STRING)), "{begin:?}");
                take_all(&mut emulator, b"\x07after\x1b]2;next\x1b\\.");
                assert_eq!(emulator.screen().contents(), "after.", "{begin:?}");
                assert_eq!(emulator.title(), "next");
            }
        }
    }

    #[test]
    fn nothing_else_is_left_out() {
        let output = "\x1b]2;a title\x07one\r\n\x1b[31mtwo\x1b[0m \x1bPq#\x1b\\漢\x1b(Bthree\x18".repeat(50);
        let mut whole = vt100::Parser::new(cells(24), cells(80), 0);
        whole.process(output.as_bytes());
        for step in [1, 2, 3, 100, 10_000] {
            let mut emulator = Emulator::new(Size::default());
            for bytes in output.as_bytes().chunks(step) {
                take_all(&mut emulator, bytes);
            }
            assert_eq!(emulator.screen().state_formatted(), whole.screen().state_formatted(), "{step}");
            assert_eq!(emulator.title(), "a title");
        }
    }

    /// Whatever is left out: what is on the screen is what would be there otherwise.
    #[test]
    fn nobody_sees_what_was_never_drawn() {
        let mut random = 3_u64;
        let mut next = |bound: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % bound
        };
        let odd: [&[u8]; 18] = [
            b"\x1b[31m",
            b"\x1b[0m",
            b"\x1b[2J\x1b[H",
            b"\x1b[5;3r",
            b"\x1b[2;7r",
            b"\x1bc",
            b"\x1b[?1049h",
            b"\x1b[?1049l",
            b"\x1b]2;t\x07",
            b"\x1bPq#1;2\x1b\\",
            b"\x1b(0",
            b"\x1b(B",
            b"\x1b[3",
            b"\x1b[?7l",
            b"\x08\x08",
            "\u{e9}\u{6f22}".as_bytes(),
            b"\x1b[10;4H",
            b"\x1b7\x1b[20;1H\x1b8",
        ];
        for round in 0..300_u16 {
            let size = Size::near(u32::from(5 + round % 70), u32::from(3 + round % 20));
            let mut emulator = Emulator::new(size);
            let mut whole = parser(size);
            for _ in 0..next(12) {
                let mut bytes = Vec::new();
                for _ in 0..next(if round % 3 == 0 { 2500 } else { 120 }) {
                    let text: Vec<u8> =
                        (0..next(90)).map(|_| b' ' + u8::try_from(next(95)).unwrap()).collect();
                    bytes.extend_from_slice(&text);
                    bytes.extend_from_slice(
                        [&b"\r\n"[..], b"\r\n", b"\r\n", b"\n", b"\r", b"\t"]
                            [usize::try_from(next(6)).unwrap()],
                    );
                    if next(200) == 0 {
                        bytes.extend_from_slice(odd[usize::try_from(next(18)).unwrap()]);
                    }
                }
                whole.process(&bytes);
                let step = usize::try_from(1 + next(9000)).unwrap();
                for part in bytes.chunks(step) {
                    take_all(&mut emulator, part);
                }
                if next(3) == 0 {
                    assert_eq!(
                        emulator.screen().state_formatted(),
                        whole.screen().state_formatted(),
                        "{round}"
                    );
                }
            }
            assert_eq!(emulator.screen().state_formatted(), whole.screen().state_formatted(), "{round}");
            assert_eq!(emulator.screen().cursor_position(), whole.screen().cursor_position(), "{round}");
        }
    }
}
