import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'bullmq';
import { Redis } from 'ioredis';
import { afterAll, describe, expect, inject, it } from 'vitest';
import { discardFailed } from '../../src/commands/failed.ts';
import { findCassandraJars, startCassandra } from '../../src/local/cassandra.ts';
import { findRedisBinary, startRedis } from '../../src/local/redis.ts';
import { startProxy, type Proxy } from '../torture/proxy.ts';
import { PATIENT, quietPort } from '../stores.ts';
import { eventually, openSpace, type Role, type Space } from './pipeline.ts';
import { expectAllLoaded, startProvider, type ProvidedFile } from './provider.ts';
import { idOf, storedSummaries, summariesOf } from './recomputation.ts';
import { events, status } from './records.ts';

const LIB = resolve(import.meta.dirname, '../../.local/lib');
const BROKEN = '[{"vehicle_id": ';

/** Stores of this file's own, that are killed and started again on the same data. */
async function ownStores() {
  const folder = await mkdtemp(join(tmpdir(), 'outages-'));
  const [binary, jars, redisPort, cassandraPort] = await Promise.all([
    findRedisBinary(LIB),
    findCassandraJars(LIB),
    quietPort(),
    quietPort(),
  ]);
  const startOwnRedis = () => startRedis({ binary, directory: join(folder, 'redis'), port: redisPort });
  const startOwnCassandra = () =>
    startCassandra({
      jars,
      directory: join(folder, 'cassandra'),
      port: cassandraPort,
      heapMb: 512,
      // There is no room for what a table with `cdc = true` logs: each write to one fails.
      settings: { ...PATIENT, auto_snapshot: false, cdc_enabled: true, cdc_total_space: '1MiB' },
    });
  let [redis, cassandra] = await Promise.all([startOwnRedis(), startOwnCassandra()]);
  afterAll(async () => {
    await Promise.all([redis.kill(), cassandra.kill()]);
    await rm(folder, { recursive: true, maxRetries: 10 });
  });
  return {
    redisUrl: redis.url,
    cassandraPort,
    killRedis: () => redis.kill(),
    restartRedis: async () => {
      redis = await startOwnRedis();
    },
    killCassandra: () => cassandra.kill(),
    restartCassandra: async () => {
      cassandra = await startOwnCassandra();
    },
  };
}

const proxies: Proxy[] = [];
afterAll(() => proxies.forEach((proxy) => proxy.close()));

/**
 * Starts a processor from which the shared Cassandra is half a second away each way once it works, so that it is not done
 * with a large file, which takes a minute or more, before it is stopped.
 */
async function startFar<Started>(space: Space, start: (cassandraPort: number) => Started) {
  const ingest = space.queue('ingest');
  const proxy = await startProxy(inject('cassandraPort'));
  proxies.push(proxy);
  await ingest.pause();
  const processor = start(proxy.port);
  await eventually(async () => expect(await ingest.getWorkers()).toHaveLength(1), { withinMs: 120_000 });
  proxy.set('delay');
  await ingest.resume();
  return { processor, proxy };
}

async function startFarRole(space: Space): Promise<Role> {
  const started = await startFar(space, (port) => space.startRole('process', [`CASSANDRA_PORT=${port}`]));
  return started.processor;
}

const stores = await ownStores();

describe('while files arrive', async () => {
  // Two attempts are made within a second: an outage must not count as one.
  const space = await openSpace({ INGEST_ATTEMPTS: 2 }, stores);
  const provided: ProvidedFile[] = [];

  it('Redis goes away and comes back: all are loaded, none is a dead letter', async () => {
    space.startWatcher();
    space.startProcessor();
    space.startProcessor();
    const provider = startProvider(space, 'redis');
    await provider.hasWritten(20);
    await stores.killRedis();
    await provider.hasWritten(80);
    await stores.restartRedis();
    await provider.hasWritten(100);
    await provider.stop();
    provided.push(...provider.written);
    await expectAllLoaded(space, provided);
  });

  it('Cassandra goes away for longer than all attempts take, and comes back: the same', async () => {
    const provider = startProvider(space, 'cassandra');
    await provider.hasWritten(20);
    await stores.killCassandra();
    await provider.hasWritten(60);
    await stores.restartCassandra();
    await sleep(500);
    await provider.stop();
    provided.push(...provider.written);
    await expectAllLoaded(space, provided);
  });

  it('both are killed at once, and the pipeline too: the same', async () => {
    const roles = [space.startRole('watch'), space.startRole('process')];
    const provider = startProvider(space, 'both');
    await provider.hasWritten(40);
    await Promise.all([...roles.map((role) => role.kill()), stores.killRedis(), stores.killCassandra()]);
    await Promise.all([stores.restartRedis(), stores.restartCassandra()]);
    await provider.stop();
    provided.push(...provider.written);
    await expectAllLoaded(space, provided);
  });
});

