// How large the terminal is. A page that leads makes it as large as there is place. Any other shows it at the size it has,
// in smaller letters where it would not fit, and scrolled where they would become too small to read.
import type { Size } from './messages';
import type { Screen } from './screen';

/** As the gateway has them: see `Size` in src/words/size.rs. */
const LEAST = 2;
const MOST = 500;
/** In CSS pixels. Smaller letters nobody reads. */
const SMALLEST_READABLE = 7;

const within = (n: number): number => Math.min(Math.max(n, LEAST), MOST);

export class Fitting {
  #own: Size = { cols: 80, rows: 24 };
  /** The terminal's size, where it is somebody else's. */
  #given: Size | undefined;

  /** Told the page's own size whenever it has changed. */
  resized: (own: Size) => void = () => {};

  constructor(
    private readonly screen: Screen,
    private readonly place: HTMLElement,
    private fontSize: number,
  ) {
    let asked = 0;
    new ResizeObserver(() => {
      cancelAnimationFrame(asked);
      asked = requestAnimationFrame(() => this.refit());
    }).observe(place);
    this.refit();
  }

  get own(): Size {
    return this.#own;
  }

  setFontSize(fontSize: number): void {
    this.fontSize = fontSize;
    this.refit();
  }

  /** The size is this page's. */
  lead(): void {
    this.#given = undefined;
    this.refit();
  }

  /** The size is `given`. */
  follow(given: Size): void {
    this.#given = given;
    this.refit();
  }

  refit(): void {
    const { terminal, fit } = this.screen;
    const element = terminal.element;
    if (element === undefined) return;
    element.style.width = element.style.height = '';
    terminal.options.fontSize = this.fontSize;
    const proposed = fit.proposeDimensions();
    if (proposed !== undefined && Number.isFinite(proposed.cols) && Number.isFinite(proposed.rows)) {
      const own = { cols: within(proposed.cols), rows: within(proposed.rows) };
      const changed = own.cols !== this.#own.cols || own.rows !== this.#own.rows;
      this.#own = own;
      if (changed) this.resized(own);
    }
    const given = this.#given;
    this.place.classList.toggle('follows', given !== undefined);
    this.#resize(given ?? this.#own);
    if (given !== undefined) this.#shrink(given);
  }

  #resize({ cols, rows }: Size): void {
    const { terminal } = this.screen;
    if (terminal.cols !== cols || terminal.rows !== rows) terminal.resize(cols, rows);
  }

  #shrink(given: Size): void {
    const { terminal } = this.screen;
    const ratio = Math.min(this.#own.cols / given.cols, this.#own.rows / given.rows);
    if (ratio < 1) {
      const size = Math.floor(this.fontSize * ratio * 4) / 4;
      terminal.options.fontSize = Math.max(size, Math.min(SMALLEST_READABLE, this.fontSize));
    }
    // As large as its letters: what does not fit is scrolled to.
    const drawn = terminal.element?.querySelector<HTMLElement>('.xterm-screen');
    if (terminal.element === undefined || drawn === null || drawn === undefined) return;
    const scrollbar = 14;
    terminal.element.style.width = `${drawn.offsetWidth + scrollbar}px`;
    terminal.element.style.height = `${drawn.offsetHeight}px`;
  }
}
