// The symbols that a view has rows for; those of its history where it has none yet itself.

import { runSql } from '../wire/http';
import { distinctSql } from '../text/sql';

/** Null where nobody answered: what was known before is better than nothing. */
export async function readSymbols(view: string, column: string, history: string | null): Promise<string[] | null> {
  const own = await distinct(view, column);
  if (own === null || own.length > 0 || history === null) return own;
  return distinct(history, column);
}

async function distinct(table: string, column: string): Promise<string[] | null> {
  try {
    const result = await runSql(distinctSql(table, column), null);
    return result.rows.map((row) => row[0]).filter((value) => value !== null && value !== undefined).map(String);
  } catch {
    return null;
  }
}
