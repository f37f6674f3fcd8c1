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

interface ChangeEntry {
  readonly shard: number;
  readonly hours: Map<Date, Set<string>>;
}

/** The hours that a load touched, each (vehicle, hour) once. */
export interface TouchedHours {
  add(touched: TouchedHour): void;
  /** Keys that were added since the last take. */
  size(): number;
  /** Hands over what was added, cut by shard and size, and starts anew. */
  take(): ChangeEntry[];
}

export function createTouchedHours(): TouchedHours {
  let vehiclesByHour = new Map<number, Set<string>>();
  let size = 0;
  return {
    size: () => size,
    add: ({ vehicleId, hour }) => {
      const vehicles = vehiclesByHour.get(hour) ?? new Set();
      vehiclesByHour.set(hour, vehicles);
      if (!vehicles.has(vehicleId)) size += 1;
      vehicles.add(vehicleId);
    },
    take: () => {
      const taken = vehiclesByHour;
      vehiclesByHour = new Map();
      size = 0;
      return entriesOf(taken);
    },
  };
}

/** The shard that a vehicle is always in. */
export function shardOf(vehicleId: string): number {
  return createHash('md5').update(vehicleId).digest().readUInt32BE(0) % SHARDS;
}

function entriesOf(vehiclesByHour: ReadonlyMap<number, ReadonlySet<string>>): ChangeEntry[] {
  const entries: ChangeEntry[] = [];
  const open = new Map<number, { keys: number; entry: ChangeEntry }>();
  for (const [hour, vehicles] of vehiclesByHour) {
    const start = new Date(hour);
    for (const vehicleId of vehicles) {
      const shard = shardOf(vehicleId);
      let filling = open.get(shard);
      if (filling === undefined || filling.keys >= KEYS_PER_ENTRY) {
        filling = { keys: 0, entry: { shard, hours: new Map() } };
        open.set(shard, filling);
        entries.push(filling.entry);
      }
      filling.keys += 1;
      const { hours } = filling.entry;
      hours.set(start, (hours.get(start) ?? new Set()).add(vehicleId));
    }
  }
  return entries;
}

/**
 * Appends what a load touched. Resolves when each entry was acknowledged within half the settle time of its own time,
 * so that an aggregation whose window includes that time has seen it; a slower one is appended again with a new time.
 */
export async function appendChanges(store: Store, touched: TouchedHours, settleMs: number): Promise<void> {
  await Promise.all(touched.take().map((entry) => appendInTime(store, entry, settleMs)));
}

async function appendInTime(store: Store, { shard, hours }: ChangeEntry, settleMs: number): Promise<void> {
  for (;;) {
    const at = store.now();
    const bucket = new Date(Math.floor(at / BUCKET_MS) * BUCKET_MS);
    const values = { bucket, shard, at: types.TimeUuid.fromDate(new Date(at)), hours };
    await store.insert({ table: 'change_log', values });
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
      const hours: Map<Date, Set<string>> = row['hours'];
      for (const [hour, vehicles] of hours) {
        for (const vehicleId of vehicles) yield { vehicleId, hour: hour.getTime() };
      }
    }
  }
}
