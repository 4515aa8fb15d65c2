// node desktop.mjs URL OUT.png --file=PATH
// Opens noVNC, which has to connect by itself, waits for a desktop with a terminal in it, and has its shell write its
// answer into a file: a desktop's picture has no text to read. The picture must have changed, too.
import { readFile } from 'node:fs/promises';
import { commandLine, withPage } from './browser.mjs';

const { words: [url, out], flags: { file } } = commandLine();
if (!url || !out || !file) {
  console.error('usage: node desktop.mjs URL OUT.png --file=PATH');
  process.exit(2);
}
const patience = 30_000;

/** Looks until `seen` returns something true, and returns that. */
async function until(page, what, seen) {
  const deadline = Date.now() + patience;
  for (;;) {
    const found = await seen();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`not within ${patience} ms: ${what}`);
    await page.waitForTimeout(50);
  }
}

await withPage({ url, out }, async (page, saw) => {
  await page.goto(url, { waitUntil: 'domcontentloaded' });
  await page.locator('.noVNC_connected').waitFor({ state: 'attached' });
  const canvas = page.locator('#noVNC_container canvas');
  await canvas.waitFor();
  /** How many colours the desktop has, and a number that changes with it. */
  const look = () => canvas.evaluate((element) => {
    const { data } = element.getContext('2d').getImageData(0, 0, element.width, element.height);
    const colours = new Set();
    let sum = 0;
    for (let at = 0; at < data.length; at += 4) {
      const colour = (data[at] << 16) | (data[at + 1] << 8) | data[at + 2];
      colours.add(colour);
      sum = (Math.imul(sum, 31) + colour) | 0;
    }
    return { size: [element.width, element.height], colours: colours.size, sum };
  });
  const before = await until(page, 'a desktop with something on it', async () => {
    const seen = await look();
    return seen.colours > 2 ? seen : undefined;
  });
  // a terminal that is about to appear loses keys: so again, until they have arrived
  const written = () => readFile(file, 'utf8').then((text) => text.trim(), () => '');
  await until(page, 'the shell has answered', async () => {
    await canvas.click({ position: { x: 300, y: 200 } });
    await page.keyboard.type(`\necho answer-$((6*7)) >${file}\n`);
    for (let waited = 0; waited < 3000 && !/\d$/.test(await written()); waited += 50) await page.waitForTimeout(50);
    return /\d$/.test(await written());
  });
  saw.answers = [await written()];
  await until(page, 'the desktop shows what was typed', async () => (await look()).sum !== before.sum);
  saw.size = before.size;
});
