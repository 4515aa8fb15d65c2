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
  const xterm = page.locator('.terminal-wrapper .xterm').first();
  // nor does it while its extensions come up, and what it did not hear it forgets
  for (let tries = 1; ; tries += 1) {
    await page.keyboard.press('Control+Shift+Backquote');
    try {
      await xterm.waitFor({ timeout: 20_000 });
      break;
    } catch (error) {
      if (tries === 3) throw error;
    }
  }
  saw.answers = [await askShell(page, xterm, (text) => xterm.locator('.xterm-rows', { hasText: text }))];
});
