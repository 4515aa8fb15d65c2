// A WebSocket that a test holds the other end of, and the surroundings of a connection.
import { vi } from 'vitest';
import { Connection, type Socket, type State } from '../src/connection';
import { decode, encode, type Frame } from '../src/frames';
import type { FromPage, ToPage } from '../src/messages';

export class FakeSocket {
  binaryType = '';
  onopen: (() => void) | null = null;
  onclose: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  closed = false;
  readonly messages: FromPage[] = [];
  readonly frames: Frame[] = [];

  send(data: string | Uint8Array<ArrayBuffer>): void {
    if (typeof data === 'string') {
      this.messages.push(JSON.parse(data) as FromPage);
    } else {
      const frame = decode(data.buffer);
      if (frame === undefined) throw new Error('no frame');
      this.frames.push(frame);
    }
  }

  close(): void {
    this.closed = true;
  }

  say(message: ToPage): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }

  put(at: number, text: string): void {
    this.onmessage?.({ data: encode({ at, bytes: bytes(text) }).buffer });
  }

  /** What arrived as input, as text; those that only ask for an answer left out. */
  get input(): [number, string][] {
    return this.frames.filter((frame) => frame.bytes.length > 0).map((frame) => [frame.at, text(frame.bytes)]);
  }

  last<T extends FromPage['type']>(type: T): Extract<FromPage, { type: T }> | undefined {
    return this.messages.filter((message): message is Extract<FromPage, { type: T }> => message.type === type).at(-1);
  }
}

export const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
export const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

export const size = { cols: 80, rows: 24 };

export const attached = (more: Partial<Extract<ToPage, { type: 'attached' }>> = {}): ToPage => ({
  type: 'attached', terminal: 1, access: 'owner', size, leads: true, reset: true, from: 0, replay: 0, taken: 0, ...more,
});

/** A connection with everything it did; `attach` has been called, and its first socket is being opened. */
export function connect(signedIn: boolean | undefined = true) {
  const sockets: FakeSocket[] = [];
  const states: State[] = [];
  const output: [number, string, number][] = [];
  const handler = {
    size: () => size,
    state: (state: State) => void states.push(state),
    attached: vi.fn(),
    cleared: vi.fn(),
    output: (at: number, part: Uint8Array, replay: number) => void output.push([at, text(part), replay]),
    message: vi.fn(),
    lost: vi.fn(),
  };
  let clients = 0;
  const connection = new Connection({
    client: () => `client-${(clients += 1)}`,
    open: () => {
      const socket = new FakeSocket();
      sockets.push(socket);
      return socket as unknown as Socket;
    },
    signedIn: () => Promise.resolve(signedIn),
    random: () => 1,
  }, handler);
  connection.attach(null, false);
  const socket = (): FakeSocket => {
    const last = sockets.at(-1);
    if (last === undefined) throw new Error('no socket');
    return last;
  };
  /** The network comes, and the gateway answers. */
  const begin = (more: Parameters<typeof attached>[0] = {}): FakeSocket => {
    socket().onopen?.();
    socket().say(attached(more));
    return socket();
  };
  return { connection, sockets, socket, states, output, handler, begin };
}
