import { expect, test } from 'vitest';
import { OutputQueue } from '../src/queue';
import { bytes, text } from './helpers';

/** A terminal that is done when the test says so. */
class SlowWriter {
  written: string[] = [];
  done: (() => void) | undefined;
  write(part: Uint8Array, done: () => void): void {
    this.written.push(text(part));
    this.done = done;
  }
}

function slow() {
  const writer = new SlowWriter();
  const shown: [number, boolean][] = [];
  const queue = new OutputQueue(writer, (at, all) => shown.push([at, all]));
  return { writer, shown, queue };
}

test('one piece at a time is with the terminal, and said to be shown only then', () => {
  const { writer, shown, queue } = slow();
  queue.push(0, bytes('ab'), 0);
  queue.push(2, bytes('cd'), 0);
  expect(writer.written).toEqual(['ab']);
  expect(shown).toEqual([]);
  writer.done?.();
  expect(shown).toEqual([[2, false]]);
  writer.done?.();
  expect(shown).toEqual([[2, false], [4, true]]);
});

test('what was shown before is told from what is new, also within one message', () => {
  const { writer, queue } = slow();
  queue.push(10, bytes('oldnew'), 13);
  expect([writer.written.at(-1), queue.replaying]).toEqual(['old', true]);
  writer.done?.();
  expect([writer.written.at(-1), queue.replaying]).toEqual(['new', false]);
});

test('clearing throws away what waits, and nothing of before is said to be shown', () => {
  const { writer, shown, queue } = slow();
  queue.push(0, bytes('one'), 0);
  queue.push(3, bytes('two'), 0);
  queue.clear();
  queue.push(50, bytes('x'), 0);
  writer.done?.(); // of `one`
  expect(writer.written[1]).toContain('\x1bc');
  writer.done?.();
  expect(writer.written[2]).toBe('x');
  writer.done?.();
  expect(shown).toEqual([[51, true]]);
});

test('what is written beside the stream comes in its turn, and does not count', () => {
  const { writer, shown, queue } = slow();
  queue.push(0, bytes('one'), 0);
  queue.aside(bytes('redrawn'));
  queue.push(3, bytes('two'), 0);
  writer.done?.();
  expect([writer.written.at(-1), queue.replaying]).toEqual(['redrawn', true]);
  writer.done?.();
  expect([writer.written.at(-1), queue.replaying]).toEqual(['two', false]);
  writer.done?.();
  expect(shown).toEqual([[3, false], [6, true]]);
});

test('a terminal that is done at once is no recursion', () => {
  const shown: number[] = [];
  const queue = new OutputQueue({ write: (_part, done) => done() }, (at) => shown.push(at));
  queue.push(0, new Uint8Array(20 << 20), 0);
  expect(shown.at(-1)).toBe(20 << 20);
});
