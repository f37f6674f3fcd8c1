import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { openStore } from '../../src/commands/connect.ts';
import { createLedgerDoubt } from '../../src/producers/ledger-doubt.ts';
import type { Store } from '../../src/storage/client.ts';
import {
  forgetFile,
  overwriteEntry,
  readVersions,
  recordDeadLetter,
  type KnownVersion,
} from '../../src/storage/files.ts';
import { eventually, openSpace } from './pipeline.ts';
import { events } from './records.ts';

const HOUR_MS = 3_600_000;
const DURABLE_MS = 30_000;
const withClock = (store: Store, now: () => number) => ({ ...store, now, freshNow: () => Promise.resolve(now()) });
const microsOf = (ms: number) => BigInt(Math.round(ms * 1_000));

describe('when the clock of Cassandra is set', async () => {
  const space = await openSpace();
  const real = await openStore(space.runtime());
  const row = { name: '', version: '', state: 'loaded' as const, sha256: null, rejected: 0, error: null };

  it.each([-HOUR_MS, HOUR_MS])('by %d ms, what was just loaded is not taken for being on disk', async (step) => {
    let ahead = 0;
    const store = withClock(real, () => real.now() + ahead);
    const doubt = createLedgerDoubt(store, DURABLE_MS);
    await doubt.look();
    const loadedAt = (at: number) => ({ ...row, startedAt: at, finishedAt: at, writeTime: microsOf(at) });
    const old = loadedAt(store.now() - 2 * DURABLE_MS);
    const before = loadedAt(store.now());
    expect([old, before].map(doubt.isDurable)).toEqual([true, false]);
    ahead = step;
    const after = loadedAt(store.now());
    await doubt.look(5_000);
    expect([before, after].map(doubt.isDurable)).toEqual([false, false]);
  });

  it('bit by bit, as clocks drift, nothing waits for that', async () => {
    let ahead = 0;
    const store = withClock(real, () => real.now() + ahead);
    const doubt = createLedgerDoubt(store, DURABLE_MS);
    for (; ahead < 5_000; ahead += 500) await doubt.look();
    const at = store.now() - 2 * DURABLE_MS;
    expect(doubt.isDurable({ ...row, startedAt: at, finishedAt: at, writeTime: microsOf(at) })).toBe(true);
  });

  it('or a node is down, what was written shortly before is in doubt at once, and what comes then is not', async () => {
    const nodes = await real.nodes();
    let down: string[] = [];
    let ahead = 0;
    const now = () => real.now() + ahead;
    const doubt = createLedgerDoubt(
      { ...withClock(real, now), nodes: () => Promise.resolve({ ...nodes, down }) },
      DURABLE_MS,
    );
    await doubt.look();
    const at = now();
    const loadedAt = (ms: number) => ({ ...row, startedAt: ms, finishedAt: ms, writeTime: microsOf(ms) });
    down = ['127.0.0.2'];
    ahead = 60_000;
    expect(await doubt.look()).toBe(true);
    ahead = 120_000;
    expect(await doubt.look()).toBe(false);
    expect([at - 1_000, at + 1_000, at - 2 * DURABLE_MS, now()].map((ms) => doubt.isDoubtful(loadedAt(ms)))).toEqual([
      true,
      true,
      false,
      false,
    ]);
  });

  it('back, and a node was started anew meanwhile, what was loaded by either clock is in doubt', async () => {
    const nodes = await real.nodes();
    let [ahead, starts] = [0, 0n];
    const store = {
      ...withClock(real, () => real.now() + ahead),
      nodes: () => {
        const generations = [...nodes.generations].map(([node, nth]) => [node, nth + starts] as const);
        return Promise.resolve({ ...nodes, generations: new Map(generations) });
      },
    };
    await createLedgerDoubt(store, DURABLE_MS).look();
    const loadedAt = (at: number) => ({ ...row, startedAt: at, finishedAt: at, writeTime: microsOf(at) });
    const before = loadedAt(store.now());
    [ahead, starts] = [-HOUR_MS, 1n];
    const after = loadedAt(store.now());
    const doubt = createLedgerDoubt(store, DURABLE_MS);
    expect(await doubt.look()).toBe(true);
    expect([before, after].map(doubt.isDoubtful)).toEqual([true, true]);
    expect(doubt.isDoubtful(loadedAt(store.now() + 1))).toBe(true);
  });
});

describe('what a restart of a node left in doubt', async () => {
  const space = await openSpace();
  const real = await openStore(space.runtime());
  const nodes = await real.nodes();
  const row = { name: '', version: '', state: 'loaded' as const, sha256: null, rejected: 0, error: null };

  it('stays so for weeks of comparisons, in which the folder may have been away, and is one doubt where it started again and again', async () => {
    let [ahead, starts] = [0, 0n];
    const store = {
      ...withClock(real, () => real.now() + ahead),
      nodes: () =>
        Promise.resolve({ ...nodes, generations: new Map([...nodes.generations].map(([id, n]) => [id, n + starts])) }),
    };
    const at = store.now();
    const isDoubtful = (of: ReturnType<typeof createLedgerDoubt>) =>
      of.isDoubtful({ ...row, startedAt: at, finishedAt: at, writeTime: microsOf(at) });
    await createLedgerDoubt(store, DURABLE_MS).look();
    const doubt = createLedgerDoubt(store, DURABLE_MS);
    for (; starts < 5n; ahead += 20_000) {
      starts += 1n;
      expect(await doubt.look()).toBe(true);
    }
    expect(isDoubtful(doubt)).toBe(true);
    const [stored] = await space.read('SELECT doubts FROM reconciliation_state');
    expect(Object.keys(stored?.['doubts'] ?? {})).toHaveLength(1);

    for (const [days, isStill] of [
      [29, true],
      [31, false],
    ] as const) {
      ahead = days * 24 * HOUR_MS;
      await doubt.look();
      await doubt.compared(store.now());
      const next = createLedgerDoubt(store, DURABLE_MS);
      await next.look();
      expect([doubt, next].map(isDoubtful), `after ${days} days`).toEqual([isStill, isStill]);
    }
  });
});

