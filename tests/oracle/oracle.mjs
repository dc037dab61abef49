#!/usr/bin/env node
// DuckDB as the second opinion: runs SQL in an empty in-memory database and prints the rows of its last statement.
//
//   node oracle.mjs FILE|- [OPTION...]         SQL of a file, or of standard input
//   node oracle.mjs --sql TEXT [OPTION...]
//
//   --format ndjson|csv   default: ndjson, an object per row
//   --set NAME=VALUE      the SQL reads it as getvariable('NAME'); may be given several times
//
// Values look as in Zeta's HTTP API: times are RFC 3339 in UTC, integers beyond 2^53 and decimals are strings, NaN and
// infinities are null, binary is base64. A FLOAT is printed as the DOUBLE of the same value. Nothing is ever rounded.

import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import {
  DuckDBBlobValue, DuckDBDateValue, DuckDBListValue, DuckDBArrayValue, DuckDBInstance, DuckDBMapValue, DuckDBStructValue,
  DuckDBTimestampMillisecondsValue, DuckDBTimestampNanosecondsValue, DuckDBTimestampSecondsValue, DuckDBTimestampTZValue,
  DuckDBTimestampValue,
} from '@duckdb/node-api';

const NANOSECONDS_PER_SECOND = 1_000_000_000n;

/** Exits with 2 when the command line is wrong, with 1 when DuckDB refuses the SQL. */
async function main() {
  const { sql, format, settings } = readCommandLine();
  const instance = await DuckDBInstance.create(':memory:', {
    // The last bits of a sum of floats depend on the order of its rows, and so on the number of threads.
    threads: '1',
    // An extension that is not built in would be downloaded.
    autoinstall_known_extensions: 'false',
  });
  const connection = await instance.connect();
  await connection.run("SET TimeZone = 'UTC'");
  for (const [name, value] of settings) {
    await connection.run(`SET VARIABLE ${quoteName(name)} = ${quoteText(value)}`);
  }
  const statements = await connection.extractStatements(sql);
  for (let index = 0; index < statements.count - 1; index++) {
    await (await statements.prepare(index)).run();
  }
  await print(await (await statements.prepare(statements.count - 1)).stream(), format);
}

function readCommandLine() {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        sql: { type: 'string' },
        format: { type: 'string', default: 'ndjson' },
        set: { type: 'string', multiple: true, default: [] },
      },
    });
    if ((values.sql === undefined) !== (positionals.length === 1)) throw new Error('give one SQL file, or --sql');
    if (!['ndjson', 'csv'].includes(values.format)) throw new Error(`unknown format ${values.format}; there are ndjson and csv`);
    const settings = values.set.map((pair) => {
      const end = pair.indexOf('=');
      if (end < 1) throw new Error(`--set takes NAME=VALUE, not ${pair}`);
      return [pair.slice(0, end), pair.slice(end + 1)];
    });
    // 0 is standard input.
    const sql = values.sql ?? readFileSync(positionals[0] === '-' ? 0 : positionals[0], 'utf8');
    if (sql.trim() === '') throw new Error('there is no SQL in it');
    return { sql, format: values.format, settings };
  } catch (error) {
    process.stderr.write(`error: ${error.message}\n`);
    process.exit(2);
  }
}

async function print(result, format) {
  const names = result.deduplicatedColumnNames();
  if (format === 'csv') await write(csvLine(names));
  for await (const rows of result.yieldRows()) {
    const lines = rows.map((row) => {
      const values = row.map(toJson);
      if (format === 'csv') return csvLine(values);
      return `${JSON.stringify(Object.fromEntries(names.map((name, index) => [name, values[index]])))}\n`;
    });
    await write(lines.join(''));
  }
}

/** Waits for a slow reader, so that memory stays bounded. */
function write(text) {
  if (process.stdout.write(text)) return undefined;
  return new Promise((resolve) => process.stdout.once('drain', resolve));
}

function toJson(value) {
  if (value === null || typeof value === 'boolean' || typeof value === 'string') return value;
  if (typeof value === 'number') return Number.isFinite(value) ? value : null;
  if (typeof value === 'bigint') {
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : value.toString();
  }
  if (value instanceof DuckDBTimestampValue || value instanceof DuckDBTimestampTZValue) return timestamp(value, value.micros * 1_000n);
  if (value instanceof DuckDBTimestampNanosecondsValue) return timestamp(value, value.nanos);
  if (value instanceof DuckDBTimestampMillisecondsValue) return timestamp(value, value.millis * 1_000_000n);
  if (value instanceof DuckDBTimestampSecondsValue) return timestamp(value, value.seconds * NANOSECONDS_PER_SECOND);
  if (value instanceof DuckDBDateValue) return value.toString();
  if (value instanceof DuckDBListValue || value instanceof DuckDBArrayValue) return value.items.map(toJson);
  if (value instanceof DuckDBStructValue) {
    return Object.fromEntries(Object.entries(value.entries).map(([name, field]) => [name, toJson(field)]));
  }
  if (value instanceof DuckDBMapValue) return value.entries.map((entry) => ({ key: toJson(entry.key), value: toJson(entry.value) }));
  if (value instanceof DuckDBBlobValue) return Buffer.from(value.bytes).toString('base64');
  // Decimals, intervals, times of day, UUIDs.
  return value.toString();
}

/** RFC 3339 with as many digits as the fraction needs: none, 3, 6 or 9. */
function timestamp(value, nanoseconds) {
  let seconds = nanoseconds / NANOSECONDS_PER_SECOND;
  let fraction = nanoseconds % NANOSECONDS_PER_SECOND;
  // Before 1970 the division rounds up.
  if (fraction < 0n) {
    fraction += NANOSECONDS_PER_SECOND;
    seconds -= 1n;
  }
  const date = new Date(Number(seconds) * 1000);
  // Infinity, or a year with more digits than RFC 3339 has.
  if (Number.isNaN(date.getTime()) || date.getUTCFullYear() > 9999 || date.getUTCFullYear() < 0) return value.toString();
  // Groups of three zeros at the end say nothing.
  const digits = fraction.toString().padStart(9, '0').replace(/(000)+$/, '');
  return `${date.toISOString().slice(0, 19)}${digits && `.${digits}`}Z`;
}

function csvLine(values) {
  return `${values.map(csvField).join(',')}\n`;
}

/** RFC 4180; null is an empty field, the empty text is "". */
function csvField(value) {
  if (value === null) return '';
  const text = typeof value === 'object' ? JSON.stringify(value) : String(value);
  return text === '' || /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

const quoteName = (name) => `"${name.replaceAll('"', '""')}"`;
const quoteText = (text) => `'${text.replaceAll("'", "''")}'`;

// A reader that has seen enough, such as `head`, is no error.
process.stdout.on('error', (error) => process.exit(error.code === 'EPIPE' ? 0 : 1));

main().catch((error) => {
  process.stderr.write(`error: ${error.message}\n`);
  process.exitCode = 1;
});
