// The connection: it asks again for what was subscribed, waits longer each time, and heeds the server's wish.
import { get } from 'svelte/store';
import { expect, it } from 'vitest';
import { apiBase, socketUrl } from '../../src/wire/http';
import { parseMessage } from '../../src/wire/messages';
import { RETRY_MS_MAX, retryDelay, Socket, type Outside } from '../../src/wire/socket';

class FakeSocket {
  readyState = 0;
  sent: Record<string, unknown>[] = [];
  onopen: (() => void) | null = null;
  onclose: (() => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;

  send(text: string) {
    this.sent.push(JSON.parse(text) as Record<string, unknown>);
  }

  close() {
    this.readyState = 3;
  }

  accept() {
    this.readyState = 1;
    this.onopen?.();
  }

  lose() {
    this.readyState = 3;
    this.onclose?.();
  }

  say(message: unknown) {
    this.onmessage?.({ data: JSON.stringify(message) });
  }
}

function world() {
  const sockets: FakeSocket[] = [];
  const timers: { ms: number; run: () => void; off: boolean }[] = [];
  const outside: Outside = {
    open: () => {
      const socket = new FakeSocket();
      sockets.push(socket);
      return socket as unknown as WebSocket;
    },
    now: () => 0,
    random: () => 1,
    after: (ms, run) => {
      const timer = { ms, run, off: false };
      timers.push(timer);
      return () => (timer.off = true);
    },
  };
  const socket = new Socket('ws://test', outside);
  socket.open();
  return { socket, sockets, timers, state: () => get(socket.connection) };
}

const nothing = () => {};

it('subscriptions made before the connection are sent when it opens', () => {
  const { socket, sockets, state } = world();
  socket.subscribe({ request: () => ({ view: 'v', time: 'ms' }), receive: nothing });
  expect(state().state).toBe('connecting');
  sockets[0]?.accept();
  expect(sockets[0]?.sent).toEqual([{ op: 'subscribe', id: 's1', view: 'v', time: 'ms' }]);
  expect(state().state).toBe('live');
});

it('after a loss it comes back by itself and asks with the newest token', () => {
  const { socket, sockets, timers, state } = world();
  let token = 'a';
  socket.subscribe({ request: () => ({ view: 'v', time: 'ms', resume: token }), receive: nothing });
  sockets[0]?.accept();
  token = 'b';
  sockets[0]?.lose();
  expect(state()).toMatchObject({ state: 'reconnecting', retryAt: 500 });
  timers.findLast((timer) => !timer.off)?.run();
  sockets[1]?.accept();
  expect(sockets[1]?.sent[0]).toMatchObject({ op: 'subscribe', resume: 'b' });
});

it('a shutdown message says when to come back', () => {
  const { sockets, state } = world();
  sockets[0]?.accept();
  sockets[0]?.say({ op: 'shutdown', reconnect_after_ms: 1500 });
  sockets[0]?.lose();
  expect(state().retryAt).toBe(1500);
});

it('messages reach the subscription they belong to, until it ends', () => {
  const { socket, sockets } = world();
  const got: string[] = [];
  const end = socket.subscribe({ request: () => ({ view: 'v', time: 'ms' }), receive: (message) => got.push(message.op) });
  sockets[0]?.accept();
  sockets[0]?.say({ op: 'reset', id: 's1' });
  sockets[0]?.say({ op: 'reset', id: 'other' });
  end();
  sockets[0]?.say({ op: 'reset', id: 's1' });
  expect(got).toEqual(['reset']);
  expect(sockets[0]?.sent.at(-1)).toEqual({ op: 'unsubscribe', id: 's1' });
});

it('the wait doubles up to a limit', () => {
  expect([0, 1, 2, 20].map((attempts) => retryDelay(attempts, 1))).toEqual([500, 1000, 2000, RETRY_MS_MAX]);
  expect(retryDelay(3, 0)).toBe(2000);
});

it('unknown frames are no messages', () => {
  expect(parseMessage('no json')).toBeNull();
  expect(parseMessage('{"op":"later","id":"x"}')).toBeNull();
  expect(parseMessage('{"op":"pong"}')).toEqual({ op: 'pong' });
});

it('addresses follow the page, behind any prefix', () => {
  expect(apiBase('https://host/zeta/index.html#/v/x').href).toBe('https://host/zeta/api/v1/');
  expect(socketUrl('https://host/zeta/')).toBe('wss://host/zeta/api/v1/ws');
  expect(socketUrl('http://host:8088/#/sql')).toBe('ws://host:8088/api/v1/ws');
});