describe('a row of the ledger', async () => {
  const space = await openSpace();
  const store = await openStore(space.runtime());
  const write = async (name: string, writtenAt: number, finishedAt = writtenAt) => {
    const times = [new Date(finishedAt), new Date(finishedAt), microsOf(writtenAt)];
    const columns = 'name, version, state, started_at, finished_at';
    await space.read(`INSERT INTO files (${columns}) VALUES (?, '1-1', 'loaded', ?, ?) USING TIMESTAMP ?`, [
      name,
      ...times,
    ]);
    const [row] = await readVersions(store, name);
    if (row === undefined) throw new Error('no row');
    return row;
  };

  it.each([HOUR_MS, -2_000])(
    'that was written %d ms from now is forgotten, and another one takes its place',
    async (ms) => {
      const at = new Date(store.now());
      const said = { name: `at ${ms}`, version: '1-1', dataset: '', bytes: 1n, file_time: at, attempts: 1, worker: '' };
      const entry = { ...said, started_at: at, finished_at: at };
      const forget = async (before: KnownVersion) => {
        await forgetFile(store, before);
        const [row] = await readVersions(store, before.name);
        if (row?.state !== 'superseded') throw new Error('not forgotten');
        return row;
      };
      const forgotten = await forget(await write(said.name, store.now() + ms));
      expect(await recordDeadLetter(store, { ...entry, state: 'dead_letter' }, forgotten)).toBe(true);
      const [letter] = await readVersions(store, said.name);
      expect(letter).toMatchObject({ state: 'dead_letter', finishedAt: Number(at) });
      await overwriteEntry(store, { ...entry, state: 'loaded' }, letter ?? forgotten);
      const [loaded] = await readVersions(store, said.name);
      expect(loaded).toMatchObject({ state: 'loaded', finishedAt: Number(at) });
      // One that was written since stays.
      await forgetFile(store, forgotten);
      expect(await readVersions(store, said.name)).toEqual([loaded]);
    },
  );

  it('is on disk, or in doubt, by when Cassandra wrote it, and not by what a process thought that stood still', async () => {
    const doubt = createLedgerDoubt(store, DURABLE_MS);
    await doubt.look();
    const [old, now] = [store.now() - HOUR_MS, store.now()];
    expect(doubt.isDurable(await write('old', old))).toBe(true);
    expect(doubt.isDurable(await write('now', now, old))).toBe(false);
    const nodes = await store.nodes();
    const generations = new Map([...nodes.generations].map(([node, nth]) => [node, nth + 1n]));
    const next = createLedgerDoubt({ ...store, nodes: () => Promise.resolve({ ...nodes, generations }) }, DURABLE_MS);
    await next.look();
    expect(next.isDoubtful(await write('old', old))).toBe(false);
    expect(next.isDoubtful(await write('now', now, old))).toBe(true);
  });
});

describe('a file that was loaded when the clock of Cassandra was an hour ahead, before it was set right and Cassandra started anew', async () => {
  const space = await openSpace();
  const store = await openStore(space.runtime());
  const NAME = 'vehicles_events_1.json';

  it('is loaded once more, and not with every comparison until the clock has caught up', async () => {
    const first = space.startWatcher();
    space.startProcessor();
    await space.put(NAME, events(3), { stoodStill: true });
    await space.loaded([NAME]);
    await first.stop();
    const [row] = await space.ledger();
    const at = store.now() + HOUR_MS;
    const ahead =
      'UPDATE files USING TIMESTAMP ? SET state = ?, started_at = ?, finished_at = ? WHERE name = ? AND version = ?';
    await space.read(ahead, [microsOf(at), 'loaded', new Date(at), new Date(at), NAME, row?.version]);
    const { generations } = await store.nodes();
    const before = new Map([...generations].map(([node, nth]) => [node, nth - 1n]));
    const seen = "INSERT INTO reconciliation_state (job, seen_at, generations) VALUES ('folder', ?, ?)";
    await store.run(seen, [new Date(at), before]);
    space.startWatcher();
    await eventually(async () => {
      const [again] = await space.ledger();
      expect(again).toMatchObject({ state: 'loaded' });
      expect(again?.finishedAt).toBeLessThan(at - HOUR_MS / 2);
    });
    await sleep(3_000);
    const announced = await space.count('change_log');
    // Some comparisons, and aggregations that would append again what a load that never ends has announced.
    await sleep(4_000);
    expect(await space.ledger()).toMatchObject([{ name: NAME, state: 'loaded', loaded: 3 }]);
    expect((await space.count('change_log')) - announced).toBeLessThanOrEqual(1);
    expect(await space.count('vehicle_events')).toBe(3);
  });
});
