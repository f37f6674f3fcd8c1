import { createHash } from 'node:crypto';
import type { StoredRow } from './pipeline.ts';
import type { ProviderEvent } from './records.ts';

// What the tables must hold, worked out from the provider's records alone and another way than the pipeline does it:
// nothing here imports from src.

/** ns since the epoch. */
export function nanosOf(time: string): bigint {
  const [, seconds = '', decimals = '', zone = 'Z'] = /^(.{19})(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?$/.exec(time) ?? [];
  return BigInt(Date.parse(seconds + zone)) * 1_000_000n + BigInt(decimals.padEnd(9, '0'));
}

/** A moment as two columns hold it: a time to the millisecond, and the nanoseconds past it. */
export function columnsOf(nanos: bigint): { time: string; rest: number } {
  const rest = ((nanos % 1_000_000n) + 1_000_000n) % 1_000_000n;
  return { time: new Date(Number((nanos - rest) / 1_000_000n)).toISOString(), rest: Number(rest) };
}

function withSortedKeys(_key: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** The identity of a record whose numbers are small. */
export function idOf(record: object): string {
  const canonical = JSON.stringify(record, withSortedKeys);
  return createHash('sha256').update(canonical).digest('hex').slice(0, 32);
}

/** Summaries as a person reads them, by `vehicle day` or `vehicle day hour`. */
export type SummaryTable = Record<string, StoredRow>;
export interface Summaries {
  readonly hourly: SummaryTable;
  readonly daily: SummaryTable;
  readonly dailyByDay: SummaryTable;
}

interface Distinct {
  readonly id: string;
  readonly record: ProviderEvent;
  readonly nanos: bigint;
}

/** @param group what belongs together, in order */
function summaryOf(group: readonly Distinct[]): StoredRow {
  const [first] = group;
  const last = group.at(-1);
  if (first === undefined || last === undefined) throw new RangeError('a summary of nothing');
  const types = [...new Set(group.map(({ record }) => record.event_type))];
  const count = (type: string) => group.filter(({ record }) => record.event_type === type).length;
  return {
    event_count: group.length,
    first_event_time: columnsOf(first.nanos).time,
    first_event_time_nanos: columnsOf(first.nanos).rest,
    last_event_time: columnsOf(last.nanos).time,
    last_event_time_nanos: columnsOf(last.nanos).rest,
    last_event_id: last.id,
    last_event_type: last.record.event_type,
    last_event_source: last.record.event_source,
    last_event_value: last.record.event_value,
    event_type_counts: Object.fromEntries(types.map((type) => [type, count(type)])),
  };
}

/** Recomputes every summary from all records of all files; exact duplicates count once. */
export function summariesOf(records: readonly ProviderEvent[]): Summaries {
  const distinct: Distinct[] = [...new Map(records.map((record) => [idOf(record), record])).entries()]
    .map(([id, record]) => ({ id, record, nanos: nanosOf(record.event_time) }))
    // By time, then by id: the last of the sorted list is the last event.
    .sort((a, b) => (a.nanos === b.nanos ? (a.id < b.id ? -1 : 1) : a.nanos < b.nanos ? -1 : 1));

  const summarize = (keyOf: (vehicle: string, utc: string) => string): SummaryTable => {
    const groups = new Map<string, typeof distinct>();
    for (const one of distinct) {
      const key = keyOf(one.record.vehicle_id, columnsOf(one.nanos).time);
      const group = groups.get(key);
      if (group === undefined) groups.set(key, [one]);
      else group.push(one);
    }
    return Object.fromEntries([...groups].map(([key, group]) => [key, summaryOf(group)]));
  };
  const daily = summarize((vehicle, utc) => `${vehicle} ${utc.slice(0, 10)}`);
  return {
    hourly: summarize((vehicle, utc) => `${vehicle} ${utc.slice(0, 10)} ${Number(utc.slice(11, 13))}`),
    daily,
    dailyByDay: daily,
  };
}

/** A stored summary in the form of `summariesOf`; columns that it does not know fail the comparison. */
function storedSummary({ vehicle_id, day, hour, ...columns }: StoredRow): [string, StoredRow] {
  return [[vehicle_id, day, hour ?? ''].map(String).join(' ').trim(), columns];
}

/** All summaries that are stored. */
export async function storedSummaries(read: (query: string) => Promise<StoredRow[]>): Promise<Summaries> {
  const table = async (name: string) => Object.fromEntries((await read(`SELECT * FROM ${name}`)).map(storedSummary));
  return {
    hourly: await table('hourly_summary'),
    daily: await table('daily_summary'),
    dailyByDay: await table('daily_summary_by_day'),
  };
}
