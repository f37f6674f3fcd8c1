import { types } from 'cassandra-driver';
import { fileOfLoad, loadOf, type FileVersion, type TakenRecord } from '../datasets/dataset.ts';
import { DAY_MS } from '../datasets/time.ts';
import { readWindowEnd } from './aggregation-state.ts';
import type { Store } from './client.ts';
import { isLoaded, readVersions } from './files.ts';
import { CHANGE_LOG_DAYS } from './schema.ts';
import { together } from './together.ts';

/** Entries of ten minutes share a partition, times the shards: some thousands of entries at the provider's rate. */
const BUCKET_MS = 600_000;
/** A shard is a share of all vehicles, for the aggregation. Changing the number needs an empty change log. */
export const SHARDS = 8;
/** Keys of one entry; an entry stays some tens of kilobytes. */
const KEYS_PER_ENTRY = 500;
/** Loads that are announced in one round trip, and entries that are in memory and whose loads are looked up together. */
const AT_ONCE = 64;
/** Hours of open loads that are gathered before they are appended again. */
const OPEN_HOURS_IN_MEMORY = 10_000;
/** How long a load that nobody ends is waited for, and how long when its job is lost, and so perhaps its file, or was given up. */
export const ABANDONED_MS = DAY_MS;
const LOST_MS = 600_000;

/** One bucket of the summaries: a vehicle and the start of an hour, in ms since the epoch. */
export type TouchedHour = NonNullable<TakenRecord['touched']>;
/** The (vehicle, hour) of one shard that loads change, and since when, in ms since the epoch, by `<version> <name>`. */
type Entry = { readonly shard: number; readonly hours: Map<number, Set<string>>; readonly loads: Map<string, number> };
type Clocked = Pick<Store, 'now' | 'freshNow' | 'insert' | 'run'>;
/** Whose log is read, and whether there is a job of a load that is not done. */
export interface LogReader {
  readonly store: Store;
  readonly hasJob: (file: FileVersion) => Promise<boolean>;
}
export type ChangeLog = ReturnType<typeof createChangeLog>;

const bucketOf = (ms: number) => Math.floor(ms / BUCKET_MS) * BUCKET_MS;

/** FNV-1a of the vehicle's identifier. */
function shardOf(vehicleId: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < vehicleId.length; at += 1) hash = Math.imul(hash ^ vehicleId.charCodeAt(at), 0x01000193);
  return (hash >>> 0) % SHARDS;
}

/** Distinct hours, cut into entries by shard and size. */
function entriesOf(touched: Iterable<TouchedHour>, loads: Map<string, number>): Entry[] {
  const entries: Entry[] = [];
  const open = new Map<number, { entry: Entry; keys: number }>();
  for (const { vehicleId, hour } of touched) {
    const shard = shardOf(vehicleId);
    let last = open.get(shard);
    if (last === undefined || last.keys >= KEYS_PER_ENTRY) {
      last = { entry: { shard, hours: new Map(), loads }, keys: 0 };
      entries.push(last.entry);
      open.set(shard, last);
    }
    const vehicles = last.entry.hours.get(hour) ?? new Set();
    last.entry.hours.set(hour, vehicles);
    last.keys += vehicles.has(vehicleId) ? 0 : 1;
    vehicles.add(vehicleId);
  }
  return entries;
}

/**
 * Appends entries. Resolves to the time of the first, in ms since the epoch. A window that was claimed before they were
 * readable, and ends at or behind them, may have passed them over: they are appended again behind it.
 */
async function append(store: Clocked, entries: readonly Entry[]): Promise<number> {
  for (let behind = 0; ;) {
    const at = Math.max(Math.floor(store.now()), behind);
    const insert = ({ shard, hours, loads }: Entry) => {
      const values = { bucket: bucketOf(at), shard, at: types.TimeUuid.fromDate(new Date(at)), hours, loads };
      return store.insert({ table: 'change_log', values });
    };
    await Promise.all(entries.map(insert));
    const windowEnd = await readWindowEnd(store);
    if (at > windowEnd) return at;
    behind = windowEnd + 1;
  }
}

/**
 * Makes the function that writes what changes summaries: what is going to change is announced before, so that whatever
 * becomes of this process, an aggregation knows of it. Loads of one process that start together share their entries.
 * What belongs to no load of a `file` is announced, but nobody waits for its end.
 */
export function createChangeLog(store: Clocked, settleMs: number) {
  type Load = { readonly file: FileVersion | undefined; readonly touched: readonly TouchedHour[] };
  const announce = together<Load, number>(AT_ONCE, async (group) => {
    const since = Math.floor(store.now());
    const loads = new Map(group.flatMap(({ file }) => (file ? [[loadOf(file), since]] : [])));
    const touched = group.flatMap((load) => load.touched);
    const at = await append(store, entriesOf(touched, loads));
    return group.map(() => at);
  });
  return async (
    file: FileVersion | undefined,
    touched: readonly TouchedHour[],
    write: () => Promise<unknown>,
  ): Promise<void> => {
    if (touched.length === 0) {
      await write();
      return;
    }
    const at = await announce({ file, touched });
    await write();
    // Without its rows, the summaries may have been recomputed meanwhile: nobody waits for what belongs to no load, nor for
    // a load that the ledger calls ended while this process stood still or a clock was set.
    const isSlow = Math.abs((await store.freshNow()) - at) > settleMs / 2;
    if (isSlow || file === undefined) await announce({ file, touched });
  };
}

