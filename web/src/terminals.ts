// The owner's terminals: which there are, and how to go to one, make one, or end one.
import { ask, button, byId, make, makeButton } from './dom';
import type { TerminalSummary } from './messages';
import { title } from './text';

export interface TerminalActions {
  go(terminal: number): void;
  another(): void;
  end(terminal: number): void;
}

export class Terminals {
  readonly #button = button('terminals-button');
  readonly #number = byId('terminals-number', HTMLElement);
  readonly #list = byId('terminals-list', HTMLElement);
  readonly #dialog = byId('end-dialog', HTMLDialogElement);
  readonly #which = byId('end-which', HTMLElement);
  #terminals: readonly TerminalSummary[] = [];
  #current: number | undefined;

  constructor(private readonly actions: TerminalActions) {
    button('terminals-new').addEventListener('click', () => actions.another());
    this.owner(false);
  }

  /** Only the owner has several. */
  owner(owner: boolean): void {
    this.#button.hidden = !owner;
  }

  at(terminal: number): void {
    this.#current = terminal;
    this.#draw();
  }

  show(terminals: readonly TerminalSummary[]): void {
    this.#terminals = terminals;
    this.#draw();
  }

  /** The one this page is at has ended. */
  ended(): void {
    this.show(this.#terminals.filter(({ id }) => id !== this.#current));
  }

  #draw(): void {
    const current = this.#current;
    this.#number.textContent = current === undefined ? '' : String(current);
    this.#button.setAttribute('aria-label', current === undefined ? 'Terminals' : `Terminal ${current}. Go to another`);
    const focused = document.activeElement instanceof HTMLElement ? document.activeElement.dataset['terminal'] : undefined;
    this.#list.replaceChildren(...this.#terminals.map((terminal) => this.#line(terminal)));
    if (focused === undefined) return;
    const again = [...this.#list.querySelectorAll<HTMLElement>('[data-terminal]')].find((each) => each.dataset['terminal'] === focused);
    (again ?? button('terminals-new')).focus();
  }

  #line(terminal: TerminalSummary): HTMLElement {
    const { id } = terminal;
    const name = `Terminal ${id}`;
    const line = make('li', 'terminal-line');
    const go = makeButton('', '', () => this.actions.go(id));
    go.removeAttribute('aria-label');
    go.className = 'go';
    go.dataset['terminal'] = `go ${id}`;
    go.append(make('strong', '', String(id)), make('span', 'name', title(terminal.title) || name));
    if (terminal.shared) go.append(make('span', 'tag', 'guests see it'));
    if (id === this.#current) go.setAttribute('aria-current', 'true');
    const end = makeButton('End', `End terminal ${id}`, () => void this.#end(terminal));
    end.className = 'danger';
    end.dataset['terminal'] = `end ${id}`;
    line.append(go, end);
    return line;
  }

  async #end({ id, title: text }: TerminalSummary): Promise<void> {
    const yes = await ask(this.#dialog, () => {
      this.#which.textContent = `Terminal ${id} (${title(text)}), and what runs in it, will be ended.`;
    });
    if (yes) this.actions.end(id);
  }
}
