// One page's connection to its terminal. It comes back by itself, whatever happens to the network; only the gateway's
// word that the terminal has ended, or that this page may not, is the end. What was typed is numbered and sent again
// until it has been taken; what was shown is counted, so that nothing is shown twice.
import { Backoff } from './backoff';
import { decode, encode, parse, print } from './frames';
import { InputLog } from './input';
import type { FromPage, Size, ToPage } from './messages';

export type Attached = Extract<ToPage, { type: 'attached' }>;

export type State =
  | { readonly is: 'connecting' }
  | { readonly is: 'connected' }
  /** The next try is at this time, in milliseconds of `Date.now()`. */
  | { readonly is: 'waiting'; readonly until: number; readonly signedIn: boolean }
  | { readonly is: 'ended'; readonly summary: string }
  | { readonly is: 'refused'; readonly why: string };

/** The part of a WebSocket that is used. */
export type Socket = Pick<WebSocket, 'binaryType' | 'onopen' | 'onclose' | 'onmessage' | 'send' | 'close'>;

export interface Handler {
  /** The page's own size. */
  size(): Size;
  state(state: State): void;
  attached(message: Attached): void;
  /** Nothing that is on the screen joins on to what comes. */
  cleared(): void;
  /** Output that stands at `at`; up to `replay` it was shown before. */
  output(at: number, bytes: Uint8Array, replay: number): void;
  message(message: ToPage): void;
  /** So many bytes of input may have arrived, or not: nobody can tell any more. */
  lost(bytes: number): void;
}

export interface Surroundings {
  open(): Socket;
  /** Whether the gateway knows who we are; `undefined` where it does not answer. */
  signedIn(): Promise<boolean | undefined>;
  /** A new name for this page, as `attach` has it. */
  client(): string;
  random?: () => number;
}

/** How long a connection may take to be of use. */
const PATIENCE = 15_000;
/** After so long without a word, the gateway is asked for one. */
const QUIET = 15_000;
/** How long it may take to answer; longer, where it may be held up by what was typed. */
const ANSWER = 10_000;
const ANSWER_WHEN_BUSY = 60_000;
/** After the network or the person has come back. */
const ANSWER_WHEN_BACK = 4_000;
/** A connection that lived so long was a good one. */
const GOOD = 5_000;
/** Output is acknowledged at least this often. */
const ACK_EVERY = 16 << 10;

export class Connection {
  #client = '';
  #input = new InputLog();
  #terminal: number | null = null;
  #new = false;
  /** Output up to here has been handed on. */
  #received: number | null = null;
  #replay = 0;
  #acked = 0;

