// node streamlit.mjs URL OUT.png
// Opens the Streamlit app of tests/apps, moves its slider by the keyboard, and waits for what the server makes of it.
import { commandLine, withPage } from './browser.mjs';

const { words: [url, out] } = commandLine();
if (!url || !out) {
  console.error('usage: node streamlit.mjs URL OUT.png');
  process.exit(2);
}

await withPage({ url, out }, async (page, saw) => {
  await page.goto(url, { waitUntil: 'domcontentloaded' });
  await page.getByText('twice n is 40').waitFor();
  await page.getByRole('slider').focus();
  await page.keyboard.press('ArrowRight');
  await page.getByText('twice n is 42').waitFor();
  saw.answers = ['followed'];
});
