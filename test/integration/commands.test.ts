import { existsSync } from 'node:fs';
import { mkdir, rmdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { createMetrics } from '../../src/board/metrics.ts';
import { createSnapshotReader } from '../../src/board/snapshot.ts';
import { backfill } from '../../src/commands/backfill.ts';
import { openAll } from '../../src/commands/connect.ts';
import { showStatus } from '../../src/commands/status.ts';
import { readCounters } from '../../src/queues/counters.ts';
import { eventually, openSpace } from './pipeline.ts';
import { events } from './records.ts';

const space = await openSpace();
const { said } = space;

it('a command whose reader wants no more ends without a word', async () => {
  space.startRole('status', ['sh', '-c', '"$@" --watch --json | head -n 1; echo ended', 'sh']);
  await eventually(async () => expect(await said('status')).toMatch(/^ended$/m));
  const [snapshot = '', ...others] = (await said('status')).trim().split('\n');
  expect(JSON.parse(snapshot)).toHaveProperty('redis.queues');
  expect(others).toEqual(['ended']);
});

it('a role whose heartbeat cannot be written says so, and works', async () => {
  space.startWatcher();
  space.startRole('process', ['HEARTBEAT_FILE=/nowhere/heartbeat']);
  const complaints = async () => (await said('process')).split('HEARTBEAT_FILE cannot be written').length - 1;
  await eventually(async () => expect(await complaints()).toBeGreaterThanOrEqual(2));
  await space.put('vehicles_events_1.json', events(1));
  await space.loaded(['vehicles_events_1.json']);
});

it('a command that is run beside a role does not vouch for it', async () => {
  const heartbeat = join(dirname(space.config.DATA_DIR), 'heartbeat');
  const status = space.startRole('status', [
    `HEARTBEAT_FILE=${heartbeat}`,
    'sh',
    '-c',
    '"$@"; echo "ended with $?"',
    'sh',
  ]);
  await eventually(async () => expect(await said('status')).toContain('ended with 0'));
  await status.stop();
  expect(existsSync(heartbeat)).toBe(false);
});

it('a reader of a pipe that is slow gets all that is printed', async () => {
  space.startProcessor();
  const letters = space.queue('dead-letter');
  const reason = 'a long story '.repeat(300);
  await letters.addBulk(
    Array.from({ length: 40 }, (_, n) => {
      const name = `vehicles_events_of_${n}.json`;
      return { name, data: { name, size: 1, mtimeNs: '1', reason, failedAt: n, attempts: 1 } };
    }),
  );
  await eventually(async () => expect(await letters.getFailedCount()).toBe(40));
  space.startRole('failed', ['sh', '-c', '"$@" list --json | { sleep 2; cat; }; echo ended', 'sh']);
  await eventually(async () => expect(await said('failed')).toMatch(/^ended$/m));
  const [printed = ''] = (await said('failed')).split('\n');
  expect(JSON.parse(printed)).toHaveLength(40);
});

it('status and metrics tell of a paused queue, and of Cassandra where its days are not counted in time', async () => {
  const runtime = space.runtime();
  const needs = { ...(await openAll(runtime)), ...runtime };
  const store = {
    ...needs.store,
    run: (query: string, parameters?: readonly unknown[]) =>
      query.includes('count(*)') ? new Promise<never>(() => undefined) : needs.store.run(query, parameters),
  };
  await needs.verificationQueue.pause();
  const readSnapshot = createSnapshotReader({ ...needs, store });
  await eventually(async () => {
    expect(await readSnapshot()).toMatchObject({
      redis: { queues: { verification: { paused: true }, ingest: { paused: false } } },
      cassandra: { today: null, yesterday: null, watermark: expect.any(String) },
    });
  });
  const read = vi.fn(readSnapshot);
  const text = await createMetrics(needs, read)();
  // Without the days.
  expect(read.mock.calls).toEqual([[false]]);
  expect(text).toContain('vehicle_data_queue_paused{queue="verification"} 1\n');
  expect(text).toContain('vehicle_data_queue_paused{queue="ingest"} 0\n');
  expect(text).toContain('vehicle_data_cassandra_up 1\n');
  const shown = vi.spyOn(process.stdout, 'write').mockReturnValue(true);
  await showStatus(runtime, { json: false, watch: false });
  const status = String(shown.mock.calls[0]?.[0]);
  shown.mockRestore();
  expect(status).toMatch(/^verification( +\d+)+ +paused$/m);
  expect(status).toMatch(/^ingest( +\d+)+$/m);
  await needs.verificationQueue.resume();
  await runtime.stop();
});

describe('backfill', async () => {
  const own = await openSpace();

  it('queues what is missing of a folder, behind what arrives, and nothing beside it', async () => {
    const names = ['old/vehicles_events_1.json', 'old/deep/vehicles_status_2.json', 'beside/vehicles_events_3.json'];
    for (const name of names) await own.put(name, [], { stoodStill: true });
    const printed = vi.spyOn(process.stdout, 'write').mockReturnValue(true);
    const queued = async () => {
      const runtime = own.runtime();
      await backfill(runtime, join(own.config.DATA_DIR, 'old'), { json: true });
      await runtime.stop();
      return JSON.parse(String(printed.mock.calls.at(-1)?.[0])) as unknown;
    };
    expect(await queued()).toEqual({ seen: 2, queued: 2, removed: 0, young: 0, deadLetters: 0 });
    expect((await own.queue('ingest').getPrioritized()).map(({ name }) => name).sort()).toEqual(
      names.slice(0, 2).sort(),
    );
    const processor = own.startProcessor();
    await own.loaded(names.slice(0, 2));
    await own.put('old/vehicles_events_broken.json', '[', { stoodStill: true });
    expect(await queued()).toEqual({ seen: 3, queued: 1, removed: 0, young: 0, deadLetters: 0 });
    await eventually(async () => expect(await own.letters()).toHaveLength(1));
    expect(await queued()).toEqual({ seen: 3, queued: 0, removed: 0, young: 0, deadLetters: 1 });
    printed.mockRestore();
    await processor.stop();
  });
});

describe('metrics', async () => {
  const own = await openSpace();

  it('tell what was loaded, rejected, given up and aggregated', async () => {
    own.startWatcher();
    own.startProcessor();
    const content = JSON.stringify([...events(3), { vehicle_id: 'nameless' }]);
    await own.put('vehicles_events_1.json', content);
    await own.put('vehicles_events_broken.json', '[', { stoodStill: true });
    await own.loaded(['vehicles_events_1.json']);
    await eventually(async () => expect(await own.letters()).toHaveLength(1));
    await own.aggregated();
    const opened = await openAll(own.runtime());
    const metrics = createMetrics(opened, createSnapshotReader(opened));
    await eventually(async () => {
      const lines = (await metrics()).split('\n');
      expect(lines).toEqual(
        expect.arrayContaining([
          'vehicle_data_files_loaded_total{dataset="events"} 1',
          'vehicle_data_records_loaded_total{dataset="events"} 3',
          'vehicle_data_records_rejected_total{dataset="events"} 1',
          `vehicle_data_bytes_loaded_total{dataset="events"} ${content.length}`,
          'vehicle_data_file_to_rows_seconds_count 1',
          'vehicle_data_file_to_rows_seconds_bucket{le="+Inf"} 1',
          'vehicle_data_files_dead_lettered_total 1',
          'vehicle_data_dead_letters 1',
          expect.stringMatching(/^vehicle_data_aggregation_hours_total [1-9]/),
          expect.stringMatching(/^vehicle_data_aggregation_runs_total\{outcome="done"\} [1-9]/),
        ]),
      );
      // Whatever is counted is shown.
      for (const sample of (await readCounters(opened.queues)).keys())
        expect(
          lines.some((line) => line.startsWith(`vehicle_data_${sample} `)),
          sample,
        ).toBe(true);
    });
  });
});

it.each(['archive', '.leaving'])('backfill takes nothing from the folder %s', async (folder) => {
  await mkdir(join(space.config.DATA_DIR, folder), { recursive: true });
  const runtime = space.runtime();
  const asked = backfill(runtime, join(space.config.DATA_DIR, folder), { json: true });
  await expect(asked).rejects.toThrow(/never loaded from.*verify --repair/);
  await runtime.stop();
});

it.each(['--name', '--reason'])('failed takes no empty %s, which would mean all letters', async (option) => {
  space.startRole('failed', ['sh', '-c', `"$@" discard ${option} ""; echo "ended with $?"`, 'sh']);
  await eventually(async () =>
    expect(await said('failed')).toMatch(new RegExp(`${option} .*say --all[^]*ended with 2`)),
  );
});

it.each([
  [
    'REDIS_URL',
    'No Redis runs that was started in /nowhere: start one with `npx pipeline services`, or set REDIS_URL.',
  ],
  ['CASSANDRA_CONTACT_POINTS', 'No Cassandra runs that was started in /nowhere: start one with'],
])('without %s, no store of others that listens on the usual port is used', async (name, problem) => {
  space.startRole('aggregate', ['-u', name, 'LOCAL_DIR=/nowhere', 'sh', '-c', '"$@"; echo "ended with $?"', 'sh']);
  await eventually(async () => expect(await said('aggregate')).toContain(problem));
  await eventually(async () => expect(await said('aggregate')).toMatch(/ended with 1\n$/));
});

it.each([
  [['CASSANDRA_TLS=true'], /^Cassandra at .* does not encrypt: set CASSANDRA_TLS=false, or let it encrypt\.$/m],
  [['CASSANDRA_CONTACT_POINTS=,'], /^ {2}CASSANDRA_CONTACT_POINTS: names no host$/m],
  [['CASSANDRA_PASSWORD=secret'], /one is set and the other is not: set both or none\.$/m],
])('with %s, it is said in one sentence what is wrong', async (environment, problem) => {
  const before = (await said('migrate')).length;
  space.startRole('migrate', [...environment, 'sh', '-c', '"$@"; echo "ended with $?"', 'sh']);
  await eventually(async () => expect((await said('migrate')).slice(before)).toMatch(/^ended with [1-9]/m));
  expect((await said('migrate')).slice(before)).toMatch(problem);
  expect((await said('migrate')).slice(before)).not.toMatch(/^ +at /m);
});

it('where TLS is asked of a Redis that does not encrypt, this is said', async () => {
  space.startRole('status', [`REDIS_URL=${space.config.REDIS_URL?.replace('redis:', 'rediss:')}`]);
  await eventually(async () => expect(await said('status')).toMatch(/^Redis at .* let REDIS_URL begin with redis:/im));
});

it('a .env that is a folder, as a container makes one of a file that is missing, is named', async () => {
  const env = join(dirname(space.config.DATA_DIR), '.env');
  await mkdir(env);
  const role = space.startRole('watch', ['sh', '-c', '"$@"; echo "ended with $?"', 'sh']);
  await eventually(async () =>
    expect(await said('watch')).toMatch(/^\.env cannot be read: is it a file.*\nended with 2$/m),
  );
  await role.stop();
  await rmdir(env);
});
