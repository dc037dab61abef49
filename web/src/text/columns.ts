// What the columns of a view are for: which is the time, which one chooses the series, which are numbers.

import type { Cell, Column, View } from '../wire/messages';
import { fixed, grouped, plain, toNumber } from './number';
import { dateTime, toMs } from './time';

export function isTime(column: Column): boolean {
  return /^(TIMESTAMP|DATETIME)/i.test(column.type);
}

export function isNumber(column: Column): boolean {
  return /^(U?(TINY|SMALL|BIG|HUGE)?INT|U?INT\d|INTEGER|FLOAT|REAL|DOUBLE|DECIMAL|NUMERIC)/i.test(column.type);
}

export function isInteger(column: Column): boolean {
  return /^(U?(TINY|SMALL|BIG|HUGE)?INT|U?INT\d|INTEGER)/i.test(column.type);
}

export function columnIndex(columns: Column[], ...names: string[]): number {
  for (const name of names) {
    const index = columns.findIndex((column) => column.name === name);
    if (index >= 0) return index;
  }
  return -1;
}

/** The column that chooses one series of many: the first of the key that is not a time. Null where there is only one series. */
export function seriesColumn(view: View): string | null {
  for (const name of view.key) {
    const column = view.columns.find((other) => other.name === name);
    if (!column || name === view.time || name === 'window_start' || name === 'window_end' || isTime(column)) continue;
    return name;
  }
  // A Parquet table of candles has no key, but its text column names the series all the same.
  if (view.panel !== 'candlestick' || view.key.length > 0) return null;
  return view.columns.find((column) => /^(VARCHAR|TEXT|STRING|CHAR|UTF8)/i.test(column.type))?.name ?? null;
}

/** What stands above a view: the title it was given, or its name. */
export function titleOf(view: View): string {
  return view.panel_title ?? view.name;
}

/** A number of a view with the unit that was given for it. */
export function withUnit(number: string, view: View): string {
  return view.panel_unit === null ? number : `${number} ${view.panel_unit}`;
}

/** The numbers that a chart draws: no times and nothing of the key. */
export function valueColumns(view: View): Column[] {
  return view.columns.filter((column) => isNumber(column) && !view.key.includes(column.name));
}

/** A cell as text, with a number of decimals where the column shares one. Cells are only ever shown as text, never as markup. */
export function cellText(value: Cell | undefined, column: Column, decimals: number | null = null): string {
  if (value === null || value === undefined) return '';
  if (isTime(column)) {
    const ms = toMs(value);
    if (ms !== null) return dateTime(ms);
  }
  if (isNumber(column)) {
    // Text is an exact decimal or wide integer: a number would round it.
    if (typeof value === 'string') return /^-?\d+(\.\d+)?$/.test(value) ? grouped(value) : value;
    const number = toNumber(value);
    if (number !== null) return decimals === null ? plain(number) : fixed(number, decimals);
  }
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}
