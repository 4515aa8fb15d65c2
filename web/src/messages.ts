// Made from src/gateway/terminal/message.rs by `SHLOGIN_WRITE_MESSAGES=1 cargo test --lib messages`. Do not edit.

/**
 * In character cells, within [`Size::LEAST`] and [`Size::MOST`]: a stranger may ask for 0 or for 65,535 of them.
 */
export type Size = { cols: number, rows: number, };

/**
 * What somebody may do with a terminal, from least to most.
 */
export type Access = "view" | "type" | "owner";

/**
 * One terminal.
 */
export type TerminalSummary = {
/**
 * Its number.
 */
id: number,
/**
 * The title that its program gave it, or what runs in it.
 */
title: string,
/**
 * Guests may see it.
 */
shared: boolean, };

/**
 * Somebody who is let in.
 */
export type Person = {
/**
 * By which the owner names him in `Revoke`.
 */
guest: string,
/**
 * What he is called.
 */
name: string,
/**
 * What he may do.
 */
access: Access,
/**
 * Whether he is here at the moment.
 */
here: boolean,
/**
 * How long he may stay, in seconds.
 */
seconds_left: number, };

/**
 * From the page.
 */
export type FromPage = { "type": "attach",
/**
 * This page, for as long as it is open: random, of 16 to 64 characters of `[A-Za-z0-9_-]`. Input is counted for it.
 */
client: string,
/**
 * Which terminal; `null` for the one last used, which is made where there is none.
 */
terminal: number | null,
/**
 * Make another one.
 */
new: boolean,
/**
 * Output up to this offset is on the page's screen; `null` where the screen is empty.
 */
have: number | null,
/**
 * The page's own size.
 */
size: Size, } | { "type": "resize",
/**
 * To this.
 */
size: Size, } | { "type": "focus", } | { "type": "ack",
/**
 * Up to this offset.
 */
at: number, } | { "type": "end",
/**
 * Which.
 */
terminal: number, } | { "type": "revoke",
/**
 * Whose; `null` for all.
 */
guest: string | null, };

/**
 * To the page.
 */
export type ToPage = { "type": "attached",
/**
 * Which terminal.
 */
terminal: number,
/**
 * What this page may do.
 */
access: Access,
/**
 * The terminal's size, whosesoever it is.
 */
size: Size,
/**
 * Whether that is this page's own: only that page answers what programs ask of a terminal.
 */
leads: boolean,
/**
 * Clear the screen: what is on it does not join on.
 */
reset: boolean,
/**
 * The offset of the output that comes next.
 */
from: number,
/**
 * Output up to this offset was shown before: what it asks of a terminal has been answered.
 */
replay: number,
/**
 * Input of this page up to this offset has reached the terminal.
 */
taken: number, } | { "type": "size",
/**
 * To this.
 */
size: Size,
/**
 * As in `Attached`.
 */
leads: boolean, } | { "type": "skip",
/**
 * The offset of the output that comes next.
 */
from: number,
/**
 * As in `Attached`.
 */
replay: number, } | { "type": "redraw",
/**
 * Escape sequences and text.
 */
text: string, } | { "type": "taken",
/**
 * Up to this offset.
 */
at: number, } | { "type": "terminals",
/**
 * In the order in which they were made.
 */
terminals: Array<TerminalSummary>, } | { "type": "people",
/**
 * In the order in which they were let in.
 */
people: Array<Person>, } | { "type": "time",
/**
 * In seconds; `null` where nothing limits it.
 */
left: number | null, } | { "type": "notice",
/**
 * In a sentence.
 */
text: string, } | { "type": "ended",
/**
 * How its program ended, in a sentence.
 */
summary: string, } | { "type": "refused",
/**
 * Why, in a sentence.
 */
why: string, };
