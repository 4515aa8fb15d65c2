// What was typed and has not reached the terminal yet. Every byte has a number; what the gateway has taken is forgotten,
// and what it has not is sent again after a reconnection.
import type { Frame } from './frames';

/** The most that waits: whoever pastes more than this has another way to copy files. */
export const MOST_WAITING = 8 << 20;
/** The most that is under way at once, so that a connection is never full of one paste. */
export const WINDOW = 128 << 10;
/** The most in one message. */
export const PIECE = 16 << 10;

export class InputLog {
  /** The first byte that has not been taken. */
  #taken = 0;
  /** The first byte that has not been sent over this connection. */
  #sent = 0;
  /** What stands between `#taken` and the end, in order. */
  #chunks: Uint8Array[] = [];
  #waiting = 0;

  /** How many bytes have not been taken. */
  get waiting(): number {
    return this.#waiting;
  }

  /** Where the next byte of a connection stands. */
  get sent(): number {
    return this.#sent;
  }

  /** Whether there was place for it. */
  push(bytes: Uint8Array): boolean {
    if (this.#waiting + bytes.length > MOST_WAITING) return false;
    if (bytes.length > 0) this.#chunks.push(bytes);
    this.#waiting += bytes.length;
    return true;
  }

  /** Input up to `at` has been taken. False where that can't be: the other side does not know this page any more. */
  take(at: number): boolean {
    let count = at - this.#taken;
    if (count < 0 || count > this.#waiting) return false;
    this.#taken = at;
    this.#waiting -= count;
    this.#sent = Math.max(this.#sent, at);
    while (count > 0) {
      const first = this.#chunks[0];
      if (first === undefined) break;
      if (first.length > count) {
        this.#chunks[0] = first.subarray(count);
        break;
      }
      count -= first.length;
      this.#chunks.shift();
    }
    return true;
  }

  /** A new connection: all that has not been taken is to be sent. */
  rewind(): void {
    this.#sent = this.#taken;
  }

  /** The next message, if something is to be sent and the window allows it. */
  next(): Frame | undefined {
    const underWay = this.#sent - this.#taken;
    const most = Math.min(PIECE, this.#waiting - underWay, WINDOW - underWay);
    if (most <= 0) return undefined;
    const bytes = new Uint8Array(most);
    let skip = underWay;
    let filled = 0;
    for (const chunk of this.#chunks) {
      if (filled === most) break;
      if (skip >= chunk.length) {
        skip -= chunk.length;
        continue;
      }
      const part = chunk.subarray(skip, skip + most - filled);
      bytes.set(part, filled);
      filled += part.length;
      skip = 0;
    }
    const frame = { at: this.#sent, bytes };
    this.#sent += most;
    return frame;
  }
}
