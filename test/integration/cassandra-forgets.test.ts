import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { afterAll, expect, inject, it } from 'vitest';
import { openStore } from '../../src/commands/connect.ts';
import { findCassandraJars, startCassandra } from '../../src/local/cassandra.ts';
import { STORES } from '../../src/local/maven.ts';
import { createLedgerDoubt } from '../../src/producers/ledger-doubt.ts';
import { PATIENT, quietPort } from '../stores.ts';
import { eventually, openSpace, type Space } from './pipeline.ts';
import { storedSummaries, summariesOf } from './recomputation.ts';
import { events } from './records.ts';

/** A Cassandra that forgets, when it is killed, all but what it was told to flush. */
async function forgetfulCassandra() {
  const directory = await mkdtemp(join(tmpdir(), 'forgetful-'));
  const [jars, port, toolPort] = await Promise.all([
    findCassandraJars(resolve(import.meta.dirname, '../../.local/lib')),
    quietPort(),
    quietPort(),
  ]);
  const options = {
    jars,
    directory,
    port,
    heapMb: 512,
    flags: [`-Dcassandra.jmx.local.port=${toolPort}`],
    // Compressed, the commit log is in memory until it is synced.
    settings: {
      ...PATIENT,
      auto_snapshot: false,
      commitlog_sync_period: '1h',
      commitlog_compression: [{ class_name: 'LZ4Compressor' }],
    },
  };
  let cassandra = await startCassandra(options);
  afterAll(async () => {
    await cassandra.kill();
    await rm(directory, { recursive: true, maxRetries: 10 });
  });
  // It notes in the home folder what it was asked for.
  const jvm = [`@${STORES}/jvm.options`, `-Duser.home=${directory}`, '-cp', `${STORES}:${jars}/*`];
  const tool = ['org.apache.cassandra.tools.NodeTool', '-p', String(toolPort)];
  return {
    port,
    flushKillAndRestart: async (keyspace: string, tables: readonly string[]) => {
      await execa('java', [...jvm, ...tool, 'flush', keyspace, ...tables]);
      await cassandra.kill();
      cassandra = await startCassandra(options);
    },
  };
}

const cassandra = await forgetfulCassandra();

async function openForgetfulSpace(): Promise<Space> {
  const stores = { redisUrl: inject('redisUrl'), cassandraPort: cassandra.port };
  // Nothing is on disk for sure, as long as the test takes.
  return openSpace({ DURABLE_SECONDS: 3_600 }, stores);
}

/** Resolves once its own client has found the new Cassandra. */
async function killAndRestart(space: Space, forgotten: readonly string[]): Promise<void> {
  const keyspace = space.config.CASSANDRA_KEYSPACE;
  const tables = await space.read('SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?', [keyspace]);
  const kept = tables.map((row) => String(row['table_name'])).filter((table) => !forgotten.includes(table));
  await cassandra.flushKillAndRestart(keyspace, kept);
  await eventually(() => Promise.all(Array.from({ length: 20 }, () => space.ledger())));
}

const SUMMARIES = ['hourly_summary', 'daily_summary', 'daily_summary_by_day'];
const nothing = { hourly: {}, daily: {}, dailyByDay: {} };

it('summaries that the watermark has passed are made again, also those of a run that was cut into slices', async () => {
  const space = await openForgetfulSpace();
  const watcher = space.startWatcher();
  let processor = space.startProcessor();
  const [first, second] = [events(20, { vehicle_id: 'first' }), events(20, { vehicle_id: 'second' })];
  await space.put('vehicles_events_1.json', first);
  await space.loaded(['vehicles_events_1.json']);
  await space.aggregated();
  expect(await storedSummaries(space.read)).toEqual(summariesOf(first));
  await watcher.stop();
  await processor.stop();
  const watermark = async () => (await space.read('SELECT watermark FROM aggregation_state'))[0]?.['watermark'];
  const before = String(await watermark());
  await killAndRestart(space, SUMMARIES);
  await eventually(async () => expect(await storedSummaries(space.read)).toEqual(nothing));
  await eventually(async () => expect(await watermark()).toBe(before));

  // No watcher: it would load the file once more.
  processor = space.startProcessor();
  await eventually(async () => expect(await storedSummaries(space.read)).toEqual(summariesOf(first)));

  const [queue, slices] = [space.queue('aggregation'), space.queue('aggregation-slice')];
  await slices.pause();
  const again = space.startWatcher();
  const run = await queue.add('rebuild', { rebuild: true });
  await eventually(async () => expect(await run.getState()).toBe('waiting-children'));
  await queue.pause();
  await space.put('vehicles_events_2.json', second);
  await space.loaded(['vehicles_events_2.json']);
  await again.stop();
  await slices.resume();
  await eventually(async () => expect(['waiting', 'paused']).toContain(await run.getState()));
  const all = summariesOf([...first, ...second]);
  expect(await storedSummaries(space.read)).toEqual(all);
  await processor.stop();
  await killAndRestart(space, SUMMARIES);
  await eventually(async () => expect(await storedSummaries(space.read)).not.toEqual(all));
  space.startProcessor();
  await queue.resume();
  await eventually(async () => expect(await storedSummaries(space.read)).toEqual(all));
  expect((await space.queue('aggregation').getJob(run.id ?? ''))?.returnvalue).toMatchObject({ outcome: 'overtaken' });
});

it.each([false, true])(
  'a file of which only the ledger’s row is left is loaded again, by a watcher that knows of no outage (copied again: %s)',
  async (isCopiedAgain) => {
    const space = await openForgetfulSpace();
    const records = events(20, { vehicle_id: 'forgotten' });
    const [watcher, processor] = [space.startWatcher(), space.startProcessor()];
    await space.put('vehicles_events_1.json', records);
    await space.loaded(['vehicles_events_1.json']);
    // Copies: their content is the same, and so is what was forgotten. The second one is not looked at before.
    await space.put('vehicles_events_1.json', records);
    await eventually(async () => expect(await space.ledger()).toHaveLength(2));
    await watcher.stop();
    await processor.stop();
    if (isCopiedAgain) await space.put('vehicles_events_1.json', records);
    await killAndRestart(space, ['vehicle_events']);
    await eventually(async () => {
      expect((await space.ledger()).map(({ state }) => state).sort()).toEqual(['loaded', 'unchanged']);
      expect(await space.count('vehicle_events')).toBe(0);
    });

    space.startWatcher();
    space.startProcessor();
    await eventually(async () => expect(await space.count('vehicle_events')).toBe(20));
    await eventually(async () => expect(await storedSummaries(space.read)).toEqual(summariesOf(records)));
  },
);

it('a load that is under way while Cassandra forgets, and ends long after, is in doubt', async () => {
  const space = await openForgetfulSpace();
  const store = await openStore(space.runtime());
  const doubt = createLedgerDoubt(store, 100);
  await doubt.look();
  const file = { name: '', version: '', sha256: null, rejected: 0, error: null };
  const load = { ...file, state: 'loaded' as const, startedAt: store.now() };
  const isDoubtful = (startedAt: number) =>
    doubt.isDoubtful({ ...load, startedAt, finishedAt: 0, writeTime: BigInt(Math.round(store.now() * 1_000)) });
  expect(isDoubtful(load.startedAt)).toBe(false);
  await killAndRestart(space, []);
  await eventually(async () => expect(await doubt.look()).toBe(true));
  const after = store.now();
  await sleep(200);
  await doubt.compared(store.now());
  expect(isDoubtful(load.startedAt)).toBe(true);
  expect(isDoubtful(after)).toBe(false);
});
