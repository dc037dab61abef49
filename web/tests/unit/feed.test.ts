// A feed against a pretended server: snapshot, delta, reset, resume and pages.
import { get } from 'svelte/store';
import { expect, it } from 'vitest';
import { BARS_MAX, Feed, type Sources } from '../../src/store/feed';
import type { Page, PageRequest } from '../../src/wire/http';
import type { FeedMessage, Row, View } from '../../src/wire/messages';
import type { Subscription } from '../../src/wire/socket';

const view: View = {
  name: 'candles',
  kind: 'materialized view',
  source: 's',
  columns: [
    { name: 'window_start', type: 'TIMESTAMP' },
    { name: 'close', type: 'DOUBLE' },
  ],
  key: ['window_start'],
  append_only: false,
  time: 'window_start',
  panel: 'series',
  panel_title: null,
  panel_unit: null,
  emit: 'changes',
  rows: 0,
  epoch: 1,
  watermark: null,
  history: 'past',
  window_ms: 1000,
};

class Server implements Sources {
  subscription!: Subscription;
  readonly asked: { request: PageRequest; signal: AbortSignal; answer: (page: Page) => void; fail: (error: unknown) => void }[] = [];
  clock = 0;

  subscribe(subscription: Subscription) {
    this.subscription = subscription;
    return () => {};
  }

  fetchPage(request: PageRequest, signal: AbortSignal) {
    return new Promise<Page>((answer, fail) => this.asked.push({ request, signal, answer, fail }));
  }

  now() {
    return this.clock;
  }

  say(message: Omit<FeedMessage, 'id'> & Record<string, unknown>) {
    this.subscription.receive({ id: 'x', ...message } as FeedMessage);
  }

  connect() {
    this.say({ op: 'ack', columns: view.columns, key: view.key, time: view.time });
  }

  snapshot(rows: Row[], token: string, last = true) {
    this.say({ op: 'snapshot', rows, last, watermark: 5, token });
  }
}

function started() {
  const server = new Server();
  const feed = new Feed(view, {}, server);
  feed.start();
  server.connect();
  return { server, feed, rows: () => feed.rows.entries.map((entry) => entry.row), status: () => get(feed.status) };
}

const page = (rows: Row[], hasMore: boolean): Page => ({ columns: view.columns, rows, hasMore, nextBefore: hasMore ? 'opaque' : null });
const settled = () => new Promise((resolve) => setTimeout(resolve, 0));

it('nothing is shown before the whole snapshot is here', () => {
  const { server, rows, status } = started();
  server.snapshot([[10, 1]], 't1', false);
  expect(rows()).toEqual([]);
  server.snapshot([[20, 2]], 't1');
  expect(rows()).toEqual([[10, 1], [20, 2]]);
  expect(status()).toMatchObject({ ready: true, watermark: 5, size: 2 });
});

it('a new connection asks to go on from the newest token', () => {
  const { server } = started();
  expect(server.subscription.request()).toEqual({ view: 'candles', snapshot: 500, time: 'ms' });
  server.snapshot([[10, 1]], 't1');
  server.say({ op: 'delta', upsert: [[20, 2]], delete: [[10, 1]], watermark: 9, token: 't2' });
  expect(server.subscription.request()).toMatchObject({ resume: 't2' });
});

it('after a reset the old rows stay until the new snapshot is complete', () => {
  const { server, rows } = started();
  server.snapshot([[10, 1]], 't1');
  server.say({ op: 'reset' });
  expect(rows()).toEqual([[10, 1]]);
  expect(server.subscription.request()).not.toHaveProperty('resume');
  server.snapshot([[30, 3]], 'u1');
  expect(rows()).toEqual([[30, 3]]);
});

it('a reset forgets pages too, since they may end where the new snapshot does not begin', async () => {
  const { server, feed, rows, status } = started();
  server.snapshot([[10, 1]], 't1');
  void feed.loadOlder();
  server.asked[0]?.answer(page([[5, 0]], false));
  await settled();
  expect(rows()).toEqual([[5, 0], [10, 1]]);
  server.say({ op: 'reset' });
  server.snapshot([[90, 9]], 'u1');
  expect(rows()).toEqual([[90, 9]]);
  expect(status().history).toBe('more');
});

it('one page is in flight at a time, and the end marker ends it', async () => {
  const { server, feed, status } = started();
  server.snapshot([[10_000, 1]], 't1');
  void feed.loadOlder();
  void feed.loadOlder();
  expect(server.asked).toHaveLength(1);
  expect(server.asked[0]?.request).toMatchObject({ before: '1970-01-01T00:00:10.000Z', limit: 2000 });
  server.asked[0]?.answer(page([[9_000, 1]], true));
  await settled();
  void feed.loadOlder();
  expect(server.asked[1]?.request.before).toBe('opaque');
  server.asked[1]?.answer(page([], true));
  await settled();
  expect(status().history).toBe('end');
  void feed.loadOlder();
  expect(server.asked).toHaveLength(2);
});

it('a page that was under way when a snapshot came is dropped', async () => {
  const { server, feed, rows } = started();
  server.snapshot([[10, 1]], 't1');
  void feed.loadOlder();
  server.say({ op: 'reset' });
  server.snapshot([[90, 9]], 'u1');
  expect(server.asked[0]?.signal.aborted).toBe(true);
  server.asked[0]?.answer(page([[5, 0]], true));
  await settled();
  expect(rows()).toEqual([[90, 9]]);
});

it('a failed page is told and not asked for again at once', async () => {
  const { server, feed, status } = started();
  server.snapshot([[10, 1]], 't1');
  void feed.loadOlder();
  server.asked[0]?.fail(new Error('lost'));
  await settled();
  expect(status()).toMatchObject({ history: 'more', problem: { detail: 'lost' } });
  void feed.loadOlder();
  expect(server.asked).toHaveLength(1);
  server.clock = 5_000;
  void feed.loadOlder();
  expect(server.asked).toHaveLength(2);
});

it('an empty view looks for its past by itself', async () => {
  const { server, status } = started();
  server.snapshot([], 't1');
  expect(server.asked[0]?.request.before).toBeNull();
  server.asked[0]?.answer(page([], false));
  await settled();
  expect(status()).toMatchObject({ ready: true, size: 0, history: 'end' });
});

it('the chart never holds more bars than it may', () => {
  const { server, feed } = started();
  server.snapshot(Array.from({ length: BARS_MAX }, (_, i) => [i, i]), 't1');
  server.say({ op: 'delta', upsert: [[BARS_MAX, 1]], watermark: null, token: 't2' });
  expect(feed.rows.size).toBe(BARS_MAX);
  expect(feed.rows.oldest()?.time).toBe(1);
  void feed.loadOlder();
  expect(server.asked).toHaveLength(0);
});

it('merged updates are counted, never silent', () => {
  const { server, status } = started();
  server.snapshot([], 't1');
  server.say({ op: 'merged', count: 312 });
  server.say({ op: 'merged', count: 1 });
  expect(status().merged).toBe(313);
});
