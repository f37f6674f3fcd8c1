import type { types } from 'cassandra-driver';
import { expect, it } from 'vitest';
import type { Store } from '../../src/storage/client.ts';
import { createChangeLog, pendingHours, readChanges, SHARDS } from '../../src/storage/change-log.ts';

type Appended = {
  bucket: number;
  at: types.TimeUuid;
  shard: number;
  hours: Map<number, Set<string>>;
  loads: Map<string, number>;
};

/** A store that takes so long for each append, by its own clock, and where runs have claimed a window up to a time by then. */
function openLog(settleMs: number, appendMs: (nth: number) => number, claimed: (nth: number) => number = () => 0) {
  const appended: Appended[] = [];
  let clock = 1_000_000;
  const store = {
    now: () => clock,
    freshNow: () => Promise.resolve(clock),
    run: () =>
      Promise.resolve({
        rows: [{ watermark: new Date(0), window_end: new Date(claimed(appended.length)) }],
      } as unknown as types.ResultSet),
    insert: ({ values }: { values: Readonly<Record<string, unknown>> }) => {
      appended.push(values as Appended);
      clock += appendMs(appended.length);
      return Promise.resolve();
    },
  };
  return { appended, pass: (ms: number) => (clock += ms), announced: createChangeLog(store, settleMs) };
}

const file = { name: 'vehicles_events_1.json', version: '10-20' };
const touched = [{ vehicleId: 'a', hour: 0 }];

it('a vehicle is always in the same shard, and every hour is announced once, before anything is written', async () => {
  const { appended, announced } = openLog(1_000, () => 0);
  const many = Array.from({ length: 6_000 }, (_, n) => ({ vehicleId: `v${n % 2_000}`, hour: Math.floor(n / 2_000) }));
  let before = 0;
  await announced(file, many, () => {
    before = appended.length;
    return Promise.resolve();
  });
  expect(before).toBe(appended.length);
  const shards = new Map<string, number>();
  const keys: string[] = [];
  for (const { shard, hours, loads } of appended) {
    expect([...loads]).toEqual([['10-20 vehicles_events_1.json', 1_000_000]]);
    for (const [hour, vehicles] of hours)
      for (const vehicleId of vehicles) {
        expect(shards.get(vehicleId) ?? shard).toBe(shard);
        shards.set(vehicleId, shard);
        keys.push(`${vehicleId} ${hour}`);
      }
  }
  expect(keys).toHaveLength(6_000);
  expect(new Set(keys).size).toBe(6_000);
  expect(new Set(shards.values())).toEqual(new Set(Array.from({ length: SHARDS }, (_, shard) => shard)));
});

it('loads that start together share an entry', async () => {
  const { appended, announced } = openLog(1_000, () => 0);
  const names = ['one', 'two', 'three'];
  await Promise.all(names.map((name) => announced({ name, version: '1-1' }, touched, () => Promise.resolve())));
  expect(appended).toHaveLength(1);
  expect([...(appended[0]?.loads.keys() ?? [])]).toEqual(names.map((name) => `1-1 ${name}`));
});

it('an entry that a run may have passed over is appended again, behind the window of the run', async () => {
  const { appended, announced } = openLog(
    1_000,
    () => 0,
    // The first is outrun by a window that ends with it; a run after that claims an hour more: the clock was set back.
    (nth) => (nth === 1 ? 1_000_000 : 4_600_000),
  );
  await announced(file, touched, () => Promise.resolve());
  // And once more, as an entry that is so far from now says nothing of what has been read since.
  expect(appended.map(({ at }) => at.getDate().getTime())).toEqual([
    1_000_000, 1_000_001, 4_600_001, 1_000_000, 4_600_001,
  ]);
  expect(appended.map(({ bucket }) => bucket)).toEqual([600_000, 600_000, 4_200_000, 600_000, 4_200_000]);
});

it('what belongs to no load is announced once more after its rows, which nobody waits for', async () => {
  const { appended, announced } = openLog(1_000, () => 0);
  let before = 0;
  await announced(undefined, touched, () => {
    before = appended.length;
    return Promise.resolve();
  });
  expect(before).toBe(1);
  expect(appended).toHaveLength(2);
});

it('a load that took long is announced once more after its rows', async () => {
  const { appended, announced, pass } = openLog(1_000, () => 10);
  await announced(file, touched, () => Promise.resolve(pass(480)));
  expect(appended).toHaveLength(1);
  await announced(file, touched, () => Promise.resolve(pass(500)));
  expect(appended).toHaveLength(3);
});

it('what is pending since a watermark that was lost is looked for where entries can be, not since 1970', async () => {
  const now = Date.parse('2026-11-20T12:00:00Z');
  const asked: number[] = [];
  const store = {
    now: () => now,
    run: () => Promise.resolve({ rows: [{ window_end: null }] }),
    rows: async function* (_query: string, [bucket]: readonly number[]) {
      asked.push(bucket ?? 0);
      yield* await Promise.resolve([]);
    },
  } as unknown as Store;
  await pendingHours(store, 'a', 0);
  expect(asked.length).toBeLessThan(31 * 144);
  expect(Math.min(...asked)).toBeLessThanOrEqual(now - 29 * 86_400_000);
  expect(Math.max(...asked)).toBeGreaterThanOrEqual(now);
});

const MINUTE_MS = 60_000;

it.each([
  { state: 'loaded', minutesAgo: 1, isOpen: false },
  { state: 'unchanged', minutesAgo: 1, isOpen: false },
  // Rows of a process that stood still may yet come.
  { state: 'superseded', minutesAgo: 1, isOpen: true },
  { state: 'dead_letter', minutesAgo: 9, isOpen: true },
  { state: 'superseded', minutesAgo: 11, isOpen: false },
])(
  'what a load that was $state $minutesAgo min ago has announced is open: $isOpen',
  async ({ state, minutesAgo, isOpen }) => {
    const now = Date.parse('2026-11-20T12:00:00Z');
    const since = now - 20 * MINUTE_MS;
    const finished_at = new Date(now - minutesAgo * MINUTE_MS);
    const appended: unknown[] = [];
    const store = {
      now: () => now,
      run: () => Promise.resolve({ rows: [{ window_end: new Date(now - 5_000) }] }),
      insert: ({ values }: { values: unknown }) => Promise.resolve(void appended.push(values)),
      rows: async function* (query: string, [bucket]: readonly unknown[]) {
        await Promise.resolve();
        if (query.includes('FROM files')) yield { ...file, state, started_at: new Date(since), finished_at };
        else if (bucket === Math.floor(since / 600_000) * 600_000)
          yield {
            hours: new Map([[new Date(0), new Set(['a'])]]),
            loads: new Map([[`${file.version} ${file.name}`, new Date(since)]]),
          };
      },
    } as unknown as Store;
    const keys = [];
    const reader = { store, hasJob: () => Promise.resolve(true) };
    for await (const key of readChanges(reader, 0, since - MINUTE_MS, now - 5_000)) keys.push(key);
    expect(keys).toEqual([{ vehicleId: 'a', hour: 0 }]);
    expect(appended).toHaveLength(isOpen ? 1 : 0);
  },
);
