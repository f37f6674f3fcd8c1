import type { types } from 'cassandra-driver';
import { createSummaryFold, type Summary, type SummaryFold } from '../datasets/summary.ts';
import { dayOf, DAY_MS, hourOf, HOUR_MS, type Moment } from '../datasets/time.ts';
import type { Store } from './client.ts';

const VALUE_COLUMNS = [
  'event_count',
  'first_event_time',
  'first_event_time_nanos',
  'last_event_time',
  'last_event_time_nanos',
  'last_event_id',
  'last_event_type',
  'last_event_source',
  'last_event_value',
  'event_type_counts',
];

const TABLES = {
  hourly: { name: 'hourly_summary', key: ['vehicle_id', 'day', 'hour'] },
  daily: { name: 'daily_summary', key: ['vehicle_id', 'day'] },
  byDay: { name: 'daily_summary_by_day', key: ['day', 'vehicle_id'] },
} as const;

/**
 * Writes one summary row, or removes it where there are no events, with the run's epoch as its write timestamp:
 * a run that was overtaken can never overwrite the result of a newer one.
 */
async function put(
  store: Store,
  table: (typeof TABLES)[keyof typeof TABLES],
  key: readonly unknown[],
  summary: Summary | undefined,
  epoch: bigint,
): Promise<void> {
  if (summary === undefined) {
    const where = table.key.map((column) => `${column} = ?`).join(' AND ');
    await store.run(`DELETE FROM ${table.name} USING TIMESTAMP ? WHERE ${where}`, [epoch, ...key]);
    return;
  }
  const columns = [...table.key, ...VALUE_COLUMNS];
  const marks = columns.map(() => '?').join(', ');
  await store.run(`INSERT INTO ${table.name} (${columns.join(', ')}) VALUES (${marks}) USING TIMESTAMP ?`, [
    ...key,
    BigInt(summary.count),
    new Date(summary.first.ms),
    summary.first.nanos,
    new Date(summary.last.time.ms),
    summary.last.time.nanos,
    summary.last.id,
    summary.last.type,
    summary.last.source,
    summary.last.value,
    new Map([...summary.typeCounts].map(([type, count]) => [type, BigInt(count)])),
    epoch,
  ]);
}

function moment(row: types.Row, column: string): Moment {
  const time: Date = row.get(column);
  return { ms: time.getTime(), nanos: Number(row.get(`${column}_nanos`)) };
}

/** Folds the raw events of a time span within one day, hour by hour. Times in ms since the epoch. */
async function foldHours(
  store: Store,
  vehicleId: string,
  from: number,
  until: number,
): Promise<Map<number, Summary | undefined>> {
  const rows = store.rows(
    'SELECT event_time, event_time_nanos, event_id, event_type, event_source, event_value FROM vehicle_events ' +
      'WHERE vehicle_id = ? AND day = ? AND event_time >= ? AND event_time < ?',
    [vehicleId, dayOf(from), new Date(from), new Date(until)],
  );
  const folds = new Map<number, SummaryFold>();
  for await (const row of rows) {
    const time = moment(row, 'event_time');
    const fold = folds.get(hourOf(time.ms)) ?? createSummaryFold();
    folds.set(hourOf(time.ms), fold);
    fold.addEvent({
      time,
      id: row.get('event_id'),
      type: row.get('event_type'),
      source: row.get('event_source'),
      value: row.get('event_value'),
    });
  }
  return new Map([...folds].map(([hour, fold]) => [hour, fold.result()]));
}

/** Folds the hourly summaries of one day. */
async function foldDay(store: Store, vehicleId: string, day: string): Promise<Summary | undefined> {
  const fold = createSummaryFold();
  for await (const row of store.rows('SELECT * FROM hourly_summary WHERE vehicle_id = ? AND day = ?', [vehicleId, day])) {
    const counts: Map<string, bigint> = row.get('event_type_counts');
    fold.addSummary({
      count: Number(row.get('event_count')),
      first: moment(row, 'first_event_time'),
      last: {
        time: moment(row, 'last_event_time'),
        id: row.get('last_event_id'),
        type: row.get('last_event_type'),
        source: row.get('last_event_source'),
        value: row.get('last_event_value'),
      },
      typeCounts: new Map([...counts].map(([type, count]) => [type, Number(count)])),
    });
  }
  return fold.result();
}

/** A vehicle's UTC day, as `YYYY-MM-DD`. */
export interface StoredDay {
  readonly vehicleId: string;
  readonly day: string;
}

/** Every hour that has raw events, or a summary that perhaps nothing stands behind any more. */
async function foldWholeDay(store: Store, { vehicleId, day }: StoredDay): Promise<Map<number, Summary | undefined>> {
  const start = Date.parse(day);
  const folded = await foldHours(store, vehicleId, start, start + DAY_MS);
  const rows = store.rows('SELECT hour FROM hourly_summary WHERE vehicle_id = ? AND day = ?', [vehicleId, day]);
  for await (const row of rows) {
    const hour = start + Number(row.get('hour')) * HOUR_MS;
    if (!folded.has(hour)) folded.set(hour, undefined);
  }
  return folded;
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
  vehicleId: string,
  day: string,
  hours: ReadonlySet<number> | 'all',
  epoch: bigint,
): Promise<number> {
  let folded: Map<number, Summary | undefined>;
  if (hours === 'all') {
    folded = await foldWholeDay(store, { vehicleId, day });
  } else {
    const each = [...hours].map(async (hour): Promise<[number, Summary | undefined]> => {
      const summaries = await foldHours(store, vehicleId, hour, hour + HOUR_MS);
      return [hour, summaries.get(hour)];
    });
    folded = new Map(await Promise.all(each));
  }
  const start = Date.parse(day);
  await Promise.all(
    [...folded].map(([hour, summary]) =>
      put(store, TABLES.hourly, [vehicleId, day, (hour - start) / HOUR_MS], summary, epoch),
    ),
  );
  const summary = await foldDay(store, vehicleId, day);
  await Promise.all([
    put(store, TABLES.daily, [vehicleId, day], summary, epoch),
    put(store, TABLES.byDay, [day, vehicleId], summary, epoch),
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
  const from = FIRST_TOKEN + (TOKENS * BigInt(share)) / BigInt(shares);
  const until = FIRST_TOKEN + (TOKENS * BigInt(share + 1)) / BigInt(shares) - 1n;
  for (const table of ['vehicle_events', TABLES.hourly.name]) {
    const rows = store.rows(
      `SELECT DISTINCT vehicle_id, day FROM ${table} WHERE token(vehicle_id, day) >= ? AND token(vehicle_id, day) <= ?`,
      [from, until],
    );
    for await (const row of rows) yield { vehicleId: row.get('vehicle_id'), day: String(row.get('day')) };
  }
}

/** What a day's summaries add up to. */
export interface DayTotals {
  readonly day: string;
  readonly vehicles: number;
  readonly events: number;
}

export async function dayTotals(store: Store, day: string): Promise<DayTotals> {
  const result = await store.run(
    'SELECT count(*) AS vehicles, sum(event_count) AS events FROM daily_summary_by_day WHERE day = ?',
    [day],
  );
  const row = result.first();
  return { day, vehicles: Number(row.get('vehicles')), events: Number(row.get('events')) };
}
