//! A picture of one screen on another: as much of it as fits, around the cursor, above a line of our own.

use crate::words::Size;

/// Makes a terminal ready for pictures: another screen, which is cleared.
pub(super) const READY: &str = "\x1b[?1049h\x1b[0m\x1b[2J\x1b[H";
/// Puts it back as it was.
pub(super) const LEAVE: &str = "\x1b[?1l\x1b>\x1b[?2004l\x1b[0m\x1b[?25h\x1b[?1049l";

/// What is on somebody's terminal.
pub(super) struct Picture {
    size: Size,
    rows: Vec<String>,
    /// How his keys and pastes are to be sent, as the program that he types to has asked for.
    modes: String,
}

impl Picture {
    pub(super) fn new(size: Size) -> Self {
        Self { size, rows: Vec::new(), modes: String::new() }
    }

    pub(super) fn resize(&mut self, size: Size) {
        // All of it is drawn anew: nobody knows what his terminal has made of it.
        *self = Self::new(size);
    }

    /// What changes his terminal into a picture of `screen`, with `status` below it. With `types`, his keys are sent as
    /// its program wants them.
    pub(super) fn draw(&mut self, screen: &vt100::Screen, status: &str, types: bool) -> String {
        let (height, width) = (self.size.rows().saturating_sub(1), self.size.cols());
        let (rows, cols) = screen.size();
        let (row, col) = screen.cursor_position();
        let top = start(row, rows.get(), height);
        let left = start(col, cols.get(), width);
        let seen = screen.rows_formatted(left, width).skip(top.into()).take(height.into());
        let mut wanted: Vec<String> = seen.collect();
        wanted.resize(height.into(), String::new());
        wanted.push(format!("\x1b[7m{}", fitted(status, width)));

        let mut out = String::new();
        if self.rows.len() != wanted.len() {
            self.rows = vec!["?".to_owned(); wanted.len()];
            out += "\x1b[0m\x1b[2J";
        }
        for (n, (old, new)) in self.rows.iter().zip(&wanted).enumerate() {
            if old != new {
                out += &format!("\x1b[{};1H\x1b[0m\x1b[2K{new}", n + 1);
            }
        }
        self.rows = wanted;
        let modes = if types { modes(screen) } else { String::new() };
        if modes != self.modes {
            out += &modes;
            self.modes = modes;
        }
        let place = format!("\x1b[0m\x1b[{};{}H", row - top + 1, col - left + 1);
        let cursor = if screen.hide_cursor() { "\x1b[?25l" } else { "\x1b[?25h" };
        // Not seen while it runs about.
        format!("\x1b[?25l{out}{place}{cursor}")
    }
}

/// Where to begin so that `at`, of `all`, is among the `most` that fit.
fn start(at: u16, all: u16, most: u16) -> u16 {
    if all <= most { 0 } else { (at + 1).saturating_sub(most) }
}

fn modes(screen: &vt100::Screen) -> String {
    let switch = |on: bool, name: &str| format!("\x1b[?{name}{}", if on { 'h' } else { 'l' });
    let keypad = if screen.application_keypad() { "\x1b=" } else { "\x1b>" };
    format!(
        "{}{keypad}{}",
        switch(screen.application_cursor(), "1"),
        switch(screen.bracketed_paste(), "2004")
    )
}

/// A line of exactly this many characters.
fn fitted(text: &str, width: u16) -> String {
    let width = usize::from(width);
    let mut line: String = text.chars().take(width).collect();
    line.extend(std::iter::repeat_n(' ', width.saturating_sub(line.chars().count())));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(cols: u16, rows: u16, text: &str) -> vt100::Parser {
        let mut parser = vt100::Parser::new(rows.try_into().unwrap(), cols.try_into().unwrap(), 0);
        parser.process(text.as_bytes());
        parser
    }

    /// What somebody sees whose terminal is of this size.
    struct Guest {
        picture: Picture,
        terminal: vt100::Parser,
    }

    impl Guest {
        fn new(cols: u16, rows: u16) -> Self {
            Self {
                picture: Picture::new(Size::near(cols.into(), rows.into())),
                terminal: screen(cols, rows, READY),
            }
        }

        fn sees(&mut self, owner: &vt100::Parser) -> String {
            let frame = self.picture.draw(owner.screen(), "status", true);
            self.terminal.process(frame.as_bytes());
            self.terminal.screen().contents()
        }
    }

    #[test]
    fn the_picture_is_the_screen_and_a_line_below_it() {
        let mut owner = screen(20, 5, "one\r\n\x1b[31mtwo\x1b[0m wide 漢字\r\n$ ");
        let mut guest = Guest::new(30, 10);
        let seen = guest.sees(&owner);
        assert!(seen.starts_with("one\ntwo wide 漢字\n$"), "{seen:?}");
        assert!(seen.trim_end().ends_with("status"), "{seen:?}");
        assert_eq!(guest.terminal.screen().cursor_position(), (2, 2));
        assert_eq!(guest.terminal.screen().cell(1, 0).unwrap().fgcolor(), vt100::Color::Idx(1));
        owner.process(b"ls\x1b[?2004h\x1b[?1h");
        let seen = guest.sees(&owner);
        assert!(seen.contains("\n$ ls"), "{seen:?}");
        assert!(guest.terminal.screen().bracketed_paste() && guest.terminal.screen().application_cursor());
        owner.process(b"\x1b[2J\x1b[Hnew");
        assert!(guest.sees(&owner).starts_with("new\n"));
    }

    #[test]
    fn a_small_window_shows_what_is_around_the_cursor() {
        let text: String =
            (1..=40).map(|n| format!("line {n:02} ---------------------------------- end\r\n")).collect();
        let owner = screen(100, 60, &format!("{text}$ here"));
        let mut guest = Guest::new(12, 5);
        let seen = guest.sees(&owner);
        assert!(seen.contains("line 40") && seen.contains("$ here") && !seen.contains("line 36"), "{seen:?}");
        let far = screen(100, 60, &format!("{}!", " ".repeat(90)));
        assert!(guest.sees(&far).contains('!'));
        for (cols, rows) in [(2, 2), (500, 500), (2, 500)] {
            guest.picture.resize(Size::near(cols, rows));
            guest.picture.draw(owner.screen(), "status", false);
        }
    }

    /// Threat 10 and 37: what the owner's programs write to ask or to set something of a terminal does not reach a guest's.
    #[test]
    fn threat_10_no_question_and_no_title_reaches_a_guest() {
        let hostile = "\x1b[c\x1b[6n\x1b]2;title\x07\x1b]52;c;aGk=\x07\x1bP$q\"p\x1b\\\x1b[21t\x1b]8;;http://x\x07link\x1b]8;;\x07\
                       \x1b[?1000h\x1b#8\x05\x1b[>q";
        let owner = screen(40, 10, hostile);
        let mut picture = Picture::new(Size::near(40, 12));
        let frame = picture.draw(owner.screen(), "status", true);
        for forbidden in ["\x1b]", "\x1bP", "\x1b[c", "\x1b[6n", "t\x1b", "\x1b[?1000h", "\x05", "\x07"] {
            assert!(!frame.contains(forbidden), "{forbidden:?} in {frame:?}");
        }
    }
}
