import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { openAll, openForWork, openStore } from '../../src/commands/connect.ts';
import { createAggregationWorkers } from '../../src/processors/aggregation.ts';
import { createIngestWorker } from '../../src/processors/ingest.ts';
import { ingestJobId } from '../../src/queues/ingest.ts';
import {
  claimEpoch,
  claimWindow,
  moveWatermark,
  readAggregationState,
  TURNS,
} from '../../src/storage/aggregation-state.ts';
import { createChangeLog, readChanges, SHARDS } from '../../src/storage/change-log.ts';
import type { Store } from '../../src/storage/client.ts';
import { recomputeDay } from '../../src/storage/summaries.ts';
import { eventually, openSpace, type Space } from './pipeline.ts';
import { storedSummaries, summariesOf } from './recomputation.ts';
import { event, events, type ProviderEvent } from './records.ts';

/** Every run takes another seed; SEED repeats one. */
const seed = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));

/** Numbers from 0 up to 1, the same for the same seed (mulberry32). */
function randomNumbers(from: number): () => number {
  let state = from;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Random files: late, out of order, across midnights, duplicates within and between files, ties. */
function randomFiles(random: () => number, files: number, recordsPerFile: number): ProviderEvent[][] {
  const below = (n: number) => Math.floor(random() * n);
  const oneOf = <T>(values: readonly T[]): T => {
    const value = values[below(values.length)];
    if (value === undefined) throw new RangeError('nothing to choose from');
    return value;
  };
  const midnights = ['2026-11-20T00:00:00Z', '2026-11-21T00:00:00Z', '1970-01-01T00:00:00Z', '2024-02-29T00:00:00Z'];
  const time = () => {
    // Mostly within seconds of a midnight, on both sides; now and then anywhere within the day before.
    const seconds = random() < 0.7 ? below(7) - 3 : -below(86_400);
    const start = new Date(Date.parse(oneOf(midnights)) + seconds * 1_000);
    const decimals = oneOf(['', '.5', '.123456', '.123457', '.123456789', '.123456788', '.999999999', '.000000001']);
    const [zone, hours] = oneOf([
      ['', 0],
      ['Z', 0],
      ['+05:30', 5.5],
      ['-11:00', -11],
    ] as const);
    return `${new Date(start.getTime() + hours * 3_600_000).toISOString().slice(0, 19)}${decimals}${zone}`;
  };
  const all: ProviderEvent[] = [];
  const make = (): ProviderEvent => {
    if (all.length > 0 && random() < 0.1) return oneOf(all);
    const like = all.length > 0 && random() < 0.2 ? oneOf(all) : undefined;
    const made = event({
      vehicle_id: like?.vehicle_id ?? `vehicle-${below(25)}`,
      event_time: like?.event_time ?? time(),
      event_type: oneOf(['speed', 'brake', 'Zoom', 'ångström', '__proto__']),
      event_source: oneOf(['gps', 'body']),
    });
    all.push(made);
    return made;
  };
  return Array.from({ length: files }, () => Array.from({ length: recordsPerFile }, make));
}

function shuffled<T>(values: readonly T[], random: () => number): T[] {
  return values
    .map((value) => ({ value, at: random() }))
    .sort((a, b) => a.at - b.at)
    .map(({ value }) => value);
}

/** Asks for a run now, as a person does on the board. */
async function run(space: Space, data: { rebuild?: boolean } = {}): Promise<Record<string, unknown>> {
  const queue = space.queue('aggregation');
  const { id = '' } = await queue.add('run by hand', data);
  return eventually(async () => {
    expect(await queue.getJobState(id)).toBe('completed');
    // Read after the state: a job that was read before it ended has no result yet.
    return (await queue.getJob(id))?.returnvalue as Record<string, unknown>;
  });
}

describe('random files', async () => {
  const space = await openSpace();

  it(`in random order, with aggregations between, give the summaries of a recomputation (SEED=${seed})`, async () => {
    const random = randomNumbers(seed);
    const files = randomFiles(random, 40, 60).map((records, n) => ({ name: `vehicles_events_${n}.json`, records }));
    space.startWatcher();
    space.startProcessor();
    space.startProcessor();
    const order = shuffled(files, random);
    for (const [n, { name, records }] of order.entries()) {
      await space.put(name, records);
      if (n % 8 === 5) await run(space);
      // One of the runs between has something to do, however quickly the files come.
      if (n === 20) await space.loaded([name]).then(() => space.aggregated());
      // The same records once more, under another name.
      if (n % 10 === 7) await space.put(`again/${name}`, shuffled(records, random));
    }
    await space.loaded(order.flatMap(({ name }, n) => (n % 10 === 7 ? [name, `again/${name}`] : [name])));
    await space.aggregated();
    const stored = await storedSummaries(space.read);
    const expected = summariesOf(files.flatMap(({ records }) => records));
    expect(Object.keys(expected.hourly).length).toBeGreaterThan(100);
    expect(stored, `SEED=${seed}`).toEqual(expected);
    const runs = await space.read('SELECT hours FROM aggregation_runs');
    expect(runs.filter((one) => Number(one['hours']) > 0).length).toBeGreaterThan(1);
  });
});

describe('a summary', async () => {
  const own = await openSpace();
  const records: ProviderEvent[] = [];
  let files = 0;
  beforeAll(() => {
    own.startWatcher();
    own.startProcessor();
  });

  async function load(...some: ProviderEvent[]): Promise<void> {
    files += 1;
    records.push(...some);
    await own.put(`vehicles_events_${files}.json`, some);
    await own.loaded([`vehicles_events_${files}.json`]);
  }

  async function expectRecomputation(): Promise<void> {
    await own.aggregated();
    expect(await storedSummaries(own.read)).toEqual(summariesOf(records));
  }

  it('names the type of the last event right to the microsecond, and to the nanosecond', async () => {
    const at = (decimals: string, event_type: string) =>
      event({ vehicle_id: 'last', event_time: `2026-11-20T10:00:00.${decimals}`, event_type });
    await load(at('123456', 'zebra'), at('123457', 'aardvark'), at('123455', 'middle'));
    await expectRecomputation();
    const last = async () => {
      const [row] = await own.read("SELECT * FROM daily_summary WHERE vehicle_id = 'last' AND day = '2026-11-20'");
      return row?.['last_event_type'];
    };
    expect(await last()).toBe('aardvark');
    await load(at('123457001', 'nano'), at('1234565', 'half'));
    await expectRecomputation();
    expect(await last()).toBe('nano');
  });

  it('takes events that are years late', async () => {
    await load(...events(5, { vehicle_id: 'late', event_time: '1999-12-31T23:59:58' }));
    await expectRecomputation();
    await load(event({ vehicle_id: 'late', event_time: '1999-12-31T00:00:00', event_type: 'first' }));
    await expectRecomputation();
  });

  const day = "day = '2026-11-20'";
  /** Forgets what was loaded of a vehicle, in the table and here. */
  async function loseEvents(vehicleId: string): Promise<void> {
    await own.read(`DELETE FROM vehicle_events WHERE vehicle_id = '${vehicleId}' AND ${day}`);
    records.splice(0, records.length, ...records.filter((record) => record.vehicle_id !== vehicleId));
  }

  it('is mended by a rebuild when it is wrong, gone, or of events that are gone', async () => {
    await load(...events(30, { vehicle_id: 'wrong' }), ...events(30, { vehicle_id: 'gone' }));
    await load(...events(3, { vehicle_id: 'no-events' }));
    await expectRecomputation();
    for (const statement of [
      `UPDATE hourly_summary SET event_count = 7, last_event_type = 'x' WHERE vehicle_id = 'wrong' AND ${day} AND hour = 10`,
      `UPDATE daily_summary SET event_count = 8 WHERE vehicle_id = 'wrong' AND ${day}`,
      `UPDATE daily_summary_by_day SET event_count = 9 WHERE vehicle_id = 'wrong' AND ${day}`,
      `INSERT INTO hourly_summary (vehicle_id, day, hour, event_count) VALUES ('wrong', '2026-11-20', 3, 1)`,
      `DELETE FROM hourly_summary WHERE vehicle_id = 'gone' AND ${day}`,
      `DELETE FROM daily_summary WHERE vehicle_id = 'gone'`,
      `DELETE FROM daily_summary_by_day WHERE vehicle_id = 'gone' AND ${day}`,
    ]) {
      await own.read(statement);
    }
    await loseEvents('no-events');
    expect(await run(own, { rebuild: true })).toMatchObject({ outcome: 'done', slices: 8 });
    expect(await storedSummaries(own.read)).toEqual(summariesOf(records));
  });

  it('is made anew when the watermark is older than what the change log keeps', async () => {
    await load(...events(3, { vehicle_id: 'expired' }));
    await expectRecomputation();
    await own.read(`DELETE FROM hourly_summary WHERE vehicle_id = 'expired' AND ${day}`);
    const lastMonth = Date.now() - 29.5 * 86_400_000;
    await eventually(async () => {
      // A run that had claimed its window before moves the watermark on.
      await own.read(`UPDATE aggregation_state SET watermark = ${lastMonth} WHERE job = 'summaries' IF EXISTS`);
      await run(own);
      const runs = await own.read('SELECT kind, window_start, outcome FROM aggregation_runs');
      const ended = { kind: 'rebuild', window_start: new Date(lastMonth).toISOString(), outcome: 'done' };
      expect(runs).toContainEqual(ended);
    });
    expect(await storedSummaries(own.read)).toEqual(summariesOf(records));
  });

  it('of a day is removed by a rebuild when neither events nor hours stand behind it', async () => {
    await load(...events(3, { vehicle_id: 'no-hours' }), ...events(3, { vehicle_id: 'only-by-day' }));
    await expectRecomputation();
    for (const vehicleId of ['no-hours', 'only-by-day']) {
      await loseEvents(vehicleId);
      await own.read(`DELETE FROM hourly_summary WHERE vehicle_id = '${vehicleId}' AND ${day}`);
    }
    await own.read("DELETE FROM daily_summary WHERE vehicle_id = 'only-by-day'");
    expect(await run(own, { rebuild: true })).toMatchObject({ outcome: 'done' });
    expect(await storedSummaries(own.read)).toEqual(summariesOf(records));
  });
});

describe('of two aggregations at once', async () => {
  const own = await openSpace();

  it('the one that was overtaken writes nothing over the newer one’s result, and does not move the watermark', async () => {
    const runtime = own.runtime();
    const store = await openStore(runtime);
    own.startWatcher();
    // The schedule's runs are not in the way: no processor takes them while runs are made by hand.
    const processor = own.startProcessor();
    const [one, two] = [events(3, { vehicle_id: 'fenced' }), events(3, { vehicle_id: 'fenced' })];
    await own.put('vehicles_events_1.json', one);
    await own.put('vehicles_events_2.json', two);
    await own.loaded(['vehicles_events_1.json', 'vehicles_events_2.json']);
    await own.aggregated();
    await processor.stop();

    const day = { vehicleId: 'fenced', day: '2026-11-20' };
    const older = await claimEpoch(store);
    const newer = await claimEpoch(store);
    expect(newer).toBeGreaterThan(older);
    await recomputeDay(store, day, 'all', newer);
    const right = summariesOf([...one, ...two]);
    expect(await storedSummaries(own.read)).toEqual(right);

    // What the older run sees is wrong: it may write it as late as it likes.
    await own.read(
      "DELETE FROM vehicle_events WHERE vehicle_id = 'fenced' AND day = '2026-11-20' AND event_time < '2026-11-20T10:00:01Z'",
    );
    await recomputeDay(store, day, 'all', older);
    expect(await storedSummaries(own.read)).toEqual(right);
    await own.read("DELETE FROM vehicle_events WHERE vehicle_id = 'fenced' AND day = '2026-11-20'");
    await recomputeDay(store, day, 'all', older);
    expect(await storedSummaries(own.read)).toEqual(right);

    const watermark = async () => (await own.read('SELECT watermark FROM aggregation_state'))[0]?.['watermark'];
    const before = await watermark();
    const [until, startedAt] = [Date.parse('2026-01-01'), store.now()];
    expect(await moveWatermark(store, { epoch: older, until, startedAt }, 1_000)).toBe(false);
    expect(await watermark()).toBe(before);
    expect(await moveWatermark(store, { epoch: newer, until, startedAt }, 1_000)).toBe(true);
    expect(await watermark()).toBe('2026-01-01T00:00:00.000Z');

    // Later runs have greater epochs than all turns of an earlier one, also when the clock was set back.
    const back = { ...store, now: () => store.now() - 3_600_000 };
    expect(await claimEpoch(back)).toBeGreaterThanOrEqual(newer + TURNS);
  });

  it('the one that looked first, and claims its window when the other one has moved the watermark, starts behind that', async () => {
    const store = await openStore(own.runtime());
    const first = await claimWindow(store, 0);
    let moved = false;
    const slow = {
      ...store,
      now: () => store.now() - (moved ? 0 : 500),
      runIf: async (query: string, parameters: readonly unknown[]) => {
        if (!moved) moved = await moveWatermark(store, first, 1_000);
        return store.runIf(query, parameters);
      },
    };
    const second = await claimWindow(slow, 0);
    expect(moved).toBe(true);
    expect(second.after).toBe(first.until);
    expect(second.until).toBeGreaterThan(first.until);
  });
});

it('while a node is down, where the watermark was before is remembered, as that node may have forgotten what came then', async () => {
  const own = await openSpace();
  const store = await openStore(own.runtime());
  const nodes = await store.nodes();
  const moves = async () => (await readAggregationState(store)).moves;
  const runAt = async (seconds: number, down: readonly string[]) => {
    const later = {
      ...store,
      now: () => store.now() + seconds * 1_000,
      nodes: () => Promise.resolve({ ...nodes, down }),
    };
    const claimed = await claimWindow(later, 0);
    expect(await moveWatermark(later, claimed, 1_000)).toBe(true);
    return claimed;
  };
  const before = await runAt(0, []);
  await runAt(10, []);
  const known = await moves();
  for (const seconds of [20, 30, 40]) await runAt(seconds, ['127.0.0.2']);
  expect(await moves()).toEqual(known);
  expect(known.some(([, watermark]) => watermark === before.until)).toBe(true);
  // It is back, and was started anew.
  const generations = new Map([...nodes.generations].map(([node, nth]) => [node, nth + 1n]));
  const back = { ...store, now: () => store.now() + 50_000, nodes: () => Promise.resolve({ generations, down: [] }) };
  expect((await claimWindow(back, 0)).after).toBeLessThanOrEqual(before.until);
});

it('an aggregation whose state Cassandra has lost makes every summary anew, and files are loaded meanwhile', async () => {
  const own = await openSpace({ AGGREGATION_EVERY_SECONDS: 3_600 });
  // No run comes before, which would make a part of them.
  await own.queue('aggregation').pause();
  const watcher = own.startWatcher();
  const processor = own.startProcessor();
  const records = events(20, { vehicle_id: 'lost-state' });
  await own.put('vehicles_events_1.json', records.slice(0, 10));
  await own.loaded(['vehicles_events_1.json']);
  await own.read('TRUNCATE aggregation_state');
  await own.read('TRUNCATE change_log');
  await own.put('vehicles_events_2.json', records.slice(10));
  await own.loaded(['vehicles_events_2.json']);
  await own.queue('aggregation').resume();
  await eventually(async () => {
    await run(own);
    expect(await storedSummaries(own.read)).toEqual(summariesOf(records));
  });
  await Promise.all([watcher.stop(), processor.stop()]);
});

it('hours of a large load that has not ended are appended again in parts, and none is passed over', async () => {
  const own = await openSpace({ AGGREGATION_EVERY_SECONDS: 3_600 });
  const runtime = own.runtime();
  const { store } = await openAll(runtime);
  const touched = Array.from({ length: 70_000 }, (_, n) => ({ vehicleId: 'one', hour: n * 3_600_000 }));
  const file = { name: 'vehicles_events_large.json', version: '1-1' };
  const dies = createChangeLog(store, 1_000)(file, touched, () => Promise.reject(new Error('killed')));
  await expect(dies).rejects.toThrow('killed');
  await sleep(1_500);
  let [inserts, early] = [0, 0];
  const counting = {
    ...store,
    insert: (row: Parameters<typeof store.insert>[0]) => {
      inserts += 1;
      return store.insert(row);
    },
  };
  const { after, until } = await claimWindow(store, 0);
  const read = async (from: number, to: number) => {
    const keys = new Set<number>();
    for (let shard = 0; shard < SHARDS; shard += 1)
      for await (const { hour } of readChanges(
        { store: counting, hasJob: () => Promise.resolve(true) },
        shard,
        from,
        to,
      )) {
        if (keys.size < touched.length - 1) early = inserts;
        keys.add(hour);
      }
    return keys.size;
  };
  expect(await read(after, until)).toBe(touched.length);
  expect(early).toBeGreaterThan(0);
  await sleep(20);
  const next = await claimWindow(store, 0);
  expect(await read(until, next.until)).toBe(touched.length);
  await runtime.stop();
});

it('hours of loads that have ended are not appended again for the sake of one that has not', async () => {
  const own = await openSpace({ AGGREGATION_EVERY_SECONDS: 3_600 });
  const runtime = own.runtime();
  const { store } = await openAll(runtime);
  const announced = createChangeLog(store, 1_000_000);
  const hoursOf = (run: number) =>
    Array.from({ length: 100 }, (_, n) => ({ vehicleId: 'one', hour: (run * 1_000 + n) * 3_600_000 }));
  const dies = announced({ name: 'vehicles_events_large.json', version: '1-1' }, hoursOf(0), () =>
    Promise.reject(new Error('put back')),
  );
  await expect(dies).rejects.toThrow('put back');
  const taken: number[] = [];
  for (let run = 1; run <= 5; run += 1) {
    // A load that is under way just then, and ends right after.
    const file = { name: `vehicles_events_${run}.json`, version: '1-1' };
    await announced(file, hoursOf(run), () => Promise.resolve());
    await sleep(20);
    const window = await claimWindow(store, 0);
    const keys = new Set<number>();
    for (let shard = 0; shard < SHARDS; shard += 1) {
      const reader = { store, hasJob: () => Promise.resolve(true) };
      for await (const { hour } of readChanges(reader, shard, window.after, window.until)) keys.add(hour);
    }
    await moveWatermark(store, window, 30_000);
    taken.push(keys.size);
    await store.insert({ table: 'files', values: { ...file, state: 'loaded', finished_at: new Date(store.now()) } });
    await sleep(20);
  }
  // Each takes what is open, what has come, and what was open the last time.
  expect(taken).toEqual([200, 300, 300, 300, 300]);
  await runtime.stop();
});

it('many large values of one hour do not stop the summaries, nor fill the memory', async () => {
  const own = await openSpace();
  await own.queue('aggregation').pause();
  const watcher = own.startWatcher();
  const loader = own.startRole('process');
  const valueOf = (n: number) => `${n}`.padEnd(900_000, 'x');
  const names = Array.from({ length: 6 }, (_, part) => `vehicles_events_${part}.jsonl`);
  for (const [part, name] of names.entries()) {
    const records = Array.from({ length: 50 }, (_, n) =>
      event({ vehicle_id: 'camera', event_value: valueOf(50 * part + n) }),
    );
    await own.put(name, records.map((record) => JSON.stringify(record)).join('\n'));
  }
  await own.loaded(names);
  await loader.stop();
  const aggregating = own.startRole('process');
  await own.queue('aggregation').resume();
  await own.aggregated();
  expect(await own.read('SELECT event_count FROM daily_summary')).toEqual([{ event_count: 300 }]);
  const status = await readFile(`/proc/${aggregating.pid}/status`, 'utf8');
  const peak = Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024;
  expect(peak).toBeLessThan(250);
  await Promise.all([watcher.stop(), aggregating.stop()]);
});

describe('many aggregations at once', async () => {
  const crowd = await openSpace();

  it('that nothing keeps apart end with the summaries of a recomputation', async () => {
    crowd.startWatcher();
    for (let n = 0; n < 3; n += 1) crowd.startProcessor();
    const random = randomNumbers(seed + 1);
    const files = randomFiles(random, 20, 50);
    const names = files.map((_, n) => `vehicles_events_${n}.json`);
    const queue = crowd.queue('aggregation');
    for (const [n, records] of files.entries()) {
      await queue.removeGlobalConcurrency();
      await queue.addBulk([1, 2, 3].map((by) => ({ name: `run by hand ${by}`, data: {} })));
      await crowd.put(names[n] ?? '', records);
    }
    await crowd.loaded(names);
    // It takes at least one run that another one overtook.
    await eventually(async () => {
      await queue.removeGlobalConcurrency();
      await queue.addBulk([1, 2, 3].map((by) => ({ name: `run by hand ${by}`, data: {} })));
      const outcomes = (await crowd.read('SELECT outcome FROM aggregation_runs')).map((row) => row['outcome']);
      expect(outcomes).toContain('overtaken');
    });
    await crowd.aggregated();
    expect(await storedSummaries(crowd.read), `SEED=${seed}`).toEqual(summariesOf(files.flat()));
  });
});

describe('a window of more changes than one job takes', async () => {
  const own = await openSpace();

  it('is cut into slices that two processors share, and is right', async () => {
    const records = Array.from({ length: 21 * 24 * 42 }, (_, n) =>
      event({
        vehicle_id: `vehicle-${n % 42}`,
        event_time: `2026-10-${String(1 + (Math.floor(n / 42) % 21)).padStart(2, '0')}T${String(Math.floor(n / 42 / 21)).padStart(2, '0')}:30:00.000001`,
        event_extra_data: {},
      }),
    );
    // Nobody aggregates before all of it is loaded.
    const loading = own.startProcessor();
    await own.queue('aggregation').pause();
    own.startWatcher();
    await own.put('vehicles_events_large.json', records);
    await own.loaded(['vehicles_events_large.json']);
    await loading.stop();
    const [file] = await own.ledger();
    // One window for all of it: the changes of a large file are noted while it is loaded.
    await eventually(() =>
      expect(Date.now()).toBeGreaterThan((file?.finishedAt ?? 0) + 1_000 * own.config.SETTLE_SECONDS),
    );
    for (const workerName of ['left', 'right']) {
      const runtime = own.runtime();
      const workers = createAggregationWorkers({ ...(await openForWork(runtime)), workerName });
      runtime.shutdown.defer('workers', () => Promise.all(workers.map((worker) => worker.close())));
      await Promise.all(workers.map((worker) => worker.waitUntilReady()));
    }
    // Both are there to take slices.
    await own.queue('aggregation').resume();
    const large = await eventually(async () => {
      const [found] = await own.read('SELECT * FROM aggregation_runs WHERE slices = 8 ALLOW FILTERING');
      expect(found).toBeDefined();
      return found;
    });
    expect(large).toMatchObject({ kind: 'incremental', outcome: 'done', hours: records.length, days: 42 * 21 });
    const slices = await own.queue('aggregation-slice').getCompleted();
    expect(new Set(slices.map((slice) => slice.processedBy))).toEqual(new Set(['left', 'right']));
    expect(await storedSummaries(own.read)).toEqual(summariesOf(records));
  });
});

describe('a clock of Cassandra that was set back by an hour', async () => {
  const own = await openSpace();

  it('holds no summary up, and passes over none', async () => {
    const ahead = new Date(Date.now() + 3_600_000);
    await own.read("UPDATE aggregation_state SET watermark = ?, window_end = ? WHERE job = 'summaries'", [
      ahead,
      ahead,
    ]);
    own.startWatcher();
    own.startProcessor();
    const files = [1, 2, 3].map((n) => events(5, { vehicle_id: `vehicle-${n}` }));
    for (const [n, records] of files.entries()) {
      await own.put(`vehicles_events_${n}.json`, records);
      const sofar = summariesOf(files.slice(0, n + 1).flat());
      await eventually(async () => expect(await storedSummaries(own.read)).toEqual(sofar));
    }
    const watermark = String((await own.read('SELECT watermark FROM aggregation_state'))[0]?.['watermark']);
    expect(Date.parse(watermark)).toBeGreaterThan(ahead.getTime());
    expect(Date.parse(watermark)).toBeLessThan(ahead.getTime() + 60_000);
  });
});

describe('a load that writes its rows after a run has read the log, and dies before it says so again', async () => {
  const own = await openSpace({ AGGREGATION_EVERY_SECONDS: 3_600 });
  const cases = [0, 1, 72].flatMap((hours) => [false, true].map((rebuild) => ({ hours, rebuild })));

  it.each(cases)(
    'is in the summaries ($hours h after the clock of Cassandra; rebuild: $rebuild)',
    async ({ hours, rebuild }) => {
      own.startProcessor();
      const ahead = new Date(Date.now() + hours * 3_600_000);
      await own.read("UPDATE aggregation_state SET watermark = ?, window_end = ? WHERE job = 'summaries'", [
        ahead,
        ahead,
      ]);
      const store = await openStore(own.runtime());
      const vehicleId = `vehicle-${hours}-${rebuild}`;
      const announced = createChangeLog(store, 1_000);
      const dies = announced(
        { name: `${vehicleId}.json`, version: '1-1' },
        [{ vehicleId, hour: Date.parse('2026-11-20T10:00Z') }],
        async () => {
          await sleep(2_000);
          expect(await run(own, { rebuild })).toMatchObject({ outcome: 'done' });
          const columns =
            'vehicle_id, day, event_time, event_id, event_time_nanos, event_source, event_type, event_value';
          await own.read(
            `INSERT INTO vehicle_events (${columns}) VALUES (?, '2026-11-20', '2026-11-20T10:00:03.000Z', 'x', 0, 'a', 'b', 'c')`,
            [vehicleId],
          );
          throw new Error('it is killed');
        },
      );
      await expect(dies).rejects.toThrow('it is killed');
      await sleep(2_000);
      expect(await run(own)).toMatchObject({ outcome: 'done' });
      const [day] = await own.read(
        "SELECT event_count FROM daily_summary WHERE vehicle_id = ? AND day = '2026-11-20'",
        [vehicleId],
      );
      expect(day?.['event_count']).toBe(1);
    },
  );
});

describe('a load that was announced eleven minutes ago, and has not ended', async () => {
  const own = await openSpace({ AGGREGATION_EVERY_SECONDS: 3_600 });

  it.each([true, false])(
    'is waited for if there is a job of it (%s), and not for ever if it is lost',
    async (hasJob) => {
      const processor = own.startProcessor();
      const store = await openStore(own.runtime());
      const ago = { ...store, now: () => store.now() - 660_000 };
      const file = { name: `vehicles_events_${hasJob}.json`, version: '1-1' };
      const hour = Date.parse('2026-11-20T10:00Z');
      const dies = createChangeLog(ago, 1_000)(file, [{ vehicleId: 'lost', hour }], () =>
        Promise.reject(new Error('killed')),
      );
      await expect(dies).rejects.toThrow('killed');
      const ingest = own.queue('ingest');
      const data = { name: file.name, size: 1, mtimeNs: '1' };
      if (hasJob) await ingest.add(file.name, data, { jobId: ingestJobId(file), delay: 3_600_000 });
      await sleep(1_500);
      expect(await run(own)).toMatchObject({ hours: 1 });
      await sleep(1_500);
      expect(await run(own)).toMatchObject({ hours: hasJob ? 1 : 0 });
      await ingest.remove(ingestJobId(file));
      await sleep(1_500);
      await run(own);
      await processor.stop();
    },
  );
});

describe('a run that died between the cutting of its window and the waiting for its slices', async () => {
  const own = await openSpace();

  it('starts anew, and moves the watermark over nothing that is not recomputed', async () => {
    const queue = own.queue('aggregation');
    await queue.pause();
    const watcher = own.startWatcher();
    own.startProcessor();
    const records = events(20, { vehicle_id: 'left-behind' });
    await own.put('vehicles_events_1.json', records);
    await own.loaded(['vehicles_events_1.json']);
    await watcher.stop();
    await queue.removeJobScheduler('aggregation');
    await queue.drain(true);

    const runtime = own.runtime();
    const store = await openStore(runtime);
    const claimed = await claimWindow(store, 0);
    const window = { ...claimed, kind: 'incremental', epoch: String(claimed.epoch) };
    await eventually(() => expect(store.now()).toBeGreaterThan(window.until + 1_000 * own.config.SETTLE_SECONDS));
    const { id = '' } = await queue.add('comes between', {});
    const job = await queue.add('taken over', { sliced: window });
    await queue.resume();
    await eventually(async () => expect(await job.getState()).toBe('completed'));
    const between = await queue.getJob(id);
    expect(between?.returnvalue).toMatchObject({ outcome: 'another run is under way' });
    expect(await storedSummaries(own.read)).toEqual(summariesOf(records));
  });
});

it('a slice that is tried again writes over all that its first attempt wrote, as loads may have ended since', async () => {
  const own = await openSpace();
  const runtime = own.runtime();
  const needs = await openForWork(runtime);
  const insert = async (second: number, id: string, type: string) => {
    const columns = 'vehicle_id, day, event_time, event_id, event_time_nanos, event_source, event_type, event_value';
    const key = `'again', '2026-11-20', '2026-11-20T10:00:0${second}.000Z', '${id}'`;
    await own.read(`INSERT INTO vehicle_events (${columns}) VALUES (${key}, 0, 'gps', '${type}', '1')`);
  };
  await insert(1, 'b', 'speed');
  await insert(2, 'c', 'zigzag');
  const claimed = await claimWindow(needs.store, 0);
  const window = { ...claimed, kind: 'rebuild' as const, epoch: String(claimed.epoch) };
  const slices = Array.from({ length: SHARDS }, (_, shard) => ({ name: 'slice', data: { ...window, shard } }));
  const jobs = await needs.sliceQueue.addBulk(slices);
  const workers = createAggregationWorkers(needs);
  runtime.shutdown.defer('workers', () => Promise.all(workers.map((worker) => worker.close())));
  const lastTypes = async (attempt: number) => {
    await eventually(async () => {
      const done = await needs.sliceQueue.getCompleted();
      expect(done.map(({ attemptsStarted }) => attemptsStarted)).toEqual(jobs.map(() => attempt));
    });
    const rows = await own.read("SELECT event_count, last_event_type FROM daily_summary WHERE vehicle_id = 'again'");
    return rows.map((row) => [row['event_count'], row['last_event_type']]);
  };
  expect(await lastTypes(1)).toEqual([[2, 'zigzag']]);

  // Every value is less than it was, so that of equal times the old one would win.
  await own.read("DELETE FROM vehicle_events WHERE vehicle_id = 'again' AND day = '2026-11-20'");
  await insert(0, 'a', 'arrival');
  for (const { id = '' } of jobs) await (await needs.sliceQueue.getJob(id))?.retry('completed');
  expect(await lastTypes(2)).toEqual([[1, 'arrival']]);
});

it('a run by hand that was removed, as when Redis was emptied, is asked for again', async () => {
  const own = await openSpace();
  const queue = own.queue('aggregation');
  await queue.pause();
  own.startRole('aggregate', ['sh', '-c', '"$@"; echo "ended with $?"', 'sh']);
  for (const _time of [1, 2]) {
    const [run] = await eventually(async () => {
      const waiting = await queue.getWaiting();
      expect(waiting).toHaveLength(1);
      return waiting;
    });
    await run?.remove();
  }
  await eventually(async () => expect(await queue.getWaitingCount()).toBe(1));
  await queue.resume();
  await eventually(async () =>
    expect(await own.said('aggregate')).toMatch(/summaries are right up to .*\nended with 0\n$/),
  );
});

it('a run by hand that is stopped ends with a sentence, and goes on where a processor runs', async () => {
  const own = await openSpace();
  const queue = own.queue('aggregation');
  await queue.pause();
  await own.queue('aggregation-slice').pause();
  const command = own.startRole('aggregate');
  await eventually(async () => expect(await queue.getWaitingCount()).toBe(1));
  await command.stop();
  const said = await own.said('aggregate');
  expect(said.split('\n').filter((line) => line !== '' && !line.startsWith('{'))).toEqual([
    'Stopped before the run was done; it goes on where a processor runs.',
  ]);
  for (const paused of ['aggregation', 'aggregation-slice'])
    expect(said).toMatch(new RegExp(`"queue":"${paused}".*the queue is paused: resume it in Bull Board`));
  await queue.resume();
  own.startProcessor();
  await eventually(async () => expect(await queue.getCompletedCount()).toBe(1));
});

it('where days cannot be written no further ones are begun, and the next run makes all of them', async () => {
  const own = await openSpace({ AGGREGATION_EVERY_SECONDS: 3_600 });
  const runtime = own.runtime();
  const needs = await openForWork(runtime);
  const ingest = createIngestWorker(needs);
  runtime.shutdown.defer('ingest', () => ingest.close());
  const records = Array.from({ length: 200 }, (_, n) => events(1, { vehicle_id: `vehicle ${n}` })).flat();
  await own.put('vehicles_events_1.json', records, { stoodStill: true });
  const watcher = own.startWatcher();
  await own.loaded(['vehicles_events_1.json']);
  await watcher.stop();
  // No run comes but those below.
  await needs.aggregationQueue.removeJobScheduler('aggregation');
  await needs.aggregationQueue.drain(true);

  let written = 0;
  const insert: Store['insert'] = async (row) => {
    if (Number(String(row.values['vehicle_id']).split(' ')[1]) % 2 === 0) throw new Error('no room');
    written += 1;
    await needs.store.insert(row);
  };
  const run = async (store: Store) => {
    const workers = createAggregationWorkers({ ...needs, store });
    const job = await needs.aggregationQueue.add('run', {});
    await eventually(async () => expect(['failed', 'completed']).toContain(await job.getState()));
    return { state: await job.getState(), end: () => Promise.all(workers.map((worker) => worker.close())) };
  };
  await sleep(2_000); // until the window includes the load
  const failed = await run({ ...needs.store, insert });
  const soFar = written;
  expect(failed.state).toBe('failed');
  expect(soFar).toBeLessThan(200);
  await sleep(500);
  expect(written).toBe(soFar);
  await failed.end();
  const done = await run(needs.store);
  expect(done.state).toBe('completed');
  expect(await storedSummaries(own.read)).toEqual(summariesOf(records));
  await done.end();
});

it('where Cassandra was started anew, an epoch that it may have forgotten is not used again, though its clock was set back', async () => {
  const own = await openSpace();
  const store = await openStore(own.runtime());
  await claimWindow(store, 1_000);
  const ahead = BigInt(Math.round((store.now() + 3_600_000) * 1_000));
  await own.read("UPDATE aggregation_state SET epoch = ? WHERE job = 'summaries'", [ahead]);
  const { epoch } = await claimWindow(store, 1_000);
  expect(epoch).toBe(ahead + TURNS);
  const nodes = await store.nodes();
  const generations = new Map([...nodes.generations].map(([node, nth]) => [node, nth + 1n]));
  // Perhaps the runs of a quarter of an hour.
  const next = await claimWindow({ ...store, nodes: () => Promise.resolve({ ...nodes, generations }) }, 1_000);
  expect(next.epoch - epoch).toBeGreaterThan(900_000_000n);
});
