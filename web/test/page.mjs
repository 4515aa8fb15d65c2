// node test/page.mjs [PICTURES [CASE]]
// Tries the built page in a real browser, with real shells behind it and a stand-in for the gateway, and takes pictures
// into the folder PICTURES. Fails where the page does not do what it should, complains, or asks anybody else. CASE is a
// part of the name of the only case to be tried.
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { withPage } from '../../tests/browser/browser.mjs';
import { Gateway } from './gateway.mjs';

const pictures = process.argv[2];
/** What went wrong in which case, to be told once more in the end: in a long log nobody finds it where it happened. */
const wrong = [];
if (pictures) await mkdir(pictures, { recursive: true });

function expect(holds, what) {
  if (!holds) throw new Error(what);
}

/** Looks until `seen` gives something true, and returns that. */
async function until(page, what, seen, patience = 60_000) {
  const deadline = Date.now() + patience;
  for (;;) {
    const found = await seen();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`not within ${patience} ms: ${what}; there is:\n${await rows(page).catch(() => '')}`.trim());
    await page.waitForTimeout(20);
  }
}

const rows = (page) => page.locator('.xterm-rows').innerText().then((text) => text.replaceAll('\u00a0', ' '));
const shows = (page, text) => until(page, `the screen shows ${text}`, async () => (await rows(page)).includes(text));
/** The shell waits. What is typed sooner after Control-C may be read by the program that is just being ended. */
const prompted = (page) => until(page, 'a prompt', async () => /\$\s*$/.test(await rows(page)));
const connected = (page) => page.locator('#state[data-is="connected"]').waitFor();
const picture = (page, name) => pictures && page.screenshot({ path: path.join(pictures, `${name}.png`) });

/** Drawn by the graphics processor, a screen has no text to read. */
const readable = (page) => page.context().addInitScript(() => {
  const { getContext } = HTMLCanvasElement.prototype;
  HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
    return kind === 'webgl2' ? null : getContext.call(this, kind, ...rest);
  };
});

async function opened(page, address) {
  await page.goto(address);
  await connected(page);
  await prompted(page);
}

async function line(page, text) {
  await page.locator('.xterm-helper-textarea').focus();
  await page.keyboard.type(`${text}\n`);
}

/** As a program of some use would look. */
const SHOW = "clear; printf '\\033]0;vim results.md\\007'; ls --color=always -la / | head -14; for i in 1 2 3 4 5 6 7; do printf '\\033[3%dm■ colour %d \\033[9%dm■ bright\\033[0m  ' $i $i $i; done; echo; printf 'wide: 日本語 ｆｕｌｌ  emoji: 🙂🫠  link: https://example.org/notes\\n'; printf '\\033[1mbold\\033[0m \\033[3mitalic\\033[0m \\033[4munderlined\\033[0m \\033[7mreversed\\033[0m \\033[38;2;255;120;60mtrue colour\\033[0m\\n'";

