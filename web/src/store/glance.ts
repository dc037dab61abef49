// A short look at a view for its card: the newest values of its first number.

import { fetchPage } from '../wire/http';
import type { View } from '../wire/messages';
import { columnIndex, seriesColumn, valueColumns } from '../text/columns';
import { toNumber } from '../text/number';
import { readSymbols } from './symbols';

const VALUES = 60;

export interface Glance {
  /** What the values are: a symbol, or the name of their column. */
  label: string;
  symbol: string | null;
  values: number[];
}

/** Null where there is nothing to show or nobody answered: a card lives without it. */
export async function readGlance(view: View, symbol: string | null, signal: AbortSignal): Promise<Glance | null> {
  if (view.panel === 'table' || view.rows === 0) return null;
  try {
    const by = seriesColumn(view);
    const chosen = by === null ? null : (symbol ?? (await readSymbols(view.name, by, null))?.[0] ?? null);
    if (by !== null && chosen === null) return null;
    const where = by !== null && chosen !== null ? { [by]: [chosen] } : {};
    const page = await fetchPage({ view: view.name, where, before: null, limit: view.panel === 'stat' ? 1 : VALUES }, signal);
    const value = view.panel === 'candlestick' ? 'close' : valueColumns(view)[0]?.name;
    const index = value === undefined ? -1 : columnIndex(page.columns, value);
    const values = page.rows.map((row) => toNumber(row[index])).filter((number) => number !== null);
    return values.length === 0 ? null : { label: chosen ?? value ?? '', symbol: chosen, values };
  } catch {
    return null;
  }
}