/** The loads that have not ended, by what the ledger says of their files, since they were announced. */
async function unended(
  { store, hasJob }: LogReader,
  entries: readonly Entry[],
  until: number,
): Promise<Map<string, number>> {
  const announced = entries.flatMap((entry) => [...entry.loads]);
  const loads = new Map(announced.sort(([, earlier], [, later]) => earlier - later));
  const names = new Set([...loads.keys()].map((load) => fileOfLoad(load).name));
  // A window may end far ahead of a clock that was set back.
  const now = Math.min(until, store.now());
  for (const known of await readVersions(store, ...names)) {
    const hasEnded = known.finishedAt >= (loads.get(loadOf(known)) ?? Infinity);
    // What is given up may still have rows under way: of a process that stood still, or those that a node brings to others later.
    if (hasEnded && (isLoaded(known.state) || known.finishedAt < now - LOST_MS)) loads.delete(loadOf(known));
  }
  for (const [load, since] of loads) {
    const isAbandoned = since < now - ABANDONED_MS;
    if (isAbandoned || (since < now - LOST_MS && !(await hasJob(fileOfLoad(load))))) loads.delete(load);
  }
  return loads;
}

/**
 * Reads one shard's entries of the window (after, until], in ms since the epoch; a key may come many times. Those of
 * loads that had not ended are appended again behind the window, so that the next run takes them up, too.
 */
export async function* readChanges(reader: LogReader, shard: number, after: number, until: number) {
  const { store } = reader;
  // By the loads that they wait for, so that none is taken up again for the sake of a load that never touched it.
  const open = new Map<string, { readonly loads: Map<string, number>; readonly hours: Map<string, TouchedHour> }>();
  const openHours = () => [...open.values()].reduce((sum, { hours }) => sum + hours.size, 0);

  async function* keysOf(page: readonly Entry[]): AsyncGenerator<TouchedHour> {
    // Before anything is recomputed: a load that has ended by now has written all of its rows.
    const openLoads = await unended(reader, page, until);
    for (const entry of page) {
      const loads = new Map([...openLoads].filter(([load]) => entry.loads.has(load)));
      const id = JSON.stringify([...loads].sort());
      const waiting = open.get(id) ?? { loads, hours: new Map<string, TouchedHour>() };
      for (const [hour, vehicles] of entry.hours)
        for (const vehicleId of vehicles) {
          if (loads.size > 0) waiting.hours.set(`${hour} ${vehicleId}`, { vehicleId, hour });
          yield { vehicleId, hour };
        }
      if (loads.size > 0) open.set(id, waiting);
    }
    if (openHours() >= OPEN_HOURS_IN_MEMORY) await appendOpen();
  }
  async function appendOpen(): Promise<void> {
    const entries = [...open.values()].flatMap(({ loads, hours }) => entriesOf(hours.values(), loads));
    open.clear();
    if (entries.length > 0) await append(store, entries);
  }

  const window = 'bucket = ? AND shard = ? AND at > maxTimeuuid(?) AND at <= maxTimeuuid(?)';
  const page: Entry[] = [];
  for (let bucket = bucketOf(after); bucket <= until; bucket += BUCKET_MS) {
    const query = `SELECT hours, loads FROM change_log WHERE ${window}`;
    for await (const row of store.rows(query, [bucket, shard, after, until], AT_ONCE)) {
      const hours = new Map([...row['hours']].map(([hour, vehicles]) => [Number(hour), vehicles]));
      const loads = new Map([...(row['loads'] ?? [])].map(([load, since]) => [load, Number(since)]));
      if (page.push({ shard, hours, loads }) === AT_ONCE) yield* keysOf(page.splice(0));
    }
  }
  yield* keysOf(page);
  await appendOpen();
}

/** The hours of a vehicle, as starts in ms since the epoch, that an aggregation is yet to take up after `after`. */
export async function pendingHours(store: Store, vehicleId: string, after: number): Promise<Set<number>> {
  const pending = new Set<number>();
  const query = 'SELECT hours FROM change_log WHERE bucket = ? AND shard = ? AND at > maxTimeuuid(?)';
  const last = Math.max(store.now(), await readWindowEnd(store)) + BUCKET_MS;
  // Older entries have expired.
  const first = Math.max(after, store.now() - CHANGE_LOG_DAYS * DAY_MS);
  for (let bucket = bucketOf(first); bucket <= last; bucket += BUCKET_MS)
    for await (const row of store.rows(query, [bucket, shardOf(vehicleId), after], AT_ONCE))
      for (const [hour, vehicles] of row['hours'] as Map<Date, Set<string>>)
        if (vehicles.has(vehicleId)) pending.add(hour.getTime());
  return pending;
}
