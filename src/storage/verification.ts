import { types } from 'cassandra-driver';
import { fileOfLoad, loadOf, type Row } from '../datasets/dataset.ts';
import { DAY_MS, hourOf, microsOf, monthOf } from '../datasets/time.ts';
import { piecesOf } from '../pieces.ts';
import type { Store } from './client.ts';
import { isLoaded, readVersions, type FileState } from './files.ts';
import type { Doubt, StoredDay } from './summaries.ts';
import { together } from './together.ts';

/** Names that are looked up in the ledger together. */
const AT_ONCE = 1_000;
/** Rows that are looked up together, and those of one partition that one query asks for. */
const ROWS_AT_ONCE = 2_000;
const ROWS_A_QUERY = 100;
/** The primary keys of the tables whose rows are looked up: of the partition, and in it. */
const KEYS: Readonly<Record<string, readonly [partition: readonly string[], clustering: readonly string[]]>> = {
  vehicle_events: [
    ['vehicle_id', 'day'],
    ['event_time', 'event_id'],
  ],
  vehicle_status_history: [
    ['vehicle_id', 'month'],
    ['report_time', 'status_id'],
  ],
  vehicle_status: [['vehicle_id'], []],
  files: [['name'], ['version']],
  rejected_records: [['name', 'version'], ['record_index']],
};

type Expected = Pick<Row, 'table'> & { readonly values: Readonly<Record<string, unknown>> };

/** A value that was read, or is to be written, as one that can be compared; of other kinds, such as maps, there are none. */
function plain(value: unknown) {
  if (value instanceof Date) return value.getTime();
  if (value instanceof types.LocalDate) return value.toString();
  return (value ?? null) as string | number | bigint | null;
}

/** The stored rows of these keys, in their order. What lies in one partition is read together. */
async function readRows(store: Store, rows: readonly Expected[]): Promise<(types.Row | undefined)[]> {
  const found = new Map<string, types.Row>();
  const idOf = ({ table, values }: Expected, columns: readonly string[] = KEYS[table]?.flat() ?? []) =>
    JSON.stringify([table, ...columns.map((column) => String(plain(values[column])))]);
  const groups = new Map<string, Expected[]>();
  for (const row of rows) {
    const id = idOf(row, KEYS[row.table]?.[0]);
    const group = groups.get(id);
    if (group === undefined) groups.set(id, [row]);
    else group.push(row);
  }
  async function readSome(some: readonly Expected[]): Promise<void> {
    const [first] = some;
    if (first === undefined) return;
    const { table, values } = first;
    const [partition = [], clustering = []] = KEYS[table] ?? [];
    const terms = partition.map((column) => `${column} = ?`);
    const parameters = partition.map((column) => values[column]);
    if (clustering.length > 0) {
      terms.push(`(${clustering.join(', ')}) IN ?`);
      parameters.push(some.map((row) => new types.Tuple(...clustering.map((one) => row.values[one]))));
    }
    for await (const row of store.rows(`SELECT * FROM ${table} WHERE ${terms.join(' AND ')}`, parameters))
      found.set(idOf({ table, values: row }), row);
  }
  await Promise.all([...groups.values()].flatMap((group) => piecesOf(group, ROWS_A_QUERY)).map(readSome));
  return rows.map((row) => found.get(idOf(row)));
}

/** The columns that hold another value. A row may name another file that holds the same record, but has to name one. */
function difference(row: types.Row, { values }: Expected): string | undefined {
  const isSame = ([column, value]: [string, unknown]) =>
    /^file_(name|version)$/.test(column) ? row[column] !== null : plain(row[column]) === plain(value);
  const wrong = Object.entries(values).filter((entry) => !isSame(entry));
  return wrong.length === 0 ? undefined : `wrong ${wrong.map(([column]) => column).join(', ')}`;
}

/** The write time of a stored report, in µs. */
const writtenAt = (report: types.Row) =>
  microsOf({ ms: Number(report['report_time']), nanos: Number(report['report_time_nanos']) });

const OF_MONTH = 'FROM vehicle_status_history WHERE vehicle_id = ? AND month = ?';

/** A vehicle's reports of one ms. */
async function reportsAt(store: Store, vehicle: unknown, ms: number): Promise<types.Row[]> {
  return (await store.run(`SELECT * ${OF_MONTH} AND report_time = ?`, [vehicle, monthOf(ms), ms])).rows;
}

