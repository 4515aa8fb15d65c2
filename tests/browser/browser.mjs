// What the drivers share: a headless Chromium that accepts a self-signed certificate, and a record of what it saw.
import { createRequire } from 'node:module';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

// SHLOGIN_BROWSER_MODULES is where `npm ci` was run; without it, beside this file
const require = createRequire(path.join(process.env.SHLOGIN_BROWSER_MODULES ?? import.meta.dirname ?? '.', 'package.json'));
const { chromium } = require('playwright-core');

// nothing here calls home: what a test sees is what the page does
const quiet = ['--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage', '--disable-default-apps'];

// Chromium gives up what is under way when an interface of the machine comes or goes, as those of other tests do
const networkChanged = 'net::ERR_NETWORK_CHANGED';
// and what is tried again at once may meet the page that says so
const overtaken = 'is interrupted by another navigation to "chrome-error://chromewebdata/"';

/** Does it again, a few times, where nothing but that was in its way. */
async function steadily(action) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await action();
    } catch (error) {
      if (tries === 5 || ![networkChanged, overtaken].some((why) => String(error?.message).includes(why))) throw error;
    }
  }
}

/** The words of the command line: those without dashes, and those like `--name=value`. */
export function commandLine() {
  const words = process.argv.slice(2);
  const flags = Object.fromEntries(words.filter((w) => w.startsWith('--')).map((w) => {
    const [name, ...value] = w.slice(2).split('=');
    return [name, value.join('=')];
  }));
  return { words: words.filter((w) => !w.startsWith('--')), flags };
}

/**
 * Opens a page of a fresh browser, runs `drive(page, saw)`, prints what was seen as one line of JSON, and sets the exit
 * status. Every page that is opened beside it is watched, too. Returns what was seen, with what went wrong as `error`.
 * Every driver takes
 *   --below=PATH    what the page's host is asked for elsewhere than below this path is `outside`
 *   --trusts=HASH   of a certificate to be believed as if a known authority had signed it, the SHA-256 of its public key
 *                   in base64. Without it every certificate will do for pages, but service workers are refused, as they
 *                   are to who clicks a warning away.
 */
export async function withPage(options, drive) {
  const saw = { title: null, url: null, websockets: [], console: [], failed: [], refused: [], external: [], outside: [] };
  const { below = '/', trusts } = commandLine().flags;
  const profile = await mkdtemp(path.join(tmpdir(), 'shlogin-browser-'));
  let context;
  try {
    context = await chromium.launchPersistentContext(profile, {
      executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
      headless: true,
      ignoreHTTPSErrors: !trusts,
      chromiumSandbox: process.getuid() !== 0, // Chromium's own sandbox refuses to run for root
      viewport: { width: options.width ?? 1280, height: options.height ?? 800 },
      colorScheme: options.dark ? 'dark' : 'light',
      args: trusts ? [...quiet, `--ignore-certificate-errors-spki-list=${trusts}`] : quiet,
    });
    context.setDefaultTimeout(options.timeout ?? 60_000);
    const page = context.pages()[0] ?? await context.newPage();
    const own = new URL(options.url).host;
    const place = (text) => {
      const url = new URL(text);
      if (!/^(http|ws)/.test(url.protocol)) return;
      if (url.host !== own) saw.external.push(text.slice(0, 200));
      else if (!url.pathname.startsWith(below)) saw.outside.push(text.slice(0, 200));
    };
    const watch = (opened) => opened.on('websocket', (w) => {
      saw.websockets.push(w.url().slice(0, 300));
      place(w.url());
      w.on('socketerror', (why) => saw.failed.push(`${w.url().slice(0, 200)} ${why}`));
    });
    watch(page);
    context.on('page', watch);
    const goto = page.goto.bind(page);
    page.goto = (...words) => steadily(() => goto(...words));
    context.on('console', (m) => {
      if (m.type() !== 'error') return;
      const at = m.location().url;
      // what Chromium asks for by itself, where a page names no icon
      if (at === new URL('/favicon.ico', options.url).href) return;
      saw.console.push(`${m.text().slice(0, 400)} ${at.slice(0, 200)}`.trim());
    });
    context.on('weberror', (e) => saw.console.push(String(e.error()).slice(0, 400)));
    // Chromium calls a request that is answered with 204 aborted
    const passing = ['net::ERR_ABORTED', networkChanged];
    context.on('requestfailed', (r) => !passing.includes(r.failure()?.errorText) && saw.failed.push(`${r.url().slice(0, 200)} ${r.failure()?.errorText}`));
    context.on('response', (r) => r.status() >= 400 && saw.refused.push(`${r.status()} ${r.url().slice(0, 200)}`));
    context.on('request', (r) => place(r.url()));
    try {
      await drive(page, saw);
    } catch (error) {
      saw.error = String(error?.message ?? error).slice(0, 2000);
      process.exitCode = 1;
    }
    saw.title = await page.title().catch(() => null);
    saw.url = page.url();
    if (options.out) await page.screenshot({ path: options.out, fullPage: options.full ?? false }).catch((e) => { saw.error ??= String(e); process.exitCode = 1; });
  } catch (error) {
    saw.error = String(error?.message ?? error).slice(0, 2000);
    process.exitCode = 1;
  } finally {
    await context?.close().catch(() => {});
    await rm(profile, { recursive: true, force: true }).catch(() => {});
  }
  console.log(JSON.stringify(saw));
  return saw;
}
