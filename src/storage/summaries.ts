import { isDeepStrictEqual } from 'node:util';
import type { types } from 'cassandra-driver';
import { createSummaryFold, type SummarizedEvent, type Summary, type SummaryFold } from '../datasets/summary.ts';
import { DAY_MS, hourOf, HOUR_MS, type Moment } from '../datasets/time.ts';
import type { Store } from './client.ts';
import { tokensOf } from './token-ring.ts';

/** The tables of days, each with its partition key. */
const DAY_TABLES = { daily_summary: 'vehicle_id', daily_summary_by_day: 'day' };

/** A vehicle's UTC day, as `YYYY-MM-DD`. */
export interface StoredDay {
  readonly vehicleId: string;
  readonly day: string;
}

function momentOf(row: types.Row, column: string): Moment {
  return { ms: Number(row[column]), nanos: row[`${column}_nanos`] };
}

function eventOf(row: types.Row, prefix: '' | 'last_'): SummarizedEvent {
  const { [`${prefix}event_id`]: id, [`${prefix}event_type`]: type } = row;
  const { [`${prefix}event_source`]: source, [`${prefix}event_value`]: value } = row;
  // A row that somebody wrote by hand may lack its type, which is no reason to stop.
  return { time: momentOf(row, `${prefix}event_time`), id, type: type ?? '', source, value };
}

function summaryOf(row: types.Row): Summary {
  const counts: Map<string, bigint> = row['event_type_counts'];
  const typeCounts = new Map([...counts].map(([type, count]) => [type, Number(count)]));
  const first = momentOf(row, 'first_event_time');
  return { count: Number(row['event_count']), first, last: eventOf(row, 'last_'), typeCounts };
}

function columnsOf({ count, first, last, typeCounts }: Summary) {
  return {
    event_count: BigInt(count),
    first_event_time: new Date(first.ms),
    first_event_time_nanos: first.nanos,
    last_event_time: new Date(last.time.ms),
    last_event_time_nanos: last.time.nanos,
    last_event_id: last.id,
    last_event_type: last.type,
    last_event_source: last.source,
    last_event_value: last.value,
    event_type_counts: new Map([...typeCounts].map(([type, events]) => [type, BigInt(events)])),
  };
}

const hourOfDay = ({ day }: StoredDay, from: number) => (from - Date.parse(day)) / HOUR_MS;

/** At most 24 rows. */
async function readHours(store: Store, { vehicleId, day }: StoredDay): Promise<types.Row[]> {
  return (await store.run('SELECT * FROM hourly_summary WHERE vehicle_id = ? AND day = ?', [vehicleId, day])).rows;
}

const SELECT_EVENTS =
  'SELECT event_time, event_time_nanos, event_id, event_type, event_source, event_value FROM vehicle_events ' +
  'WHERE vehicle_id = ? AND day = ? AND event_time >= ? AND event_time < ?';

type Hours = ReadonlySet<number> | 'all';

/** Folds hours of one vehicle's day from the raw rows, by their starts in ms since the epoch; an empty fold is of no events. */
async function foldHours(store: Store, stored: StoredDay, hours: Hours, known: readonly types.Row[]) {
  const start = Date.parse(stored.day);
  const wanted = hours === 'all' ? known.map((row) => start + row['hour'] * HOUR_MS) : hours;
  const folds = new Map([...wanted].map((hour) => [hour, createSummaryFold()]));
  async function foldEvents(from: number, until: number): Promise<void> {
    for await (const row of store.rows(SELECT_EVENTS, [stored.vehicleId, stored.day, from, until])) {
      const event = eventOf(row, '');
      const hour = hourOf(event.time.ms);
      const fold = folds.get(hour) ?? createSummaryFold();
      folds.set(hour, fold);
      fold.addEvent(event);
    }
  }
  if (hours === 'all') await foldEvents(start, start + DAY_MS);
  else await Promise.all([...hours].map((hour) => foldEvents(hour, hour + HOUR_MS)));
  return folds;
}

/** Folds a day from its stored hours; a row that is not whole, because somebody wrote it by hand, is no summary. */
function foldDay(hours: readonly types.Row[]): SummaryFold {
  const whole = createSummaryFold();
  for (const row of hours) if (row['event_type_counts'] !== null) whole.addSummary(summaryOf(row));
  return whole;
}

/**
 * Recomputes hours of one vehicle's day from the raw rows, then the day from its hours. Resolves to how many hours.
 *
 * @param hours their starts in ms since the epoch; 'all' are those with events, and those with a summary that perhaps
 *   nothing stands behind any more
 * @param epoch the run's epoch, in µs
 */
