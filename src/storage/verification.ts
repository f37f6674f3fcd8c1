import { types } from 'cassandra-driver';
import type { Row } from '../datasets/dataset.ts';
import { dayOf, hourOf, monthOf } from '../datasets/time.ts';
import { SHARDS } from './change-log.ts';
import type { Store } from './client.ts';
import { readVersions } from './files.ts';
import type { StoredDay } from './summaries.ts';

const BUCKET_MS = 600_000;
/** File versions that are remembered as known to the ledger. */
const REMEMBERED = 100_000;
/** Those that are looked up in it together. */
const AT_ONCE = 1_000;
/** The primary keys of the tables whose rows are looked up. */
const KEYS: Readonly<Record<string, readonly string[]>> = {
  vehicle_events: ['vehicle_id', 'day', 'event_time', 'event_id'],
  vehicle_status_history: ['vehicle_id', 'month', 'report_time', 'status_id'],
  vehicle_status: ['vehicle_id'],
  files: ['name', 'version'],
  rejected_records: ['name', 'version', 'record_index'],
};

type Expected = Pick<Row, 'table'> & { readonly values: Readonly<Record<string, unknown>> };

async function stored(store: Store, { table, values }: Expected): Promise<types.Row | undefined> {
  const key = KEYS[table] ?? [];
  const query = `SELECT * FROM ${table} WHERE ${key.map((column) => `${column} = ?`).join(' AND ')}`;
  return (
    await store.run(
      query,
      key.map((column) => values[column]),
    )
  ).rows[0];
}

/** The columns that hold another value. A row may name another file that holds the same record, but has to name one. */
function difference(row: types.Row, { values }: Expected): string | undefined {
  const plain = (value: unknown) =>
    value instanceof Date ? value.getTime() : value instanceof types.LocalDate ? value.toString() : (value ?? null);
  const isSame = ([column, value]: [string, unknown]) =>
    /^file_(name|version)$/.test(column) ? row[column] !== null : plain(row[column]) === plain(value);
  const wrong = Object.entries(values).filter((entry) => !isSame(entry));
  return wrong.length === 0 ? undefined : `wrong ${wrong.map(([column]) => column).join(', ')}`;
}

/** What is wrong with the stored row of the same key: `missing`, or the columns whose values are not those of `row`. */
export async function rowProblem(store: Store, row: Expected): Promise<string | undefined> {
  const found = await stored(store, row);
  return found === undefined ? 'missing' : difference(found, row);
}

/** What is wrong with a vehicle's newest status, which must not be older than the report that `row` is of, written at `timestamp` (µs). */
export async function statusProblem(store: Store, row: Expected, timestamp: bigint): Promise<string | undefined> {
  const found = await stored(store, row);
  if (found === undefined) return 'missing';
  const time = Number(found['report_time']);
  const micros = (nanos: unknown) => BigInt(time) * 1000n + BigInt(Math.floor(Number(nanos) / 1000));
  const age = micros(found['report_time_nanos']) - timestamp;
  const problem = age === 0n ? difference(found, row) : undefined;
  if (problem === undefined) return age < 0n ? 'older than the newest report' : undefined;
  const query =
    'SELECT report_time_nanos AS nanos FROM vehicle_status_history WHERE vehicle_id = ? AND month = ? AND report_time = ?';
  const reports = (await store.run(query, [found['vehicle_id'], monthOf(time), time])).rows;
  // Of reports within a microsecond, any may have won.
  return reports.filter((report) => micros(report['nanos']) === timestamp).length > 1 ? undefined : problem;
}

/** The hours of a day, as starts in ms since the epoch, that change log entries after `after` name: an aggregation is due. */
export async function pendingHours(store: Store, { vehicleId, day }: StoredDay, after: number): Promise<Set<number>> {
  const pending = new Set<number>();
  const shards = Array.from({ length: SHARDS }, (_, shard) => shard);
  const query = 'SELECT hours FROM change_log WHERE bucket = ? AND shard IN ? AND at > maxTimeuuid(?)';
  for (let bucket = Math.floor(after / BUCKET_MS) * BUCKET_MS; bucket <= store.now(); bucket += BUCKET_MS) {
    for await (const row of store.rows(query, [bucket, shards, after])) {
      const hours: Map<Date, Set<string>> = row['hours'];
      for (const [hour, vehicles] of hours)
        if (vehicles.has(vehicleId) && dayOf(hour.getTime()) === day) pending.add(hour.getTime());
    }
  }
  return pending;
}

/** Makes the function that finds the files of a day's rows that the ledger does not know, with an hour of such a row. */
export function createStrayFinder(store: Store) {
  const known = new Set<string>();
  return async ({ vehicleId, day }: StoredDay): Promise<{ hour: number; file: string }[]> => {
    const strays: { hour: number; file: string }[] = [];
    let doubted = new Map<string, { hour: number; file: string }>();
    async function lookUp(): Promise<void> {
      const names = new Set([...doubted.values()].map(({ file }) => file).filter(Boolean));
      if (known.size > REMEMBERED) known.clear();
      for (const { name, version } of await readVersions(store, ...names)) known.add(`${version} ${name}`);
      strays.push(...[...doubted].filter(([id]) => !known.has(id)).map(([, stray]) => stray));
      doubted = new Map();
    }
    const query = 'SELECT event_time, file_name, file_version FROM vehicle_events WHERE vehicle_id = ? AND day = ?';
    for await (const row of store.rows(query, [vehicleId, day])) {
      const id = `${row['file_version']} ${row['file_name']}`;
      if (!known.has(id)) doubted.set(id, { hour: hourOf(Number(row['event_time'])), file: row['file_name'] ?? '' });
      if (doubted.size === AT_ONCE) await lookUp();
    }
    await lookUp();
    return strays;
  };
}

/** Name, version and state of every file version that the ledger knows. */
export const allFiles = (store: Store) => store.rows('SELECT name, version, state FROM files');
