import { expect, test } from 'vitest';
import { isAnswer } from '../src/answers';
import { decode, encode } from '../src/frames';
import { duration, pasteable, title } from '../src/text';

test('a title is one line of at most 200 characters, without what is not seen', () => {
  expect(title('vim \u202egpj.exe\u0007\n x')).toBe('vim gpj.exe x');
  expect(title('<img src=x>')).toBe('<img src=x>');
  expect([...title('😀'.repeat(300))]).toHaveLength(200);
});

test('what is pasted cannot end the paste', () => {
  expect(pasteable('a\x1b[201~; rm -rf ~\r\n\tb\u009b')).toBe('a[201~; rm -rf ~\r\n\tb');
});

test('what a terminal answers is told from what keys and mice say', () => {
  for (const answer of ['\x1b[?1;2c', '\x1b[>0;276;0c', '\x1b[I', '\x1b[O', '\x1b]11;rgb:0/0/0\x1b\\', '\x1bP1$r0m\x1b\\', '\x1b[?25;1$y', '\x1b[4;1$y']) {
    expect(isAnswer(answer), JSON.stringify(answer)).toBe(true);
  }
  for (const typed of ['a', '\x1b', '\x1b[A', '\x1bOA', '\x1b[1;2R', '\x1b[15~', '\x1b[<0;3;4M', '\x1b[M !!', '\x1b[200~x\x1b[201~', '\x1bx', '\x1b[Z']) {
    expect(isAnswer(typed), JSON.stringify(typed)).toBe(false);
  }
});

test('a frame comes out as it went in, also far from the beginning', () => {
  const frame = { at: 2 ** 40 + 5, bytes: Uint8Array.of(0, 255, 7) };
  expect(decode(encode(frame).buffer)).toEqual(frame);
  expect(decode(new ArrayBuffer(7))).toBeUndefined();
  expect(decode(new Uint8Array(8).fill(255).buffer)).toBeUndefined();
});

test('times are said as people say them', () => {
  expect([0, 1, 119, 120, 1800, 7200].map(duration)).toEqual(['0 seconds', '1 second', '119 seconds', '2 minutes', '30 minutes', '2 hours']);
});
