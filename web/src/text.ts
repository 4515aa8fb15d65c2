// Text as it may be shown or pasted, and numbers as people say them.

/** Control characters, and those that turn the direction of what follows. */
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;
/** What is in a pasted text and is no text: with ESC among it, it could end a bracketed paste and go on as keys. */
const CONTROLS = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]/g;

const LONGEST_TITLE = 200;

/** A program's title, on one line. */
export function title(text: string): string {
  return [...text.slice(0, 4 * LONGEST_TITLE).replace(UNSEEN, '')].slice(0, LONGEST_TITLE).join('').trim();
}

/** Text for the clipboard's way into a terminal. */
export function pasteable(text: string): string {
  return text.replace(CONTROLS, '');
}

export function count(number: number, what: string): string {
  return `${number.toLocaleString('en')} ${what}${number === 1 ? '' : 's'}`;
}

/** A time to go, in minutes, and in seconds for the last two. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.ceil(seconds));
  if (whole < 120) return count(whole, 'second');
  const minutes = Math.ceil(whole / 60);
  if (minutes < 120) return count(minutes, 'minute');
  return count(Math.round(minutes / 60), 'hour');
}
