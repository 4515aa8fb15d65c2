// node code-server.mjs URL OUT.png
// Opens code-server, a terminal in it, and asks the shell. Its terminals have to be set not to draw on a canvas.
import { commandLine, withPage } from './browser.mjs';
import { askShell } from './terminal.mjs';

const { words: [url, out] } = commandLine();
if (!url || !out) {
  console.error('usage: node code-server.mjs URL OUT.png');
  process.exit(2);
}

await withPage({ url, out }, async (page, saw) => {
  await page.goto(url, { waitUntil: 'domcontentloaded' });
  // its files are listed once it is connected; before, it hears no keys
  await page.locator('.explorer-folders-view .monaco-list-row').first().waitFor();
  await page.keyboard.press('Control+Shift+Backquote');
  const xterm = page.locator('.terminal-wrapper .xterm').first();
  await xterm.waitFor();
  saw.answers = [await askShell(page, xterm, (text) => xterm.locator('.xterm-rows', { hasText: text }))];
});
