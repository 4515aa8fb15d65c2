// node again.mjs URL OUT.png TEXT
// The page of a session whose job is over: takes a picture of it beside OUT.png, has the session started again by its button,
// and waits until TEXT, which is the app's, is there.
import { withPage } from './browser.mjs';

const [url, out, text] = process.argv.slice(2);
if (!url || !out || !text) {
  console.error('usage: node again.mjs URL OUT.png TEXT');
  process.exit(2);
}

await withPage({ url, out }, async (page, saw) => {
  await page.goto(url, { waitUntil: 'load' });
  saw.offer = await page.locator('main').innerText();
  await page.screenshot({ path: out.replace(/\.png$/, '-offer.png') });
  // as somebody without a mouse
  await page.keyboard.press('Tab');
  saw.focused = await page.evaluate(() => document.activeElement?.textContent);
  await page.keyboard.press('Enter');
  await page.waitForURL((at) => !at.pathname.startsWith('/-/'));
  saw.then = await page.locator('body').innerText();
  await page.getByText(text).first().waitFor();
  saw.path = new URL(page.url()).pathname;
});
