// The rows of one subscription, held by key and in the order of time.
//
//   snapshot ─▶ replace ┐
//   delta ────▶ upsert, remove ├─▶ entries, oldest first ─▶ takeChange ─▶ chart or table
//   page ─────▶ prepend ┘
//
// A row of the live view always wins over the same row of an older page.

import type { Cell, Column, Row } from '../wire/messages';
import { toMs } from '../text/time';

export interface Entry {
  key: string;
  /** Milliseconds since 1970; 0 where the view has no time column. */
  time: number;
  row: Row;
  origin: 'history' | 'live';
}

/** What happened since the last look: the entries from `from` on, or everything. */
export interface Change {
  all: boolean;
  from: number;
}

export class Rows {
  readonly entries: Entry[] = [];
  private readonly byKey = new Map<string, Entry>();
  /** How often each row stands in a view without a key. */
  private readonly copies = new Map<string, number>();
  private readonly keyIndexes: number[];
  private readonly timeIndex: number;
  private all = true;
  private from = Infinity;

  constructor(
    readonly columns: Column[],
    key: string[],
    time: string | null,
    /** A view of one row: whatever comes takes the place of what is here. */
    private readonly single = false,
  ) {
    this.keyIndexes = key.map((name) => columns.findIndex((column) => column.name === name)).filter((index) => index >= 0);
    this.timeIndex = time === null ? -1 : columns.findIndex((column) => column.name === time);
  }

  get size(): number {
    return this.entries.length;
  }

  oldest(): Entry | undefined {
    return this.entries[0];
  }

  newest(): Entry | undefined {
    return this.entries[this.entries.length - 1];
  }

  replace(rows: Row[]): void {
    this.entries.length = 0;
    this.byKey.clear();
    this.copies.clear();
    this.all = true;
    for (const row of rows) this.upsert(row);
  }

  upsert(row: Row): void {
    const key = this.keyForInsert(row);
    const time = this.timeOf(row);
    const held = this.byKey.get(key);
    if (held && held.time === time) {
      held.row = row;
      held.origin = 'live';
      this.touch(this.indexOf(held));
      return;
    }
    if (held) this.take(held);
    this.insert({ key, time, row, origin: 'live' });
  }

  /** Takes a whole row, as a delta's `delete` holds it; with a key only the key counts. */
  remove(row: Row): void {
    const held = this.byKey.get(this.keyForRemoval(row));
    if (held) this.take(held);
  }

  /** Puts an older page in front. Rows that are already here stay as they are. */
  prepend(rows: Row[]): number {
    const added: Entry[] = [];
    for (const row of rows) {
      const key = this.isKeyed() ? this.keyOf(row) : this.keyForInsert(row);
      if (this.byKey.has(key)) continue;
      const entry: Entry = { key, time: this.timeOf(row), row, origin: 'history' };
      this.byKey.set(key, entry);
      added.push(entry);
    }
    if (added.length === 0) return 0;
    const first = this.entries[0];
    const merged = [...added, ...this.entries];
    // Pages come in order and end where we begin; sort only where a server says otherwise.
    if (first && (added[added.length - 1] as Entry).time > first.time) merged.sort((a, b) => a.time - b.time);
    this.entries.length = 0;
    for (const entry of merged) this.entries.push(entry);
    this.all = true;
    return added.length;
  }

  /** Lets go of the oldest entries beyond `max`, and says how many. */
  trim(max: number): number {
    const excess = this.entries.length - max;
    if (excess <= 0) return 0;
    for (const entry of this.entries.splice(0, excess)) this.forget(entry);
    this.all = true;
    return excess;
  }

  /** Lets the next look see everything as changed: for a chart that is new. */
  markAll(): void {
    this.all = true;
  }

  /** The change since the last call, or null. */
  takeChange(): Change | null {
    if (!this.all && this.from === Infinity) return null;
    const change = { all: this.all, from: this.all ? 0 : this.from };
    this.all = false;
    this.from = Infinity;
    return change;
  }

  /** The index of the entry at a time, or -1. */
  findTime(time: number): number {
    const index = this.lowerBound(time);
    return this.entries[index]?.time === time ? index : -1;
  }

  private insert(entry: Entry): void {
    this.byKey.set(entry.key, entry);
    const last = this.newest();
    if (!last || last.time <= entry.time) {
      this.entries.push(entry);
      this.touch(this.entries.length - 1);
      return;
    }
    let index = this.lowerBound(entry.time);
    while (this.entries[index]?.time === entry.time) index += 1;
    this.entries.splice(index, 0, entry);
    this.all = true;
  }

  private take(entry: Entry): void {
    this.entries.splice(this.indexOf(entry), 1);
    this.forget(entry);
    this.all = true;
  }

  private forget(entry: Entry): void {
    this.byKey.delete(entry.key);
    if (this.isKeyed()) return;
    const text = JSON.stringify(entry.row);
    const count = (this.copies.get(text) ?? 1) - 1;
    if (count > 0) this.copies.set(text, count);
    else this.copies.delete(text);
  }

  private indexOf(entry: Entry): number {
    let index = this.lowerBound(entry.time);
    while (this.entries[index] !== entry) index += 1;
    return index;
  }

  private lowerBound(time: number): number {
    let low = 0;
    let high = this.entries.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.entries[middle] as Entry).time < time) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  private isKeyed(): boolean {
    return this.single || this.keyIndexes.length > 0;
  }

  private touch(index: number): void {
    this.from = Math.min(this.from, index);
  }

  private timeOf(row: Row): number {
    return this.timeIndex < 0 ? 0 : (toMs(row[this.timeIndex]) ?? 0);
  }

  private keyOf(row: Row): string {
    return JSON.stringify(this.keyIndexes.map((index): Cell => row[index] ?? null));
  }

  private keyForInsert(row: Row): string {
    if (this.isKeyed()) return this.keyOf(row);
    // Equal rows without a key are different rows: number them.
    const text = JSON.stringify(row);
    const copy = (this.copies.get(text) ?? 0) + 1;
    this.copies.set(text, copy);
    return `${copy}${text}`;
  }

  private keyForRemoval(row: Row): string {
    if (this.isKeyed()) return this.keyOf(row);
    const text = JSON.stringify(row);
    return `${this.copies.get(text) ?? 0}${text}`;
  }
}

/** Puts rows into the order of other columns, matched by name; null where a column is missing. */
export function reorder(rows: Row[], from: Column[], to: Column[]): Row[] {
  const indexes = to.map((column) => from.findIndex((other) => other.name === column.name));
  if (from.length === to.length && indexes.every((index, at) => index === at)) return rows;
  return rows.map((row) => indexes.map((index): Cell => (index < 0 ? null : (row[index] ?? null))));
}
