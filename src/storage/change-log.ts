import { createHash } from 'node:crypto';
import { types } from 'cassandra-driver';
import type { Store } from './client.ts';

/** Entries of ten minutes share a partition, times the shards: some thousands of entries at the provider's rate. */
export const BUCKET_MS = 600_000;

/**
 * A vehicle is always in the same shard, so a shard is a share of the aggregation that touches nobody else's days.
 * Changing the number needs an empty change log.
 */
export const SHARDS = 8;

/** Keys of one entry; an entry stays some tens of kilobytes. */
const KEYS_PER_ENTRY = 500;

/** One bucket of the summaries: a vehicle and the start of an hour, in ms since the epoch. */
export interface TouchedHour {
  readonly vehicleId: string;
  readonly hour: number;
}

/** The hours that a load touched, each (vehicle, hour) once. */
export interface TouchedHours {
  add(touched: TouchedHour): void;
  /** Keys that were added since the last take. */
  size(): number;
  /** Hands over what was added, cut by shard and size, and starts anew. */
  take(): { shard: number; hours: Map<Date, Set<string>> }[];
}

export function shardOf(vehicleId: string): number {
  return createHash('md5').update(vehicleId).digest().readUInt32BE(0) % SHARDS;
}

export function createTouchedHours(): TouchedHours {
  let vehiclesByHour = new Map<number, Set<string>>();
  let size = 0;
  return {
    size: () => size,
    add: ({ vehicleId, hour }) => {
      const vehicles = vehiclesByHour.get(hour) ?? new Set();
      vehiclesByHour.set(hour, vehicles);
      size -= vehicles.size;
      vehicles.add(vehicleId);
      size += vehicles.size;
    },
    take: () => {
      const entries: { shard: number; hours: Map<Date, Set<string>> }[] = [];
      const open: ({ keys: number; hours: Map<Date, Set<string>> } | undefined)[] = [];
      for (const [hour, vehicles] of vehiclesByHour) {
        const start = new Date(hour);
        for (const vehicleId of vehicles) {
          const shard = shardOf(vehicleId);
          let entry = open[shard];
          if (entry === undefined || entry.keys >= KEYS_PER_ENTRY) {
            entry = { keys: 0, hours: new Map() };
            open[shard] = entry;
            entries.push({ shard, hours: entry.hours });
          }
          entry.keys += 1;
          const listed = entry.hours.get(start);
          if (listed === undefined) entry.hours.set(start, new Set([vehicleId]));
          else listed.add(vehicleId);
        }
      }
      vehiclesByHour = new Map();
      size = 0;
      return entries;
    },
  };
}

/**
 * Appends what a load touched. Resolves when each entry was acknowledged within half the settle time of its own time,
 * so that an aggregation whose window includes that time has seen it; a slower one is appended again with a new time.
 */
export async function appendChanges(store: Store, touched: TouchedHours, settleMs: number): Promise<void> {
  await Promise.all(touched.take().map((entry) => appendInTime(store, entry, settleMs)));
}

async function appendInTime(
  store: Store,
  { shard, hours }: { shard: number; hours: Map<Date, Set<string>> },
  settleMs: number,
): Promise<void> {
  for (;;) {
    const at = store.now();
    await store.run('INSERT INTO change_log (bucket, shard, at, hours) VALUES (?, ?, ?, ?)', [
      new Date(Math.floor(at / BUCKET_MS) * BUCKET_MS),
      shard,
      types.TimeUuid.fromDate(new Date(at)),
      hours,
    ]);
    if (store.now() - at <= settleMs / 2) return;
  }
}

/** Reads one shard's entries of the window (after, until], in ms since the epoch; a key may come many times. */
export async function* readChanges(
  store: Store,
  shard: number,
  after: number,
  until: number,
): AsyncIterable<TouchedHour> {
  for (let bucket = Math.floor(after / BUCKET_MS) * BUCKET_MS; bucket <= until; bucket += BUCKET_MS) {
    const rows = store.rows(
      'SELECT hours FROM change_log WHERE bucket = ? AND shard = ? AND at > maxTimeuuid(?) AND at <= maxTimeuuid(?)',
      [new Date(bucket), shard, new Date(after), new Date(until)],
    );
    for await (const row of rows) {
      const hours: Map<Date, Set<string>> = row.get('hours');
      for (const [hour, vehicles] of hours) {
        for (const vehicleId of vehicles) yield { vehicleId, hour: hour.getTime() };
      }
    }
  }
}
