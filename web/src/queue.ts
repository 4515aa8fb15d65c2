// Output on its way to the screen. The terminal takes it in its own time, so each piece carries where it ends and whether
// it was shown before; one piece at a time is with the terminal, so that it is always known whose turn it is.

/** The most that the terminal is given at once: it looks at the clock only in between. */
const PIECE = 64 << 10;

/** Ends whatever sequence was begun, takes back colours and modes, clears the screen and what was scrolled off it. */
const CLEAR = new TextEncoder().encode('\x18\x1b]104\x07\x1b]110\x07\x1b]111\x07\x1b]112\x07\x1b[20l\x1bc');

/** What takes output: `done` is called once it is on the screen. */
export interface Writer {
  write(bytes: Uint8Array, done: () => void): void;
}

interface Piece {
  readonly bytes: Uint8Array;
  /** Where it ends; `undefined` for what is not of the stream. */
  readonly end: number | undefined;
  readonly replayed: boolean;
}

export class OutputQueue {
  #waiting: Piece[] = [];
  #current: Piece | undefined;
  #pumping = false;

  /** `shown(at, all)`: output up to `at` is on the screen, and whether that is all there is. */
  constructor(
    private readonly writer: Writer,
    private readonly shown: (at: number, all: boolean) => void,
  ) {}

  /** Whether what the terminal reads at the moment was shown before: nothing in it is to be answered. */
  get replaying(): boolean {
    return this.#current?.replayed ?? false;
  }

  /** Output that stands at `at`; up to `replay` it was shown before. */
  push(at: number, bytes: Uint8Array, replay: number): void {
    for (let from = 0; from < bytes.length; ) {
      const before = replay - at - from;
      const length = Math.min(PIECE, bytes.length - from, before > 0 ? before : PIECE);
      const piece = bytes.subarray(from, from + length);
      from += length;
      this.#waiting.push({ bytes: piece, end: at + from, replayed: before > 0 });
    }
    this.#pump();
  }

  /** Writes what is not of the stream, after all output so far. */
  aside(bytes: Uint8Array): void {
    this.#waiting.push({ bytes, end: undefined, replayed: true });
    this.#pump();
  }

  /** Throws away what is not on the screen yet, and clears the screen. */
  clear(): void {
    if (this.#current !== undefined) this.#current = { ...this.#current, end: undefined };
    this.#waiting = [{ bytes: CLEAR, end: undefined, replayed: true }];
    this.#pump();
  }

  #pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    // The terminal may be done at once: a loop, not a recursion.
    while (this.#current === undefined) {
      const piece = this.#waiting.shift();
      if (piece === undefined) break;
      this.#current = piece;
      this.writer.write(piece.bytes, () => {
        const end = this.#current?.end;
        this.#current = undefined;
        if (end !== undefined) this.shown(end, this.#waiting.length === 0);
        this.#pump();
      });
    }
    this.#pumping = false;
  }
}
