// node notebook.mjs URL OUT.png
// Does what a person does with the URL that `shlogin start` printed: opens it, makes a Python notebook, runs a cell, and
// looks for the result on the page. Exits with 0 only if the result, which the cell's own text does not contain, is there.
import { withPage } from './browser.mjs';
import { runCell } from './lab.mjs';

const [url, out] = process.argv.slice(2);
if (!url || !out) {
  console.error('usage: node notebook.mjs URL OUT.png');
  process.exit(2);
}
const expression = "'-'.join(str(n * 37) for n in (3, 6, 9))";
const result = '111-222-333';
const token = new URL(url).searchParams.get('token');

await withPage({ url, out, timeout: 90_000 }, async (page, saw) => {
  saw.expression = expression;
  saw.visited = [];
  page.on('framenavigated', (frame) => frame === page.mainFrame() && saw.visited.push(frame.url()));

  await page.goto(url, { waitUntil: 'domcontentloaded' });
  saw.result = await runCell(page, expression, result);

  const wrong = [];
  if (saw.result !== result) wrong.push(`the cell gave ${saw.result}, not ${result}`);
  const kernel = saw.websockets.filter((w) => w.includes('/api/kernels/'));
  if (kernel.length === 0) wrong.push('no WebSocket to the kernel was opened');
  const ends = new URL(page.url());
  if (ends.searchParams.has('token') || (token && page.url().includes(token))) wrong.push('the token is still in the address bar');
  if (token && saw.websockets.some((w) => w.includes(token))) wrong.push('the token is in the address of a WebSocket');
  if (token && await page.evaluate((t) => document.documentElement.outerHTML.includes(t) || document.cookie.includes(t) || document.referrer.includes(t), token)) {
    wrong.push('the token can be read by the page');
  }
  if (saw.external.length > 0) wrong.push(`the page asked others: ${saw.external.join(' ')}`);
  if (wrong.length > 0) throw new Error(wrong.join('; '));
});
