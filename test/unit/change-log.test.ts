import { expect, it } from 'vitest';
import { createChangeLog, SHARDS } from '../../src/storage/change-log.ts';

type Appended = { shard: number; hours: Map<number, Set<string>>; loads: Map<string, number> };

/** A store that takes so long for each append, by its own clock. */
function openLog(settleMs: number, appendMs: (nth: number) => number) {
  const appended: Appended[] = [];
  let clock = 1_000_000;
  const store = {
    now: () => clock,
    freshNow: () => Promise.resolve(clock),
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

it('an entry that was acknowledged late is appended again', async () => {
  const { appended, announced } = openLog(1_000, (nth) => (nth === 1 ? 501 : 100));
  await announced(file, touched, () => Promise.resolve());
  expect(appended).toHaveLength(2);
});

it('a load that took long is announced once more after its rows', async () => {
  const { appended, announced, pass } = openLog(1_000, () => 10);
  await announced(file, touched, () => Promise.resolve(pass(480)));
  expect(appended).toHaveLength(1);
  await announced(file, touched, () => Promise.resolve(pass(500)));
  expect(appended).toHaveLength(3);
});
