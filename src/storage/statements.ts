import { types } from 'cassandra-driver';
import type { Row } from '../datasets/dataset.ts';
import { remember } from '../datasets/remember.ts';

/** The statement that inserts one row; `isTimed` where the last parameter is its write time, in µs. */
export function insertQuery(table: string, columns: readonly string[], isTimed: boolean): string {
  const using = isTimed ? ' USING TIMESTAMP ?' : '';
  return `INSERT INTO ${table} (${columns.join(', ')}) VALUES (${columns.map(() => '?').join(', ')})${using}`;
}

/** The statements that insert so many rows of a kind, by the list of their columns, which all rows of a kind of file share. */
const batchStatements = new WeakMap<readonly string[], string[]>();

/**
 * The statement that inserts so many rows of one table and the same columns. As one statement, a batch costs the driver a
 * third less than one that is put together from as many.
 */
export function batchQuery({ table, columns, timestamp }: Row, rows: number): string {
  const known = batchStatements.get(columns) ?? [];
  batchStatements.set(columns, known);
  const insert = () => insertQuery(table, columns, timestamp !== undefined);
  return (known[rows] ??= rows === 1 ? insert() : `BEGIN UNLOGGED BATCH ${`${insert()}; `.repeat(rows)}APPLY BATCH`);
}

/** The parameters of that statement. A Buffer is what the driver takes for the very bytes of a value. */
export function parametersOf(rows: readonly Row[]): unknown[] {
  const encoders = rows[0]?.columns.map((column) => ENCODERS.get(column)) ?? [];
  const parameters: unknown[] = [];
  for (const { values, timestamp } of rows) {
    for (let at = 0; at < encoders.length; at += 1) {
      const [value, encode] = [values[at], encoders[at]];
      parameters.push(encode !== undefined && typeof value === 'string' ? encode(value) : value);
    }
    if (timestamp !== undefined) parameters.push(timestamp);
  }
  return parameters;
}

/** Texts that are remembered with their bytes, and how long they are at most. */
const REMEMBERED_TEXTS = 1_000;
const REMEMBERED_LENGTH = 256;

function remembering(encode: (text: string) => Buffer) {
  const known = new Map<string, Buffer>();
  return (text: string): Buffer => {
    if (text.length > REMEMBERED_LENGTH) return encode(text);
    return known.get(text) ?? remember(known, text, encode(text), REMEMBERED_TEXTS);
  };
}

/** In memory of their own: what Buffer.from gives would keep eight kilobytes that it shares with others. */
const textBytes = remembering((text) => {
  const bytes = Buffer.allocUnsafeSlow(Buffer.byteLength(text));
  bytes.write(text);
  return bytes;
});
const dayBytes = remembering((day) => types.LocalDate.fromString(day).toBuffer());

/** For columns whose texts are the same in many rows: the driver would encode each anew, a day by a regular expression. */
const ENCODERS = new Map([
  ['day', dayBytes],
  ...['month', 'event_source', 'event_type', 'status_source', 'status', 'file_name', 'file_version'].map(
    (column) => [column, textBytes] as const,
  ),
]);