describe('a file is replaced while Cassandra is away in the middle of its load', async () => {
  const space = await openSpace({}, stores);
  const name = 'vehicles_events_interrupted.json';

  it('ends as superseded, as its load was announced, though that cost it no attempt', async () => {
    space.startWatcher();
    space.startProcessor();
    await space.put(name, Array.from({ length: 300 }, (_, n) => events(100, { vehicle_id: `before-${n}` })).flat());
    await eventually(async () => expect(await space.count('change_log')).toBeGreaterThan(0));
    await stores.killCassandra();
    const [job] = await eventually(async () => {
      // It was put off, or waits again by now: no job is taken until Cassandra is back.
      const jobs = await space.queue('ingest').getJobs(['delayed', 'waiting', 'prioritized']);
      expect(jobs).toMatchObject([{ name, attemptsMade: 0, data: { interrupted: true } }]);
      return jobs;
    });
    await space.put(name, events(3, { vehicle_id: 'after' }));
    await stores.restartCassandra();
    await space.loaded([name]);
    await eventually(async () =>
      expect((await space.queue('ingest').getJob(job?.id ?? ''))?.returnvalue).toMatchObject({ state: 'superseded' }),
    );
    // What was loaded before the watcher knew that Cassandra was started anew is loaded once more.
    await eventually(async () =>
      expect((await space.ledger()).map(({ state }) => state).sort()).toEqual(['loaded', 'superseded']),
    );
  });
});

describe('Cassandra answers, but too few replicas are there to load', async () => {
  const space = await openSpace({ INGEST_ATTEMPTS: 2 }, stores);
  const ingest = space.queue('ingest');
  const replicate = (copies: number) =>
    space.read(
      `ALTER KEYSPACE ${space.config.CASSANDRA_KEYSPACE} WITH replication = ` +
        `{'class': 'NetworkTopologyStrategy', 'datacenter1': ${copies}}`,
    );

  it('for many seconds: no file is tried in vain again and again, and all are loaded when they are back', async () => {
    space.startWatcher();
    space.startProcessor();
    const provider = startProvider(space, 'quorum');
    await provider.hasWritten(5);
    await space.loaded(['vehicles_events_quorum_0.json']);
    // Two of three copies would have to be there, and there is one node.
    await replicate(3);
    const files = provider.written.length;
    await provider.hasWritten(files + 40);
    await provider.stop();
    await sleep(15_000);
    const waiting = await ingest.getJobs(['waiting', 'prioritized', 'delayed', 'active']);
    expect(waiting.length).toBeGreaterThan(20);
    expect(Math.max(...waiting.map(({ attemptsStarted }) => attemptsStarted))).toBeLessThanOrEqual(2);
    await replicate(1);
    await expectAllLoaded(space, provider.written);
    expect(await ingest.getFailedCount()).toBe(0);
  });
});

