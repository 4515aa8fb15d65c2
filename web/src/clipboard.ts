// What goes to the clipboard and what comes from it. A paste is shown first where the shell would run it line by line.
import type { Terminal } from '@xterm/xterm';
import { ask, byId } from './dom';
import { count, pasteable } from './text';
import type { Tell } from './notices';

/** In bytes. */
const LARGE_PASTE = 64 << 10;
/** How much of it the question shows, in characters. */
const PREVIEW = 2_000;
/** The most that a program may put on the clipboard, in characters of base64. */
const MOST_FROM_PROGRAMS = 1 << 20;

const failed = 'The browser does not let this page use the clipboard.';

export class Clipboard {
  readonly #dialog = byId('paste-dialog', HTMLDialogElement);
  readonly #about = byId('paste-about', HTMLElement);
  readonly #preview = byId('paste-preview', HTMLElement);
  /** Whether programs may write to the clipboard. They never read it. */
  programsCopy = false;

  constructor(
    private readonly terminal: Terminal,
    place: HTMLElement,
    private readonly replaying: () => boolean,
    private readonly tell: Tell,
  ) {
    // Before xterm.js sees it. Every way to paste that a browser has ends here: keys, menus, the middle button.
    place.addEventListener('paste', (event) => {
      event.preventDefault();
      event.stopImmediatePropagation();
      void this.paste(event.clipboardData?.getData('text/plain') ?? '');
    }, { capture: true });
    terminal.parser.registerOscHandler(52, (data) => {
      this.#fromProgram(data);
      return true;
    });
  }

  async copy(): Promise<void> {
    const text = this.terminal.getSelection();
    if (text === '') return;
    await this.#write(text);
  }

  /** From a button: the browser may ask the person first. */
  async pasteFromButton(): Promise<void> {
    let text: string;
    try {
      text = await navigator.clipboard.readText();
    } catch {
      this.tell(`${failed} Ctrl+Shift+V pastes without it.`);
      return;
    }
    await this.paste(text);
  }

  async paste(given: string): Promise<void> {
    if (this.terminal.options.disableStdin) return;
    const text = pasteable(given);
    if (text === '') return;
    const bytes = new TextEncoder().encode(text).length;
    const runs = /[\r\n]/.test(text) && !this.terminal.modes.bracketedPasteMode;
    if ((runs || bytes > LARGE_PASTE) && !(await this.#confirm(text, bytes, runs))) return;
    this.terminal.paste(text);
  }

  async #confirm(text: string, bytes: number, runs: boolean): Promise<boolean> {
    const lines = text.replace(/(\r\n|\r|\n)$/, '').split(/\r\n|\r|\n/).length;
    const size = lines > 1 ? `${count(lines, 'line')}, ${count(bytes, 'byte')}` : count(bytes, 'byte');
    const yes = await ask(this.#dialog, () => {
      this.#about.textContent = runs
        ? `${size}. The program does not tell a paste from typing: each line that ends is entered at once.`
        : `${size}. That is a lot to type.`;
      this.#preview.textContent = text.length > PREVIEW ? `${text.slice(0, PREVIEW)}…` : text;
    });
    if (!this.#dialog.open) this.#preview.textContent = '';
    return yes;
  }

  /** `Pc ; Pd` of OSC 52: `Pd` is base64, or `?` to be told what the clipboard has, which is never answered. */
  #fromProgram(data: string): void {
    const text = data.slice(data.indexOf(';') + 1);
    if (!this.programsCopy || this.replaying() || text === '?' || text.length > MOST_FROM_PROGRAMS) return;
    let bytes: Uint8Array<ArrayBuffer>;
    try {
      bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    } catch {
      return;
    }
    const copied = pasteable(new TextDecoder().decode(bytes));
    if (copied === '') return;
    void this.#write(copied).then((done) => {
      if (done) this.tell(`A program put ${count(copied.length, 'character')} on your clipboard.`);
    });
  }

  async #write(text: string): Promise<boolean> {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      this.tell(failed);
      return false;
    }
  }
}
