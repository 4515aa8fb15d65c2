// Who is let in: for the owner all of them, each with a button that ends the visit; for a guest, what he may do himself.
import { button, byId, make, makeButton } from './dom';
import type { Access, Person } from './messages';
import { count, duration } from './text';
import type { Tell } from './notices';

const DOES: Record<Access, string> = { view: 'watches', type: 'can type', owner: 'owner' };

export class People {
  readonly #button = button('people-button');
  readonly #badge = byId('people-count', HTMLElement);
  readonly #list = byId('people-list', HTMLElement);
  readonly #none = byId('people-none', HTMLElement);
  readonly #all = button('people-end-all');
  readonly #banner = byId('banner', HTMLElement);
  readonly #bannerText = byId('banner-text', HTMLElement);
  #access: Access | undefined;
  #people: readonly Person[] = [];
  #since = 0;

  /** `end` ends a visit, or all of them; false where nobody heard it. */
  constructor(
    private readonly end: (guest: string | null) => boolean,
    private readonly tell: Tell,
  ) {
    this.#all.addEventListener('click', () => this.endAll());
    setInterval(() => this.#tick(), 1_000);
    this.access(undefined);
  }

  /** What this page may do; `undefined` as long as that is not known. */
  access(access: Access | undefined): void {
    this.#access = access;
    this.#button.hidden = access !== 'owner';
    this.#banner.hidden = access === undefined || access === 'owner';
    this.#banner.dataset['access'] = access;
    this.#tick();
  }

  show(people: readonly Person[]): void {
    this.#people = people;
    this.#since = Date.now();
    this.#draw();
    this.#tick();
  }

  endAll(): void {
    if (this.#access !== 'owner' || this.#people.length === 0) return;
    this.#end(null);
  }

  #end(guest: string | null): void {
    if (!this.end(guest)) this.tell('There is no connection: the visit was not ended. In a terminal, “shlogin share” with “--revoke” does it.');
  }

  #draw(): void {
    const people = this.#people;
    const here = people.filter((person) => person.here);
    const types = here.some((person) => person.access === 'type');
    this.#badge.textContent = here.length > 0 ? String(here.length) : '';
    this.#button.dataset['types'] = String(types);
    this.#button.setAttribute('aria-label', here.length > 0 ? `People: ${count(here.length, 'guest')} here` : 'People: no guest here');
    this.#none.hidden = people.length > 0;
    this.#all.hidden = people.length === 0;
    // Whoever is on a button stays on the button of the same guest.
    const focused = document.activeElement instanceof HTMLElement ? document.activeElement.dataset['guest'] : undefined;
    this.#list.replaceChildren(...people.map((person) => this.#line(person)));
    if (focused === undefined) return;
    const again = [...this.#list.querySelectorAll<HTMLElement>('[data-guest]')].find((each) => each.dataset['guest'] === focused);
    (again ?? this.#button).focus();
  }

  #line(person: Person): HTMLElement {
    const line = make('li', 'person');
    const who = make('div', 'who');
    who.append(make('strong', '', person.name), make('span', person.access === 'type' ? 'types' : '', DOES[person.access]));
    who.append(make('span', 'dim', person.here ? 'here now' : 'not here'), make('span', 'dim left'));
    const ends = makeButton('End visit', `End the visit of ${person.name}`, () => this.#end(person.guest));
    ends.className = 'danger';
    ends.dataset['guest'] = person.guest;
    line.append(who, ends);
    return line;
  }

  #left(person: Person): string {
    const left = person.seconds_left - (Date.now() - this.#since) / 1_000;
    return left > 0 ? `${duration(left)} left` : 'time is up';
  }

  /** The time goes on. */
  #tick(): void {
    for (const [at, place] of this.#list.querySelectorAll('.left').entries()) {
      const person = this.#people[at];
      if (person !== undefined) setText(place, this.#left(person));
    }
    if (this.#access !== 'view' && this.#access !== 'type') return;
    const self = this.#people[0];
    const left = self === undefined ? '' : ` ${this.#left(self)}.`.replace(/ (.)/, (_all, first: string) => ` ${first.toUpperCase()}`);
    const may = this.#access === 'view'
      ? 'You are watching. What you type goes nowhere.'
      : 'You can type. It is done as the owner, with all that the owner may do.';
    setText(this.#bannerText, may + left);
  }
}

function setText(place: Element, text: string): void {
  if (place.textContent !== text) place.textContent = text;
}
