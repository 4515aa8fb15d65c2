// What a phone lacks: the keys that are not on its keyboard, and a place for the prompt above it.
import { byId } from './dom';
import type { Screen } from './screen';

/** Of the cursor keys, by their names in terminal.html. */
const CURSOR: Readonly<Record<string, string>> = { up: 'A', down: 'B', right: 'C', left: 'D', home: 'H', end: 'F' };

export class Phone {
  readonly #row = byId('keys', HTMLElement);
  readonly #control: HTMLButtonElement | null;
  #held = false;

  constructor(
    private readonly screen: Screen,
    private readonly place: HTMLElement,
  ) {
    this.#control = this.#row.querySelector('[data-key="control"]');
    // The keyboard stays where it is only as long as the terminal has the focus.
    this.#row.addEventListener('pointerdown', (event) => event.preventDefault());
    this.#row.addEventListener('click', (event) => {
      const key = event.target instanceof Element ? event.target.closest<HTMLElement>('[data-key]')?.dataset['key'] : undefined;
      if (key !== undefined) this.#press(key);
    });
    this.#followKeyboard();
    this.#scrollByTouch();
  }

  /** Only who can type has keys. */
  set usable(usable: boolean) {
    this.#row.hidden = !usable;
  }

  /** What is typed while Control is held: a key's bytes become those of the key with Control. */
  change(bytes: Uint8Array): Uint8Array {
    const [only] = bytes;
    if (!this.#held || only === undefined || bytes.length !== 1) return bytes;
    this.#hold(false);
    // @ A…Z [ \ ] ^ _, the small letters, and ? for DEL
    if (only >= 0x40 && only <= 0x7e) return Uint8Array.of(only & 0x1f);
    if (only === 0x20) return Uint8Array.of(0);
    return only === 0x3f ? Uint8Array.of(0x7f) : bytes;
  }

  #press(key: string): void {
    const cursor = CURSOR[key];
    if (key === 'control') this.#hold(!this.#held);
    else if (cursor !== undefined) this.screen.type(this.#cursor(cursor));
    else if (key === 'escape') this.screen.type('\x1b');
    else if (key === 'tab') this.screen.type('\t');
    else this.screen.type(key);
  }

  #cursor(final: string): string {
    if (this.#held) {
      this.#hold(false);
      return `\x1b[1;5${final}`;
    }
    return `\x1b${this.screen.terminal.modes.applicationCursorKeysMode ? 'O' : '['}${final}`;
  }

  #hold(held: boolean): void {
    this.#held = held;
    this.#control?.setAttribute('aria-pressed', String(held));
  }

  /** A keyboard on the screen covers the page without making it smaller: the page makes itself smaller. */
  #followKeyboard(): void {
    const seen = window.visualViewport;
    if (seen === null) return;
    const follow = () => {
      // Zoomed in, it is the person who chose what to see.
      const style = document.documentElement.style;
      if (seen.scale > 1.01) return;
      style.setProperty('--height', `${Math.round(seen.height)}px`);
      style.setProperty('--top', `${Math.round(seen.offsetTop)}px`);
    };
    seen.addEventListener('resize', follow);
    seen.addEventListener('scroll', follow);
    follow();
  }

  /** xterm.js knows wheels, and no fingers. */
  #scrollByTouch(): void {
    let last: number | undefined;
    let rest = 0;
    this.place.addEventListener('touchstart', (event) => {
      last = event.touches.length === 1 ? event.touches[0]?.clientY : undefined;
      rest = 0;
    }, { passive: true });
    this.place.addEventListener('touchmove', (event) => {
      const touch = event.touches[0];
      if (last === undefined || touch === undefined || event.touches.length !== 1) return;
      const moved = last - touch.clientY;
      last = touch.clientY;
      const { buffer, modes, rows, element } = this.screen.terminal;
      if (buffer.active.type === 'alternate' || modes.mouseTrackingMode !== 'none') {
        // Nothing is scrolled off there: it is the program that scrolls.
        const { clientX, clientY } = touch;
        event.target?.dispatchEvent(new WheelEvent('wheel', { deltaY: moved, clientX, clientY, bubbles: true, cancelable: true }));
        return;
      }
      rest += moved;
      const line = (element?.querySelector('.xterm-screen')?.clientHeight ?? 0) / rows;
      const lines = line > 0 ? Math.trunc(rest / line) : 0;
      rest -= lines * line;
      if (lines !== 0) this.screen.terminal.scrollLines(lines);
    }, { passive: true });
  }
}
