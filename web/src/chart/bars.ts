// Rows of a candlestick view as bars, and what is known of each: history, closed or still forming.

import { columnIndex } from '../text/columns';
import { toNumber } from '../text/number';
import { toMs } from '../text/time';
import type { Entry } from '../store/rows';
import type { Column, Row, View } from '../wire/messages';

export interface Bar {
  /** Milliseconds since 1970. */
  time: number;
  end: number | null;
  open: number;
  high: number;
  low: number;
  close: number;
  /** Null where the view has no volume. */
  volume: number | null;
  origin: Entry['origin'];
}

export type BarState = 'history' | 'closed' | 'forming';

export class BarReader {
  private readonly open: number;
  private readonly high: number;
  private readonly low: number;
  private readonly close: number;
  private readonly volume: number;
  private readonly end: number;
  private readonly windowMs: number | null;

  constructor(view: View) {
    const at = (...names: string[]) => columnIndex(view.columns, ...names);
    this.open = at('open');
    this.high = at('high');
    this.low = at('low');
    this.close = at('close');
    this.volume = at('volume', 'base_volume', 'quote_volume');
    this.end = at('window_end');
    this.windowMs = view.window_ms;
  }

  get hasVolume(): boolean {
    return this.volume >= 0;
  }

  /** Null where a price is missing: a chart cannot draw half a candle. */
  read(entry: Entry): Bar | null {
    const [open, high, low, close] = [this.open, this.high, this.low, this.close].map((index) => toNumber(entry.row[index]));
    if (open == null || high == null || low == null || close == null) return null;
    return { time: entry.time, end: this.endOf(entry), open, high, low, close, volume: this.volume < 0 ? null : toNumber(entry.row[this.volume]), origin: entry.origin };
  }

  private endOf(entry: Entry): number | null {
    return windowEnd(entry.row, this.end, entry.time, this.windowMs);
  }
}

/** When a row's window ends, in milliseconds; null where it has none. */
export function windowEnd(row: Row, endIndex: number, time: number, windowMs: number | null): number | null {
  const end = endIndex < 0 ? null : toMs(row[endIndex]);
  return end ?? (windowMs === null ? null : time + windowMs);
}

/** A row whose window ends at or before the watermark is final. */
export function barState(bar: Pick<Bar, 'end' | 'origin'>, watermark: number | null): BarState {
  if (bar.origin === 'history') return 'history';
  if (bar.end === null) return 'closed';
  return watermark !== null && bar.end <= watermark ? 'closed' : 'forming';
}

export const barStateText: Record<BarState, string> = {
  history: 'history',
  closed: 'live (closed)',
  forming: 'live (forming)',
};

/** One bar per time, oldest first: a chart takes no two bars at one place, and the newer row is right. */
export function barsOf(entries: readonly Entry[], reader: BarReader, from = 0): Bar[] {
  const bars: Bar[] = [];
  for (let i = from; i < entries.length; i++) {
    const bar = reader.read(entries[i] as Entry);
    if (!bar) continue;
    if (bars[bars.length - 1]?.time === bar.time) bars[bars.length - 1] = bar;
    else bars.push(bar);
  }
  return bars;
}

export interface Aligned {
  /** Seconds since 1970. */
  times: number[];
  values: (number | null)[][];
}

/** Rows as columns of numbers along one axis of time. */
export function alignedOf(entries: readonly Entry[], columns: Column[], values: Column[]): Aligned {
  const indexes = values.map((value) => columns.indexOf(value));
  const times: number[] = [];
  const data: (number | null)[][] = indexes.map(() => []);
  for (const entry of entries) {
    const time = entry.time / 1000;
    const same = times[times.length - 1] === time;
    if (!same) times.push(time);
    const at = times.length - 1;
    indexes.forEach((index, i) => ((data[i] as (number | null)[])[at] = toNumber(entry.row[index])));
  }
  return { times, values: data };
}
