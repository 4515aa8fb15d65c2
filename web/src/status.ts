// How the connection is, in words and in colour, and what to do when it is over.
import type { State } from './connection';
import { button, byId } from './dom';
import { count, duration } from './text';

export interface StatusActions {
  retry(): void;
  another(): void;
}

export class Status {
  readonly #state = byId('state', HTMLElement);
  readonly #words = byId('state-words', HTMLElement);
  readonly #said = byId('state-said', HTMLElement);
  readonly #retry = button('retry');
  readonly #over = byId('over', HTMLElement);
  readonly #overTitle = byId('over-title', HTMLElement);
  readonly #overText = byId('over-text', HTMLElement);
  readonly #another = button('over-another');
  #shown: State = { is: 'connecting' };
  #ticking: ReturnType<typeof setInterval> | undefined;
  /** When the session's time is over, on this page's clock. */
  #ends: number | undefined;
  /** Whether new terminals are this page's to make. */
  owner = false;

  /** `waiting`: how many bytes of input have not been taken. */
  constructor(
    private readonly waiting: () => number,
    actions: StatusActions,
  ) {
    this.#retry.addEventListener('click', actions.retry);
    this.#another.addEventListener('click', actions.another);
    button('over-reload').addEventListener('click', () => location.reload());
    for (const event of ['online', 'offline']) addEventListener(event, () => this.refresh());
  }

  show(state: State): void {
    // Another try is nothing new: what is said and shown of the last one stays until it has come to something.
    const again = state.is === 'connecting' && this.#shown.is === 'waiting';
    this.#shown = state;
    clearInterval(this.#ticking);
    this.#ticking = state.is === 'waiting' || this.#ends !== undefined ? setInterval(() => this.refresh(), 1_000) : undefined;
    this.refresh();
    if (again) return;
    this.#showEnd(state);
    // Read out once, without the seconds.
    const said = this.#say(state);
    if (this.#said.textContent !== said) this.#said.textContent = said;
  }

  /** The session may go on for so many seconds; for ever with `null`. */
  time(left: number | null): void {
    this.#ends = left === null ? undefined : Date.now() + left * 1_000;
    clearInterval(this.#ticking);
    this.#ticking = setInterval(() => this.refresh(), 1_000);
    this.refresh();
  }

  refresh(): void {
    const state = this.#shown;
    this.#state.dataset['is'] = state.is;
    this.#retry.hidden = state.is !== 'waiting';
    let words = this.#say(state);
    if (state.is === 'waiting' && navigator.onLine) {
      const seconds = Math.ceil((state.until - Date.now()) / 1_000);
      if (seconds > 0) words += ` Next try in ${duration(seconds)}.`;
    }
    if (state.is === 'connected' && this.#ends !== undefined) words += `, ${duration((this.#ends - Date.now()) / 1_000)} left`;
    const waiting = state.is === 'connected' ? 0 : this.waiting();
    if (waiting > 0) words += ` ${count(waiting, 'byte')} of input kept.`;
    this.#words.textContent = words;
    this.#state.title = words;
  }

  #say(state: State): string {
    switch (state.is) {
      case 'connecting':
        return 'Connecting…';
      case 'connected':
        return 'Connected';
      case 'waiting':
        if (!state.signedIn) return 'Not signed in any more.';
        return navigator.onLine ? 'Connection lost.' : 'This computer is offline.';
      case 'ended':
        return 'Ended';
      case 'refused':
        return 'No access';
    }
  }

  #showEnd(state: State): void {
    const signedOut = state.is === 'waiting' && !state.signedIn;
    this.#over.hidden = state.is !== 'ended' && state.is !== 'refused' && !signedOut;
    this.#another.hidden = state.is !== 'ended' || !this.owner;
    if (state.is === 'ended') {
      this.#overTitle.textContent = 'This terminal has ended';
      this.#overText.textContent = state.summary;
    } else if (state.is === 'refused') {
      this.#overTitle.textContent = 'You have no access to this terminal';
      this.#overText.textContent = state.why;
    } else if (signedOut) {
      this.#overTitle.textContent = 'You are not signed in any more';
      this.#overText.textContent =
        'Open a new link in another tab. The owner of the session gets one with “shlogin url”. Then this page goes on by itself.';
    }
    if (!this.#another.hidden) this.#another.focus();
  }
}