const cases = {
  async 'comes back without losing or doubling a byte'(page, gateway, address) {
    await opened(page, address);
    await line(page, 'stty -echo; for i in $(seq 1 400); do echo "line-$i-"; sleep 0.01; done; echo all-$((40+2))');
    for (let drops = 1; drops <= 10; drops += 1) {
      const [connection] = await until(page, 'a connection with output', () => {
        const pages = [...gateway.pages];
        return pages.length > 0 && pages[0].sent > pages[0].begun && pages;
      });
      connection.socket.terminate();
      await page.locator('#state[data-is="waiting"]').waitFor();
      await page.evaluate(() => dispatchEvent(new Event('online')));
    }
    await shows(page, 'all-42');
    await connected(page);
    await page.keyboard.press('Control+Shift+f');
    await page.keyboard.type('line-');
    // and once in the command itself
    await until(page, 'all lines are there', async () => (await page.locator('#search-count').innerText()) === '401 of 401');
    await page.keyboard.press('Escape');
    await line(page, 'stty echo; echo typed-$((1+1))');
    await shows(page, 'typed-2');
    const terminal = [...gateway.terminals.values()][0];
    expect(gateway.bytesSent === terminal.end, `${gateway.bytesSent} bytes were sent of ${terminal.end}`);
    await until(page, 'all is on the screen', () => [...gateway.pages].at(-1).shown === terminal.end);
  },

  async 'what is typed without a connection arrives once'(page, gateway, address) {
    await opened(page, address);
    gateway.signedOut = true;
    gateway.drop();
    await page.locator('#state[data-is="waiting"]').waitFor();
    await page.locator('#over').waitFor();
    expect((await page.locator('#over').innerText()).includes('not signed in'), 'it does not say that the cookie is not good');
    await page.locator('.xterm-helper-textarea').focus();
    await page.keyboard.type('echo kept-$((20+3))\n');
    await picture(page, 'signed-out');
    // not when the page is about to try by itself
    await until(page, 'a wait that is long enough', async () => {
      const [, seconds = 0] = (await page.locator('#state-words').innerText()).match(/Next try in (\d+) second/) ?? [];
      return seconds >= 3;
    });
    gateway.signedOut = false;
    await page.locator('#retry').click();
    await shows(page, 'kept-23');
    expect(gateway.inputs.join('').split('kept-').length === 2, 'it arrived twice');
    await page.locator('#over').waitFor({ state: 'hidden' });
  },

  async 'a connection that died without a word is left'(page, gateway, address) {
    await opened(page, address);
    await until(page, 'the gateway has answered a question', () => gateway.inputs.includes(''));
    gateway.deafen();
    await page.evaluate(() => dispatchEvent(new Event('online')));
    await until(page, 'another connection', () => [...gateway.pages].some((each) => !each.deaf), 15_000);
    await connected(page);
    await line(page, 'echo alive-$((2+2))');
    await shows(page, 'alive-4');
  },

  async 'a flood neither fills memory nor makes Control-C late'(page, gateway, address) {
    await opened(page, address);
    await line(page, 'yes a-long-line-of-text-that-goes-on-and-on-and-on');
    await shows(page, 'and-on');
    await page.waitForTimeout(1_000);
    const begun = Date.now();
    await page.keyboard.press('Control+c');
    await page.keyboard.type('echo over-$((3+3))\n');
    await shows(page, 'over-6');
    const late = Date.now() - begun;
    // most of that is to type: by how busy the machine is, it takes a tenth of a second or one
    const calm = Date.now();
    await page.keyboard.press('Control+c');
    await page.keyboard.type('echo calm-$((4+4))\n');
    await shows(page, 'calm-8');
    const plain = Date.now() - calm;
    const [shown] = [...gateway.pages];
    expect(shown.sent - shown.shown <= 600 << 10, 'more is under way than the window');
    expect(late < 1_200 + 3 * plain, `Control-C was seen after ${late} ms, and without a flood after ${plain}`);
    return { late, plain, mebibytes: gateway.bytesSent >> 20 };
  },

  async 'questions are answered by the page that leads, once, and never again after a reload'(page, gateway, address) {
    await opened(page, address);
    const other = await page.context().newPage();
    await other.goto(address);
    await connected(other);
    await page.bringToFront();
    await page.locator('.xterm-helper-textarea').focus();
    await until(page, 'this page leads', () => [...gateway.terminals.values()][0].leader?.shown !== undefined);
    gateway.inputs.length = 0;
    const ask = "stty -icanon -echo; printf '\\033[c\\033[>c\\033[6n\\033[?6n\\033]11;?\\007\\033]4;1;?\\007\\033[?25$p\\033P$qm\\033\\\\\\033[21t\\033[18t\\033[?1004h\\033[?1004l\\033]52;c;?\\007'; timeout 1 cat >/dev/null; stty sane; echo answered-$((9+9))";
    await line(page, ask);
    await shows(page, 'answered-18');
    const answers = (text) => text.match(/\x1b(\[[?>]?[\d;]*[cRytIO]|\[\?[\d;]*\$y|\][^\x1b]*\x1b\\|P[^\x1b]*\x1b\\)/g) ?? [];
    const first = answers(gateway.inputs.join(''));
    expect(first.length === 8, `8 answers were due, these came: ${JSON.stringify(first)}`);
    gateway.inputs.length = 0;
    await page.reload();
    await connected(page);
    await page.waitForTimeout(500);
    gateway.drop();
    await connected(page);
    await line(page, 'echo asked-$((4+4))');
    await shows(page, 'asked-8');
    const again = answers(gateway.inputs.join(''));
    expect(again.length === 0, `answered once more: ${JSON.stringify(again)}`);
    await other.close();
  },

  async 'pastes are asked about where the shell would run them'(page, gateway, address) {
    await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
    await opened(page, address);
    // one after the other in one task, and in it the dialog is closed before
    const paste = (texts, { closed = false } = {}) => page.evaluate(([texts, closed]) => {
      if (closed) document.querySelector('#paste-dialog').close();
      for (const text of texts) {
        const clipboardData = new DataTransfer();
        clipboardData.setData('text/plain', text);
        document.querySelector('.xterm-helper-textarea').dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }));
      }
    }, [texts, closed]);
    await line(page, "bind 'set enable-bracketed-paste off' 2>/dev/null; echo reads-$((7+7)); cat >/dev/null");
    await shows(page, 'reads-14');
    gateway.inputs.length = 0;
    await paste(['one\ntwo\n']);
    await page.locator('#paste-dialog').waitFor();
    await picture(page, 'paste');
    await page.keyboard.press('Escape');
    await page.locator('#paste-dialog').waitFor({ state: 'hidden' });
    expect(gateway.inputs.join('') === '', 'it was pasted all the same');
    await paste(['one\ntwo\n']);
    await page.locator('#paste-dialog button[value="yes"]').click();
    await until(page, 'it was pasted', () => gateway.inputs.join('') === 'one\rtwo\r');
    // the next is asked about as soon as the last was answered, before the dialog itself has said that it was closed;
    // one that comes meanwhile is neither shown nor pasted
    gateway.inputs.length = 0;
    await paste(['three\nfour\n']);
    await page.locator('#paste-dialog').waitFor();
    await paste(['five\nsix\n', 'seven\neight\n'], { closed: true });
    await page.locator('#paste-dialog').waitFor();
    const preview = await page.locator('#paste-preview').innerText();
    expect(preview.trim() === 'five\nsix', `it asks about: ${preview}`);
    await page.locator('#paste-dialog button[value="yes"]').click();
    await until(page, 'the second was pasted', () => gateway.inputs.join('') === 'five\rsix\r');
    // with bracketed paste there is nothing to ask, and no way out of the brackets
    await page.keyboard.press('Control+d');
    await line(page, "printf '\\033[?2004h'; echo reads-$((8+8)); cat >/dev/null");
    await shows(page, 'reads-16');
    gateway.inputs.length = 0;
    await paste(['a\nb\x1b[201~c\n']);
    await until(page, 'it was pasted', () => gateway.inputs.join('') === '\x1b[200~a\rb[201~c\r\x1b[201~');
    // copy by key
    await page.keyboard.press('Control+c');
    await prompted(page);
    await line(page, 'printf "\\033[?2004l"; clear; echo copy-$((5+5))');
    await shows(page, 'copy-10');
    await page.locator('.xterm-screen').dblclick({ position: { x: 20, y: 8 } });
    await page.keyboard.press('Control+Shift+c');
    const copied = await until(page, 'something was copied', () => page.evaluate(() => navigator.clipboard.readText()));
    expect(copied.includes('copy-10'), `copied: ${copied}`);
  },

  async 'OSC 52 does nothing unless it is switched on, and then only writes'(page, gateway, address) {
    await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
    await opened(page, address);
    await page.evaluate(() => navigator.clipboard.writeText('before'));
    const set = (text) => line(page, `printf '\\033]52;c;%s\\007' "$(printf ${text} | base64)"; printf '\\033]52;c;?\\007'; echo set-$((6+6))`);
    await set('first');
    await shows(page, 'set-12');
    expect(await page.evaluate(() => navigator.clipboard.readText()) === 'before', 'it was written though switched off');
    await page.locator('#settings-button').click();
    await page.locator('#programs-copy').check();
    await page.locator('#screen-reader').check();
    await picture(page, 'settings');
    await page.locator('.xterm-accessibility-tree', { hasText: 'set-12' }).waitFor({ state: 'attached' });
    await page.locator('#screen-reader').uncheck();
    await page.keyboard.press('Escape');
    gateway.inputs.length = 0;
    await set('second');
    await until(page, 'it was written', () => page.evaluate(() => navigator.clipboard.readText()).then((text) => text === 'second'));
    await page.locator('.notice').waitFor();
    expect(!gateway.inputs.join('').includes('\x1b]52'), 'the clipboard was read');
  },

  async 'another page shows it as it is, and leads once its person is there'(page, gateway, address) {
    await page.setViewportSize({ width: 1200, height: 700 });
    await opened(page, address);
    await line(page, 'clear; tput cols');
    const wide = [...gateway.terminals.values()][0].size;
    const small = await page.context().newPage();
    await small.setViewportSize({ width: 420, height: 500 });
    gateway.access = 'type';
    await small.goto(address);
    await connected(small);
    await small.locator('#screen.follows').waitFor();
    await small.locator('.xterm-helper-textarea').focus();
    await small.keyboard.type('# typed by a guest');
    await shows(page, 'typed by a guest');
    const { size } = [...gateway.terminals.values()][0];
    expect(size.cols === wide.cols && size.rows === wide.rows, "a guest's page changed the size");
    await small.close();
    gateway.access = 'owner';
    const owners = await page.context().newPage();
    await owners.setViewportSize({ width: 420, height: 500 });
    await owners.goto(address);
    await connected(owners);
    await owners.locator('.xterm-helper-textarea').focus();
    await owners.keyboard.type('x');
    await until(owners, 'the smaller page leads', () => [...gateway.terminals.values()][0].size.cols < wide.cols);
    await page.locator('#screen.follows').waitFor();
    await page.bringToFront();
    await page.locator('.xterm-helper-textarea').focus();
    await page.keyboard.type('y');
    await until(page, 'the larger page leads', () => [...gateway.terminals.values()][0].size.cols === wide.cols);
    await owners.close();
  },

  async 'all can be reached by keyboard, and the terminal can be left'(page, gateway, address) {
    await opened(page, address);
    await page.locator('.xterm-helper-textarea').focus();
    await page.keyboard.press('Tab');
    expect(await page.evaluate(() => document.activeElement.className.includes('xterm')), 'Tab left the terminal');
    await page.keyboard.press('Control+Shift+Space');
    const focused = () => page.evaluate(() => document.activeElement.id);
    expect(await focused() === 'terminals-button', `in ${await focused()}`);
    await page.keyboard.press('Enter');
    await page.locator('#terminals-panel').waitFor();
    await page.keyboard.press('Escape');
    expect(await focused() === 'terminals-button', `back in ${await focused()}`);
    await page.keyboard.press('Escape');
    expect(await page.evaluate(() => document.activeElement.className.includes('xterm')), 'Escape did not lead back');
    await line(page, 'clear; seq 1 300 | sed s/^/find-/');
    await shows(page, 'find-300');
    await page.keyboard.press('Control+Shift+f');
    await page.keyboard.type('find-12');
    await until(page, 'it was found', async () => (await page.locator('#search-count').innerText()).includes('of 11'));
    await page.keyboard.press('Enter');
    await picture(page, 'search');
    await page.keyboard.press('Escape');
    await page.locator('#search').waitFor({ state: 'hidden' });
    await page.locator('#help-button').click();
    await picture(page, 'help');
    await page.keyboard.press('Escape');
    const unnamed = await page.evaluate(() => [...document.querySelectorAll('button, input, select')]
      .filter((each) => !each.closest('[hidden], dialog') && !(each.getAttribute('aria-label') || each.textContent.trim() || each.labels?.length))
      .map((each) => each.outerHTML));
    expect(unnamed.length === 0, `without a name: ${unnamed}`);
  },

  async 'several terminals: another, back, and the end'(page, gateway, address) {
    await opened(page, address);
    await line(page, 'echo here-$((1+0))');
    await shows(page, 'here-1');
    await page.locator('#terminals-button').click();
    await page.locator('#terminals-new').click();
    await until(page, 'two terminals', () => gateway.terminals.size === 2);
    await until(page, 'a fresh screen', async () => !(await rows(page)).includes('here-1') && (await rows(page)).includes('$'));
    expect(new URL(page.url()).searchParams.get('terminal') === '2', page.url());
    await line(page, 'echo there-$((2+0))');
    await shows(page, 'there-2');
    await page.locator('#terminals-button').click();
    await picture(page, 'terminals');
    await page.locator('[data-terminal="go 1"]').click();
    await shows(page, 'here-1');
    expect(!(await rows(page)).includes('there-2'), 'the other terminal is still there');
    await page.locator('#terminals-button').click();
    await page.locator('[data-terminal="end 1"]').click();
    await page.locator('#end-dialog button[value="yes"]').click();
    await page.locator('#over').waitFor();
    await picture(page, 'ended');
    await page.locator('#over-another').click();
    await connected(page);
    await page.locator('#over').waitFor({ state: 'hidden' });
    await line(page, 'echo new-$((3+0))');
    await shows(page, 'new-3');
  },

  async 'the owner sees who is there, and ends visits'(page, gateway, address) {
    await opened(page, address);
    await line(page, SHOW);
    await shows(page, 'true colour');
    gateway.let([
      { guest: 'carol', name: 'carol', access: 'view', here: true, seconds_left: 1500 },
      { guest: 'bob <img src=x onerror=alert(1)>', name: 'bob <img src=x onerror=alert(1)>', access: 'type', here: true, seconds_left: 290 },
      { guest: 'dave', name: 'dave', access: 'view', here: false, seconds_left: 7200 },
    ]);
    await page.locator('#people-count', { hasText: '2' }).waitFor();
    await page.locator('#people-button').click();
    await picture(page, 'people');
    await page.getByRole('button', { name: 'End the visit of carol' }).click();
    await until(page, 'carol is gone', () => gateway.people.length === 2);
    expect(await page.locator('#people-panel img').count() === 0, 'a name was taken for HTML');
    await page.locator('.xterm-helper-textarea').focus();
    await page.keyboard.press('Control+Shift+x');
    await until(page, 'all are gone', () => gateway.people.length === 0);
  },

  async "a guest's page: what he may do, and no more"(page, gateway, address) {
    await page.setViewportSize({ width: 1280, height: 800 });
    await opened(page, address);
    await line(page, SHOW);
    await shows(page, 'true colour');
    gateway.access = 'view';
    gateway.let([{ guest: 'carol', name: 'carol', access: 'view', here: true, seconds_left: 1740 }]);
    const guest = await page.context().newPage();
    await guest.goto(address);
    await connected(guest);
    await guest.locator('#banner', { hasText: 'You are watching' }).waitFor();
    await shows(guest, 'true colour');
    expect(await guest.locator('#terminals-button, #people-button').filter({ visible: true }).count() === 0, 'a guest has the buttons of the owner');
    gateway.inputs.length = 0;
    await guest.locator('.xterm-helper-textarea').focus();
    await guest.keyboard.type('whoami\n');
    await guest.waitForTimeout(200);
    expect(gateway.inputs.join('') === '', 'a viewer typed');
    await picture(guest, 'guest-view');
    gateway.refuses = 'The owner has ended your visit.';
    for (const each of gateway.pages) if (each.access === 'view') each.finish({ type: 'refused', why: gateway.refuses });
    await guest.locator('#over', { hasText: 'The owner has ended your visit.' }).waitFor();
    await picture(guest, 'guest-refused');
    await guest.close();
    gateway.refuses = null;
    gateway.access = 'type';
    const typing = await page.context().newPage();
    await typing.goto(address);
    await typing.locator('#banner', { hasText: 'You can type' }).waitFor();
    await picture(typing, 'guest-type');
    await typing.close();
  },

  async 'pictures'(page, gateway, address) {
    await page.setViewportSize({ width: 1280, height: 760 });
    await opened(page, address);
    await line(page, SHOW);
    await shows(page, 'true colour');
    const theme = async (name) => {
      await page.locator('#settings-button').click();
      await page.locator('#theme').selectOption(name);
      await page.keyboard.press('Escape');
      await page.keyboard.press('Escape');
    };
    for (const name of ['dark', 'light']) {
      await theme(name);
      await picture(page, `desktop-${name}`);
    }
    await theme('dark');
    gateway.drop();
    gateway.server.close();
    await page.locator('#state[data-is="waiting"]').waitFor();
    await picture(page, 'disconnected');
    expect(await page.evaluate(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth), 'the page is too wide');
  },
};

