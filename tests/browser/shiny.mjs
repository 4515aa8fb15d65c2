// node shiny.mjs URL OUT.png
// Opens the Shiny app of tests/apps, moves its slider by the keyboard, and waits for what the server makes of it.
import { commandLine, withPage } from './browser.mjs';

const { words: [url, out] } = commandLine();
if (!url || !out) {
  console.error('usage: node shiny.mjs URL OUT.png');
  process.exit(2);
}

await withPage({ url, out }, async (page, saw) => {
  await page.goto(url, { waitUntil: 'domcontentloaded' });
  await page.getByText('twice n is 40').waitFor();
  await page.locator('.irs-line').focus();
  await page.keyboard.press('ArrowRight');
  // by one or by two, as the page takes it; the server has to say what twice that is
  await page.getByText(/twice n is 4[24]/).waitFor();
  saw.answers = ['followed'];
});
