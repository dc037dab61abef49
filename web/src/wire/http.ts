// Requests under api/v1, relative to the page, so the dashboard works behind any prefix.
//
//   page address ──▶ api/v1/… ──▶ JSON, or a thrown ProblemError
//
// A failure is always a ProblemError, also where a proxy answered with HTML or nobody answered at all.

import type { Cell, Column, Problem, Row, Source, SqlResult, View } from './messages';

export class ProblemError extends Error {
  constructor(readonly problem: Problem) {
    super(problem.detail ?? problem.title);
  }
}

/** The API's address for a page address: the page's own folder and `api/v1/`. */
export function apiBase(page: string): URL {
  return new URL('api/v1/', page);
}

/** The WebSocket's address for a page address. */
export function socketUrl(page: string): string {
  const url = new URL('ws', apiBase(page));
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  return url.href;
}

export function fetchViews(signal?: AbortSignal): Promise<View[]> {
  return getJson<{ views: View[] }>('views', signal).then((body) => body.views);
}

export function fetchSources(signal?: AbortSignal): Promise<Source[]> {
  return getJson<{ sources: Source[] }>('sources', signal).then((body) => body.sources);
}

export async function runSql(sql: string, limit: number | null, signal?: AbortSignal): Promise<SqlResult> {
  const response = await send('sql', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', Accept: 'application/json' },
    body: JSON.stringify(limit === null ? { sql } : { sql, limit }),
    ...(signal ? { signal } : {}),
  });
  const body = (await response.json()) as Partial<SqlResult>;
  // A statement that returns no table may leave these out.
  return {
    columns: body.columns ?? [],
    rows: body.rows ?? [],
    row_count: body.row_count ?? body.rows?.length ?? 0,
    truncated: body.truncated ?? false,
    elapsed_ms: body.elapsed_ms ?? 0,
    query_id: body.query_id ?? '',
  };
}

/** The whole result as CSV; the server sends all rows here, without a limit. */
export async function fetchCsv(sql: string): Promise<Blob> {
  const response = await send('sql', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', Accept: 'text/csv' },
    body: JSON.stringify({ sql }),
  });
  return response.blob();
}

export interface PageRequest {
  view: string;
  where: Record<string, Cell[]>;
  /** Opaque: what the last page gave as `Zeta-Next-Before`, or an RFC 3339 time. */
  before: string | null;
  limit: number;
}

export interface Page {
  columns: Column[];
  /** Oldest first, times in milliseconds since 1970. */
  rows: Row[];
  hasMore: boolean;
  nextBefore: string | null;
}

export async function fetchPage(request: PageRequest, signal?: AbortSignal): Promise<Page> {
  const query = new URLSearchParams();
  for (const [column, values] of Object.entries(request.where)) {
    for (const value of values) query.append(column, String(value));
  }
  if (request.before !== null) query.set('before', request.before);
  query.set('limit', String(request.limit));
  query.set('shape', 'columns');
  query.set('time', 'ms');
  const path = `views/${encodeURIComponent(request.view)}/rows?${query}`;
  const response = await send(path, signal ? { signal } : {});
  const body = (await response.json()) as { columns: Column[]; data: Cell[][] };
  return {
    columns: body.columns,
    rows: transpose(body.data),
    hasMore: response.headers.get('Zeta-Has-More') === 'true',
    nextBefore: response.headers.get('Zeta-Next-Before'),
  };
}

export function transpose(data: Cell[][]): Row[] {
  const count = data[0]?.length ?? 0;
  const rows: Row[] = new Array(count);
  for (let i = 0; i < count; i++) rows[i] = data.map((column) => column[i] ?? null);
  return rows;
}

/** What went wrong, in the words of RFC 9457, whatever was thrown. */
export function problemOf(error: unknown): Problem {
  if (error instanceof ProblemError) return error.problem;
  return { title: 'the dashboard failed', detail: error instanceof Error ? error.message : String(error) };
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'AbortError';
}

async function getJson<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await send(path, signal ? { signal } : {});
  return (await response.json()) as T;
}

async function send(path: string, init: RequestInit): Promise<Response> {
  const url = new URL(path, apiBase(document.baseURI));
  let response: Response;
  try {
    response = await fetch(url, init);
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new ProblemError({ title: 'no answer from the server', detail: `${init.method ?? 'GET'} ${url.pathname} could not be sent` });
  }
  if (response.ok) return response;
  throw new ProblemError(await readProblem(response));
}

async function readProblem(response: Response): Promise<Problem> {
  if (/json/.test(response.headers.get('Content-Type') ?? '')) {
    const body: unknown = await response.json().catch(() => null);
    if (typeof body === 'object' && body !== null && 'title' in body) return body as Problem;
  }
  return {
    title: `${response.status} ${response.statusText}`.trim(),
    status: response.status,
    detail: `answer to ${new URL(response.url).pathname}`,
  };
}
