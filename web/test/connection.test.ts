import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { PIECE, WINDOW } from '../src/input';
import { attached, bytes, connect } from './helpers';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe('input', () => {
  test('is numbered, and sent once as long as the connection holds', () => {
    const { connection, begin } = connect();
    const socket = begin();
    connection.type(bytes('ls'));
    connection.type(bytes(' -l\r'));
    socket.say({ type: 'taken', at: 2 });
    connection.type(bytes('x'));
    expect(socket.input).toEqual([[0, 'ls'], [2, ' -l\r'], [6, 'x']]);
    expect(connection.waiting).toBe(5);
  });

  test('is not sent before the gateway has attached the page', () => {
    const { connection, socket, begin } = connect();
    connection.type(bytes('early'));
    socket().onopen?.();
    expect(socket().input).toEqual([]);
    begin();
    expect(socket().input).toEqual([[0, 'early']]);
  });

  test('is sent again from where it was taken, when the connection comes back', () => {
    const { connection, sockets, begin } = connect();
    const first = begin();
    connection.type(bytes('abcdef'));
    first.say({ type: 'taken', at: 2 });
    first.onclose?.();
    connection.type(bytes('gh'));
    vi.advanceTimersByTime(500);
    expect(sockets).toHaveLength(2);
    const second = begin({ taken: 4, reset: false });
    expect(second.input).toEqual([[4, 'efgh']]);
    expect(second.last('attach')?.client).toBe(first.last('attach')?.client);
  });

  test('of a large paste has a window, and is cut into messages', () => {
    const { connection, begin } = connect();
    const socket = begin();
    connection.type(new Uint8Array(3 * WINDOW).fill(97));
    const sent = () => socket.input.reduce((sum, [, part]) => sum + part.length, 0);
    expect(sent()).toBe(WINDOW);
    expect(Math.max(...socket.input.map(([, part]) => part.length))).toBe(PIECE);
    socket.say({ type: 'taken', at: PIECE + 1 });
    expect(sent()).toBe(WINDOW + PIECE + 1);
    let at = 0;
    for (const [from, part] of socket.input) {
      expect(from).toBe(at);
      at += part.length;
    }
  });

  test('that may have arrived is given up rather than typed twice', () => {
    const { connection, begin, handler, sockets } = connect();
    const first = begin();
    connection.type(bytes('abc'));
    first.say({ type: 'taken', at: 3 });
    connection.type(bytes('rm x\r'));
    first.onclose?.();
    vi.advanceTimersByTime(500);
    const second = begin({ taken: 0 }); // it does not know the page any more
    expect(handler.lost).toHaveBeenCalledWith(5);
    expect(second.closed).toBe(true);
    vi.advanceTimersByTime(5_000);
    expect(sockets).toHaveLength(3);
    const third = begin({ taken: 0 });
    expect(third.last('attach')?.client).not.toBe(first.last('attach')?.client);
    expect(third.input).toEqual([]);
  });

  test('has an end to what can wait', () => {
    const { connection } = connect();
    expect(connection.type(new Uint8Array(8 << 20))).toBe(true);
    expect(connection.type(bytes('x'))).toBe(false);
  });
});

describe('output', () => {
  test('is asked for from where it was received, and shown once', () => {
    const { begin, output, handler } = connect();
    const first = begin();
    expect(first.last('attach')).toMatchObject({ terminal: null, have: null, new: false });
    first.put(0, 'hello ');
    first.put(6, 'wor');
    first.onclose?.();
    vi.advanceTimersByTime(500);
    const second = begin({ reset: false, from: 6, replay: 9 });
    expect(second.last('attach')).toMatchObject({ terminal: 1, have: 9 });
    second.put(6, 'world');
    expect(output).toEqual([[0, 'hello ', 0], [6, 'wor', 0], [9, 'ld', 9]]);
    expect(handler.cleared).toHaveBeenCalledTimes(1);
  });

  test('with a gap is not shown: the connection begins anew', () => {
    const { begin, output, sockets } = connect();
    begin().put(5, 'late');
    expect(output).toEqual([]);
    expect(sockets).toHaveLength(2);
    expect(sockets[0]?.closed).toBe(true);
  });

  test('that was outrun goes on elsewhere', () => {
    const { begin, output, handler } = connect();
    const socket = begin();
    socket.put(0, 'old');
    socket.say({ type: 'skip', from: 1000, replay: 1010 });
    socket.put(1000, 'new');
    expect(handler.cleared).toHaveBeenCalledTimes(2);
    expect(output.at(-1)).toEqual([1000, 'new', 1010]);
  });

  test('is acknowledged once it is on the screen, and not byte by byte', () => {
    const { connection, begin } = connect();
    const socket = begin();
    socket.put(0, 'x'.repeat(100));
    expect(socket.last('ack')).toBeUndefined();
    connection.shown(40, false);
    expect(socket.last('ack')).toBeUndefined();
    connection.shown(100, true);
    expect(socket.last('ack')).toEqual({ type: 'ack', at: 100 });
    connection.shown(100 + (16 << 10), false);
    expect(socket.last('ack')).toEqual({ type: 'ack', at: 100 + (16 << 10) });
  });

  test('of another terminal does not join on', () => {
    const { connection, begin, handler } = connect();
    begin().put(0, 'one');
    connection.attach(2, false);
    const socket = begin({ terminal: 2, reset: false, from: 3 });
    expect(socket.last('attach')).toMatchObject({ terminal: 2, have: null });
    expect(handler.cleared).toHaveBeenCalledTimes(2);
  });
});