  #socket: Socket | undefined;
  #attached = false;
  #over = false;
  #size: Size | undefined;
  #begun = 0;
  #heard = 0;
  /** The gateway was asked for a word, and has said none since: until when it may take. */
  #asked: number | undefined;
  /** It has answered before when it was asked. */
  #answers = false;
  /** As far as is known. */
  #signedIn = true;
  #backoff: Backoff;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #watch: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly around: Surroundings,
    private readonly handler: Handler,
  ) {
    this.#backoff = new Backoff(around.random);
  }

  get waiting(): number {
    return this.#input.waiting;
  }

  get isOver(): boolean {
    return this.#over;
  }

  /** Goes to a terminal, from whichever this page was at: `null` for the one last used. */
  attach(terminal: number | null, another: boolean): void {
    // Over a connection it is on its way; without one, it never will be.
    if (this.#input.waiting > 0 && !this.#attached && !this.#over) this.handler.lost(this.#input.waiting);
    this.#forget();
    this.#terminal = terminal;
    this.#new = another;
    this.#received = null;
    this.#over = false;
    this.#backoff.reset();
    this.#connect();
  }

  /** False where too much waits already, or nobody will ever take it. */
  type(bytes: Uint8Array): boolean {
    if (this.#over || !this.#input.push(bytes)) return false;
    this.#flush();
    return true;
  }

  /** Output up to `at` is on the screen; `all`: nothing more waits. */
  shown(at: number, all: boolean): void {
    if (!this.#attached || at <= this.#acked || (!all && at - this.#acked < ACK_EVERY)) return;
    this.#acked = at;
    this.#send({ type: 'ack', at });
  }

  /** The page's own size may have changed. */
  resized(size: Size): void {
    if (!this.#attached || (this.#size?.cols === size.cols && this.#size.rows === size.rows)) return;
    this.#size = size;
    this.#send({ type: 'resize', size });
  }

  focus(): void {
    if (this.#attached) this.#send({ type: 'focus' });
  }

  end(terminal: number): void {
    if (this.#attached) this.#send({ type: 'end', terminal });
  }

  /** Ends a guest's visit; `null`: all visits. False where nobody heard it. */
  revoke(guest: string | null): boolean {
    if (this.#attached) this.#send({ type: 'revoke', guest });
    return this.#attached;
  }

  /** The network, or the person, may have come back. */
  hurry(): void {
    if (this.#over) return;
    if (this.#attached) {
      this.#ask(ANSWER_WHEN_BACK);
    } else if (this.#socket === undefined || Date.now() - this.#begun > ANSWER_WHEN_BACK) {
      this.#backoff.reset();
      this.#connect();
    }
  }

  #forget(): void {
    this.#client = this.around.client();
    this.#input = new InputLog();
  }

  #connect(): void {
    this.#drop();
    clearTimeout(this.#retry);
    this.#retry = undefined;
    this.handler.state({ is: 'connecting' });
    const socket = this.around.open();
    socket.binaryType = 'arraybuffer';
    let opened = false;
    socket.onopen = () => {
      opened = this.#signedIn = true;
      this.#size = this.handler.size();
      this.#send({
        type: 'attach',
        client: this.#client,
        terminal: this.#terminal,
        new: this.#new,
        have: this.#received,
        size: this.#size,
      });
    };
    socket.onmessage = ({ data }) => this.#hear(data);
    socket.onclose = () => {
      if (!this.#over) this.#later(opened);
    };
    this.#socket = socket;
    this.#begun = this.#heard = Date.now();
    this.#watchOver();
  }

  /** Lets go of the connection; nothing of it is heard any more. */
  #drop(): void {
    clearTimeout(this.#watch);
    this.#attached = false;
    this.#asked = undefined;
    const socket = this.#socket;
    this.#socket = undefined;
    if (socket === undefined) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  #later(opened: boolean): void {
    if (this.#attached && Date.now() - this.#begun > GOOD) this.#backoff.reset();
    this.#drop();
    const wait = this.#backoff.next();
    const until = Date.now() + wait;
    const tell = () => this.handler.state({ is: 'waiting', until, signedIn: this.#signedIn });
    tell();
    clearTimeout(this.#retry);
    const retry = setTimeout(() => this.#connect(), wait);
    this.#retry = retry;
    if (opened) return;
    // A WebSocket does not tell why it was not opened.
    void this.around.signedIn().then((signedIn) => {
      if (signedIn === undefined || signedIn === this.#signedIn || this.#retry !== retry) return;
      this.#signedIn = signedIn;
      tell();
    });
  }

  /** A connection can die without a word: then nothing comes, not even what was asked for. */
  #watchOver(): void {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(() => {
      const now = Date.now();
      if (!this.#attached) {
        if (now - this.#begun >= PATIENCE) return this.#later(true);
      } else if (this.#asked !== undefined) {
        if (now >= this.#asked && this.#answers) return this.#again();
      } else if (now - this.#heard >= QUIET) {
        this.#ask(this.#input.waiting > 0 ? ANSWER_WHEN_BUSY : ANSWER);
      }
      this.#watchOver();
    }, 1_000);
  }

  /** At once: it is the connection that was bad. */
  #again(): void {
    this.#backoff.reset();
    this.#connect();
  }

  /** The gateway answers every input with `taken`, also one of no bytes. */
  #ask(patience: number): void {
    const until = Date.now() + patience;
    const asked = this.#asked;
    this.#asked = Math.min(asked ?? until, until);
    if (asked !== undefined) return;
    this.#socket?.send(encode({ at: this.#input.sent, bytes: new Uint8Array(0) }));
  }

  #hear(data: unknown): void {
    this.#heard = Date.now();
    this.#asked = undefined;
    if (data instanceof ArrayBuffer) {
      this.#output(data);
      return;
    }
    const message = typeof data === 'string' ? parse(data) : undefined;
    if (message === undefined) return;
    switch (message.type) {
      case 'attached':
        return this.#begin(message);
      case 'taken':
        this.#answers = true;
        if (!this.#input.take(message.at)) this.#lose();
        this.#flush();
        return;
      case 'skip':
        this.#received = message.from;
        this.#replay = message.replay;
        this.handler.cleared();
        return;
      case 'ended':
        return this.#finish({ is: 'ended', summary: message.summary });
      case 'refused':
        return this.#finish({ is: 'refused', why: message.why });
      default:
        this.handler.message(message);
    }
  }

  #begin(message: Attached): void {
    const joins = !message.reset && this.#received !== null && message.from <= this.#received;
    if (!joins) {
      this.#received = message.from;
      this.handler.cleared();
    }
    this.#terminal = message.terminal;
    this.#new = false;
    this.#replay = message.replay;
    this.#acked = message.from;
    if (!this.#input.take(message.taken)) return this.#lose();
    this.#input.rewind();
    this.#attached = true;
    this.handler.attached(message);
    this.handler.state({ is: 'connected' });
    this.resized(this.handler.size());
    this.#flush();
    this.#ask(ANSWER);
  }

  /** The gateway counts this page's input otherwise than we do. Rather nothing than twice: what waits is given up. */
  #lose(): void {
    const waiting = this.#input.waiting;
    this.#forget();
    this.handler.lost(waiting);
    this.#later(true);
  }

  #output(data: ArrayBuffer): void {
    const frame = decode(data);
    if (!this.#attached || this.#received === null) return;
    if (frame === undefined || frame.at > this.#received) return this.#again();
    const bytes = frame.bytes.subarray(this.#received - frame.at);
    if (bytes.length === 0) return;
    const at = this.#received;
    this.#received += bytes.length;
    this.handler.output(at, bytes, this.#replay);
  }

  #finish(state: State): void {
    this.#over = true;
    clearTimeout(this.#retry);
    this.#drop();
    this.handler.state(state);
  }

  #flush(): void {
    if (!this.#attached) return;
    for (let frame = this.#input.next(); frame !== undefined; frame = this.#input.next()) {
      this.#socket?.send(encode(frame));
    }
  }

  #send(message: FromPage): void {
    this.#socket?.send(print(message));
  }
}
