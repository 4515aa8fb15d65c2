// The terminal page: puts its parts together.
import './terminal.css';
import { Clipboard } from './clipboard';
import { Connection, type Attached, type State } from './connection';
import { ask, button, byId, wireDialogs } from './dom';
import { Fitting } from './fitting';
import { bindKeys } from './keys';
import type { ToPage } from './messages';
import { notices } from './notices';
import { Panels } from './panels';
import { People } from './people';
import { Phone } from './phone';
import { Screen } from './screen';
import { Search } from './search';
import { SettingsPanel } from './settings-panel';
import { load } from './settings';
import { Status } from './status';
import { Terminals } from './terminals';
import * as text from './text';

const session = document.documentElement.dataset['session'] ?? '';
const place = byId('screen', HTMLElement);
const settings = load();
const tell = notices();

let owner = false;
/** Whether the person was seen at this page since somebody else led last: said once. */
let claimed = false;

const screen = new Screen(place, settings, {
  typed: (bytes) => type(bytes),
  shown: (at, all) => connection.shown(at, all),
  link: (uri) => void openLink(uri),
});
const { terminal } = screen;
const fitting = new Fitting(screen, place, settings.fontSize);
const clipboard = new Clipboard(terminal, place, () => screen.output.replaying, tell);
const phone = new Phone(screen, place);
const search = new Search(screen);
const panels = new Panels(() => screen.focus());

const connection = new Connection(
  {
    open: () => {
      const address = new URL('/-/terminal/socket', location.href);
      address.protocol = address.protocol.replace('http', 'ws');
      return new WebSocket(address);
    },
    signedIn,
    client: randomClient,
  },
  {
    size: () => fitting.own,
    state: showState,
    attached,
    cleared: () => screen.output.clear(),
    output: (at, bytes, replay) => screen.output.push(at, bytes, replay),
    message: hear,
    lost: (bytes) => bytes > 0 && tell(`${text.count(bytes, 'byte')} of what was typed last may not have arrived.`),
  },
);
fitting.resized = (own) => connection.resized(own);
const status = new Status(() => connection.waiting, { retry: () => connection.hurry(), another: () => go(null, true) });
const people = new People((guest) => connection.revoke(guest), tell);
const terminals = new Terminals({
  go: (id) => go(id, false),
  another: () => go(null, true),
  end: (id) => connection.end(id),
});
new SettingsPanel(settings, screen, fitting, clipboard);

/** Leads from now on, where that is this page's to do. */
function claim(): void {
  if (!owner || screen.leads || claimed) return;
  claimed = true;
  connection.focus();
}

function type(bytes: Uint8Array): void {
  claim();
  if (!connection.type(phone.change(bytes)) && !connection.isOver) tell('That is more than can wait for the terminal. It was not sent.');
  status.refresh();
}

function go(id: number | null, another: boolean): void {
  panels.close();
  connection.attach(id, another);
  screen.focus();
}

function attached(message: Attached): void {
  owner = message.access === 'owner';
  document.documentElement.dataset['access'] = message.access;
  status.owner = owner;
  screen.typable = message.access !== 'view';
  phone.usable = message.access !== 'view';
  button('paste-button').hidden = message.access === 'view';
  people.access(message.access);
  terminals.owner(owner);
  terminals.at(message.terminal);
  resized(message);
  // So that a reload comes back here.
  const address = new URL(location.href);
  address.searchParams.set('terminal', String(message.terminal));
  history.replaceState(null, '', address);
  if (owner && document.hasFocus()) claim();
}

function resized({ size, leads }: { size: Attached['size']; leads: boolean }): void {
  screen.leads = leads;
  claimed = false;
  if (leads) fitting.lead();
  else fitting.follow(size);
}

function hear(message: ToPage): void {
  switch (message.type) {
    case 'size':
      return resized(message);
    case 'terminals':
      return terminals.show(message.terminals);
    case 'people':
      return people.show(message.people);
    case 'time':
      return status.time(message.left);
    case 'notice':
      return tell(message.text);
    case 'redraw':
      return screen.output.aside(new TextEncoder().encode(message.text));
  }
}

function showState(state: State): void {
  status.show(state);
  const over = state.is === 'ended' || state.is === 'refused';
  if (over) screen.typable = false;
  if (state.is === 'ended') terminals.ended();
  if (state.is === 'refused') people.access(undefined);
}

/** 32 characters of base64url. */
function randomClient(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(24));
  return btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_');
}

/** A WebSocket that is refused does not say why; the page itself does. */
async function signedIn(): Promise<boolean | undefined> {
  try {
    const answer = await fetch('/-/terminal', { method: 'HEAD', cache: 'no-store', redirect: 'manual' });
    return answer.status !== 401 && answer.status !== 403;
  } catch {
    return undefined;
  }
}

async function openLink(uri: string): Promise<void> {
  const yes = await ask(byId('link-dialog', HTMLDialogElement), () => {
    byId('link-where', HTMLElement).textContent = uri;
  });
  if (yes) open(uri, '_blank', 'noopener,noreferrer');
}

bindKeys(terminal, {
  copy: () => void clipboard.copy(),
  search: () => search.open(),
  leave: () => toolButtons()[0]?.focus(),
  endVisits: () => people.endAll(),
});

function toolButtons(): HTMLButtonElement[] {
  return [...byId('tools', HTMLElement).querySelectorAll('button')].filter((each) => !each.hidden && !each.disabled);
}

byId('tools', HTMLElement).addEventListener('keydown', (event) => {
  if (event.key === 'Escape') panels.leave();
});
button('copy-button').addEventListener('click', () => void clipboard.copy().then(() => screen.focus()));
button('paste-button').addEventListener('click', () => void clipboard.pasteFromButton().then(() => screen.focus()));
button('help-button').addEventListener('click', () => byId('help-dialog', HTMLDialogElement).showModal());
wireDialogs(() => screen.focus());

terminal.onSelectionChange(() => {
  button('copy-button').disabled = !terminal.hasSelection();
});
terminal.onTitleChange((given) => {
  const program = text.title(given);
  byId('program', HTMLElement).textContent = program;
  document.title = program === '' ? session : `${program} · ${session}`;
});

terminal.textarea?.addEventListener('focus', claim);
addEventListener('focus', claim);
addEventListener('online', () => connection.hurry());
addEventListener('pageshow', (event) => event.persisted && connection.hurry());
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible') connection.hurry();
});

const wanted = Number(new URL(location.href).searchParams.get('terminal') ?? NaN);
connection.attach(Number.isInteger(wanted) && wanted >= 0 && wanted < 2 ** 32 ? wanted : null, false);
screen.focus();
