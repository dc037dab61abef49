// Rows by key and time: applying snapshot and deltas gives exactly the view's rows.
import { describe, expect, it } from 'vitest';
import { reorder, Rows } from '../../src/store/rows';
import type { Column, Row } from '../../src/wire/messages';

const columns: Column[] = [
  { name: 'symbol', type: 'VARCHAR' },
  { name: 'window_start', type: 'TIMESTAMP' },
  { name: 'close', type: 'DOUBLE' },
];

function candles(): Rows {
  return new Rows(columns, ['symbol', 'window_start'], 'window_start');
}

function held(rows: Rows): Row[] {
  return rows.entries.map((entry) => entry.row);
}

describe('rows with a key', () => {
  it('an upsert replaces the row of the same key', () => {
    const rows = candles();
    rows.replace([['A', 1, 10], ['A', 2, 20]]);
    rows.upsert(['A', 2, 21]);
    expect(held(rows)).toEqual([['A', 1, 10], ['A', 2, 21]]);
  });

  it('a delete needs only the key to match', () => {
    const rows = candles();
    rows.replace([['A', 1, 10], ['A', 2, 20]]);
    rows.remove(['A', 1, 999]);
    rows.remove(['A', 7, 0]);
    expect(held(rows)).toEqual([['A', 2, 20]]);
  });

  it('rows stand in the order of time, however they come', () => {
    const rows = candles();
    for (const time of [5, 1, 3, 2, 4]) rows.upsert(['A', time, time]);
    expect(rows.entries.map((entry) => entry.time)).toEqual([1, 2, 3, 4, 5]);
  });

  it('a page adds what is older and leaves what is live', () => {
    const rows = candles();
    rows.replace([['A', 3, 30]]);
    expect(rows.prepend([['A', 1, 10], ['A', 2, 20], ['A', 3, -1]])).toBe(2);
    expect(held(rows)).toEqual([['A', 1, 10], ['A', 2, 20], ['A', 3, 30]]);
    expect(rows.entries.map((entry) => entry.origin)).toEqual(['history', 'history', 'live']);
  });

  it('a late delta turns a row of history into a live one', () => {
    const rows = candles();
    rows.prepend([['A', 1, 10]]);
    rows.upsert(['A', 1, 11]);
    expect(rows.entries).toMatchObject([{ row: ['A', 1, 11], origin: 'live' }]);
  });

  it('trimming lets go of the oldest', () => {
    const rows = candles();
    rows.replace([['A', 1, 1], ['A', 2, 2], ['A', 3, 3]]);
    expect(rows.trim(2)).toBe(1);
    expect(rows.oldest()?.time).toBe(2);
    rows.upsert(['A', 1, 1]);
    expect(rows.size).toBe(3);
  });
});

describe('changes', () => {
  it('only the tail is told where only the tail changed', () => {
    const rows = candles();
    rows.replace([['A', 1, 1], ['A', 2, 2]]);
    expect(rows.takeChange()).toEqual({ all: true, from: 0 });
    expect(rows.takeChange()).toBeNull();
    rows.upsert(['A', 2, 3]);
    rows.upsert(['A', 3, 3]);
    expect(rows.takeChange()).toEqual({ all: false, from: 1 });
  });

  it('a row in the middle or a lost row changes everything', () => {
    const rows = candles();
    rows.replace([['A', 1, 1], ['A', 3, 3]]);
    rows.takeChange();
    rows.upsert(['A', 2, 2]);
    expect(rows.takeChange()?.all).toBe(true);
    rows.remove(['A', 2, 2]);
    expect(rows.takeChange()?.all).toBe(true);
  });
});

describe('rows without a key', () => {
  it('equal rows are different rows, and a delete takes one of them', () => {
    const rows = new Rows([{ name: 'reason', type: 'VARCHAR' }], [], null);
    rows.replace([['x'], ['x'], ['y']]);
    rows.remove(['x']);
    rows.remove(['z']);
    expect(held(rows)).toEqual([['x'], ['y']]);
    rows.upsert(['x']);
    expect(rows.size).toBe(3);
  });

  it('a view of one row holds one row', () => {
    const rows = new Rows([{ name: 'trades', type: 'BIGINT' }], [], null, true);
    rows.replace([[1]]);
    rows.upsert([2]);
    expect(held(rows)).toEqual([[2]]);
  });
});

it('columns are matched by name, not by place', () => {
  const other: Column[] = [{ name: 'close', type: 'DOUBLE' }, { name: 'symbol', type: 'VARCHAR' }];
  expect(reorder([[10, 'A']], other, columns)).toEqual([['A', null, 10]]);
});
