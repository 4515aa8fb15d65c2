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

/** Opens a page of a fresh browser, runs `drive(page, saw)`, prints what was seen as one line of JSON, and sets the exit status. */
export async function withPage(options, drive) {
  const saw = { title: null, url: null, websockets: [], console: [], failed: [], external: [] };
  const profile = await mkdtemp(path.join(tmpdir(), 'shlogin-browser-'));
  let context;
  try {
    context = await chromium.launchPersistentContext(profile, {
      executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
      headless: true,
      ignoreHTTPSErrors: true,
      chromiumSandbox: process.getuid() !== 0, // Chromium's own sandbox refuses to run for root
      viewport: { width: options.width ?? 1280, height: options.height ?? 800 },
      colorScheme: options.dark ? 'dark' : 'light',
      args: quiet,
    });
    context.setDefaultTimeout(options.timeout ?? 60_000);
    const page = context.pages()[0] ?? await context.newPage();
    const own = new URL(options.url).host;
    page.on('console', (m) => m.type() === 'error' && saw.console.push(m.text().slice(0, 400)));
    page.on('pageerror', (e) => saw.console.push(String(e).slice(0, 400)));
    // Chromium calls a request that is answered with 204 aborted
    page.on('requestfailed', (r) => r.failure()?.errorText !== 'net::ERR_ABORTED' && saw.failed.push(`${r.url().slice(0, 200)} ${r.failure()?.errorText}`));
    page.on('websocket', (w) => saw.websockets.push(w.url().slice(0, 300)));
    page.on('request', (r) => {
      const url = new URL(r.url());
      if (url.protocol.startsWith('http') && url.host !== own) saw.external.push(r.url().slice(0, 200));
    });
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
}