async function phone(address, gateway, width) {
  const { error } = await withPage({ url: address, width, height: 780, dark: true }, async (page) => {
    await readable(page);
    const client = await page.context().newCDPSession(page);
    await client.send('Emulation.setTouchEmulationEnabled', { enabled: true });
    await client.send('Emulation.setEmulatedMedia', { features: [{ name: 'pointer', value: 'coarse' }, { name: 'prefers-color-scheme', value: 'dark' }] });
    await opened(page, address);
    // what takes the keys is no line editor: one that is interrupted just after Escape may take the next key for a part of it
    await line(page, 'clear; ls --color=always -la / | head -14; echo listed-$((2+9)); cat >/dev/null');
    await shows(page, 'listed-11');
    await page.locator('#keys').waitFor();
    gateway.inputs.length = 0;
    await page.locator('[data-key="control"]').click();
    await page.keyboard.type('u');
    await page.locator('[data-key="up"]').click();
    await page.locator('[data-key="escape"]').click();
    await until(page, 'the keys have arrived', () => gateway.inputs.join('') === '\x15\x1b[A\x1b');
    expect(await page.evaluate(() => document.activeElement.className.includes('xterm')), 'a key took the focus from the terminal');
    await picture(page, `phone-${width}`);
    // a finger scrolls
    await page.keyboard.press('Control+c');
    await prompted(page);
    await line(page, 'seq 1 300');
    await shows(page, '299\n300\n');
    await client.send('Input.dispatchTouchEvent', { type: 'touchStart', touchPoints: [{ x: 100, y: 200 }] });
    for (let y = 220; y <= 560; y += 20) await client.send('Input.dispatchTouchEvent', { type: 'touchMove', touchPoints: [{ x: 100, y }] });
    await client.send('Input.dispatchTouchEvent', { type: 'touchEnd', touchPoints: [] });
    await until(page, 'it scrolled', async () => !(await rows(page)).includes('300'));
    await line(page, 'clear; ls /');
    await page.locator('#settings-button').click();
    await picture(page, `phone-${width}-settings`);
    const wide = await page.evaluate(() => [...document.querySelectorAll('html, header *, .panel:not([hidden]), #keys')]
      .filter((each) => each.scrollWidth > each.clientWidth && each.id === '' || each.getBoundingClientRect().right > innerWidth).map((each) => each.outerHTML.slice(0, 80)));
    expect(wide.length === 0, `${wide}: the page is wider than ${width} px`);
    // the keyboard comes: the prompt stays above it
    await page.keyboard.press('Escape');
    await page.setViewportSize({ width, height: 420 });
    await until(page, 'the keys are above the keyboard', () => page.evaluate(() => document.querySelector('#keys').getBoundingClientRect().bottom <= 421));
    await picture(page, `phone-${width}-keyboard`);
  });
  if (error) wrong.push(`phone of ${width} px: ${error}`);
}

