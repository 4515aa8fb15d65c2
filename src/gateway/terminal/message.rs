//! What the terminal page and the gateway say to each other, over one WebSocket.
//!
//! ```text
//! page                                         gateway
//!   │ ── attach (client, terminal, have, size) ──►│
//!   │◄──────── attached (from, replay, taken, …) ─│
//!   │◄═ offset, output ═══════════════════════════│   binary
//!   │ ── ack (at) ───────────────────────────────►│   output up to there is on the screen
//!   │ ══ offset, input ══════════════════════════►│   binary
//!   │◄─────────────────────────── taken (at) ─────│   input up to there has reached the terminal
//!   │ ── resize, focus, … ──►     ◄── size, people, terminals, time, notice, ended ─│
//! ```
//! A text message is one of these enums in JSON. A binary message is an offset in the stream, of eight bytes, most
//! significant first, and the bytes that stand there. Both streams are numbered in bytes from the terminal's beginning
//! (output), or from the page's (input), so whoever comes back says what he has, and nothing is lost or comes twice.
//!
//! `web/src/messages.ts` is made from this file; a test fails where they differ.

use serde::{Deserialize, Serialize};

use crate::words::{Access, Size};

/// From the page.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(Serialize, ts_rs::TS))]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum FromPage {
    /// The first message of a connection.
    Attach {
        /// This page, for as long as it is open: random, of 16 to 64 characters of `[A-Za-z0-9_-]`. Input is counted for it.
        client: String,
        /// Which terminal; `null` for the one last used, which is made where there is none.
        terminal: Option<u32>,
        /// Make another one.
        new: bool,
        /// Output up to this offset is on the page's screen; `null` where the screen is empty.
        #[cfg_attr(test, ts(type = "number | null"))]
        have: Option<u64>,
        /// The page's own size.
        size: Size,
    },
    /// The page's own size has changed.
    Resize {
        /// To this.
        size: Size,
    },
    /// The person looks at this page: its size is the one that counts.
    Focus {},
    /// Output is on the screen.
    Ack {
        /// Up to this offset.
        #[cfg_attr(test, ts(type = "number"))]
        at: u64,
    },
    /// End a terminal, and what runs in it. The owner's alone.
    End {
        /// Which.
        terminal: u32,
    },
    /// End a guest's visit. The owner's alone.
    Revoke {
        /// Whose; `null` for all.
        guest: Option<String>,
    },
}

/// To the page.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(Deserialize, ts_rs::TS))]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(crate) enum ToPage {
    /// Answers `Attach`.
    Attached {
        /// Which terminal.
        terminal: u32,
        /// What this page may do.
        access: Access,
        /// The terminal's size, whosesoever it is.
        size: Size,
        /// Whether that is this page's own: only that page answers what programs ask of a terminal.
        leads: bool,
        /// Clear the screen: what is on it does not join on.
        reset: bool,
        /// The offset of the output that comes next.
        #[cfg_attr(test, ts(type = "number"))]
        from: u64,
        /// Output up to this offset was shown before: what it asks of a terminal has been answered.
        #[cfg_attr(test, ts(type = "number"))]
        replay: u64,
        /// Input of this page up to this offset has reached the terminal.
        #[cfg_attr(test, ts(type = "number"))]
        taken: u64,
    },
    /// The terminal's size has changed.
    Size {
        /// To this.
        size: Size,
        /// As in `Attached`.
        leads: bool,
    },
    /// What the program wrote has outrun this page: clear the screen, and go on at an offset.
    Skip {
        /// The offset of the output that comes next.
        #[cfg_attr(test, ts(type = "number"))]
        from: u64,
        /// As in `Attached`.
        #[cfg_attr(test, ts(type = "number"))]
        replay: u64,
    },
    /// Write this to the screen, after all output so far: it puts right what began in the middle. It has no offset.
    Redraw {
        /// Escape sequences and text.
        text: String,
    },
    /// Input has reached the terminal.
    Taken {
        /// Up to this offset.
        #[cfg_attr(test, ts(type = "number"))]
        at: u64,
    },
    /// The owner's terminals. To the owner's pages alone.
    Terminals {
        /// In the order in which they were made.
        terminals: Vec<TerminalSummary>,
    },
    /// Who is let in. To the owner's pages all of them, to a guest's only his own line.
    People {
        /// In the order in which they were let in.
        people: Vec<Person>,
    },
    /// How long the session may go on.
    Time {
        /// In seconds; `null` where nothing limits it.
        left: Option<u32>,
    },
    /// Something to tell a person.
    Notice {
        /// In a sentence.
        text: String,
    },
    /// The terminal is no more. The connection closes.
    Ended {
        /// How its program ended, in a sentence.
        summary: String,
    },
    /// This page may not, or not any more. The connection closes, and shall not be tried again.
    Refused {
        /// Why, in a sentence.
        why: String,
    },
}

/// One terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(Deserialize, ts_rs::TS))]
pub(crate) struct TerminalSummary {
    /// Its number.
    pub(crate) id: u32,
    /// The title that its program gave it, or what runs in it.
    pub(crate) title: String,
    /// Guests may see it.
    pub(crate) shared: bool,
}

/// Somebody who is let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(Deserialize, ts_rs::TS))]
pub(crate) struct Person {
    /// By which the owner names him in `Revoke`.
    pub(crate) guest: String,
    /// What he is called.
    pub(crate) name: String,
    /// What he may do.
    pub(crate) access: Access,
    /// Whether he is here at the moment.
    pub(crate) here: bool,
    /// How long he may stay, in seconds.
    pub(crate) seconds_left: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use ts_rs::{Config, TS};

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/web/src/messages.ts");

    fn declaration<T: TS>(config: &Config) -> String {
        let docs = T::docs().unwrap_or_default();
        format!("\n{docs}export {}\n", T::decl(config))
    }

    fn in_typescript() -> String {
        let config = Config::default();
        let head = "// Made from src/gateway/terminal/message.rs by `SHLOGIN_WRITE_MESSAGES=1 cargo test --lib messages`. Do not edit.\n";
        let types = [
            declaration::<Size>(&config),
            declaration::<Access>(&config),
            declaration::<TerminalSummary>(&config),
            declaration::<Person>(&config),
            declaration::<FromPage>(&config),
            declaration::<ToPage>(&config),
        ];
        // The generator leaves blanks at the ends of lines.
        let lines: Vec<&str> =
            types.iter().flat_map(|declared| declared.lines()).map(str::trim_end).collect();
        format!("{head}{}\n", lines.join("\n"))
    }

    #[test]
    fn the_page_and_the_gateway_have_the_same_messages() {
        let made = in_typescript();
        if std::env::var_os("SHLOGIN_WRITE_MESSAGES").is_some() {
            std::fs::write(FILE, &made).unwrap();
        }
        let kept = std::fs::read_to_string(FILE).unwrap_or_default();
        assert_eq!(kept, made, "run this test with SHLOGIN_WRITE_MESSAGES=1");
    }
}
