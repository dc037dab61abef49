// The SQL that the dashboard itself writes.

import type { Problem, View } from '../wire/messages';
import { seriesColumn } from './columns';

export function quote(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** Bare where the name needs no quotes, so that examples stay pleasant to read. */
export function nameOf(name: string): string {
  return /^[a-z_][a-z0-9_]*$/.test(name) ? name : quote(name);
}

export function distinctSql(view: string, column: string): string {
  return `SELECT DISTINCT ${quote(column)} FROM ${quote(view)} ORDER BY 1`;
}

/** Whether a text surely only reads, so that a link may run it. In doubt it is false, and a person presses Run. */
export function readsOnly(sql: string): boolean {
  if (!/^\s*(SELECT|WITH|SHOW|DESCRIBE|EXPLAIN)\b/i.test(sql)) return false;
  if (sql.trimEnd().replace(/;$/, '').includes(';')) return false;
  return !/\b(INSERT|UPDATE|DELETE|MERGE|INTO|CREATE|ALTER|DROP|TRUNCATE|COPY|SET|CALL)\b/i.test(sql);
}

export interface Example {
  title: string;
  sql: string;
}

/** Queries that run as they stand, made from what there is. */
export function examples(views: View[]): Example[] {
  const found: Example[] = [];
  const live = views.find((view) => view.kind === 'materialized view' && view.panel === 'candlestick') ?? views.find((view) => view.kind === 'materialized view');
  if (live) {
    const order = live.time === null ? '' : `\nORDER BY ${nameOf(live.time)} DESC`;
    found.push({ title: `newest of ${live.name}`, sql: `SELECT *\nFROM ${nameOf(live.name)}${order}\nLIMIT 20` });
  }
  const table = views.find((view) => view.name === live?.history);
  const key = live ? seriesColumn(live) : null;
  if (live && table && key !== null && table.columns.some((column) => column.name === key)) {
    const name = nameOf(key);
    found.push({
      title: 'live beside history',
      sql: [
        `SELECT l.${name}, l.live_rows, h.history_rows`,
        `FROM (SELECT ${name}, count(*) AS live_rows FROM ${nameOf(live.name)} GROUP BY ${name}) AS l`,
        `JOIN (SELECT ${name}, count(*) AS history_rows FROM ${nameOf(table.name)} GROUP BY ${name}) AS h`,
        `  ON l.${name} = h.${name}`,
        `ORDER BY l.${name}`,
      ].join('\n'),
    });
  }
  if (live) found.push({ title: 'columns', sql: `DESCRIBE ${nameOf(live.name)}` });
  found.push({ title: 'everything there is', sql: 'SHOW TABLES' });
  return found;
}

export interface Caret {
  line: number;
  /** The line of the SQL, tabs as one space so that the mark stands under its place. */
  text: string;
  /** Spaces and `^` below the line. */
  mark: string;
}

/** The line that a problem points at and the mark below it; null where the text is not to blame. */
export function caret(sql: string, problem: Problem): Caret | null {
  const position = problem.position;
  if (!position) return null;
  const text = sql.split('\n')[position.line - 1];
  if (text === undefined) return null;
  const letters = Array.from(text.replaceAll('\t', ' ').replace(/\r$/, ''));
  const start = Math.max(0, Math.min(position.column - 1, letters.length));
  const end = position.end_line > position.line ? letters.length : position.end_column - 1;
  return {
    line: position.line,
    text: letters.join(''),
    mark: ' '.repeat(start) + '^'.repeat(Math.max(1, Math.min(end, letters.length) - start)),
  };
}
