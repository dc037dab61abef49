// Words and numbers: what people read, edges first.
import { describe, expect, it } from 'vitest';
import { barState } from '../../src/chart/bars';
import { parseRoute, sqlHash, viewHash } from '../../src/store/route';
import { cellText, seriesColumn, titleOf, withUnit } from '../../src/text/columns';
import { emptyReason } from '../../src/text/empty';
import { matching, nearest } from '../../src/text/nearest';
import { compact, decimalsFor, fixed, percent, plain, sharedDecimals } from '../../src/text/number';
import { caret, distinctSql, nameOf, readsOnly } from '../../src/text/sql';
import { duration, toMs, windowName } from '../../src/text/time';
import type { Source, View } from '../../src/wire/messages';

const view: View = {
  name: 'candles_5m',
  kind: 'materialized view',
  source: 'candles',
  columns: [
    { name: 'window_start', type: 'TIMESTAMP' },
    { name: 'symbol', type: 'VARCHAR' },
    { name: 'close', type: 'DOUBLE' },
  ],
  key: ['window_start', 'symbol'],
  append_only: false,
  time: 'window_start',
  panel: 'candlestick',
  panel_title: null,
  panel_unit: null,
  emit: 'window close',
  rows: 0,
  epoch: 9,
  watermark: '2024-01-02T10:03:10Z',
  history: null,
  window_ms: 300_000,
};

const source: Source = {
  name: 'candles',
  connector: 'kafka',
  state: 'running',
  reason: null,
  rows: 1204,
  bad_rows: 0,
  late_rows: 0,
  epoch: 9,
  watermark: '2024-01-02T10:03:10Z',
  splits: [],
};

describe('numbers', () => {
  it('prices get the decimals they use, up to about six digits', () => {
    for (const [values, expected, why] of [
      [[60_000.5, 59_999.25], 2, 'a large price keeps cents'],
      [[60_000], 2, 'and shows them where they are zero'],
      [[0.6183, 0.62], 4, 'the most that one of them uses'],
      [[0.00001234], 8, 'a tiny price is not zero'],
      [[1 / 3], 6, 'noise is cut'],
      [[], 2, 'nothing known yet'],
      [[0], 2, 'zero has no size'],
    ] as const) {
      expect(decimalsFor(values), why).toBe(expected);
    }
  });

  it('numbers are grouped and short', () => {
    expect(fixed(60000.5, 2)).toBe('60,000.50');
    expect(plain(1204)).toBe('1,204');
    expect(plain(0.0000131)).toBe('0.0000131');
    expect(compact(1_240_000)).toBe('1.24M');
    expect(compact(999)).toBe('999');
    expect(percent(-0.0012)).toBe('−0.12%');
  });

  it('a column shares its decimals only where its sizes are alike', () => {
    expect(sharedDecimals([92.8, 93.05])).toBe(2);
    expect(sharedDecimals([50_000, 0.0000131])).toBeNull();
  });

  it('wide integers and decimals keep every digit', () => {
    expect(cellText('9007199254740993', { name: 'n', type: 'BIGINT' })).toBe('9,007,199,254,740,993');
    expect(cellText('-1234567890123.4500', { name: 'n', type: 'DECIMAL(18, 4)' })).toBe('-1,234,567,890,123.4500');
    expect(cellText(null, { name: 'n', type: 'BIGINT' })).toBe('');
    expect(cellText('<b>', { name: 's', type: 'VARCHAR' })).toBe('<b>');
    expect(cellText(1704190990000, { name: 't', type: 'TIMESTAMP' })).toBe('2024-01-02 10:23:10');
  });
});

describe('times', () => {
  it('both forms of a time are understood', () => {
    expect(toMs('1970-01-01T00:00:01Z')).toBe(1000);
    expect(toMs(1000)).toBe(1000);
    expect(toMs('soon')).toBeNull();
    expect(toMs(null)).toBeNull();
  });

  it('durations and windows have names', () => {
    expect([0, 820, 12_000, 250_000, 7_500_000, 273_600_000].map(duration)).toEqual(['0 ms', '820 ms', '12 s', '4 min 10 s', '2 h 05 min', '3 d 4 h']);
    expect([300_000, 3_600_000, 1_500].map(windowName)).toEqual(['5-minute', '1-hour', '1500-millisecond']);
  });
});

describe('bars', () => {
  it('a bar is closed when its window ends at or before the watermark', () => {
    const bar = { end: 100, origin: 'live' } as const;
    expect(barState(bar, null)).toBe('forming');
    expect(barState(bar, 99)).toBe('forming');
    expect(barState(bar, 100), 'the end itself is enough').toBe('closed');
    expect(barState({ end: 100, origin: 'history' }, 0)).toBe('history');
    expect(barState({ end: null, origin: 'live' }, null), 'without a window it cannot form').toBe('closed');
  });
});

