// One WebSocket for the whole page: it comes back by itself and asks again for every subscription.
//
//   subscribe ──▶ [ socket ] ──▶ messages by subscription id
//                  └─ lost: wait, longer each time ─▶ open again ─▶ each subscription says what it still needs
//
// A subscription never learns of a lost connection except by being asked for its message again.

import { writable, type Readable } from 'svelte/store';
import { parseMessage, type ClientMessage, type FeedMessage, type SubscribeMessage } from './messages';

export interface Subscription {
  /** What to send when a connection opens; it carries the newest resume token. */
  request(): Omit<SubscribeMessage, 'id' | 'op'>;
  receive(message: FeedMessage): void;
}

export interface Connection {
  state: 'connecting' | 'live' | 'reconnecting';
  /** When the next try starts, in milliseconds of the page's clock; null while one is under way. */
  retryAt: number | null;
  attempts: number;
}

/** What the socket needs of the outside, so that tests can be the outside. */
export interface Outside {
  open(url: string): WebSocket;
  now(): number;
  random(): number;
  after(ms: number, run: () => void): () => void;
}

export const RETRY_MS_MIN = 500;
export const RETRY_MS_MAX = 15_000;
const PING_MS = 15_000;
const SILENCE_MS_MAX = 30_000;

const browser: Outside = {
  open: (url) => new WebSocket(url, 'zeta.v1'),
  now: () => Date.now(),
  random: () => Math.random(),
  after: (ms, run) => {
    const id = setTimeout(run, ms);
    return () => clearTimeout(id);
  },
};

export class Socket {
  private readonly connectionStore = writable<Connection>({ state: 'connecting', retryAt: null, attempts: 0 });
  readonly connection: Readable<Connection> = this.connectionStore;

  private socket: WebSocket | null = null;
  private readonly subscriptions = new Map<string, Subscription>();
  private nextId = 1;
  private attempts = 0;
  private wasLive = false;
  private heardAt = 0;
  private askedDelayMs: number | null = null;
  private cancelRetry: (() => void) | null = null;
  private cancelPing: (() => void) | null = null;

  constructor(
    private readonly url: string,
    private readonly outside: Outside = browser,
  ) {}

  open(): void {
    this.cancelRetry?.();
    this.cancelRetry = null;
    this.dropSocket();
    this.publish(this.wasLive || this.attempts > 0 ? 'reconnecting' : 'connecting', null);

    const socket = this.outside.open(this.url);
    this.socket = socket;
    socket.onopen = () => {
      this.attempts = 0;
      this.wasLive = true;
      this.askedDelayMs = null;
      this.heardAt = this.outside.now();
      for (const [id, subscription] of this.subscriptions) this.ask(id, subscription);
      this.schedulePing();
      this.publish('live', null);
    };
    socket.onmessage = (event) => this.receive(String(event.data));
    socket.onclose = () => this.lost(socket);
  }

  /** Tries at once where a try is due later: the network is back, or the user asks. */
  retryNow(): void {
    if (this.cancelRetry) this.open();
  }

  /** Returns the function that ends the subscription. */
  subscribe(subscription: Subscription): () => void {
    const id = `s${this.nextId++}`;
    this.subscriptions.set(id, subscription);
    if (this.isOpen()) this.ask(id, subscription);
    return () => {
      if (this.subscriptions.delete(id) && this.isOpen()) this.send({ op: 'unsubscribe', id });
    };
  }

  private receive(text: string): void {
    this.heardAt = this.outside.now();
    const message = parseMessage(text);
    if (message === null || message.op === 'pong') return;
    if (message.op === 'shutdown') {
      // The server goes away on purpose and says when it will be back.
      this.askedDelayMs = message.reconnect_after_ms ?? null;
      return;
    }
    this.subscriptions.get(message.id)?.receive(message);
  }

  private lost(socket: WebSocket): void {
    if (socket !== this.socket) return;
    this.dropSocket();
    const delay = this.askedDelayMs ?? retryDelay(this.attempts, this.outside.random());
    this.askedDelayMs = null;
    this.attempts += 1;
    this.cancelRetry = this.outside.after(delay, () => this.open());
    this.publish(this.wasLive ? 'reconnecting' : 'connecting', this.outside.now() + delay);
  }

  private dropSocket(): void {
    this.cancelPing?.();
    this.cancelPing = null;
    const old = this.socket;
    this.socket = null;
    if (!old) return;
    old.onopen = old.onmessage = old.onclose = null;
    old.close();
  }

  private schedulePing(): void {
    this.cancelPing = this.outside.after(PING_MS, () => {
      // A dead network path gives no close event; only silence tells.
      if (this.outside.now() - this.heardAt > SILENCE_MS_MAX && this.socket) return this.lost(this.socket);
      this.send({ op: 'ping' });
      this.schedulePing();
    });
  }

  private ask(id: string, subscription: Subscription): void {
    this.send({ op: 'subscribe', id, ...subscription.request() });
  }

  private send(message: ClientMessage): void {
    this.socket?.send(JSON.stringify(message));
  }

  private isOpen(): boolean {
    return this.socket?.readyState === 1;
  }

  private publish(state: Connection['state'], retryAt: number | null): void {
    this.connectionStore.set({ state, retryAt, attempts: this.attempts });
  }
}

/** Doubles with each failed try; the random part keeps many browsers from coming back in the same instant. */
export function retryDelay(attempts: number, random: number): number {
  const full = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** attempts);
  return Math.round(full / 2 + (full / 2) * random);
}
