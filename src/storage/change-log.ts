import { createHash } from 'node:crypto';
import { types } from 'cassandra-driver';
import type { TakenRecord } from '../datasets/dataset.ts';
import type { Store } from './client.ts';

/** Entries of ten minutes share a partition, times the shards: some thousands of entries at the provider's rate. */
const BUCKET_MS = 600_000;
/** A shard is a share of all vehicles, for the aggregation. Changing the number needs an empty change log. */
export const SHARDS = 8;
/** Keys of one entry; an entry stays some tens of kilobytes. */
const KEYS_PER_ENTRY = 500;

/** One bucket of the summaries: a vehicle and the start of an hour, in ms since the epoch. */
export type TouchedHour = NonNullable<TakenRecord['touched']>;

type ChangeEntry = { readonly shard: number; readonly hours: Map<number, Set<string>>; keys: number };

export type TouchedHours = ReturnType<typeof createTouchedHours>;

/** The hours that a load touched since they were last taken, each (vehicle, hour) once; cut by shard and size. */
export function createTouchedHours() {
  const touched = new Map<string, TouchedHour>();
  return {
    add: (key: TouchedHour) => touched.set(`${key.hour} ${key.vehicleId}`, key),
    size: () => touched.size,
    take: (): ChangeEntry[] => {
      const entries: ChangeEntry[] = [];
      for (const { vehicleId, hour } of touched.values()) {
        const shard = createHash('md5').update(vehicleId).digest().readUInt32BE(0) % SHARDS;
        let entry = entries.findLast((one) => one.shard === shard);
        if (entry === undefined || entry.keys >= KEYS_PER_ENTRY) {
          entry = { shard, hours: new Map(), keys: 0 };
          entries.push(entry);
        }
        entry.hours.set(hour, (entry.hours.get(hour) ?? new Set()).add(vehicleId));
        entry.keys += 1;
      }
      touched.clear();
      return entries;
    },
  };
}

const bucketOf = (ms: number) => Math.floor(ms / BUCKET_MS) * BUCKET_MS;

/**
 * Appends what a load touched. Resolves when each entry was acknowledged within half the settle time of its own time,
 * so that an aggregation whose window includes that time has seen it; a slower one is appended again with a new time.
 */
export async function appendChanges(store: Store, touched: TouchedHours, settleMs: number): Promise<void> {
  const append = async ({ shard, hours }: ChangeEntry) => {
    for (let late = true; late;) {
      const sent = store.now();
      const values = { bucket: bucketOf(sent), shard, at: types.TimeUuid.fromDate(new Date(sent)), hours };
      await store.insert({ table: 'change_log', values });
      late = store.now() - sent > settleMs / 2;
    }
  };
  await Promise.all(touched.take().map(append));
}

/** Reads one shard's entries of the window (after, until], in ms since the epoch; a key may come many times. */
export async function* readChanges(store: Store, shard: number, after: number, until: number) {
  const window = 'bucket = ? AND shard = ? AND at > maxTimeuuid(?) AND at <= maxTimeuuid(?)';
  for (let bucket = bucketOf(after); bucket <= until; bucket += BUCKET_MS) {
    const rows = store.rows(`SELECT hours FROM change_log WHERE ${window}`, [bucket, shard, after, until]);
    for await (const row of rows) {
      const hours: Map<Date, Set<string>> = row['hours'];
      for (const [hour, vehicles] of hours) for (const vehicleId of vehicles) yield { vehicleId, hour: hour.getTime() };
    }
  }
}
