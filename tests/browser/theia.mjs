// node theia.mjs URL OUT.png [URL…]
// Opens Theia, a terminal in it, and asks the shell. With more URLs, one tab of the same browser for each; all are open
// before the first is asked, and in the end each is connected to once more, as a page does that lost its connection.
import { commandLine, withPage } from './browser.mjs';
import { askShell } from './terminal.mjs';

/** Whether the app takes one more connection from its page. */
const connectsAgain = (page) => page.evaluate(() => new Promise((resolve) => {
  const url = new URL('socket.io/?EIO=4&transport=websocket', location.href.split('#')[0]);
  url.protocol = 'wss:';
  const socket = new WebSocket(url);
  socket.onopen = () => { socket.close(); resolve(true); };
  socket.onerror = () => resolve(false);
}));

const { words: [url, out, ...others] } = commandLine();
if (!url || !out) {
  console.error('usage: node theia.mjs URL OUT.png [URL…]');
  process.exit(2);
}

async function opened(page, address) {
  await page.goto(address, { waitUntil: 'domcontentloaded' });
  await page.locator('.lm-MenuBar-item', { hasText: 'Terminal' }).waitFor();
  // the menu is there before what it does
  await page.locator('.theia-preload').waitFor({ state: 'detached' });
}

async function answer(page) {
  await page.bringToFront();
  await page.locator('.lm-MenuBar-item', { hasText: 'Terminal' }).click();
  await page.locator('.lm-Menu-itemLabel', { hasText: /^New Terminal$/ }).click();
  return askShell(page, page.locator('.xterm').first(), (text) => page.locator('.lm-TabBar-tabLabel', { hasText: text }));
}

await withPage({ url, out }, async (page, saw) => {
  const pages = [page];
  for (const _ of others) pages.push(await page.context().newPage());
  for (const [at, address] of [url, ...others].entries()) await opened(pages[at], address);
  saw.answers = [];
  for (const each of pages) saw.answers.push(await answer(each));
  saw.again = await Promise.all(pages.map(connectsAgain));
  saw.cookies = (await page.context().cookies()).map(({ name, path, value }) => ({ name, path, value }));
});
