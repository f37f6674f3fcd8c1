import { createHash } from 'node:crypto';
import type { Client } from 'cassandra-driver';
import type { EventRecord, ProviderFile, StatusRecord } from './provider.ts';

// The rows that the tables must hold, made from the provider's records alone; nothing here is imported from src.

const LINEAGE = ['file_name', 'file_version'];
const EVENT_COLUMNS = ['vehicle_id', 'day', 'event_time', 'event_id', 'event_time_nanos', 'event_source'];
const STATUS_COLUMNS = ['report_time', 'report_time_nanos', 'status_id', 'status_source', 'status', ...LINEAGE];

function insertInto(table: string, columns: readonly string[], end = ''): string {
  return `INSERT INTO ${table} (${columns.join(', ')}) VALUES (${columns.map(() => '?').join(', ')})${end}`;
}
export const INSERT_EVENT = insertInto('vehicle_events', [
  ...EVENT_COLUMNS,
  ...['event_type', 'event_value', 'event_extra_data'],
  ...LINEAGE,
]);
export const INSERT_HISTORY = insertInto('vehicle_status_history', ['vehicle_id', 'month', ...STATUS_COLUMNS]);
export const INSERT_NEWEST = insertInto('vehicle_status', ['vehicle_id', ...STATUS_COLUMNS], ' USING TIMESTAMP ?');

/** A statement's text and its parameters. */
export interface Write {
  readonly query: string;
  readonly params: readonly unknown[];
}
/** Rows of one partition, which may go in one batch. */
export type Partition = Write[];

function withSortedKeys(_key: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** The identity of a record whose numbers are small: the hash of its JSON with sorted keys. */
export function idOf(record: object): string {
  return createHash('sha256').update(JSON.stringify(record, withSortedKeys)).digest('hex').slice(0, 32);
}

/** A time with six decimals and no zone: the time to the millisecond, and the nanoseconds past it. */
export function momentOf(text: string): { time: Date; nanos: number; micros: bigint } {
  const time = new Date(`${text.slice(0, 23)}Z`);
  const past = Number(text.slice(23, 26));
  return { time, nanos: past * 1_000, micros: BigInt(time.getTime()) * 1_000n + BigInt(past) };
}

export function eventWrite(record: EventRecord, file: string): Write {
  const { time, nanos } = momentOf(record.event_time);
  const { vehicle_id, event_source, event_type, event_value, event_extra_data } = record;
  const extra = JSON.stringify(event_extra_data, withSortedKeys);
  const key = [vehicle_id, record.event_time.slice(0, 10), time, idOf(record), nanos];
  return { query: INSERT_EVENT, params: [...key, event_source, event_type, event_value, extra, file, 'bench'] };
}

function statusWrites(record: StatusRecord, file: string): { history: Write; newest: Write; micros: bigint } {
  const { time, nanos, micros } = momentOf(record.report_time);
  const columns = [time, nanos, idOf(record), record.status_source, record.status, file, 'bench'];
  const history = [record.vehicle_id, record.report_time.slice(0, 7), ...columns];
  return {
    history: { query: INSERT_HISTORY, params: history },
    newest: { query: INSERT_NEWEST, params: [record.vehicle_id, ...columns, micros] },
    micros,
  };
}

/** All rows of some files by partition; of a vehicle's reports only the newest is a row of vehicle_status. */
export function partitionsOf(files: Iterable<ProviderFile>): Partition[] {
  const partitions = new Map<string, Partition>();
  const newest = new Map<string, { newest: Write; micros: bigint }>();
  const add = (key: string, write: Write) => {
    const partition = partitions.get(key);
    if (partition === undefined) partitions.set(key, [write]);
    else partition.push(write);
  };
  for (const { name, events, statuses } of files) {
    for (const record of events) {
      add(`e ${record.vehicle_id} ${record.event_time.slice(0, 10)}`, eventWrite(record, name));
    }
    for (const record of statuses) {
      const writes = statusWrites(record, name);
      add(`s ${record.vehicle_id} ${record.report_time.slice(0, 7)}`, writes.history);
      if (writes.micros > (newest.get(record.vehicle_id)?.micros ?? -1n)) newest.set(record.vehicle_id, writes);
    }
  }
  return [...partitions.values(), ...[...newest.values()].map((one) => [one.newest])];
}

/** Cuts partitions into batches of so many rows at most; one may hold several small partitions. */
function* batchesOf(partitions: Iterable<Partition>, rows: number, partitionsAtMost: number): Generator<Write[]> {
  let batch: Write[] = [];
  let held = 0;
  for (const partition of partitions) {
    for (let first = 0; first < partition.length; first += rows) {
      const part = partition.slice(first, first + rows);
      if (held === partitionsAtMost || batch.length + part.length > rows) {
        yield batch;
        [batch, held] = [[], 0];
      }
      batch.push(...part);
      held += 1;
    }
  }
  if (held > 0) yield batch;
}

/**
 * Writes partitions with the bare driver. Cassandra refuses a batch over 50 KiB, and a row is 400 bytes at most.
 *
 * @param options rows a batch, partitions a batch (several are good where a node has all of them), batches at once
 */
export async function writePartitions(
  client: Client,
  partitions: Iterable<Partition>,
  { rows = 30, partitionsAtMost = 10, inFlight = 128 } = {},
): Promise<void> {
  const batches = batchesOf(partitions, rows, partitionsAtMost);
  const writer = async () => {
    for (const batch of batches) {
      const queries = batch.map(({ query, params }) => ({ query, params: [...params] }));
      const [only, second] = queries;
      if (only !== undefined && second === undefined) await client.execute(only.query, only.params, { prepare: true });
      else await client.batch(queries, { prepare: true, logged: false });
    }
  };
  await Promise.all(Array.from({ length: inFlight }, writer));
}
