// What the server says and what we say to it, as docs/api.md writes it down.

export interface Column {
  name: string;
  type: string;
  nullable?: boolean;
}

/** One cell as JSON carries it: wide integers and decimals are strings, binary is base64, NaN is null. */
export type Cell = string | number | boolean | null | object;

/** One row, in the order of the columns it came with. */
export type Row = Cell[];

export type Panel = 'candlestick' | 'series' | 'stat' | 'table';

export interface View {
  name: string;
  kind: string;
  source: string | null;
  columns: Column[];
  key: string[];
  /** Rows that are there stay as they are. Null for what cannot be subscribed. */
  append_only: boolean | null;
  time: string | null;
  panel: Panel;
  /** What stands above it in place of its name. */
  panel_title: string | null;
  /** The unit of its numbers. */
  panel_unit: string | null;
  emit: string | null;
  rows: number | null;
  epoch: number | null;
  watermark: string | null;
  history: string | null;
  window_ms: number | null;
}

export interface Split {
  split: string;
  position: number;
  end: number | null;
  lag: number | null;
  watermark: string | null;
  idle: boolean;
}

export interface Source {
  name: string;
  connector: string;
  state: string;
  reason: string | null;
  rows: number;
  bad_rows: number;
  late_rows: number;
  epoch: number | null;
  watermark: string | null;
  splits: Split[];
}

export interface Position {
  line: number;
  column: number;
  offset: number;
  end_line: number;
  end_column: number;
}

/** RFC 9457, with the place in the SQL where there is one. */
export interface Problem {
  type?: string;
  title: string;
  status?: number;
  sqlstate?: string | null;
  detail?: string;
  position?: Position | null;
  help?: string[];
  query_id?: string | null;
}

export interface SqlResult {
  columns: Column[];
  rows: Row[];
  row_count: number;
  truncated: boolean;
  elapsed_ms: number;
  query_id: string;
}

/** A watermark with `"time": "ms"`: milliseconds since 1970, or null before the first one. */
export type WatermarkMs = number | null;

export interface SubscribeMessage {
  op: 'subscribe';
  id: string;
  view: string;
  where?: Record<string, Cell[]>;
  snapshot?: number;
  resume?: string;
  time: 'ms';
}

export type ClientMessage = SubscribeMessage | { op: 'unsubscribe'; id: string } | { op: 'ping' };

/** Messages that belong to one subscription. */
export type FeedMessage =
  | { op: 'ack'; id: string; columns: Column[]; key: string[]; time: string | null }
  | { op: 'snapshot'; id: string; rows: Row[]; last: boolean; watermark: WatermarkMs; token: string }
  | { op: 'delta'; id: string; upsert?: Row[]; delete?: Row[]; watermark: WatermarkMs; token: string }
  | { op: 'merged'; id: string; count: number }
  | { op: 'reset'; id: string }
  | { op: 'error'; id: string; problem: Problem }
  | { op: 'complete'; id: string };

export type ServerMessage = FeedMessage | { op: 'pong' } | { op: 'shutdown'; reconnect_after_ms?: number };

/** Reads a frame. Null means that it is no message we know: newer servers may say more than we understand. */
export function parseMessage(text: string): ServerMessage | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  if (typeof value !== 'object' || value === null || !('op' in value)) return null;
  const { op } = value;
  if (op === 'pong' || op === 'shutdown') return value as ServerMessage;
  const known = ['ack', 'snapshot', 'delta', 'merged', 'reset', 'error', 'complete'];
  return typeof op === 'string' && known.includes(op) ? (value as ServerMessage) : null;
}
