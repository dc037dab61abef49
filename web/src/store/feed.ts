// One view on the screen: its live rows by WebSocket and its past by pages, in one ordered list.
//
//   socket ─ snapshot, delta ─▶ rows ◀─ page ─ HTTP (one request in flight)
//                                └─▶ listeners; status for the words around the chart
//
// Rows on the screen stay until their replacement is complete, so a reset or a lost connection never blanks the page.

import { writable, type Readable } from 'svelte/store';
import { isAbort, problemOf, type Page, type PageRequest } from '../wire/http';
import type { Cell, Column, FeedMessage, Problem, Row, View } from '../wire/messages';
import type { Subscription } from '../wire/socket';
import { reorder, Rows } from './rows';

/** More bars make each update of the chart slower than a frame. */
export const BARS_MAX = 20_000;
export const PAGE_ROWS = 2_000;
export const SNAPSHOT_ROWS = 500;
const PAGE_RETRY_MS = 5_000;

export interface FeedStatus {
  /** The first snapshot is here, or where there is none to wait for, the first page. */
  ready: boolean;
  watermark: number | null;
  history: 'more' | 'loading' | 'end';
  /** The chart holds as much as it may; the past goes on. */
  full: boolean;
  problem: Problem | null;
  merged: number;
  complete: boolean;
  /** When the last message came, in milliseconds of the page's clock. */
  heardAt: number | null;
  size: number;
}

export interface Sources {
  subscribe(subscription: Subscription): () => void;
  fetchPage(request: PageRequest, signal: AbortSignal): Promise<Page>;
  now(): number;
}

export class Feed {
  readonly rows: Rows;
  private readonly statusStore = writable<FeedStatus>({
    ready: false,
    watermark: null,
    history: 'more',
    full: false,
    problem: null,
    merged: 0,
    complete: false,
    heardAt: null,
    size: 0,
  });
  readonly status: Readable<FeedStatus> = this.statusStore;

  private state!: FeedStatus;
  private readonly listeners = new Set<() => void>();
  private unsubscribe: (() => void) | null = null;
  private token: string | null = null;
  private wireColumns: Column[];
  private staged: Row[] | null = null;
  private page: AbortController | null = null;
  private before: string | null = null;
  private pageFailedAt: number | null = null;

  constructor(
    private readonly view: View,
    private readonly where: Record<string, Cell[]>,
    private readonly sources: Sources,
  ) {
    this.rows = new Rows(view.columns, view.key, view.time, view.panel === 'stat' && view.key.length === 0);
    this.wireColumns = view.columns;
    this.statusStore.subscribe((status) => (this.state = status));
  }

  start(): void {
    if (isLive(this.view)) {
      this.unsubscribe = this.sources.subscribe({ request: () => this.request(), receive: (message) => this.receive(message) });
    } else {
      void this.loadOlder();
    }
  }

  stop(): void {
    this.unsubscribe?.();
    this.unsubscribe = null;
    this.page?.abort();
    this.page = null;
    this.listeners.clear();
  }

  /** Calls back after each change of the rows; the change itself is in `rows.takeChange`. */
  onRows(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Reads the page before the oldest row, unless one is on its way or there is none. */
  async loadOlder(): Promise<void> {
    if (this.page || this.state.history === 'end') return;
    if (this.pageFailedAt !== null && this.sources.now() - this.pageFailedAt < PAGE_RETRY_MS) return;
    const room = BARS_MAX - this.rows.size;
    if (room <= 0) return this.set({ full: true });

    const abort = new AbortController();
    this.page = abort;
    this.set({ history: 'loading' });
    const oldest = this.rows.oldest();
    const before = this.before ?? (oldest && this.view.time !== null ? new Date(oldest.time).toISOString() : null);
    try {
      const page = await this.sources.fetchPage(
        { view: this.view.name, where: this.where, before, limit: Math.min(PAGE_ROWS, room) },
        abort.signal,
      );
      if (this.page !== abort) return;
      this.page = null;
      if (this.pageFailedAt !== null) this.set({ problem: null });
      this.pageFailedAt = null;
      this.before = page.nextBefore;
      this.rows.prepend(reorder(page.rows, page.columns, this.view.columns));
      // A page without rows ends the past whatever it says, or we would ask for ever.
      const ended = !page.hasMore || page.rows.length === 0 || this.view.time === null;
      this.set({ ready: true, history: ended ? 'end' : 'more' });
      this.tell();
    } catch (error) {
      if (this.page !== abort) return;
      this.page = null;
      this.pageFailedAt = this.sources.now();
      this.set({ history: 'more', ...(isAbort(error) ? {} : { problem: problemOf(error) }) });
    }
  }

  private request(): ReturnType<Subscription['request']> {
    return {
      view: this.view.name,
      ...(Object.keys(this.where).length > 0 ? { where: this.where } : {}),
      snapshot: SNAPSHOT_ROWS,
      ...(this.token === null ? {} : { resume: this.token }),
      time: 'ms',
    };
  }

  private receive(message: FeedMessage): void {
    switch (message.op) {
      case 'ack':
        this.wireColumns = message.columns;
        // A connection may be lost in the middle of a snapshot: what was staged belongs to the old one.
        this.staged = null;
        this.set({ problem: null, complete: false });
        break;
      case 'snapshot': {
        const staged = this.staged ?? [];
        for (const row of this.read(message.rows)) staged.push(row);
        this.staged = staged;
        if (!message.last) break;
        this.staged = null;
        this.token = message.token;
        this.replace(staged);
        this.set({ ready: true, watermark: message.watermark, heardAt: this.sources.now() });
        this.tell();
        // A view without rows may still have a past.
        if (staged.length === 0 && this.view.time !== null) void this.loadOlder();
        break;
      }
      case 'delta':
        this.token = message.token;
        for (const row of this.read(message.delete ?? [])) this.rows.remove(row);
        for (const row of this.read(message.upsert ?? [])) this.rows.upsert(row);
        if (this.rows.trim(BARS_MAX) > 0) {
          // What was let go can be read again.
          this.before = null;
          if (this.state.history === 'end') this.set({ history: 'more' });
        }
        this.set({ watermark: message.watermark ?? this.state.watermark, heardAt: this.sources.now() });
        this.tell();
        break;
      case 'merged':
        this.set({ merged: this.state.merged + message.count, heardAt: this.sources.now() });
        break;
      case 'reset':
        // The token is of no use any more; the rows stay on the screen until the snapshot is complete.
        this.token = null;
        this.staged = null;
        break;
      case 'error':
        this.token = null;
        this.set({ problem: message.problem });
        // What cannot be watched may still be read.
        if (!this.state.ready) void this.loadOlder();
        break;
      case 'complete':
        this.set({ complete: true });
        break;
    }
  }

  /** A snapshot replaces everything: pages read before it may end where it does not begin. */
  private replace(rows: Row[]): void {
    this.page?.abort();
    this.page = null;
    this.before = null;
    this.pageFailedAt = null;
    this.rows.replace(rows);
    this.set({ history: 'more', full: false });
  }

  private read(rows: Row[]): Row[] {
    return reorder(rows, this.wireColumns, this.view.columns);
  }

  private set(change: Partial<FeedStatus>): void {
    this.statusStore.set({ ...this.state, ...change, size: this.rows.size });
  }

  private tell(): void {
    for (const listener of this.listeners) listener();
  }
}

/** Parquet tables do not change while we look, so there is nothing to subscribe to. */
function isLive(view: View): boolean {
  return view.kind === 'materialized view' || view.kind === 'side output';
}
