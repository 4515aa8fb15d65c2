// The panels below the toolbar: each has a button, one is open at a time, and Escape or a click elsewhere closes it.
import { button, byId } from './dom';

const NAMES = ['terminals', 'people', 'settings'] as const;
export type PanelName = (typeof NAMES)[number];

export class Panels {
  #open: PanelName | undefined;

  /** `left`: a panel was closed, and the terminal is what remains. */
  constructor(private readonly left: () => void) {
    for (const name of NAMES) button(`${name}-button`).addEventListener('click', () => this.toggle(name));
    document.addEventListener('keydown', (event) => {
      if (event.key !== 'Escape' || this.#open === undefined || document.querySelector('dialog[open]') !== null) return;
      event.preventDefault();
      const opener = button(`${this.#open}-button`);
      this.close();
      opener.focus();
    });
    document.addEventListener('pointerdown', (event) => {
      const { target } = event;
      if (this.#open === undefined || !(target instanceof Element) || target.closest('.panel, header, dialog') !== null) return;
      this.close();
    });
  }

  toggle(name: PanelName): void {
    const opens = this.#open !== name;
    this.close();
    if (!opens) return;
    this.#open = name;
    this.#show(name, true);
    byId(`${name}-panel`, HTMLElement).querySelector<HTMLElement>('button, input, select')?.focus();
  }

  /** To the terminal. */
  leave(): void {
    this.close();
    this.left();
  }

  close(): void {
    if (this.#open !== undefined) this.#show(this.#open, false);
    this.#open = undefined;
  }

  #show(name: PanelName, shown: boolean): void {
    byId(`${name}-panel`, HTMLElement).hidden = !shown;
    button(`${name}-button`).setAttribute('aria-expanded', String(shown));
  }
}