describe('Cassandra refuses what one file holds, and nothing else', async () => {
  const space = await openSpace({ INGEST_ATTEMPTS: 2 }, stores);
  const ingest = space.queue('ingest');

  it('again and again: others are loaded meanwhile, and in the end it is a dead letter', async () => {
    const name = 'vehicles_status_refused.json';
    await space.read('ALTER TABLE vehicle_status_history WITH cdc = true');
    await space.put(name, [status()]);
    space.startWatcher();
    space.startProcessor();
    const isCounted = { name, refusals: expect.toSatisfy((count) => count > 0) as number };
    await eventually(async () => expect((await ingest.getDelayed())[0]?.data).toMatchObject(isCounted));
    await space.put('vehicles_events_other.json', events(3));
    await space.loaded(['vehicles_events_other.json']);
    expect(await space.letters()).toEqual([]);
    await eventually(async () => {
      // One that is being tried right now counts by itself what it was refused.
      const [delayed] = await ingest.getDelayed();
      if (Number(delayed?.data['refusals']) < 11) await delayed?.updateData({ ...delayed.data, refusals: 11 });
      await delayed?.promote().catch(() => undefined);
      expect(await space.letters()).toMatchObject([
        {
          name,
          reason: expect.stringMatching(
            /^Cassandra failed at it 12 times and did other work: Server failure/,
          ) as unknown,
        },
      ]);
    });
  });
});

describe('Redis is emptied', async () => {
  const space = await openSpace({}, stores);

  it('with files waiting and dead letters there: all are loaded, the dead letters are back with their reasons', async () => {
    const watcher = space.startWatcher();
    const processor = space.startProcessor();
    for (const n of [1, 2]) await space.put(`vehicles_events_broken_${n}.json`, BROKEN, { stoodStill: true });
    await eventually(async () => expect(await space.letters()).toHaveLength(2));
    const before = await space.letters();
    await processor.stop();
    const files = Array.from({ length: 30 }, (_, n) => ({
      name: `vehicles_events_${n}.json`,
      records: events(10, { vehicle_id: `vehicle-${n}` }),
    }));
    for (const { name, records } of files) await space.put(name, records);
    // One whose letter is restored in the very moment may wait, too.
    const allWait = async () => {
      const waiting = await space.queue('ingest').getJobs(['waiting', 'prioritized']);
      expect(waiting.map(({ name }) => name)).toEqual(expect.arrayContaining(files.map(({ name }) => name)));
    };
    await eventually(allWait);

    const redis = new Redis(stores.redisUrl);
    await redis.flushall();
    redis.disconnect();
    await eventually(allWait);
    const again = space.startProcessor();
    await space.loaded(files.map(({ name }) => name));
    expect(await space.count('vehicle_events')).toBe(300);
    await eventually(async () => {
      const after = await space.letters();
      expect(
        after.map(({ id, name, reason }) => ({ id, name, reason })).sort((a, b) => (a.name < b.name ? -1 : 1)),
      ).toEqual(
        before.map(({ id, name, reason }) => ({ id, name, reason })).sort((a, b) => (a.name < b.name ? -1 : 1)),
      );
    });
    // The schedule is back, too.
    await space.aggregated();
    expect(await storedSummaries(space.read)).toEqual(summariesOf(files.flatMap(({ records }) => records)));
    await Promise.all([again.stop(), watcher.stop()]);
  });

  it('after the files of dead letters have left the folder: the letters are back, but those that were given up', async () => {
    const watcher = space.startWatcher();
    const processor = space.startProcessor();
    await space.put('vehicles_events_given_up.json', BROKEN, { stoodStill: true });
    await eventually(async () => expect(await space.letters()).toHaveLength(3));
    const [givenUp] = (await space.letters()).filter(({ name }) => name === 'vehicles_events_given_up.json');
    const selection = { files: [givenUp?.id ?? ''], all: false, json: true };
    await discardFailed(space.runtime(), selection);
    const kept = (await space.letters()).map(({ id, name, reason }) => ({ id, name, reason }));
    for (const { name } of [...kept, { name: 'vehicles_events_given_up.json' }])
      await rm(join(space.config.DATA_DIR, name));

    // One that would come back waits, until there is a processor.
    await processor.stop();
    const redis = new Redis(stores.redisUrl);
    await redis.flushall();
    await eventually(async () => {
      const marks = await redis.keys(`${space.config.QUEUE_PREFIX}:letters-restored:*`);
      expect(marks).toEqual([expect.stringMatching(/:letters-restored:\w+$/)]);
    });
    redis.disconnect();
    const restored = await space.queue('dead-letter').getWaiting();
    expect(restored.map(({ id }) => id).sort()).toEqual(kept.map(({ id }) => id).sort());
    const again = space.startProcessor();
    await eventually(async () => {
      const after = (await space.letters()).map(({ id, name, reason }) => ({ id, name, reason }));
      expect(new Set(after)).toEqual(new Set(kept));
    });
    await Promise.all([watcher.stop(), again.stop()]);
  });
});

