// node jupyterlab.mjs URL OUT.png
// Opens JupyterLab, runs a cell in a notebook, and asks the shell of a terminal.
import { commandLine, withPage } from './browser.mjs';
import { runCell } from './lab.mjs';
import { askShell } from './terminal.mjs';

const { words: [url, out] } = commandLine();
if (!url || !out) {
  console.error('usage: node jupyterlab.mjs URL OUT.png');
  process.exit(2);
}

await withPage({ url, out }, async (page, saw) => {
  await page.goto(url, { waitUntil: 'domcontentloaded' });
  const cell = await runCell(page, "'-'.join(str(n * 37) for n in (3, 6, 9))", '111-222-333');
  // another launcher beside the notebook
  await page.locator('.jp-Toolbar [data-command="launcher:create"], .jp-ToolbarButtonComponent[data-command="launcher:create"]').first().click();
  await page.locator('.jp-LauncherCard[data-category="Other"]', { hasText: 'Terminal' }).last().click();
  const xterm = page.locator('.jp-Terminal .xterm').first();
  saw.answers = [cell, await askShell(page, xterm, (text) => page.locator('.lm-TabBar-tabLabel', { hasText: text }))];
});
