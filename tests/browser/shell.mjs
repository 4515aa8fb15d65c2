// node shell.mjs URL OUT.png [--guest]
// Does what a person does at the terminal page. The owner types, is asked by hostile output and answers nothing, reloads
// and is back, waits for a guest, and ends the visit. With --guest: the guest watches what the owner does, types in
// vain, and is sent away.
import { commandLine, withPage } from './browser.mjs';

const { words: [url, out], flags } = commandLine();
const guest = 'guest' in flags;

const rows = (page) => page.locator('.xterm-rows').innerText().then((text) => text.replaceAll('\u00a0', ' '));

async function shows(page, ...texts) {
  const deadline = Date.now() + 30_000;
  for (;;) {
    const screen = await rows(page);
    if (texts.some((text) => screen.includes(text))) return;
    if (Date.now() > deadline) throw new Error(`${texts.join(', ')} is not on the screen:\n${screen}`);
    await page.waitForTimeout(20);
  }
}

async function line(page, text) {
  await page.locator('.xterm-helper-textarea').focus();
  await page.keyboard.type(`${text}\n`);
}

const connected = (page) => page.locator('#state[data-is="connected"]').waitFor();

/** What a program may write to make a terminal type, set the clipboard, or tell its title. */
const HOSTILE = ["\\033]52;c;aGlqYWNrZWQ=\\007", "\\033]52;c;?\\007", "\\033P$q\"p\\033\\\\", "\\033P+q544e\\033\\\\",
  "\\033]2;title;id\\007\\033[21t", "\\033[20t", "\\033]0;id\\007\\033]l\\007"].join('');

/** For the picture: the session's own network, files, and the colours of a terminal. */
const SIGHT = "PS1='\\[\\e[1;32m\\]alice@login1\\[\\e[0m\\]:\\[\\e[1;34m\\]~\\[\\e[0m\\]$ '; mkdir -p project/results; cd project; touch notes.md simulate.py; printf '\\033]2;project\\007'; clear";

async function owner(page, saw) {
  const terminal = new URL(url);
  terminal.pathname = '/-/terminal';
  await page.context().grantPermissions(['clipboard-read', 'clipboard-write'], { origin: terminal.origin });
  await page.goto(terminal.href);
  await connected(page);
  await line(page, "PS1='$ '; clear; echo owner-$((6*7))");
  await shows(page, 'owner-42');
  // Whatever was asked is there as text, if it was answered: `cat` shows it.
  await line(page, `stty -echo; clear; printf '${HOSTILE}'; read -r -t 2 answer; stty echo; echo "answered:[$answer]" | cat -v`);
  await shows(page, 'answered:[]');
  saw.clipboard = await page.evaluate(() => navigator.clipboard.readText());
  if (saw.clipboard.includes('hijacked')) throw new Error('a program has set the clipboard');
  await line(page, "clear; for i in 1 2 3 4 5 6 7; do printf '\\033[3%dm■ colour %d \\033[9%dm■ bright\\033[0m  ' $i $i $i; done; printf '\\033[38;2;255;120;60mtrue\\033[0m\\n日本語 é\\n'; stty size; echo kept-$((40+2))");
  await shows(page, 'kept-42');
  await page.reload();
  await connected(page);
  await shows(page, 'kept-42');
  await shows(page, '日本語 é');
  if ((await rows(page)).split('kept-42').length !== 2) throw new Error('what was shown came twice');
  await page.locator('#people-count', { hasText: '1' }).waitFor();
  await line(page, SIGHT);
  for (const command of ['cat /proc/net/dev', 'ls --color=always', 'python3 -c "print(*(f\'\\033[38;2;{n};{255-n};{(n*3)%256}m■\' for n in range(0, 256, 4)), sep=\'\', end=\'\\033[0m\\n\')"', 'echo seen-$((40+4))']) {
    await line(page, command);
  }
  await shows(page, 'seen-44');
  await page.locator('#people-button').click();
  await page.screenshot({ path: out, clip: { x: 0, y: 0, width: 1280, height: 360 } });
  await page.getByRole('button', { name: 'End the visit of carol' }).click();
  await page.locator('#people-none').waitFor();
  await page.keyboard.press('Escape');
  await line(page, 'echo on-$((40+3))');
  await shows(page, 'on-43');
}

async function visitor(page) {
  await page.goto(url);
  await connected(page);
  await page.locator('#banner', { hasText: 'You are watching' }).waitFor();
  await shows(page, 'kept-42', 'seen-44'); // whichever the owner has come to
  await page.locator('.xterm-helper-textarea').focus();
  await page.keyboard.type('touch typed-by-guest\n');
  await page.screenshot({ path: out });
  await page.locator('#over', { hasText: 'the owner has ended it' }).waitFor();
}

await withPage({ url, out: undefined, dark: !guest }, async (page, saw) => {
  await (guest ? visitor(page) : owner(page, saw));
  if (new URL(page.url()).searchParams.has('token')) throw new Error('the token is still in the address bar');
  const wrong = saw.console.filter((text) => !text.includes('401') && !text.includes('WebSocket'));
  if (wrong.length > 0 || saw.external.length > 0) throw new Error(`${wrong.join('; ')} ${saw.external.join(' ')}`);
});
