// node left.mjs URL OUT.png --for=SECONDS [--until=FILE] [--after=SECONDS]
// Does what a person does who forgets a tab: runs a cell in JupyterLab, and leaves the page open. Tells what the page does in the
// meantime: requests by path, and the bytes of each WebSocket. --after is how long it may settle before that is counted, and a
// FILE that is there ends it before its time.
import { existsSync } from 'node:fs';
import { commandLine, withPage } from './browser.mjs';
import { runCell } from './lab.mjs';

const { words: [url, out], flags } = commandLine();
if (!url || !out || !flags.for) {
  console.error('usage: node left.mjs URL OUT.png --for=SECONDS [--after=SECONDS]');
  process.exit(2);
}
const seconds = (n) => new Promise((done) => setTimeout(done, n * 1000));

await withPage({ url, out, timeout: 90_000 }, async (page, saw) => {
  let counts = false;
  const begun = Date.now();
  const [requests, sockets] = [{}, {}];
  page.on('request', (r) => {
    const key = `${r.method()} ${new URL(r.url()).pathname}`;
    if (counts) requests[key] = (requests[key] ?? 0) + 1;
  });
  page.on('websocket', (w) => {
    const path = new URL(w.url()).pathname;
    const count = (way) => ({ payload }) => {
      if (!counts) return;
      sockets[path] ??= { sent: 0, received: 0, frames: 0 };
      sockets[path][way] += payload.length;
      sockets[path].frames += 1;
    };
    w.on('framesent', count('sent'));
    w.on('framereceived', count('received'));
  });
  await page.goto(url, { waitUntil: 'domcontentloaded' });
  await runCell(page, "'-'.join(str(n * 37) for n in (3, 6, 9))", '111-222-333');
  await seconds(Number(flags.after ?? 0));
  counts = true;
  const end = Date.now() + Number(flags.for) * 1000;
  while (Date.now() < end && !(flags.until && existsSync(flags.until))) await seconds(0.5);
  Object.assign(saw, { requests, sockets, seconds: (Date.now() - begun) / 1000 });
});
