// What a terminal answers by itself. Programs ask a terminal what it is, where its cursor is, what its colours are, and it
// types the answer. With several pages on one terminal, only one may: the one that leads. And nothing is answered that
// was asked before this page came, for a shell would take the late answer for something that was typed.
//
// Some questions are never answered: whoever can write to a terminal must not be able to make it type what he likes.
import type { IFunctionIdentifier, Terminal } from '@xterm/xterm';

/** Device attributes, status and cursor, modes, version, window, keyboard. */
const QUESTIONS: readonly IFunctionIdentifier[] = [
  { final: 'c' },
  { prefix: '>', final: 'c' },
  { prefix: '=', final: 'c' },
  { final: 'n' },
  { prefix: '?', final: 'n' },
  { intermediates: '$', final: 'p' },
  { prefix: '?', intermediates: '$', final: 'p' },
  { prefix: '>', final: 'q' },
  { prefix: '?', final: 'u' },
  { prefix: '?', final: 'S' },
  { final: 'x' },
];

/** Colours: of the palette, of text, background, cursor and what there is beside them. */
const COLOURS = [4, 5, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19];

/** Window operations that report something; 20 and 21 report titles, which any program can set. */
const REPORTS = [11, 13, 14, 15, 16, 18, 19];
const TITLES = [20, 21];

/** What no key types, in case a question is asked in a way that is not listed. */
const ANSWER = /^\x1b(?:[P\]_^]|\[(?:[?>=][\d;]*\$?[a-zA-Z]|[IO]$|[\d;]*\$y))/;

/** Has `terminal` answer nothing while `silent` says so. */
export function muzzle(terminal: Terminal, silent: () => boolean): void {
  const { parser } = terminal;
  for (const question of QUESTIONS) parser.registerCsiHandler(question, silent);
  for (const colour of COLOURS) {
    parser.registerOscHandler(colour, (data) => data.split(';').includes('?') && silent());
  }
  parser.registerCsiHandler({ final: 't' }, ([operation]) => {
    const what = Array.isArray(operation) ? operation[0] : operation;
    return what !== undefined && (TITLES.includes(what) || (REPORTS.includes(what) && silent()));
  });
  parser.registerDcsHandler({ intermediates: '$', final: 'q' }, () => true);
  parser.registerDcsHandler({ intermediates: '+', final: 'q' }, () => true);
}

/** Whether the terminal itself said this, which no person can have typed. */
export function isAnswer(data: string): boolean {
  return ANSWER.test(data);
}
