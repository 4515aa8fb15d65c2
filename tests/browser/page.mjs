// node page.mjs URL OUT.png [--width=N] [--height=N] [--dark] [--full] [--wait-for=TEXT]
// Takes a picture of a page; with --wait-for, once that text is on it.
import { commandLine, withPage } from './browser.mjs';

const { words: [url, out], flags } = commandLine();
if (!url || !out) {
  console.error('usage: node page.mjs URL OUT.png [--width=N] [--height=N] [--dark] [--full] [--wait-for=TEXT]');
  process.exit(2);
}
const number = (text) => (text === undefined ? undefined : Number(text));

await withPage({ url, out, width: number(flags.width), height: number(flags.height), dark: 'dark' in flags, full: 'full' in flags }, async (page, saw) => {
  const answer = await page.goto(url, { waitUntil: 'load' });
  saw.status = answer?.status() ?? null;
  if (flags['wait-for'] !== undefined) await page.getByText(flags['wait-for']).first().waitFor();
  saw.text = (await page.locator('body').innerText()).slice(0, 4000);
  saw.overflows = await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
});
