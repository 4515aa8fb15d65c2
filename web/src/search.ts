// The search box: looks through the screen and what was scrolled off it.
import type { ISearchOptions } from '@xterm/addon-search';
import { button, byId } from './dom';
import type { Screen } from './screen';

/** All matches; the one that is gone to is selected, and looks as what is selected does. */
const OPTIONS: ISearchOptions = {
  decorations: {
    matchBackground: '#7a5f1e',
    matchOverviewRuler: '#b58a2a',
    activeMatchColorOverviewRuler: '#e08a3c',
  },
};

export class Search {
  readonly #box = byId('search', HTMLElement);
  readonly #text = byId('search-text', HTMLInputElement);
  readonly #count = byId('search-count', HTMLElement);
  readonly #opener = button('search-button');

  constructor(private readonly screen: Screen) {
    this.#opener.addEventListener('click', () => (this.#box.hidden ? this.open() : this.close()));
    button('search-next').addEventListener('click', () => this.#find('next'));
    button('search-previous').addEventListener('click', () => this.#find('previous'));
    button('search-close').addEventListener('click', () => this.close());
    this.#text.addEventListener('input', () => this.#find('here'));
    this.#box.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') this.close();
      else if (event.key === 'Enter' && event.target === this.#text) this.#find(event.shiftKey ? 'previous' : 'next');
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    screen.search.onDidChangeResults(({ resultIndex, resultCount }) => {
      const at = resultIndex >= 0 ? `${resultIndex + 1} of ${resultCount}` : `${resultCount}`;
      this.#count.textContent = this.#text.value === '' ? '' : resultCount === 0 ? 'Not found' : at;
    });
  }

  open(): void {
    this.#box.hidden = false;
    this.#opener.setAttribute('aria-expanded', 'true');
    const selected = this.screen.terminal.getSelection();
    if (selected !== '' && !selected.includes('\n')) this.#text.value = selected;
    this.#text.focus();
    this.#text.select();
    if (this.#text.value !== '') this.#find('here');
  }

  close(): void {
    this.#box.hidden = true;
    this.#opener.setAttribute('aria-expanded', 'false');
    this.screen.search.clearDecorations();
    this.screen.focus();
  }

  #find(where: 'here' | 'next' | 'previous'): void {
    const text = this.#text.value;
    const { search } = this.screen;
    if (text === '') {
      search.clearDecorations();
      this.#count.textContent = '';
    } else if (where === 'next') {
      search.findNext(text, OPTIONS);
    } else {
      // the newest is at the bottom: that is where one begins
      search.findPrevious(text, where === 'here' ? { ...OPTIONS, incremental: true } : OPTIONS);
    }
  }
}