describe('Redis at its memory limit', async () => {
  const space = await openSpace({ INGEST_ATTEMPTS: 1 }, stores);

  it('is not held against a file: it is loaded when there is room again', async () => {
    const name = 'vehicles_events_refused.json';
    const watcher = space.startWatcher();
    await space.put(name, events(3));
    const queue = space.queue('ingest');
    const worker = new Worker(queue.name, undefined, {
      connection: queue.opts.connection,
      prefix: space.config.QUEUE_PREFIX,
    });
    const job = await eventually(async () => {
      const next = await worker.getNextJob('token', { block: false });
      expect(next).toBeDefined();
      return next;
    });
    await watcher.stop();
    const redis = new Redis(stores.redisUrl);
    await redis.config('SET', 'maxmemory', '1');
    const refusal: unknown = await job.log('one more line').catch((error: unknown) => error);
    await redis.config('SET', 'maxmemory', '0');
    redis.disconnect();
    expect(refusal).toMatchObject({ message: expect.stringContaining('OOM') as unknown });
    await job.moveToFailed(refusal as Error, 'token');
    await worker.close();
    expect(await queue.getFailedCount()).toBe(1);

    space.startProcessor();
    await space.loaded([name]);
    await eventually(async () => expect(await queue.getFailedCount()).toBe(0));
    expect(await space.letters()).toEqual([]);
  });
});

describe.each([
  { schedule: { every: 1_000 }, settings: { AGGREGATION_EVERY_SECONDS: 1 } },
  { schedule: { pattern: '* * * * * *', tz: 'UTC' }, settings: { AGGREGATION_CRON: '* * * * * *' } },
])('a processor whose clock was ahead, with $settings', async ({ schedule, settings }) => {
  const space = await openSpace(settings);

  it('holds nothing up: neither what it put off nor the schedule of the summaries', async () => {
    // BullMQ takes both times from the clock of the process.
    const ahead = Date.now() + 600_000;
    const name = 'vehicles_events_ahead.json';
    const records = events(3);
    await space.put(name, records);
    const watcher = space.startWatcher();
    const ingest = space.queue('ingest');
    const [job] = await eventually(async () => {
      const jobs = await ingest.getJobs(['waiting', 'prioritized']);
      expect(jobs).toHaveLength(1);
      return jobs;
    });
    // It would queue the file, and mend the schedule, before they are wrong.
    await watcher.stop();
    await job?.remove();
    await ingest.add(name, job?.data ?? {}, { jobId: job?.id ?? '', delay: 1_000, timestamp: ahead });
    expect(await ingest.getDelayed()).toMatchObject([{ id: job?.id, timestamp: ahead }]);
    const aggregation = space.queue('aggregation');
    await aggregation.removeJobScheduler('aggregation');
    const wrong = { ...schedule, startDate: ahead };
    await aggregation.upsertJobScheduler('aggregation', wrong, { name: 'scheduled run', data: {} });
    expect((await aggregation.getJobScheduler('aggregation'))?.next).toBeGreaterThanOrEqual(ahead);

    space.startWatcher();
    space.startProcessor();
    await space.loaded([name]);
    await eventually(async () => expect(await storedSummaries(space.read)).toEqual(summariesOf(records)));
    // Two of them may be those after the starts of the watchers.
    const runs = await space.count('aggregation_runs');
    await eventually(async () => expect(await space.count('aggregation_runs')).toBeGreaterThan(runs + 3));
  });
});