export async function recomputeDay(store: Store, stored: StoredDay, hours: Hours, epoch: bigint) {
  const key = { vehicle_id: stored.vehicleId, day: stored.day };
  /** Writes or removes a row at the epoch: a run that was overtaken can never overwrite the result of a newer one. */
  function put(table: string, columns: object, fold: SummaryFold): Promise<unknown> {
    const summary = fold.result();
    if (summary) return store.insert({ table, values: { ...columns, ...columnsOf(summary) }, timestamp: epoch });
    const where = Object.keys(columns).map((column) => `${column} = ?`);
    const query = `DELETE FROM ${table} USING TIMESTAMP ? WHERE ${where.join(' AND ')}`;
    return store.run(query, [epoch, ...Object.values(columns)]);
  }
  const folds = await foldHours(store, stored, hours, hours === 'all' ? await readHours(store, stored) : []);
  const puts = [...folds].map(([from, fold]) => put('hourly_summary', { ...key, hour: hourOfDay(stored, from) }, fold));
  await Promise.all(puts);
  const whole = foldDay(await readHours(store, stored));
  await Promise.all([put('daily_summary', key, whole), put('daily_summary_by_day', key, whole)]);
  return folds.size;
}

/** Something of a day that is not as it should be; `hour`, a start in ms since the epoch, where it is about one. */
export interface Doubt {
  readonly what: string;
  readonly hour?: number;
}

/** The stored summaries of a day that are not what a recomputation gives; `hours` as in `recomputeDay`. */
export async function wrongSummaries(store: Store, stored: StoredDay, hours: Hours): Promise<Doubt[]> {
  const known = await readHours(store, stored);
  const days = Object.keys(DAY_TABLES).map(async (table) => {
    const query = `SELECT * FROM ${table} WHERE vehicle_id = ? AND day = ?`;
    return { what: table, row: (await store.run(query, [stored.vehicleId, stored.day])).rows[0] };
  });
  const dayRows = await Promise.all(days);
  const folds = await foldHours(store, stored, hours, known);
  const isRight = (row: types.Row | undefined, fold: SummaryFold) => {
    const summary = fold.result();
    if (summary === undefined || row === undefined) return summary === row;
    return Object.entries(columnsOf(summary)).every(([column, value]) => isDeepStrictEqual(row[column], value));
  };
  const hourRows = new Map(known.map((row) => [Date.parse(stored.day) + row['hour'] * HOUR_MS, row]));
  const wrong = [...folds]
    .filter(([hour, fold]) => !isRight(hourRows.get(hour), fold))
    .map(([hour]) => ({ what: `hourly_summary of hour ${hourOfDay(stored, hour)}`, hour }));

  const whole = foldDay([...hourRows].filter(([hour]) => !folds.has(hour)).map(([, row]) => row));
  for (const summary of [...folds.values()].map((fold) => fold.result())) if (summary) whole.addSummary(summary);
  return [...wrong, ...dayRows.filter(({ row }) => !isRight(row, whole)).map(({ what }) => ({ what }))];
}

/** Every (vehicle, day) of one share of the token ring that has raw events or any summary. May repeat. */
export async function* storedDays(store: Store, share: number, shares: number): AsyncIterable<StoredDay> {
  const scan = async function* (what: string, table: string, key: string): AsyncIterable<StoredDay> {
    const query = `SELECT ${what} FROM ${table} WHERE token(${key}) >= ? AND token(${key}) <= ?`;
    for await (const row of store.rows(query, tokensOf(share, shares)))
      yield { vehicleId: row['vehicle_id'], day: String(row['day']) };
  };
  const key = 'vehicle_id, day';
  for (const table of ['vehicle_events', 'hourly_summary']) yield* scan(`DISTINCT ${key}`, table, key);
  for (const [table, daysKey] of Object.entries(DAY_TABLES)) {
    // Days without hours are those that nothing stands behind any more; the others have been found above.
    for await (const stored of scan(key, table, daysKey))
      if ((await readHours(store, stored)).length === 0) yield stored;
  }
}

export async function dayTotals(store: Store, day: string) {
  const query = 'SELECT count(*) AS vehicles, sum(event_count) AS events FROM daily_summary_by_day WHERE day = ?';
  const row = (await store.run(query, [day])).first();
  return { day, vehicles: Number(row['vehicles']), events: Number(row['events']) };
}
