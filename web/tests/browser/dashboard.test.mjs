// The dashboard in a real browser against a running Zeta: what a person does, and what must then be on the screen.
//
//   ZETA_URL           where the dashboard is served; the test starts nothing itself
//   CHROMIUM           the browser's path, /usr/bin/chromium without it
//   ZETA_SCREENSHOTS   a folder for a picture of each page, dark and light, wide and narrow
//
// Nothing sleeps: each step waits for what it needs to see.

import assert from 'node:assert/strict';
import { mkdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { chromium } from 'playwright-core';

const WAIT_MS = Number(process.env.ZETA_WAIT_MS ?? 30_000);
const CHART_PAGE_BYTES_MAX = 110 * 1024;
const DESKTOP = { width: 1400, height: 860 };
const PHONE = { width: 390, height: 844 };

if (!process.env.ZETA_URL) throw new Error('ZETA_URL is not set: start zeta with the dashboard, then run with ZETA_URL=http://host:port/');
const base = process.env.ZETA_URL.replace(/\/*$/, '/');

/** @type {import('playwright-core').Browser} */
let browser;
/** @type {any[]} */
let views;
/** What the browser complained of, by itself: errors in scripts and breaches of the content security policy. */
const complaints = [];

before(async () => {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
  const response = await fetch(new URL('api/v1/views', base));
  assert.equal(response.status, 200, `GET ${response.url}`);
  views = (await response.json()).views;
});

after(async () => {
  await browser?.close();
});

/** @returns {Promise<import('playwright-core').Page>} */
async function open(hash, options = {}) {
  const context = await browser.newContext({ viewport: DESKTOP, colorScheme: 'dark', ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_MS);
  page.on('pageerror', (error) => complaints.push(`${hash}: ${error.message}`));
  page.on('console', (message) => {
    if (/Content Security Policy/i.test(message.text())) complaints.push(`${hash}: ${message.text()}`);
  });
  await page.goto(new URL(hash, base).href);
  return page;
}

async function close(page) {
  await page.context().close();
}

const by = (page, id) => page.getByTestId(id);

async function attribute(page, id, name) {
  return by(page, id).first().getAttribute(`data-${name}`);
}

async function number(page, id, name) {
  const text = await attribute(page, id, name);
  return text === null || text === '' ? null : Number(text);
}

/** Repeats `step` until `seen` answers with something true; a step that waits by itself keeps this calm. */
async function until(what, seen, step) {
  const deadline = Date.now() + WAIT_MS;
  for (;;) {
    const value = await seen();
    if (value) return value;
    assert.ok(Date.now() < deadline, `waited ${WAIT_MS} ms for ${what}`);
    await step();
  }
}

const frames = (page, count = 6) =>
  page.evaluate(
    (left) =>
      new Promise((done) => {
        const next = () => (left-- > 0 ? requestAnimationFrame(next) : done(null));
        next();
      }),
    count,
  );

function candleView() {
  const found = views.find((view) => view.kind === 'materialized view' && view.panel === 'candlestick' && view.history) ?? views.find((view) => view.kind === 'materialized view' && view.panel === 'candlestick');
  assert.ok(found, `no candlestick view among ${views.map((view) => view.name)}`);
  return found;
}

const viewUrl = (name) => `#/v/${encodeURIComponent(name)}`;

async function openCandles(options) {
  const page = await open(viewUrl(candleView().name), options);
  await by(page, 'chart').waitFor();
  await until('a candle', async () => (await number(page, 'chart', 'bars')) > 0, () => frames(page));
  return page;
}

test('the overview has a card for each materialized view and is connected', async () => {
  const page = await open('#/');
  for (const view of views.filter((view) => view.kind === 'materialized view')) {
    await page.locator(`main a[href="${viewUrl(view.name)}"]`).first().waitFor();
  }
  await page.locator('[data-testid="connection"][data-state="live"]').waitFor();
  await close(page);
});

test('a candle appears and moves', async () => {
  const page = await openCandles();
  const look = async () => JSON.stringify([await attribute(page, 'chart', 'bars'), await attribute(page, 'chart', 'last-time'), await attribute(page, 'chart', 'last-close')]);
  const first = await look();
  await until('a change of the last candle', async () => (await look()) !== first, () => frames(page));
  assert.match((await by(page, 'legend').textContent()) ?? '', /O[\d,.]+\s*H[\d,.]+\s*L[\d,.]+\s*C[\d,.]+/);
  assert.match((await attribute(page, 'legend', 'state')) ?? '', /^(forming|closed)$/);
  assert.match(page.url(), /[?&]symbol=/, 'the address holds the symbol');
  await close(page);
});

test('history scrolls in at the left edge, older than the live view', async () => {
  const page = await openCandles();
  await by(page, 'chart').locator('canvas').first().waitFor();
  const bars = await number(page, 'chart', 'bars');
  const oldest = await number(page, 'chart', 'oldest-time');
  const box = await by(page, 'chart').boundingBox();
  assert.ok(box);
  const y = box.y + box.height / 3;
  const drag = async () => {
    await page.mouse.move(box.x + 40, y);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width - 120, y, { steps: 6 });
    await page.mouse.up();
    await frames(page);
  };
  await until(
    'older bars',
    async () => (await number(page, 'chart', 'oldest-time')) < oldest && (await number(page, 'chart', 'bars')) > bars,
    drag,
  );

  // By keyboard too, and as far as there is more: the oldest bar is one of history.
  const second = await number(page, 'chart', 'oldest-time');
  await by(page, 'chart').getByRole('application').focus();
  await until(
    'a second page or the end',
    async () => (await number(page, 'chart', 'oldest-time')) < second || (await attribute(page, 'chart', 'history')) === 'end',
    async () => {
      await page.keyboard.press('Home');
      await frames(page);
    },
  );
  await page.keyboard.press('Home');
  await frames(page);
  await until(
    'a bar of history under the pointer',
    async () => (await attribute(page, 'legend', 'state')) === 'history',
    async () => {
      await page.mouse.move(box.x + 60 + Math.random() * 60, y);
      await frames(page);
    },
  );
  await close(page);
});

test('a symbol is found by typing, and the address follows', async (t) => {
  const page = await openCandles();
  const names = await page.getByRole('option').allTextContents();
  const other = names.map((name) => name.trim()).findLast((name) => !page.url().includes(encodeURIComponent(name)));
  if (!other) return t.skip('only one symbol');
  await page.keyboard.press('/');
  await by(page, 'symbol-input').fill(other);
  await page.keyboard.press('Enter');
  await page.waitForURL((url) => url.hash.includes(encodeURIComponent(other)));
  await until('the other symbol', async () => ((await by(page, 'legend').textContent()) ?? '').includes(other), () => frames(page));
  await close(page);
});

test('a wrong symbol gets the nearest ones', async () => {
  const page = await openCandles();
  const symbol = new URLSearchParams(new URL(page.url()).hash.split('?')[1]).get('symbol');
  assert.ok(symbol);
  await page.goto(new URL(`${viewUrl(candleView().name)}?symbol=${encodeURIComponent(`${symbol.replace(/[^A-Z0-9]/gi, '')}X`)}`, base).href);
  await by(page, 'empty-state').getByText('No rows for').waitFor();
  await by(page, 'empty-state').getByRole('link', { name: symbol, exact: true }).click();
  await by(page, 'chart').waitFor();
  await close(page);
});

test('a lost connection is told, the chart stays, and it goes on by itself', async () => {
  const context = await browser.newContext({ viewport: DESKTOP });
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_MS);
  const sockets = [];
  await page.routeWebSocket(/\/api\/v1\/ws/, (socket) => {
    sockets.push(socket);
    socket.connectToServer();
  });
  await page.goto(new URL(viewUrl(candleView().name), base).href);
  await by(page, 'chart').waitFor();
  await page.locator('[data-testid="connection"][data-state="live"]').waitFor();
  await until('a candle', async () => (await number(page, 'chart', 'bars')) > 0, () => frames(page));
  const bars = await number(page, 'chart', 'bars');
  // Both are looked for from the beginning: it may be back in a moment.
  const told = Promise.all([
    page.locator('[data-testid="connection"][data-state="reconnecting"]').waitFor(),
    page.getByText('Connection lost').waitFor(),
  ]);
  await sockets.at(-1).close({ code: 3001, reason: 'test' });
  await told;
  assert.ok((await number(page, 'chart', 'bars')) >= bars, 'the chart was emptied');
  await page.locator('[data-testid="connection"][data-state="live"]').waitFor();
  assert.ok(sockets.length > 1);
  await until('bars after the loss', async () => (await number(page, 'chart', 'bars')) >= bars, () => frames(page));
  await context.close();
});

test('the first chart page is small', async (t) => {
  const page = await openCandles();
  const urls = await page.evaluate(() => performance.getEntriesByType('resource').map((entry) => entry.name).filter((name) => name.includes('/assets/')));
  let bytes = 0;
  for (const url of new Set(urls)) bytes += gzipSync(Buffer.from(await (await fetch(url)).arrayBuffer())).length;
  t.diagnostic(`${bytes} bytes of scripts and styles, compressed`);
  assert.ok(bytes > 0 && bytes <= CHART_PAGE_BYTES_MAX, `${bytes} bytes`);
  await close(page);
});

test('SQL joins the live view and its history', async () => {
  const view = candleView();
  const table = views.find((other) => other.name === view.history);
  const key = view.key.find((name) => name !== view.time && !/^window_/.test(name));
  assert.ok(table && key, `${view.name} has no history to join`);
  const name = (text) => `"${text}"`;
  const sql = [
    `SELECT l.${name(key)}, l.live_rows, h.history_rows`,
    `FROM (SELECT ${name(key)}, count(*) AS live_rows FROM ${name(view.name)} GROUP BY ${name(key)}) AS l`,
    `JOIN (SELECT ${name(key)}, count(*) AS history_rows FROM ${name(table.name)} GROUP BY ${name(key)}) AS h ON l.${name(key)} = h.${name(key)}`,
    'ORDER BY 1',
  ].join('\n');
  const page = await open('#/sql');
  await by(page, 'sql-input').fill(sql);
  await page.keyboard.press('Control+Enter');
  await by(page, 'sql-result').or(by(page, 'problem')).waitFor();
  assert.equal(await by(page, 'problem').count(), 0, await by(page, 'problem').allTextContents().then(String));
  assert.ok((await number(page, 'sql-result', 'rows')) > 0, 'no symbol is both live and in history');
  await by(page, 'sql-result').getByText('history_rows').waitFor();
  await close(page);
});

test('a mistake in SQL is shown with its caret, as text', async () => {
  const page = await open('#/sql');
  await by(page, 'sql-input').fill(`SELECT\n  nope\nFROM "${candleView().name}"`);
  await by(page, 'sql-run').click();
  await by(page, 'problem').waitFor();
  const text = (await by(page, 'caret').textContent()) ?? '';
  assert.match(text, /line 2, column 3/);
  const rows = text.split('\n');
  const at = rows.findIndex((row) => row.includes('nope'));
  assert.equal(rows[at].indexOf('nope'), rows[at + 1].indexOf('^'), text);

  await by(page, 'sql-input').fill(`SELECT '<img src=x onerror=alert(1)>' AS markup`);
  await by(page, 'sql-run').click();
  await by(page, 'sql-result').or(by(page, 'problem')).first().waitFor();
  assert.equal(await page.locator('main img').count(), 0);
  await close(page);
});

test('the count per minute is a series with its newest value', async (t) => {
  if (!views.some((view) => view.name === 'trades_per_minute')) return t.skip('no view trades_per_minute');
  const page = await open(viewUrl('trades_per_minute'));
  await by(page, 'series-chart').waitFor();
  await until('points', async () => (await number(page, 'series-chart', 'points')) > 0, () => frames(page));
  await until('a value', async () => /\d/.test((await by(page, 'stat-value').first().textContent()) ?? ''), () => frames(page));
  await close(page);
});

test('the total is one large number that moves', async (t) => {
  if (!views.some((view) => view.name === 'trades_total')) return t.skip('no view trades_total');
  const page = await open(viewUrl('trades_total'));
  await by(page, 'stat-value').first().waitFor();
  const value = () => attribute(page, 'stat-value', 'value');
  await until('a value', async () => Number(await value()) > 0, () => frames(page));
  const first = await value();
  await until('a change', async () => (await value()) !== first, () => frames(page));
  await close(page);
});

test('pages and states have no serious fault of accessibility, dark and light', async () => {
  const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
  const faults = [];
  for (const colorScheme of ['dark', 'light']) {
    for (const [name, show] of pages()) {
      const page = await show({ colorScheme });
      await page.evaluate(axe);
      const found = await page.evaluate(async () => {
        // @ts-ignore: put there by the line above
        const { violations } = await window.axe.run();
        return violations.filter((fault) => ['serious', 'critical'].includes(fault.impact)).map((fault) => `${fault.id}: ${fault.nodes.map((node) => node.html.slice(0, 120)).join(' | ')}`);
      });
      faults.push(...found.map((fault) => `${name} ${colorScheme}: ${fault}`));
      await close(page);
    }
  }
  assert.deepEqual(faults, []);
});

test('pictures of each page', async (t) => {
  const folder = process.env.ZETA_SCREENSHOTS;
  if (!folder) return t.skip('ZETA_SCREENSHOTS is not set');
  await mkdir(folder, { recursive: true });
  for (const [scheme, size] of /** @type {const} */ ([['dark', DESKTOP], ['light', DESKTOP], ['dark', PHONE], ['light', PHONE]])) {
    for (const [name, show] of pages()) {
      const page = await show({ colorScheme: scheme, viewport: size });
      await frames(page, 30);
      await page.screenshot({ path: join(folder, `${name}-${scheme}-${size.width}.png`) });
      await close(page);
    }
  }
});

test('the browser had nothing to complain of', () => {
  assert.deepEqual(complaints, []);
});

/** Each page by name, opened and waited for. */
function pages() {
  const sql = (text) => `#/sql?${new URLSearchParams({ q: text })}`;
  const shown = (hash, id) => async (options) => {
    const page = await open(hash, options);
    await page.getByTestId(id).or(page.getByTestId('empty-state')).first().waitFor();
    return page;
  };
  const list = [
    ['overview', shown('#/', 'connection')],
    ['candlestick', (options) => openCandles(options)],
    ['sql', shown(sql(`SELECT * FROM "${candleView().name}" LIMIT 50`), 'sql-result')],
    ['sql-problem', shown(sql(`SELECT nope FROM "${candleView().name}"`), 'problem')],
    ['about', async (options) => {
      const page = await open('#/about', options);
      await page.getByRole('link', { name: 'TradingView' }).waitFor();
      return page;
    }],
  ];
  const ids = { series: 'series-chart', stat: 'stat-value', table: 'table' };
  for (const [panel, id] of Object.entries(ids)) {
    const view = views.find((candidate) => candidate.kind === 'materialized view' && candidate.panel === panel);
    if (view) list.push([panel, shown(viewUrl(view.name), id)]);
  }
  return /** @type {[string, (options: object) => Promise<import('playwright-core').Page>][]} */ (list);
}
