// How long to wait before the next try: twice as long each time, up to a limit, and never the same for two pages, so that
// those who lost one gateway do not come back all at once.

const FIRST = 500;
const LONGEST = 15_000;

export class Backoff {
  #tries = 0;

  constructor(private readonly random: () => number = Math.random) {}

  /** In milliseconds. */
  next(): number {
    const most = Math.min(FIRST * 2 ** this.#tries, LONGEST);
    this.#tries = Math.min(this.#tries + 1, 10);
    return most * (0.5 + this.random() / 2);
  }

  reset(): void {
    this.#tries = 0;
  }
}