const only = process.argv[3];
for (const [name, drive] of Object.entries(cases)) {
  if (only && !name.includes(only)) continue;
  console.error(name);
  const gateway = new Gateway();
  const address = await gateway.listen();
  const { error } = await withPage({ url: address, dark: true }, async (page, saw) => {
    saw.case = name;
    await readable(page);
    saw.result = await drive(page, gateway, address);
    // what a page says that lost its gateway is no complaint
    const complaints = saw.console.filter((each) => !/ERR_CONNECTION|WebSocket connection to|401/.test(each));
    expect(complaints.length === 0, `the page complains: ${complaints.join('; ')}`);
    expect(saw.external.length === 0 && saw.outside.length === 0, `the page asks others: ${saw.external}`);
    const origins = new Set(gateway.origins);
    expect(origins.size === 1 && origins.has(new URL(address).origin), `the sockets' origins: ${[...origins]}`);
  });
  if (error) wrong.push(`${name}: ${error}`);
  gateway.close();
}
for (const width of [390, 360]) {
  if (only && only !== 'phone') continue;
  console.error(`phone of ${width} px`);
  const gateway = new Gateway();
  await phone(await gateway.listen(), gateway, width);
  gateway.close();
}
for (const each of wrong) console.error(`FAILED: ${each}`);