describe('another schedule', async () => {
  const space = await openSpace({ AGGREGATION_EVERY_SECONDS: 3_600 });
  const queue = space.queue('aggregation');
  const scheduled = () => queue.getJobScheduler('aggregation');

  it('is kept once the watcher is started with it', async () => {
    const first = space.startWatcher();
    await eventually(async () => expect(await scheduled()).toMatchObject({ every: 3_600_000 }));
    await first.stop();

    // Five and a half hours ahead of UTC, all the year; half a day from now, so that none of it comes meanwhile.
    const hour = (new Date().getUTCHours() + 12) % 24;
    const cron = `0 ${(hour + 6) % 24} * * *`;
    const second = space.startWatcher({ AGGREGATION_CRON: cron, AGGREGATION_TIME_ZONE: 'Asia/Kolkata' });
    const next = await eventually(async () => {
      const there = await scheduled();
      expect(there).toMatchObject({ pattern: cron, tz: 'Asia/Kolkata' });
      expect(there?.every).toBeUndefined();
      return there?.next ?? 0;
    });
    expect(new Date(next).toISOString().slice(11)).toBe(`${String(hour).padStart(2, '0')}:30:00.000Z`);
    expect(next - Date.now()).toBeLessThanOrEqual(86_400_000);
    // It is looked at each second.
    await sleep(3_000);
    expect((await scheduled())?.next).toBe(next);
    expect((await queue.getDelayed()).filter(({ id = '' }) => id.startsWith('repeat:'))).toHaveLength(1);
    await second.stop();

    space.startWatcher({ AGGREGATION_EVERY_SECONDS: 1_800 });
    await eventually(async () => {
      const there = await scheduled();
      expect(there).toMatchObject({ every: 1_800_000 });
      expect(there?.pattern).toBeUndefined();
    });
  });
});

describe('a schedule that cannot be looked at', async () => {
  const space = await openSpace({ VERIFY_EVERY_SECONDS: 3_600 });

  it('holds up no other', async () => {
    const redis = new Redis(space.config.REDIS_URL ?? '');
    await redis.set(space.queue('aggregation').toKey('repeat'), 'no schedule');
    redis.disconnect();
    space.startWatcher();
    const verification = space.queue('verification');
    await eventually(async () => {
      expect(await verification.getJobScheduler('verification')).toMatchObject({ every: 3_600_000 });
    });
  });
});

describe('the next run of a schedule', async () => {
  const space = await openSpace({ AGGREGATION_EVERY_SECONDS: 2 });

  it.each(['put off', 'lost'])('comes when its time has come, though its job was %s', async (what) => {
    const aggregation = space.queue('aggregation');
    const [watcher, processor] = [space.startWatcher(), space.startProcessor()];
    const redis = new Redis(space.config.REDIS_URL ?? '');
    // One that was taken since it was looked at is neither put off nor lost, and the next one is.
    await eventually(async () => {
      const next = (await aggregation.getDelayed()).find(({ id = '' }) => id.startsWith('repeat:'));
      if (next === undefined) throw new Error('none is to come');
      if (what === 'put off') await next.changeDelay(86_400_000);
      else expect(await redis.zrem(aggregation.toKey('delayed'), next.id ?? '')).toBe(1);
      if (what === 'lost') await redis.del(aggregation.toKey(next.id ?? ''));
    });
    redis.disconnect();
    const runs = await space.count('aggregation_runs');
    await eventually(async () => expect(await space.count('aggregation_runs')).toBeGreaterThan(runs + 2));
    await Promise.all([watcher.stop(), processor.stop()]);
  });
});

