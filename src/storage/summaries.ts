import { isDeepStrictEqual } from 'node:util';
import type { types } from 'cassandra-driver';
import { createSummaryFold, type SummarizedEvent, type Summary } from '../datasets/summary.ts';
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

/** The last event of a summary, with what else is told of it. */
type LastEvent = SummarizedEvent & { readonly source: string; readonly value: string };
type StoredSummary = Summary<LastEvent>;

function momentOf(row: types.Row, column: string): Moment {
  return { ms: Number(row[column]), nanos: row[`${column}_nanos`] };
}

function summaryOf(row: types.Row): StoredSummary {
  const counts: Map<string, bigint> = row['event_type_counts'];
  const typeCounts = new Map([...counts].map(([type, count]) => [type, Number(count)]));
  const first = momentOf(row, 'first_event_time');
  const { last_event_id: id, last_event_type: type, last_event_source: source, last_event_value: value } = row;
  const last = { time: momentOf(row, 'last_event_time'), id, type, source, value };
  return { count: Number(row['event_count']), first, last, typeCounts };
}

function columnsOf({ count, first, last, typeCounts }: StoredSummary) {
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

const OF_DAY = 'FROM vehicle_events WHERE vehicle_id = ? AND day = ?';
const SELECT_EVENTS = `SELECT event_time, event_time_nanos, event_id, event_type ${OF_DAY} AND event_time >= ? AND event_time < ?`;
const SELECT_REST = `SELECT event_source, event_value ${OF_DAY} AND event_time = ? AND event_id = ?`;

type Hours = ReadonlySet<number> | 'all';

/** Summarizes hours of one vehicle's day from the raw rows, by their starts in ms since the epoch; one without events is undefined. */
async function summarizeHours(store: Store, stored: StoredDay, hours: Hours, known: readonly types.Row[]) {
  const start = Date.parse(stored.day);
  const wanted = hours === 'all' ? known.map((row) => start + row['hour'] * HOUR_MS) : hours;
  const folds = new Map([...wanted].map((hour) => [hour, createSummaryFold()]));
  async function foldEvents(from: number, until: number): Promise<void> {
    for await (const row of store.rows(SELECT_EVENTS, [stored.vehicleId, stored.day, from, until])) {
      const time = momentOf(row, 'event_time');
      const hour = hourOf(time.ms);
      const fold = folds.get(hour) ?? createSummaryFold();
      folds.set(hour, fold);
      // A row that somebody wrote by hand may lack its type, which is no reason to stop.
      fold.addEvent({ time, id: row['event_id'], type: row['event_type'] ?? '' });
    }
  }
  /** A value may be as long as a record, so that of all events only the last one's is read. */
  async function whole(summary: Summary | undefined): Promise<StoredSummary | undefined> {
    if (summary === undefined) return undefined;
    const { time, id } = summary.last;
    const [rest] = (await store.run(SELECT_REST, [stored.vehicleId, stored.day, time.ms, id])).rows;
    const last = { ...summary.last, source: rest?.['event_source'] ?? null, value: rest?.['event_value'] ?? null };
    return { ...summary, last };
  }
  if (hours === 'all') await foldEvents(start, start + DAY_MS);
  else await Promise.all([...hours].map((hour) => foldEvents(hour, hour + HOUR_MS)));
  const summaries = [...folds].map(async ([hour, fold]) => [hour, await whole(fold.result())] as const);
  return new Map(await Promise.all(summaries));
}

/** Folds a day from its stored hours; a row that is not whole, because somebody wrote it by hand, is no summary. */
function foldDay(hours: readonly types.Row[]) {
  const whole = createSummaryFold<LastEvent>();
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
  function put(table: string, columns: object, summary: StoredSummary | undefined): Promise<unknown> {
    if (summary) return store.insert({ table, values: { ...columns, ...columnsOf(summary) }, timestamp: epoch });
    const where = Object.keys(columns).map((column) => `${column} = ?`);
    const query = `DELETE FROM ${table} USING TIMESTAMP ? WHERE ${where.join(' AND ')}`;
    return store.run(query, [epoch, ...Object.values(columns)]);
  }
  const known = hours === 'all' ? await readHours(store, stored) : [];
  const summaries = await summarizeHours(store, stored, hours, known);
  const putHour = (from: number, summary: StoredSummary | undefined) =>
    put('hourly_summary', { ...key, hour: hourOfDay(stored, from) }, summary);
  await Promise.all([...summaries].map(([from, summary]) => putHour(from, summary)));
  const whole = foldDay(await readHours(store, stored)).result();
  await Promise.all([put('daily_summary', key, whole), put('daily_summary_by_day', key, whole)]);
  return summaries.size;
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
  const summaries = await summarizeHours(store, stored, hours, known);
  const isRight = (row: types.Row | undefined, summary: StoredSummary | undefined) => {
    if (summary === undefined || row === undefined) return summary === row;
    return Object.entries(columnsOf(summary)).every(([column, value]) => isDeepStrictEqual(row[column], value));
  };
  const hourRows = new Map(known.map((row) => [Date.parse(stored.day) + row['hour'] * HOUR_MS, row]));
  const wrong = [...summaries]
    .filter(([hour, summary]) => !isRight(hourRows.get(hour), summary))
    .map(([hour]) => ({ what: `hourly_summary of hour ${hourOfDay(stored, hour)}`, hour }));

  const day = foldDay([...hourRows].filter(([hour]) => !summaries.has(hour)).map(([, row]) => row));
  for (const summary of summaries.values()) if (summary) day.addSummary(summary);
  const whole = day.result();
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