/** Makes what compares rows with the stored ones. What is asked for at once is read together. */
export function createRowComparison(store: Store) {
  const stored = together<Expected, types.Row | undefined>(ROWS_AT_ONCE, (rows) => readRows(store, rows));
  return {
    /** What is wrong with the stored row of the same key: `missing`, or the columns whose values are not those of `row`. */
    rowProblem: async (row: Expected): Promise<string | undefined> => {
      const found = await stored(row);
      return found === undefined ? 'missing' : difference(found, row);
    },
    /** What is wrong with a vehicle's newest status, which must not be older than the report that `row` is of, written at `timestamp` (µs). */
    statusProblem: async (row: Expected, timestamp: bigint): Promise<string | undefined> => {
      const found = await stored(row);
      if (found === undefined) return 'missing';
      const age = writtenAt(found) - timestamp;
      const problem = age === 0n ? difference(found, row) : undefined;
      if (problem === undefined) return age < 0n ? 'older than the newest report' : undefined;
      const reports = await reportsAt(store, found['vehicle_id'], Number(found['report_time']));
      // Of reports within a microsecond, any may have won.
      return reports.filter((report) => writtenAt(report) === timestamp).length > 1 ? undefined : problem;
    },
  };
}

/**
 * What is to be a vehicle's newest status: the report that `row` is of, written at `timestamp` (µs), or a newer one of the
 * history, which is looked through from a day ahead of now back to that.
 */
export async function newestReport(store: Store, { table, values }: Expected, timestamp: bigint) {
  const vehicle = values['vehicle_id'];
  const startOf = (month: string) => Date.parse(`${month}-01`);
  const first = startOf(monthOf(Number(timestamp / 1000n)));
  let newest = { table, values, timestamp };
  for (let ms = store.now() + DAY_MS; ms >= first && newest.timestamp === timestamp; ms = startOf(monthOf(ms)) - 1) {
    const [latest] = (await store.run(`SELECT report_time ${OF_MONTH} LIMIT 1`, [vehicle, monthOf(ms)])).rows;
    if (latest === undefined) continue;
    for (const report of await reportsAt(store, vehicle, Number(latest['report_time']))) {
      if (writtenAt(report) <= newest.timestamp) continue;
      const columns = Object.keys(values).map((column): [string, unknown] => [column, report[column]]);
      newest = { table, values: Object.fromEntries(columns), timestamp: writtenAt(report) };
    }
  }
  return newest;
}

/** Status reports of one vehicle and month, a partition. */
export interface ReportedMonth {
  readonly vehicleId: string;
  readonly month: string;
}

/** Every (vehicle, month) that has status reports. */
export async function* reportedMonths(store: Store): AsyncGenerator<ReportedMonth> {
  const query = 'SELECT DISTINCT vehicle_id, month FROM vehicle_status_history';
  for await (const row of store.rows(query, [])) yield { vehicleId: row['vehicle_id'], month: String(row['month']) };
}

/**
 * A version of a file (`what` is its name) that rows name, with an hour of such rows, and its state where the ledger knows it.
 */
export type StrayFile = Required<Doubt> & { readonly version: string; readonly state: FileState | undefined };

/** Versions of files that events of a day, or status reports of a month, name and the ledger does not call loaded. */
export async function strayFiles(store: Store, partition: StoredDay | ReportedMonth): Promise<StrayFile[]> {
  const hours = new Map<string, number>();
  const states = new Map<string, FileState>();
  const [table, column, time, value] =
    'day' in partition
      ? (['vehicle_events', 'day', 'event_time', partition.day] as const)
      : (['vehicle_status_history', 'month', 'report_time', partition.month] as const);
  const query = `SELECT ${time}, file_name, file_version FROM ${table} WHERE vehicle_id = ? AND ${column} = ?`;
  for await (const row of store.rows(query, [partition.vehicleId, value]))
    hours.set(loadOf({ name: row['file_name'] ?? 'no file', version: row['file_version'] }), hourOf(Number(row[time])));
  const names = [...new Set([...hours.keys()].map((load) => fileOfLoad(load).name))];
  for (const some of piecesOf(names, AT_ONCE))
    for (const known of await readVersions(store, ...some))
      if (isLoaded(known.state)) hours.delete(loadOf(known));
      else states.set(loadOf(known), known.state);
  return [...hours].map(([load, hour]) => {
    const { name: what, version } = fileOfLoad(load);
    return { what, version, hour, state: states.get(load) };
  });
}