describe('a processor is killed', async () => {
  const spaces = { middle: await openSpace(), poison: await openSpace(), company: await openSpace() };
  const large = Array.from({ length: 100 }, (_, n) => events(100, { vehicle_id: `large-${n}` })).flat();
  const name = 'vehicles_events_large.json';

  it.concurrent('in the middle of a file: another one loads it, every record once', async () => {
    const space = spaces.middle;
    const ingest = space.queue('ingest');
    const redis = new Redis(space.config.REDIS_URL ?? '');
    await redis.ping();
    const victim = await startFarRole(space);
    space.startWatcher();
    await space.put(name, large);
    const id = await eventually(async () => {
      expect((await space.read('SELECT event_id FROM vehicle_events LIMIT 1000')).length).toBe(1_000);
      const [job] = await ingest.getActive();
      expect(job).toBeDefined();
      return job?.id ?? '';
    });
    await victim.kill();
    // Taken over within 15 s, however slow the machine is: the lock ends within 10 s, and each 5 s one looks for such jobs.
    expect(await redis.pttl(`${ingest.toKey(id)}:lock`)).toBeLessThanOrEqual(10_000);
    expect(await space.ledger()).toEqual([]);
    expect(await space.count('vehicle_events')).toBeLessThan(large.length);

    space.startProcessor();
    let untilLookMs = 0;
    await eventually(async () => {
      untilLookMs = Math.max(untilLookMs, await redis.pttl(ingest.toKey('stalled-check')));
      expect((await ingest.getJob(id))?.stalledCounter).toBeGreaterThan(0);
    });
    expect(untilLookMs).toBeGreaterThan(0);
    expect(untilLookMs).toBeLessThanOrEqual(5_000);
    redis.disconnect();
    await space.loaded([name]);
    const rows = await space.read('SELECT event_id FROM vehicle_events');
    expect(rows.map((row) => row['event_id']).sort()).toEqual(large.map(idOf).sort());
    expect(await space.ledger()).toMatchObject([{ state: 'loaded', records: large.length, loaded: large.length }]);
    expect(await space.letters()).toEqual([]);
    await space.aggregated();
    expect(await storedSummaries(space.read)).toEqual(summariesOf(large));
  });

  it.concurrent('while it loads a very large file: nothing else waits until that is loaded', async () => {
    const space = spaces.company;
    const huge = 'vehicles_events_huge.json';
    const redis = new Redis(space.config.REDIS_URL ?? '');
    await redis.ping();
    const victim = await startFarRole(space);
    space.startWatcher();
    await space.put(huge, Array.from({ length: 300 }, (_, n) => events(100, { vehicle_id: `huge-${n}` })).flat());
    await eventually(async () => expect(await space.read('SELECT at FROM change_log LIMIT 1')).toHaveLength(1));
    const others = Array.from({ length: 20 }, (_, n) => `vehicles_events_other_${n}.json`);
    await victim.kill();
    for (const name of others) await space.put(name, events(3, { vehicle_id: name }));

    const next = await startFarRole(space);
    const ingest = space.queue('ingest');
    const [loading] = await eventually(async () => {
      const active = (await ingest.getActive()).filter((job) => job.name === huge);
      expect(active).toMatchObject([{ stalledCounter: expect.toSatisfy((count) => count > 0), data: { crashes: 1 } }]);
      return active;
    });
    // One more that was in a processor when that ended: it waits its turn, but keeps no place from others.
    const suspect = { name: 'vehicles_events_suspect.json', size: 0, mtimeNs: '0' };
    await ingest.add(suspect.name, suspect, { jobId: 'suspect', delay: 600_000 });
    await redis.hset(ingest.toKey('suspect'), 'stc', 1);
    const added = await ingest.getJob('suspect');
    expect(added?.stalledCounter).toBe(1);
    await added?.promote();
    redis.disconnect();
    await space.put('vehicles_events_new.json', events(3, { vehicle_id: 'new' }));
    await space.loaded([...others, 'vehicles_events_new.json']);
    await eventually(async () => {
      const started = (await ingest.getDelayed()).filter(({ attemptsStarted }) => attemptsStarted > 0);
      expect(started).toMatchObject([{ id: 'suspect' }]);
    });
    expect((await space.ledger()).map(({ name }) => name)).not.toContain(huge);
    // A stop that was asked for is not held against it.
    const stopped = next.stop();
    await eventually(async () => expect((await ingest.getJob(loading?.id ?? ''))?.data).toMatchObject({ crashes: 0 }));
    await stopped;
    space.startProcessor();
    await space.loaded([huge], { withinMs: 120_000 });
    await eventually(async () => expect(await space.letters()).toMatchObject([{ name: suspect.name }]));
  });

  it.concurrent('each time it takes a file: the third time the file is a dead letter, and others go on', async () => {
    const space = spaces.poison;
    space.startWatcher();
    await space.put(name, large);
    const [file] = await eventually(async () => {
      const jobs = await space.queue('ingest').getJobs(['waiting', 'prioritized', 'active']);
      expect(jobs).toHaveLength(1);
      return jobs;
    });
    for (let crash = 1; crash <= 3; crash += 1) {
      const victim = await startFarRole(space);
      await eventually(async () => {
        const job = await space.queue('ingest').getJob(file?.id ?? '');
        expect(job?.processedBy).toMatch(new RegExp(`:${victim.pid}$`));
        // The first end is not held against it: there may have been others in that processor.
        expect(job?.data['crashes'] ?? 0).toBe(crash - 1);
        expect(await space.read('SELECT event_id FROM vehicle_events LIMIT 1')).toHaveLength(1);
      });
      await victim.kill();
    }
    expect(await space.ledger()).toEqual([]);
    space.startProcessor();
    await space.put('vehicles_events_good.json', events(5, { vehicle_id: 'good' }));
    await space.loaded(['vehicles_events_good.json']);
    await eventually(async () =>
      expect(await space.letters()).toMatchObject([{ name, reason: 'ended 3 processors that were loading it' }]),
    );
    // What was written of it is there, and the summaries show it.
    await space.aggregated();
    const rows = await space.read('SELECT event_id FROM vehicle_events');
    const ids = new Set(rows.map((row) => row['event_id']));
    const { daily } = await storedSummaries(space.read);
    const written = large.filter((record) => ids.has(idOf(record)));
    expect(written.length).toBeGreaterThan(0);
    for (const [key, summary] of Object.entries(summariesOf(written).daily)) expect(daily[key]).toEqual(summary);
  });
});