describe('empty views', () => {
  it('the watermark explains why no window has closed', () => {
    const { lines } = emptyReason(view, source, null, []);
    expect(lines).toEqual(['Source `candles`: 1,204 records read, watermark 10:03:10, first 5-minute window closes at 10:05:00.']);
  });

  it('an unreachable source says its reason', () => {
    const reason = emptyReason(view, { ...source, state: 'unreachable', reason: 'connection refused' }, null, []);
    expect(reason).toMatchObject({ tone: 'error', title: '0 rows. Source `candles` is unreachable.' });
    expect(reason.lines[0]).toBe('connection refused');
  });

  it('a split that sent nothing is named', () => {
    const splits = [{ split: '2', position: 0, end: 0, lag: 0, watermark: null, idle: false }];
    expect(emptyReason({ ...view, watermark: null }, { ...source, watermark: null, splits }, null, []).lines).toEqual([
      'Source `candles`: 1,204 records read, no watermark yet.',
      'Split 2 has sent nothing yet and holds the watermark back.',
    ]);
  });

  it('a wrong symbol gets the nearest ones', () => {
    const reason = emptyReason(view, source, 'BTCUSD', ['ADA-USDT', 'BTC-USDT', 'WIF-EUR']);
    expect(reason.title).toBe('No rows for BTCUSD.');
    expect(reason.suggestions[0]).toBe('BTC-USDT');
  });
});

describe('names', () => {
  it('what only lacks its separator is nearest', () => {
    expect(nearest('btcusdt', ['BTC-USDC', 'BTC-USDT', 'ETH-USDT'])[0]).toBe('BTC-USDT');
    expect(nearest('zzzzzzzzzz', ['BTC-USDT'])).toEqual([]);
  });

  it('a search puts names that begin so first', () => {
    expect(matching('usd', ['BTC-USDT', 'USDC-EUR', 'ETH-BTC'])).toEqual(['USDC-EUR', 'BTC-USDT']);
    expect(matching(' ', ['A'])).toEqual(['A']);
  });

  it('the series column is the first of the key that is no time', () => {
    expect(seriesColumn(view)).toBe('symbol');
    expect(seriesColumn({ ...view, key: ['window_start'], panel: 'series' })).toBeNull();
  });

  it('a view is called by its title, or else by its name', () => {
    expect(titleOf(view)).toBe('candles_5m');
    expect(titleOf({ ...view, panel_title: 'Five minutes' })).toBe('Five minutes');
  });

  it('a number is followed by the unit, where one was given', () => {
    expect(withUnit('1,204', view)).toBe('1,204');
    expect(withUnit('1,204', { ...view, panel_unit: 'USDT' })).toBe('1,204 USDT');
  });

  it('names are quoted where SQL needs it', () => {
    expect(distinctSql('candles$late', 'sym"bol')).toBe('SELECT DISTINCT "sym""bol" FROM "candles$late" ORDER BY 1');
    expect([nameOf('candles_5m'), nameOf('candles$bad')]).toEqual(['candles_5m', '"candles$bad"']);
  });
});

describe('problems in SQL', () => {
  const at = (line: number, column: number, end_line: number, end_column: number) => ({
    title: 'unknown column',
    position: { line, column, offset: 0, end_line, end_column },
  });

  it('the mark stands under the text it means', () => {
    expect(caret('SELECT symbol,\n\tnope\nFROM t', at(2, 2, 2, 6))).toEqual({ line: 2, text: ' nope', mark: ' ^^^^' });
  });

  it('a mark over several lines ends with the first', () => {
    expect(caret('SELECT (1\n+ 2', at(1, 8, 2, 4))?.mark).toBe('       ^^');
  });

  it('a place at the very end still has a mark', () => {
    expect(caret('SELECT', at(1, 7, 1, 7))?.mark).toBe('      ^');
    expect(caret('SELECT', { title: 'x', position: null })).toBeNull();
    expect(caret('SELECT', at(9, 1, 9, 2))).toBeNull();
  });
});

it('a link runs only what surely reads', () => {
  for (const [sql, expected, why] of [
    ['SELECT 1', true, 'a query'],
    ['  with a as (select 1)\nselect * from a;', true, 'case, space and one end mark do not matter'],
    ['DROP VIEW v', false, 'a statement'],
    ['SELECT 1; DROP VIEW v', false, 'a second statement'],
    ['WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a', false, 'a query may hide a change'],
    ['EXPLAIN CREATE TABLE t (a INT)', false, 'in doubt a person decides'],
    ['', false, 'nothing'],
  ] as const) {
    expect(readsOnly(sql), why).toBe(expected);
  }
});

describe('addresses', () => {
  it('a page is found again from its address', () => {
    expect(parseRoute('')).toEqual({ page: 'overview' });
    expect(parseRoute(viewHash('candles$bad'))).toEqual({ page: 'view', name: 'candles$bad', symbol: null });
    expect(parseRoute(viewHash('a/b', 'BTC&USDT'))).toEqual({ page: 'view', name: 'a/b', symbol: 'BTC&USDT' });
    expect(parseRoute(sqlHash('SELECT 1 ? 2'))).toEqual({ page: 'sql', sql: 'SELECT 1 ? 2' });
    expect(parseRoute('#/nowhere')).toEqual({ page: 'unknown', hash: '#/nowhere' });
  });
});
