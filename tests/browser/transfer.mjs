// node transfer.mjs URL OUT.png --file=PATH --stored=PATH
// Uploads a file by JupyterLab's file browser, waits until all of it is stored, downloads it again by the file browser,
// and tells the SHA-256 of what came. `stored` is where the server puts it.
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { commandLine, withPage } from './browser.mjs';

const { words: [url, out], flags: { file, stored } } = commandLine();
if (!url || !out || !file || !stored) {
  console.error('usage: node transfer.mjs URL OUT.png --file=PATH --stored=PATH');
  process.exit(2);
}
const patience = 200_000;

async function sha256(name) {
  const hash = createHash('sha256');
  for await (const piece of createReadStream(name, { highWaterMark: 1 << 20 })) hash.update(piece);
  return hash.digest('hex');
}

await withPage({ url, out }, async (page, saw) => {
  await page.goto(url, { waitUntil: 'domcontentloaded' });
  await page.locator('.jp-Launcher').waitFor();
  const { size } = await stat(file);

  let begun = Date.now();
  const chooser = page.waitForEvent('filechooser');
  await page.locator('.jp-FileBrowser-toolbar').getByTitle(/upload/i).first().click();
  await (await chooser).setFiles(file);
  await page.locator('.jp-Dialog').getByRole('button', { name: 'Upload' }).click(); // it is large, is that meant?
  while ((await stat(stored).catch(() => ({ size: 0 }))).size < size) {
    if (Date.now() - begun > patience) throw new Error(`not uploaded within ${patience} ms`);
    await page.waitForTimeout(100);
  }
  saw.upload_ms = Date.now() - begun;
  saw.uploaded = await sha256(stored);

  begun = Date.now();
  const item = page.locator('.jp-DirListing-item', { hasText: path.basename(file) });
  await item.click({ button: 'right' });
  const [download] = await Promise.all([
    page.waitForEvent('download', { timeout: patience }),
    page.locator('.lm-Menu-itemLabel', { hasText: /^Download$/ }).click(),
  ]);
  const arrived = await download.path();
  saw.download_ms = Date.now() - begun;
  saw.download_url = download.url();
  saw.downloaded = await sha256(arrived);
});
