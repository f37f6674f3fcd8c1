import type { types } from 'cassandra-driver';
import { createSummaryFold, type Summary, type SummaryFold } from '../datasets/summary.ts';
import { dayOf, DAY_MS, hourOf, HOUR_MS, type Moment } from '../datasets/time.ts';
import type { Store } from './client.ts';

/** A vehicle's UTC day, as `YYYY-MM-DD`. */
export interface StoredDay {
  readonly vehicleId: string;
  readonly day: string;
}

type Folded = Map<number, Summary | undefined>;

/**
 * Writes one summary row, or removes it where there are no events, with the run's epoch as its write timestamp:
 * a run that was overtaken can never overwrite the result of a newer one.
 */
async function put(
  store: Store,
  table: 'hourly_summary' | 'daily_summary' | 'daily_summary_by_day',
  key: Readonly<Record<string, unknown>>,
  summary: Summary | undefined,
  epoch: bigint,
): Promise<void> {
  if (summary === undefined) {
    const where = Object.keys(key).map((column) => `${column} = ?`);
    await store.run(`DELETE FROM ${table} USING TIMESTAMP ? WHERE ${where.join(' AND ')}`, [
      epoch,
      ...Object.values(key),
    ]);
    return;
  }
  const { first, last } = summary;
  const values = {
    ...key,
    event_count: BigInt(summary.count),
    first_event_time: new Date(first.ms),
    first_event_time_nanos: first.nanos,
    last_event_time: new Date(last.time.ms),
    last_event_time_nanos: last.time.nanos,
    last_event_id: last.id,
    last_event_type: last.type,
    last_event_source: last.source,
    last_event_value: last.value,
    event_type_counts: new Map([...summary.typeCounts].map(([type, count]) => [type, BigInt(count)])),
  };
  await store.insert({ table, values, timestamp: epoch });
}

function moment(row: types.Row, column: string): Moment {
  return { ms: Number(row[column]), nanos: row[`${column}_nanos`] };
}

function eventOf(row: types.Row, prefix: '' | 'last_') {
  const { [`${prefix}event_id`]: id, [`${prefix}event_type`]: type } = row;
  const { [`${prefix}event_source`]: source, [`${prefix}event_value`]: value } = row;
  return { time: moment(row, `${prefix}event_time`), id, type, source, value };
}

/** Folds the raw events of a time span within one day, hour by hour. Times in ms since the epoch. */
async function foldHours(store: Store, vehicleId: string, from: number, until: number): Promise<Folded> {
  const rows = store.rows(
    'SELECT event_time, event_time_nanos, event_id, event_type, event_source, event_value FROM vehicle_events ' +
      'WHERE vehicle_id = ? AND day = ? AND event_time >= ? AND event_time < ?',
    [vehicleId, dayOf(from), new Date(from), new Date(until)],
  );
  const folds = new Map<number, SummaryFold>();
  for await (const row of rows) {
    const event = eventOf(row, '');
    const hour = hourOf(event.time.ms);
    const fold = folds.get(hour) ?? createSummaryFold();
    folds.set(hour, fold);
    fold.addEvent(event);
  }
  return new Map([...folds].map(([hour, fold]) => [hour, fold.result()]));
}

/** Folds every hour that has raw events, or a summary that perhaps nothing stands behind any more. */
async function foldAllHours(store: Store, { vehicleId, day }: StoredDay): Promise<Folded> {
  const start = Date.parse(day);
  const folded = await foldHours(store, vehicleId, start, start + DAY_MS);
  const rows = store.rows('SELECT hour FROM hourly_summary WHERE vehicle_id = ? AND day = ?', [vehicleId, day]);
  for await (const row of rows) {
    const hour = start + Number(row['hour']) * HOUR_MS;
    if (!folded.has(hour)) folded.set(hour, undefined);
  }
  return folded;
}

async function foldSomeHours(store: Store, vehicleId: string, hours: Iterable<number>): Promise<Folded> {
  const folded: Folded = new Map();
  const each = [...hours].map(async (hour) => {
    folded.set(hour, (await foldHours(store, vehicleId, hour, hour + HOUR_MS)).get(hour));
  });
  await Promise.all(each);
  return folded;
}

/** Folds the hourly summaries of one day. */
async function foldDay(store: Store, { vehicleId, day }: StoredDay): Promise<Summary | undefined> {
  const fold = createSummaryFold();
  for await (const row of store.rows('SELECT * FROM hourly_summary WHERE vehicle_id = ? AND day = ?', [
    vehicleId,
    day,
  ])) {
    const counts: Map<string, bigint> = row['event_type_counts'];
    fold.addSummary({
      count: Number(row['event_count']),
      first: moment(row, 'first_event_time'),
      last: eventOf(row, 'last_'),
      typeCounts: new Map([...counts].map(([type, count]) => [type, Number(count)])),
    });
  }
  return fold.result();
}

/**
 * Recomputes hours of one vehicle's day from the raw rows, then the day from its hours.
 *
 * @param hours starts of hours of that day, in ms since the epoch
 * @param epoch the run's epoch, in µs
 * @returns how many hours were written
 */
export async function recomputeDay(
  store: Store,
  stored: StoredDay,
  hours: ReadonlySet<number> | 'all',
  epoch: bigint,
): Promise<number> {
  const { vehicleId: vehicle_id, day } = stored;
  const folded = hours === 'all' ? await foldAllHours(store, stored) : await foldSomeHours(store, vehicle_id, hours);
  const writes = [...folded].map(([start, summary]) => {
    const hour = (start - Date.parse(day)) / HOUR_MS;
    return put(store, 'hourly_summary', { vehicle_id, day, hour }, summary, epoch);
  });
  await Promise.all(writes);
  const summary = await foldDay(store, stored);
  await Promise.all([
    put(store, 'daily_summary', { vehicle_id, day }, summary, epoch),
    put(store, 'daily_summary_by_day', { day, vehicle_id }, summary, epoch),
  ]);
  return folded.size;
}

/** Tokens of the Murmur3 partitioner are 64-bit integers from -2^63. */
const FIRST_TOKEN = -(2n ** 63n);
const TOKENS = 2n ** 64n;

/**
 * Every (vehicle, day) of one share of the token ring that has raw events or hourly summaries. May repeat.
 *
 * @param share 0 to `shares - 1`
 */
export async function* storedDays(store: Store, share: number, shares: number): AsyncIterable<StoredDay> {
  const bound = (index: number) => FIRST_TOKEN + (TOKENS * BigInt(index)) / BigInt(shares);
  for (const table of ['vehicle_events', 'hourly_summary']) {
    const query = `SELECT DISTINCT vehicle_id, day FROM ${table} WHERE token(vehicle_id, day) >= ? AND token(vehicle_id, day) <= ?`;
    for await (const row of store.rows(query, [bound(share), bound(share + 1) - 1n])) {
      yield { vehicleId: row['vehicle_id'], day: String(row['day']) };
    }
  }
}

/** What a day's summaries add up to. */
export interface DayTotals {
  readonly day: string;
  readonly vehicles: number;
  readonly events: number;
}

export async function dayTotals(store: Store, day: string): Promise<DayTotals> {
  const query = 'SELECT count(*) AS vehicles, sum(event_count) AS events FROM daily_summary_by_day WHERE day = ?';
  const row = (await store.run(query, [day])).first();
  return { day, vehicles: Number(row['vehicles']), events: Number(row['events']) };
}