describe('a processor is stopped while files wait that were in one that died', async () => {
  const space = await openSpace();

  it('is not held against them: those whose turn has not come are put back', async () => {
    // Each a second's work or less, so that a stop waits for it, and not so large that others are put back for it.
    const names = Array.from({ length: 6 }, (_, n) => `vehicles_events_suspect_${n}.jsonl`);
    const content = events(1_000, { vehicle_id: 'suspect' }).map((record) => JSON.stringify(record));
    for (const name of names) await space.put(name, content.join('\n'));
    const ingest = space.queue('ingest');
    const watcher = space.startWatcher();
    await eventually(async () => expect(await ingest.getJobCountByTypes('waiting', 'prioritized')).toBe(names.length));
    await watcher.stop();
    const redis = new Redis(space.config.REDIS_URL ?? '');
    const jobs = await ingest.getJobs(['waiting', 'prioritized']);
    for (const { id = '' } of jobs) await redis.hset(ingest.toKey(id), 'stc', 1);
    redis.disconnect();

    const processor = space.startProcessor();
    await eventually(async () => expect((await ingest.getActive()).map(({ data }) => data['crashes'])).toContain(1));
    await processor.stop();
    const putBack = await ingest.getDelayed();
    expect(putBack.length).toBeGreaterThan(0);
    for (const { id = '', data } of putBack) {
      expect(data['crashes'] ?? 0).toBe(0);
      expect((await ingest.getJobLogs(id)).logs).toContain('the processor stops');
    }
    space.startProcessor();
    await space.loaded(names);
  });

  it('nor is it that the lock of one was lost, as after a while without Redis', async () => {
    const own = await openSpace();
    const name = 'vehicles_events_slow.json';
    await own.put(name, Array.from({ length: 100 }, (_, n) => events(100, { vehicle_id: `slow-${n}` })).flat());
    const ingest = own.queue('ingest');
    const watcher = own.startWatcher();
    await eventually(async () => expect(await ingest.getJobCountByTypes('waiting', 'prioritized')).toBe(1));
    await watcher.stop();
    const redis = new Redis(own.config.REDIS_URL ?? '');
    const [{ id = '' } = {}] = await ingest.getJobs(['waiting', 'prioritized']);
    await redis.hset(ingest.toKey(id), 'stc', 1);
    const { proxy } = await startFar(own, (CASSANDRA_PORT) => own.startProcessor({ CASSANDRA_PORT }));
    const crashes = async () => (await ingest.getJob(id))?.data['crashes'] as number | undefined;
    await eventually(async () => expect(await crashes()).toBe(1));
    await redis.del(`${ingest.toKey(id)}:lock`);
    await eventually(async () => expect(await crashes()).toBe(0));
    redis.disconnect();
    expect(await own.ledger()).toEqual([]);
    proxy.set('none');
    await own.loaded([name]);
  });
});