describe('a connection', () => {
  test('is tried again, later each time, and for ever', () => {
    const { socket, sockets, states } = connect();
    for (const wait of [500, 1000, 2000, 4000, 8000, 15000, 15000]) {
      const before = sockets.length;
      socket().onclose?.();
      expect(states.at(-1)).toEqual({ is: 'waiting', until: Date.now() + wait, signedIn: true });
      vi.advanceTimersByTime(wait - 1);
      expect(sockets).toHaveLength(before);
      vi.advanceTimersByTime(1);
      expect(sockets).toHaveLength(before + 1);
    }
  });

  test('is tried at once when the network or the person comes back', () => {
    const { connection, socket, sockets } = connect();
    socket().onclose?.();
    connection.hurry();
    expect(sockets).toHaveLength(2);
    vi.advanceTimersByTime(1_000); // the other try does not come as well
    expect(sockets).toHaveLength(2);
  });

  test('that is refused or ended is not tried again', () => {
    for (const last of [{ type: 'refused', why: 'The visit is over.' }, { type: 'ended', summary: 'exit 0' }] as const) {
      const { connection, begin, sockets, states } = connect();
      const socket = begin();
      socket.say(last);
      socket.onclose?.();
      connection.hurry();
      vi.advanceTimersByTime(60_000);
      expect(sockets).toHaveLength(1);
      expect(states.at(-1)?.is).toBe(last.type);
      expect(connection.type(bytes('x'))).toBe(false);
    }
  });

  test('that never becomes one is given up', () => {
    const { socket, sockets } = connect();
    socket().onopen?.();
    vi.advanceTimersByTime(16_000);
    expect(sockets[0]?.closed).toBe(true);
    vi.advanceTimersByTime(1_000);
    expect(sockets).toHaveLength(2);
  });

  test('without a word is asked for one, and left when it has none', () => {
    const { begin, sockets } = connect();
    const socket = begin();
    expect(socket.frames).toMatchObject([{ at: 0 }]); // whether it answers at all
    socket.say({ type: 'taken', at: 0 });
    vi.advanceTimersByTime(16_000);
    expect(socket.frames).toHaveLength(2);
    vi.advanceTimersByTime(12_000);
    expect(socket.closed).toBe(true);
    expect(sockets).toHaveLength(2);
  });

  test('that answers stays', () => {
    const { begin, sockets } = connect();
    const socket = begin();
    for (let minute = 0; minute < 5; minute += 1) {
      const asked = socket.frames.length;
      socket.say({ type: 'taken', at: 0 });
      vi.advanceTimersByTime(20_000);
      expect(socket.frames.length).toBe(asked + 1);
    }
    expect(sockets).toHaveLength(1);
  });

  test('is not left for its silence where it never answers', () => {
    const { begin, sockets } = connect();
    begin({ access: 'view' });
    vi.advanceTimersByTime(300_000);
    expect(sockets).toHaveLength(1);
  });

  test('that died while the laptop slept is found out soon', () => {
    const { connection, begin, sockets } = connect();
    begin().say({ type: 'taken', at: 0 });
    connection.hurry();
    vi.advanceTimersByTime(6_000);
    expect(sockets).toHaveLength(2);
  });

  test('that is not let in says so, and goes on trying', async () => {
    const { socket, sockets, states } = connect(false);
    socket().onclose?.();
    await vi.advanceTimersByTimeAsync(1);
    expect(states.at(-1)).toMatchObject({ is: 'waiting', signedIn: false });
    vi.advanceTimersByTime(1_000);
    expect(sockets).toHaveLength(2);
    socket().onclose?.(); // as long as nothing else is known, it is not said to be otherwise
    expect(states.at(-1)).toMatchObject({ is: 'waiting', signedIn: false });
  });

  test('tells its size when it has changed, once', () => {
    const { connection, begin } = connect();
    const socket = begin();
    connection.resized({ cols: 100, rows: 30 });
    connection.resized({ cols: 100, rows: 30 });
    expect(socket.messages.filter((message) => message.type === 'resize')).toHaveLength(1);
  });

  test('ignores what it does not know', () => {
    const { begin, handler, sockets } = connect();
    const socket = begin();
    for (const data of ['', '[]', 'null', '{"type":1}', '{', new ArrayBuffer(0), 7]) socket.onmessage?.({ data });
    socket.say(attached());
    expect(handler.message).not.toHaveBeenCalled();
    expect(sockets.length).toBeLessThanOrEqual(2);
  });
});
