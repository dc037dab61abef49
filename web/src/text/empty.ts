// Why there is nothing to see: a view without rows is the classic first-hour riddle, and the watermark is its answer.

import type { Source, View } from '../wire/messages';
import { nearest } from './nearest';
import { plain } from './number';
import { clock, toMs, windowName } from './time';

export interface EmptyReason {
  title: string;
  lines: string[];
  /** Symbols to offer instead. */
  suggestions: string[];
  tone: 'wait' | 'error';
}

export function emptyReason(view: View, source: Source | null, symbol: string | null, symbols: string[]): EmptyReason {
  if (symbol !== null && symbols.length > 0 && !symbols.includes(symbol)) {
    const close = nearest(symbol, symbols);
    return {
      title: `No rows for ${symbol}.`,
      lines: [close.length > 0 ? 'Nearest symbols:' : `${plain(symbols.length)} other symbols have rows.`],
      suggestions: close.length > 0 ? close : symbols.slice(0, 5),
      tone: 'wait',
    };
  }
  if (!source) return { title: '0 rows.', lines: ['Nothing has been written to it yet.'], suggestions: [], tone: 'wait' };

  const name = `Source \`${source.name}\``;
  if (source.state === 'unreachable' || source.state === 'failed') {
    const next = source.state === 'unreachable' ? 'It is tried again by itself.' : 'It has stopped.';
    return {
      title: `0 rows. ${name} is ${source.state === 'failed' ? 'broken' : 'unreachable'}.`,
      lines: [source.reason ?? 'It gave no reason.', next],
      suggestions: [],
      tone: 'error',
    };
  }

  const lines: string[] = [];
  const watermark = toMs(view.watermark) ?? toMs(source.watermark);
  if (source.rows === 0) {
    const waiting = source.state === 'starting' ? `${name} is starting: no record read yet.` : `${name} is ${source.state}: no record read yet.`;
    return { title: '0 rows.', lines: [waiting, ...badLines(source)], suggestions: [], tone: 'wait' };
  }
  const read = `${name}: ${plain(source.rows)} records read`;
  if (watermark === null) {
    lines.push(`${read}, no watermark yet.`);
  } else if (view.window_ms === null) {
    lines.push(`${read}, watermark ${clock(watermark)}.`);
  } else {
    const end = (Math.floor(watermark / view.window_ms) + 1) * view.window_ms;
    lines.push(`${read}, watermark ${clock(watermark)}, first ${windowName(view.window_ms)} window closes at ${clock(end)}.`);
  }
  const idle = source.splits.filter((split) => split.idle).map((split) => split.split);
  const silent = source.splits.filter((split) => split.watermark === null && !split.idle).map((split) => split.split);
  if (idle.length > 0) lines.push(`Idle: split ${idle.join(', ')}.`);
  if (silent.length > 0) lines.push(`Split ${silent.join(', ')} has sent nothing yet and holds the watermark back.`);
  lines.push(...badLines(source));
  if (source.state === 'finished') lines.push('The source is at its end: no more records come.');
  return { title: '0 rows.', lines, suggestions: [], tone: 'wait' };
}

function badLines(source: Source): string[] {
  const lines: string[] = [];
  if (source.bad_rows > 0) lines.push(`${plain(source.bad_rows)} bad records are in \`${source.name}$bad\`.`);
  if (source.late_rows > 0) lines.push(`${plain(source.late_rows)} records came late.`);
  return lines;
}
