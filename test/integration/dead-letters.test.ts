import { randomUUID } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Queue, UnrecoverableError, Worker } from 'bullmq';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import { openAll, openForWork } from '../../src/commands/connect.ts';
import { discardFailed, listFailed, retryFailed, showFailed, type Selection } from '../../src/commands/failed.ts';
import type { Runtime } from '../../src/runtime.ts';
import { BadUsage, UsageError } from '../../src/config.ts';
import { createDeadLetters } from '../../src/processors/dead-letter.ts';
import { createLetterRestorer, takeUpLetter } from '../../src/producers/letters.ts';
import { createReconciliation } from '../../src/producers/reconciliation.ts';
import { readVersions } from '../../src/storage/files.ts';
import { afterFirstLookUp, eventually, openSpace, type Letter, type Running, type Space } from './pipeline.ts';
import { idOf } from './recomputation.ts';
import { events } from './records.ts';

const BROKEN = '[{"vehicle_id": ';
const BROKEN_REASON = /^ends too early: the array is not closed, in or behind record 0$/;

async function breakFile(space: Space, name: string, content = BROKEN): Promise<Letter> {
  await space.put(name, content, { stoodStill: true });
  return letterOf(space, name);
}

function letterOf(space: Space, name: string): Promise<Letter> {
  return eventually(async () => {
    const letter = (await space.letters()).find((one) => one.name === name);
    if (letter === undefined) throw new Error(`no dead letter of ${name}`);
    return letter;
  });
}

const statesOf = async (space: Space, file: string) =>
  (await space.ledger())
    .filter(({ name }) => name === file)
    .map(({ state }) => state)
    .sort();

async function rowsOf(space: Space, vehicleId: string): Promise<unknown[]> {
  const query = "SELECT event_id FROM vehicle_events WHERE vehicle_id = ? AND day = '2026-11-20'";
  return (await space.read(query, [vehicleId])).map((row) => row['event_id']).sort();
}

const idsOf = (records: readonly object[]) => records.map(idOf).sort();

const all: Selection = { files: [], all: true, json: true };
const some: Selection = { files: [], all: false, json: true };

/** Runs a command as main does, and returns what it printed. */
async function command(space: Space, run: (runtime: Runtime) => Promise<void>): Promise<string> {
  const printed: string[] = [];
  const print = vi.spyOn(process.stdout, 'write').mockImplementation((text) => printed.push(String(text)) > 0);
  const runtime = space.runtime();
  try {
    await run(runtime);
  } finally {
    print.mockRestore();
    await runtime.stop();
  }
  return printed.join('');
}

const retry = (space: Space, selection: Partial<Selection>) =>
  command(space, (runtime) => retryFailed(runtime, { ...some, ...selection }));

async function list(space: Space, selection: Partial<Selection> = {}): Promise<string[]> {
  const text = await command(space, (runtime) => listFailed(runtime, { ...some, ...selection }));
  return (JSON.parse(text) as { name: string }[]).map(({ name }) => name).sort();
}

/** Fails so many ingest jobs for good, as a processor without the mover: they stay where they are. */
async function failJobs(space: Space, count: number): Promise<void> {
  const connection = { url: space.config.REDIS_URL ?? '' };
  const reject = () => Promise.reject(new UnrecoverableError('by hand'));
  const failing = new Worker('ingest', reject, { connection, prefix: space.config.QUEUE_PREFIX });
  await eventually(async () => expect(await space.queue('ingest').getFailedCount()).toBe(count));
  await failing.close();
}

const letterNames = async (space: Space) => (await space.letters()).map(({ name }) => name).sort();

describe('what one of the stores has forgotten of dead letters', async () => {
  const space = await openSpace();

  it('is restored when Redis was emptied, also while it is being restored', async () => {
    const watcher = space.startWatcher();
    const processor = space.startProcessor();
    const { name } = await breakFile(space, 'vehicles_events_left.json');
    await Promise.all([watcher.stop(), processor.stop()]);
    await rm(join(space.config.DATA_DIR, name));
    const opened = await openAll(space.runtime());
    const { connection, prefix } = opened.queues;
    const letters = space.queue('dead-letter');
    const empty = async () => connection.unlink(...(await connection.keys(`${prefix}:*`)));
    const store = {
      ...opened.store,
      rows: async function* (query: string, parameters: readonly unknown[]) {
        yield* opened.store.rows(query, parameters);
        // The page that was read has been restored.
        if (query.includes('FROM files WHERE token')) await empty();
      },
    };
    await empty();
    await expect(createLetterRestorer({ ...opened, store })()).rejects.toThrow('no such key');
    const restore = createLetterRestorer(opened);
    await restore();
    expect(await letters.getJobCountByTypes('waiting', 'failed')).toBe(1);
    await letters.drain();
    await restore();
    expect(await letters.getJobCountByTypes('waiting', 'failed')).toBe(0);
  });

  it.each([
    ['', true],
    [', also when Redis knows nothing of it any more', false],
  ])('is loaded again when it was retried and loaded, and Cassandra knows only of the letter%s', async (_, isKept) => {
    const own = await openSpace();
    const records = events(5, { vehicle_id: 'large' });
    const name = 'vehicles_events_large.json';
    const small = own.startProcessor({ MAX_FILE_BYTES: 100 });
    const watcher = own.startWatcher();
    await own.put(name, records);
    const letter = await letterOf(own, name);
    await small.stop();
    own.startProcessor();
    await letter.retry();
    await own.loaded([name]);
    await eventually(async () => expect(await own.letters()).toEqual([]));
    await watcher.stop();
    // Its job ends after its row is there.
    const clean = async () => expect(await own.queue('ingest').clean(0, 10, 'completed')).toHaveLength(1);
    if (!isKept) await eventually(clean);
    await own.read('TRUNCATE vehicle_events');
    await own.read("UPDATE files SET state = 'dead_letter' WHERE name = ? AND version = ?", [
      name,
      (await own.ledger())[0]?.version,
    ]);
    own.startWatcher();
    await eventually(async () => expect(await rowsOf(own, 'large')).toEqual(idsOf(records)));
    expect(await own.letters()).toEqual([]);
  });

  it('is given up, too, and stays so', async () => {
    const own = await openSpace();
    const [watcher, processor] = [own.startWatcher(), own.startProcessor()];
    const { name } = await breakFile(own, 'vehicles_events_forgotten.json');
    await eventually(async () => expect(await own.queue('ingest').getFailedCount()).toBe(0));
    await Promise.all([watcher.stop(), processor.stop()]);
    await own.read('TRUNCATE files');
    await command(own, (runtime) => discardFailed(runtime, all));
    own.startWatcher();
    own.startProcessor();
    await own.put('vehicles_events_other.json', events(1));
    await own.loaded(['vehicles_events_other.json']);
    expect(await statesOf(own, name)).toEqual(['discarded']);
    expect(await own.letters()).toEqual([]);
  });

  it('is looked at in turns, where there are very many', async () => {
    const own = await openSpace();
    const letters = own.queue('dead-letter');
    const add = (n: number) => {
      const name = `vehicles_events_${n}.json`;
      const data = { name, size: 1, mtimeNs: '1', reason: 'of old', failedAt: n, attempts: 1 };
      return { name, data, opts: { jobId: `letter-${n}` } };
    };
    const processor = own.startProcessor();
    await letters.addBulk([add(0)]);
    await eventually(async () => expect(await letters.getFailedCount()).toBe(1));
    await letters.addBulk(Array.from({ length: 600 }, (_, n) => add(n + 1)));
    await eventually(async () => expect(await letters.getFailedCount()).toBe(601));
    await own.read("INSERT INTO files (name, version, state) VALUES ('vehicles_events_0.json', '1-1', 'superseded')");
    await eventually(async () => expect(await letters.getFailedCount()).toBe(600));
    expect(await letters.getJob('letter-0')).toBeUndefined();

    await processor.stop();
    // The newest go when the command has begun to read.
    const read: unknown = Reflect.get(Queue.prototype, 'getJob');
    const reading = vi.spyOn(Queue.prototype, 'getJob').mockImplementationOnce(async function (this: Queue, id) {
      await Promise.all(Array.from({ length: 300 }, (_, n) => letters.remove(`letter-${600 - n}`)));
      return await (read as Queue['getJob']).call(this, id);
    });
    const listed: { id: string }[] = JSON.parse(await command(own, (runtime) => listFailed(runtime, all)));
    reading.mockRestore();
    const left = Array.from({ length: 300 }, (_, n) => `letter-${n + 1}`);
    expect(listed.map(({ id }) => id)).toEqual(expect.arrayContaining(left));
  });
});

describe('a dead letter', async () => {
  const space = await openSpace();
  beforeAll(() => {
    space.startWatcher();
    space.startProcessor();
  });

  it('tells the reason in the ledger and in the queue, under the name of the file', async () => {
    const letter = await breakFile(space, 'vehicles_events_told.json');
    expect(letter.reason).toMatch(BROKEN_REASON);
    const [row] = await space.ledger();
    expect(row).toMatchObject({ name: 'vehicles_events_told.json', state: 'dead_letter', error: letter.reason });
    const job = await space.queue('dead-letter').getJob(letter.id);
    expect(job).toMatchObject({ name: 'vehicles_events_told.json', failedReason: letter.reason });
    await eventually(async () => expect(await space.queue('ingest').getJob(letter.id)).toBeUndefined());
    expect(await space.count('vehicle_events')).toBe(0);

    const shown = await command(space, (runtime) =>
      showFailed(runtime, { ...some, files: ['vehicles_events_told.json'] }),
    );
    expect(shown).toContain(letter.reason);
    const byReason = { ...some, reason: letter.reason };
    expect(await command(space, (runtime) => showFailed(runtime, byReason))).toBe(shown);
    await expect(command(space, (runtime) => showFailed(runtime, some))).rejects.toThrow(BadUsage);
    expect(await list(space)).toEqual(['vehicles_events_told.json']);
    await expect(command(space, (runtime) => showFailed(runtime, { ...some, files: ['none'] }))).rejects.toThrow(
      UsageError,
    );
  });

  it('is settled by a mended file of the same name, without being retried', async () => {
    const records = events(3, { vehicle_id: 'mended' });
    await breakFile(space, 'vehicles_events_mended.json');
    await space.put('vehicles_events_mended.json', records);
    await eventually(async () => {
      expect(await statesOf(space, 'vehicles_events_mended.json')).toEqual(['loaded', 'superseded']);
      expect(await letterNames(space)).not.toContain('vehicles_events_mended.json');
    });
    expect(await rowsOf(space, 'mended')).toEqual(idsOf(records));
  });

  it('is settled by another broken file of the same name, which has a letter of its own', async () => {
    const before = await breakFile(space, 'vehicles_events_worse.json');
    await space.put('vehicles_events_worse.json', '', { stoodStill: true });
    await eventually(async () => {
      const letters = (await space.letters()).filter(({ name }) => name === before.name);
      expect(letters.map(({ reason }) => reason)).toEqual(['empty: it holds no JSON']);
    });
    expect(await statesOf(space, before.name)).toEqual(['dead_letter', 'superseded']);
    expect(await letterOf(space, before.name)).not.toMatchObject({ id: before.id });
  });

  it('that is retried while its file is as it was comes back with the same reason', async () => {
    const before = await breakFile(space, 'vehicles_events_stubborn.json');
    const failedAt = async () => {
      const row = (await space.ledger()).find(({ name }) => name === before.name);
      return row?.finishedAt ?? 0;
    };
    const firstTime = await failedAt();
    await before.retry();
    await eventually(async () => expect(await failedAt()).toBeGreaterThan(firstTime));
    expect(await letterOf(space, before.name)).toMatchObject({ id: before.id, reason: before.reason });
  });
});

describe('dead letters of files that are mended while nobody watches', async () => {
  const space = await openSpace();
  const reasons: [content: string, reason: RegExp][] = [
    [BROKEN, BROKEN_REASON],
    ['', /^empty/],
    ['{}', /does not begin/],
  ];
  const nameOf = (n: number) => `vehicles_events_${'abcdefghi'[n]}.json`;
  const names = Array.from({ length: 9 }, (_, n) => nameOf(n));
  const [one, byReason, byName, byAge] = [nameOf(0), nameOf(1), nameOf(3), nameOf(6)];

  beforeAll(async () => {
    const watcher = space.startWatcher();
    space.startProcessor();
    for (const [n, name] of names.entries()) await breakFile(space, name, reasons[n % 3]?.[0]);
    await watcher.stop();
    for (const [n, name] of names.entries()) await space.put(name, events(2, { vehicle_id: `mended-${n}` }));
    expect(await letterNames(space)).toEqual(names);
  });

  async function expectLeft(left: readonly string[]): Promise<void> {
    await space.loaded(names.filter((name) => !left.includes(name)));
    await eventually(async () => expect(await letterNames(space)).toEqual(left));
    expect(await list(space)).toEqual(left);
    for (const [n, name] of names.entries()) {
      expect(await statesOf(space, name)).toEqual(left.includes(name) ? ['dead_letter'] : ['loaded', 'superseded']);
      expect(await rowsOf(space, `mended-${n}`)).toHaveLength(left.includes(name) ? 0 : 2);
    }
  }

  it('are listed by reason, name and age', async () => {
    expect(await list(space, { reason: 'EMPTY' })).toEqual([nameOf(1), nameOf(4), nameOf(7)]);
    expect(await list(space, { reason: 'empty', name: '_h.' })).toEqual([nameOf(7)]);
    expect(await list(space, { olderThan: 3_600_000 })).toEqual([]);
    expect(await list(space, { newerThan: 3_600_000 })).toEqual(names);
  });

  it('are not retried by a command that names none', async () => {
    await expect(retry(space, {})).rejects.toThrow(UsageError);
    expect(await letterNames(space)).toEqual(names);
  });

  it('are not retried by a command that names one that is none, which it tells', async () => {
    const typo = retry(space, { files: [one, 'vehicles_events_typo.json'] });
    await expect(typo).rejects.toThrow('No such dead letter: vehicles_events_typo.json.');
    expect(await letterNames(space)).toEqual(names);
  });

  it('are loaded and gone once they are retried: one on the board, then by id, reason, name and age, then all', async () => {
    await (await letterOf(space, one)).retry();
    let left = names.filter((name) => name !== one);
    await expectLeft(left);

    await retry(space, { files: [(await letterOf(space, byReason)).id] });
    left = left.filter((name) => name !== byReason);
    await expectLeft(left);

    await retry(space, { reason: 'empty' });
    left = left.filter((name) => name !== nameOf(4) && name !== nameOf(7));
    await expectLeft(left);

    await retry(space, { name: byName.slice(0, -5) });
    left = left.filter((name) => name !== byName);
    await expectLeft(left);

    const job = await space.queue('dead-letter').getJob((await letterOf(space, byAge)).id);
    await job?.updateData({ ...job.data, failedAt: Date.now() - 7_200_000 });
    await retry(space, { olderThan: 3_600_000 });
    left = left.filter((name) => name !== byAge);
    await expectLeft(left);

    await retry(space, { all: true });
    await expectLeft([]);
    const others = () => space.queue('dead-letter').getJobCountByTypes('waiting', 'active', 'delayed', 'completed');
    await eventually(async () => expect(await others()).toBe(0));
  });
});

describe('a dead letter whose cause was a setting', async () => {
  const space = await openSpace();
  const name = 'vehicles_events_half.json';
  const records = events(3, { vehicle_id: 'half' });

  it('is loaded in the same version once it is retried after the setting was changed', async () => {
    space.startWatcher();
    const strict = space.startProcessor({ MAX_REJECTED_RATIO: 0 });
    await space.put(name, [...records, 'bad'], { stoodStill: true });
    const letter = await letterOf(space, name);
    expect(letter.reason).toBe('1 of 4 records are bad, the first is record 3: expected an object, not string');
    expect(await space.count('vehicle_events')).toBe(0);
    await strict.stop();
    space.startProcessor();
    await letter.retry();
    await eventually(async () => expect(await statesOf(space, name)).toEqual(['loaded']));
    expect(await rowsOf(space, 'half')).toEqual(idsOf(records));
    await eventually(async () => expect(await space.letters()).toEqual([]));
    expect(await space.ledger()).toMatchObject([{ error: null, loaded: 3, rejected: 1 }]);
    expect(await space.queue('dead-letter').getJob(letter.id)).toBeUndefined();
  });

  it('is not brought back by a comparison with the folder once it is given up', async () => {
    await breakFile(space, 'vehicles_events_given_up.json');
    await command(space, (runtime) => discardFailed(runtime, { ...some, name: 'given_up' }));
    expect(await space.letters()).toEqual([]);
    await command(space, async (runtime) => {
      const compare = createReconciliation(await openAll(runtime));
      for (let n = 0; n < 2; n += 1) expect(await compare()).toMatchObject({ queued: 0, young: 0 });
    });
    await breakFile(space, 'vehicles_events_later_1.json');
    await breakFile(space, 'vehicles_events_later_2.json');
    expect(await statesOf(space, 'vehicles_events_given_up.json')).toEqual(['discarded']);
    expect(await letterNames(space)).toEqual(['vehicles_events_later_1.json', 'vehicles_events_later_2.json']);
    await command(space, async (runtime) => {
      const opened = await openAll(runtime);
      const [row] = await readVersions(opened.store, 'vehicles_events_given_up.json');
      if (row !== undefined) await takeUpLetter(opened, { ...row, state: 'dead_letter' });
      expect(row?.state).toBe('discarded');
    });
    const left = () =>
      space.queue('ingest').getJobCountByTypes('waiting', 'prioritized', 'active', 'delayed', 'failed');
    await eventually(async () => expect(await left()).toBe(0));
    expect(await letterNames(space)).toHaveLength(2);
  });
});

describe('a processor that dies while it moves a failed file to the dead letters', async () => {
  const space = await openSpace();

  it('leaves it to a sweep, whichever step was the last', async () => {
    const names = ['nothing', 'ledger', 'queue', 'loaded'].map((step) => `vehicles_events_${step}.json`);
    for (const name of names) await space.put(name, BROKEN, { stoodStill: true });
    const watcher = space.startWatcher();
    const ingest = space.queue('ingest');
    await eventually(async () => expect(await ingest.getJobCountByTypes('waiting', 'prioritized')).toBe(4));
    await watcher.stop();
    await failJobs(space, 4);
    for (const job of await ingest.getFailed()) {
      const version = `${String(job.data['size'])}-${String(job.data['mtimeNs'])}`;
      const state = job.name === names[3] ? 'loaded' : 'dead_letter';
      const insert = 'INSERT INTO files (name, version, state, error) VALUES (?, ?, ?, ?)';
      if (job.name !== names[0]) await space.read(insert, [job.name, version, state, 'by hand']);
      if (job.name !== names[2]) continue;
      const letter = { ...job.data, reason: 'by hand', failedAt: Date.now(), attempts: 1 };
      await space
        .queue('dead-letter')
        .add(job.name, letter, { jobId: job.id ?? '', attempts: 1, removeOnComplete: true });
    }

    space.startProcessor();
    await eventually(async () => {
      expect(await ingest.getFailedCount()).toBe(0);
      expect(await letterNames(space)).toEqual(names.slice(0, 3).sort());
    });
    for (const { reason } of await space.letters()) expect(reason).toBe('by hand');
    const states = (await space.ledger()).map(({ name, state }) => `${name} ${state}`).sort();
    expect(states).toEqual(names.map((name) => `${name} ${name === names[3] ? 'loaded' : 'dead_letter'}`).sort());
  });
});

describe('a file that is loaded while its failed job is moved to the dead letters', async () => {
  const space = await openSpace();

  it.each([undefined, 'dead_letter'])('stays loaded, from the state %s', async (before) => {
    const name = `vehicles_events_${before ?? 'new'}.json`;
    const ingest = space.queue('ingest');
    await ingest.add(name, { name, size: 1, mtimeNs: '1' });
    await failJobs(space, 1);
    const insert = "INSERT INTO files (name, version, state, started_at) VALUES (?, '1-1', ?, 1)";
    if (before !== undefined) await space.read(insert, [name, before]);

    const runtime = space.runtime();
    const needs = await openForWork(runtime);
    let isLoaded = false;
    const store = afterFirstLookUp(needs.store, async () => {
      isLoaded = true;
      await space.read(insert, [name, 'loaded']);
    });
    const deadLetters = createDeadLetters({ ...needs, store });
    deadLetters.onFailed((await needs.ingestQueue.getFailed())[0]);
    await deadLetters.close();
    expect(isLoaded).toBe(true);
    expect(await statesOf(space, name)).toEqual(['loaded']);
    expect(await space.letters()).toEqual([]);
    // The next sweep finds it loaded.
    const again = createDeadLetters(needs);
    again.onFailed((await needs.ingestQueue.getFailed())[0]);
    await again.close();
    expect(await ingest.getFailedCount()).toBe(0);
    expect(await space.letters()).toEqual([]);
    await runtime.stop();
  });
});

describe('a job that somebody added by hand', async () => {
  const space = await openSpace();
  const version = { size: 1, mtimeNs: '1' };
  const outside = () => join(dirname(space.config.DATA_DIR), 'vehicles_events_outside.json');
  const junk: { name: string; data: Record<string, unknown>; reason: RegExp }[] = [
    { name: 'no data', data: {}, reason: /not a file version: name: .*; size: .*; mtimeNs: / },
    { name: 'absolute', data: { name: outside(), ...version }, reason: /name: must be a path below the data folder/ },
    {
      name: 'upwards',
      data: { name: '../vehicles_events_outside.json', ...version },
      reason: /name: must be a path below the data folder/,
    },
    {
      name: '../vehicles_events_outside.json',
      data: { name: 'in/../../vehicles_events_outside.json', ...version },
      reason: /name: must be a path below the data folder/,
    },
    { name: 'no size', data: { name: 'vehicles_events_1.json', mtimeNs: '1' }, reason: /not a file version: size: / },
    { name: 'a text for a size', data: { name: 'vehicles_events_1.json', size: '1', mtimeNs: '1' }, reason: /size: / },
    { name: '', data: { name: 7 }, reason: /not a file version: name: / },
    { name: '', data: { name: 8 }, reason: /not a file version: name: / },
  ];

  it('with data that names no file of the data folder is a dead letter, and nothing outside is read', async () => {
    await writeFile(outside(), JSON.stringify(events(3, { vehicle_id: 'outside' })));
    space.startProcessor();
    // In one millisecond.
    for (const { name, data } of junk) await space.queue('ingest').add(name, data, { timestamp: 1_764_000_000_000 });
    await eventually(async () => expect(await space.letters()).toHaveLength(junk.length));
    const reasons = (await space.letters()).map(({ reason }) => reason);
    for (const { reason } of junk) expect(reasons).toContainEqual(expect.stringMatching(reason));
    for (const reason of reasons) expect(reason).toMatch(/^the job's data is not a file version: /);
    expect(await list(space)).toHaveLength(junk.length);
    await eventually(async () => expect(await space.queue('ingest').getFailedCount()).toBe(0));
    expect(await space.count('vehicle_events')).toBe(0);
  });

  it('is given up by the command like any other', async () => {
    await command(space, (runtime) => discardFailed(runtime, all));
    expect(await space.letters()).toEqual([]);
  });

  it('that names a file of nobody, or none that is there, is a dead letter with the reason', async () => {
    await mkdir(space.config.DATA_DIR, { recursive: true });
    await space.queue('ingest').add('nobody', { name: 'passwd', ...version });
    await space.queue('ingest').add('gone', { name: 'vehicles_events_gone.json', ...version });
    expect((await letterOf(space, 'passwd')).reason).toBe('no kind of file has a name like this');
    expect((await letterOf(space, 'vehicles_events_gone.json')).reason).toMatch(/^not in the data folder any more/);
  });
});

describe('a processor without the data folder', async () => {
  const space = await openSpace({ INGEST_ATTEMPTS: 1 });
  const mount = (name: string) => join(dirname(space.config.DATA_DIR), name);
  const names = Array.from({ length: 30 }, (_, n) => `vehicles_events_${n}.json`);
  beforeAll(async () => {
    for (const name of names) await space.put(name, events(1, { vehicle_id: name }));
    space.startWatcher();
  });

  it('leaves files to others while its folder is not there, and makes none', async () => {
    const late = 'vehicles_events_late.json';
    const processor = space.startProcessor({ DATA_DIR: mount('later') });
    // Each again and again, but not all at the same time.
    const putBack = new Set<string>();
    await eventually(async () => {
      for (const job of await space.queue('ingest').getDelayed()) putBack.add(job.name);
      expect(putBack.size).toBe(names.length);
    });
    expect(await space.ledger()).toEqual([]);
    expect(await stat(mount('later')).catch(() => undefined)).toBeUndefined();
    await symlink(space.config.DATA_DIR, mount('later'));
    await space.put(late, events(1));
    await space.loaded([...names, late]);
    expect(await space.letters()).toEqual([]);
    await processor.stop();
  });

  it('whose mount is missing makes dead letters that mend themselves', async () => {
    await mkdir(mount('empty'));
    const processor = space.startProcessor({ DATA_DIR: mount('empty') });
    const later = names.map((_, n) => `vehicles_events_again_${n}.json`);
    for (const name of later) await space.put(name, events(1, { vehicle_id: name }));
    // Each is taken away by the next comparison, as its file is there, and comes anew.
    const seen = new Set<string>();
    await eventually(async () => {
      for (const letter of await space.letters()) seen.add(letter.name);
      expect(seen.size).toBe(later.length);
    });
    await processor.stop();
    space.startProcessor();
    await space.loaded(later);
    await eventually(async () => expect(await space.letters()).toEqual([]));
    for (const name of later) expect(await statesOf(space, name)).toEqual(['loaded']);
  });
});

describe.each(['archive', 'delete'] as const)('a loaded file with AFTER_LOAD=%s', async (afterLoad) => {
  const space = await openSpace({ AFTER_LOAD: afterLoad, DURABLE_SECONDS: 3 });
  const path = (name: string) => join(space.config.DATA_DIR, name);
  const isThere = (name: string) =>
    stat(path(name)).then(
      () => true,
      () => false,
    );
  let watcher: Running;
  beforeAll(() => {
    watcher = space.startWatcher();
    space.startProcessor();
  });

  it('leaves the folder when its ledger row is durable, not earlier, and a dead letter stays', async () => {
    const name = 'in/vehicles_events_1.json';
    await space.put(name, events(3, { vehicle_id: 'leaving' }));
    await breakFile(space, 'vehicles_events_broken.json');
    await space.loaded([name]);
    await eventually(async () => expect(await isThere(name)).toBe(false));
    const row = (await space.ledger()).find((one) => one.name === name);
    expect(Date.now() - (row?.finishedAt ?? 0)).toBeGreaterThanOrEqual(3_000);
    expect(await isThere('vehicles_events_broken.json')).toBe(true);
    expect(await rowsOf(space, 'leaving')).toHaveLength(3);
    if (afterLoad === 'archive') expect(await readdir(path('archive/in'))).toEqual(['vehicles_events_1.json']);
    else expect(await isThere('archive')).toBe(false);
  });

  it('stays, and is loaded again, when its ledger row was lost', async () => {
    const name = 'vehicles_events_lost.json';
    await watcher.stop();
    // The file is not to leave before its row is lost.
    const keeping = space.startWatcher({ AFTER_LOAD: 'keep' });
    await space.put(name, events(3, { vehicle_id: 'lost' }));
    await space.loaded([name]);
    await keeping.stop();
    const before = (await space.ledger()).find((one) => one.name === name);
    await space.read('DELETE FROM files WHERE name = ?', [name]);
    await space.read("DELETE FROM vehicle_events WHERE vehicle_id = 'lost' AND day = '2026-11-20'");
    watcher = space.startWatcher();
    await space.loaded([name]);
    const after = (await space.ledger()).find((one) => one.name === name);
    expect(after?.finishedAt).toBeGreaterThan(before?.finishedAt ?? Infinity);
    expect(await rowsOf(space, 'lost')).toHaveLength(3);
    await eventually(async () => expect(await isThere(name)).toBe(false));
    expect(Date.now() - (after?.finishedAt ?? 0)).toBeGreaterThanOrEqual(3_000);
  });

  it('takes no dead letter along that was given up: it stays, also after a restart of the watcher', async () => {
    const name = 'vehicles_events_given_up.json';
    await breakFile(space, name);
    await command(space, (runtime) => discardFailed(runtime, { ...some, name }));
    for (const n of [1, 2]) {
      const other = `vehicles_events_beside_${n}.json`;
      await space.put(other, events(1));
      await space.loaded([other]);
      // Its row is younger than that of the one that was given up, and it is looked at in the same comparison.
      await eventually(async () => expect(await isThere(other)).toBe(false));
      expect(await isThere(name)).toBe(true);
      await watcher.stop();
      watcher = space.startWatcher();
    }
    expect(await statesOf(space, name)).toEqual(['discarded']);
    expect(await readFile(path(name), 'utf8')).toBe(BROKEN);
  });

  it('of a name that left before leaves, too, and an archive keeps both', async () => {
    const name = 'vehicles_events_twice.json';
    for (const n of [1, 2]) {
      await space.put(name, events(n, { vehicle_id: 'twice' }));
      await eventually(async () => expect((await statesOf(space, name)).length).toBe(n));
      await eventually(async () => expect(await isThere(name)).toBe(false));
    }
    const everything = await readdir(path('.'), { recursive: true });
    expect(everything.filter((one) => one.includes(name))).toHaveLength(afterLoad === 'archive' ? 2 : 0);
    expect(await rowsOf(space, 'twice')).toHaveLength(3);
  });
});

describe('files that do not leave the folder like others', async () => {
  const own = await openSpace({ AFTER_LOAD: 'delete' });
  const path = (...names: string[]) => join(own.config.DATA_DIR, ...names);
  let watcher: Running;

  it('what was on its way out when the process died is put back at the next start, once another version has left', async () => {
    const held = path(`.leaving/elsewhere:1:${randomUUID()}`);
    await mkdir(join(held, 'in'), { recursive: true });
    await writeFile(join(held, 'in/vehicles_events_held.json'), JSON.stringify(events(3, { vehicle_id: 'held' })));
    await writeFile(join(held, 'vehicles_events_old.json'), JSON.stringify(events(3, { vehicle_id: 'old' })));
    await own.put('vehicles_events_old.json', events(2, { vehicle_id: 'new' }));
    watcher = own.startWatcher();
    own.startProcessor();
    await own.loaded(['in/vehicles_events_held.json', 'vehicles_events_old.json']);
    await eventually(async () => {
      const rows = await Promise.all(['held', 'old', 'new'].map((vehicle) => rowsOf(own, vehicle)));
      expect(rows.map(({ length }) => length)).toEqual([3, 3, 2]);
    });
    await eventually(async () =>
      expect(await readdir(path(), { recursive: true })).toEqual(
        expect.not.arrayContaining([expect.stringContaining('vehicles')]),
      ),
    );
  });

  it('a link goes, and what it leads to goes by itself', async () => {
    await watcher.stop();
    // What the link leads to is not to leave before the link is loaded.
    const keeping = own.startWatcher({ AFTER_LOAD: 'keep' });
    await own.put('elsewhere/vehicles_events_target.json', events(2, { vehicle_id: 'target' }));
    await symlink('elsewhere/vehicles_events_target.json', path('vehicles_events_link.json'));
    await own.loaded(['elsewhere/vehicles_events_target.json', 'vehicles_events_link.json']);
    await keeping.stop();
    own.startWatcher();
    await eventually(async () =>
      expect(await readdir(path())).toEqual(expect.not.arrayContaining(['vehicles_events_link.json'])),
    );
    await eventually(async () => expect(await readdir(path('elsewhere'))).toEqual([]));
  });

  it('an older version whose job comes after a newer one was loaded and has left is no dead letter', async () => {
    const name = 'vehicles_events_outlived.json';
    await own.put(name, events(2, { vehicle_id: 'outlived' }));
    await own.loaded([name]);
    await eventually(async () => expect(await readdir(path())).not.toContain(name));
    const job = await own.queue('ingest').add(name, { name, size: 10, mtimeNs: '1000' });
    await eventually(async () =>
      expect((await own.queue('ingest').getJob(job.id ?? ''))?.returnvalue).toMatchObject({ state: 'superseded' }),
    );
    expect(await own.letters()).toEqual([]);
  });

  it('an older version that came once more, cut off, and is gone when it is retried, is settled', async () => {
    const name = 'vehicles_events_again.json';
    await own.put(name, events(2, { vehicle_id: 'again' }));
    await own.loaded([name]);
    await eventually(async () => expect(await readdir(path())).not.toContain(name));
    await writeFile(path('cut'), '[');
    await utimes(path('cut'), 1_000, 1_000);
    await rename(path('cut'), path(name));
    const letter = await letterOf(own, name);
    await rm(path(name));
    await letter.retry();
    await eventually(async () => expect(await statesOf(own, name)).toEqual(expect.arrayContaining(['superseded'])));
    expect(await own.letters()).toEqual([]);
  });
});

describe('a dead letter that Cassandra forgot when it was killed', async () => {
  const own = await openSpace();
  const states = async () =>
    Object.fromEntries((await own.ledger()).map(({ name, version, state }) => [`${name} ${version}`, state]));

  it('is settled where another version was loaded since, and otherwise is in the ledger again', async () => {
    own.startWatcher();
    own.startProcessor();
    const name = 'vehicles_events_replaced.json';
    await own.put(name, events(1, {}));
    await own.loaded([name]);
    const startedAt = ((await own.ledger())[0]?.finishedAt ?? 0) - 1;
    const letter = { size: 1, mtimeNs: '1', reason: 'cut', startedAt, failedAt: startedAt, attempts: 1 };
    await own.queue('dead-letter').add(name, { name, ...letter });
    const gone = 'vehicles_events_gone.json';
    await own.queue('dead-letter').add(gone, { name: gone, ...letter });
    await eventually(async () => {
      expect((await own.letters()).map((left) => left.name)).toEqual([gone]);
      // Rows that only a sweep of both letters writes.
      expect(await states()).toMatchObject({ [`${name} 1-1`]: 'superseded', [`${gone} 1-1`]: 'dead_letter' });
    });
  });
});

describe('a dead letter whose version was judged while the mended file was being loaded', async () => {
  const own = await openSpace();

  it('is settled by the sweep', async () => {
    own.startWatcher();
    own.startProcessor();
    const name = 'vehicles_events_mended.json';
    await own.put(name, events(1, {}));
    await own.loaded([name]);
    const [file] = await own.ledger();
    // It was read before the mended one was loaded, and given up after that.
    const [startedAt, failedAt] = [-1, 1].map((ms) => (file?.finishedAt ?? 0) + ms);
    await own.read(
      `INSERT INTO files (name, version, state, started_at) VALUES ('${name}', '1-1', 'dead_letter', ${startedAt})`,
    );
    await own.queue('dead-letter').add(name, { name, size: 1, mtimeNs: '1', reason: 'cut', failedAt, attempts: 1 });
    await eventually(async () => {
      // Which only a sweep of the letter makes of the row, before the letter goes.
      const states = (await own.ledger()).map(({ version, state }) => [version === '1-1', state]);
      expect(states).toContainEqual([true, 'superseded']);
      expect(await own.letters()).toEqual([]);
    });
  });
});

describe('a dead letter of a version that came after one that was loaded', async () => {
  const own = await openSpace();

  it('stays when the job of the loaded one comes once more', async () => {
    const watcher = own.startWatcher();
    own.startProcessor();
    const name = 'vehicles_events_later.json';
    await own.put(name, events(1, {}), { stoodStill: true });
    await own.loaded([name]);
    await own.put(name, BROKEN);
    const letter = await letterOf(own, name);
    await watcher.stop();
    await rm(join(own.config.DATA_DIR, name));
    const loaded = (await own.ledger()).find(({ state }) => state === 'loaded');
    const [size, mtimeNs] = (loaded?.version ?? '').split('-');
    const again = await own.queue('ingest').add(name, { name, size: Number(size), mtimeNs });
    await eventually(async () => expect(await again.getState()).toBe('completed'));
    expect((await own.letters()).map(({ id }) => id)).toEqual([letter.id]);
    expect(await statesOf(own, name)).toEqual(['dead_letter', 'loaded']);
  });
});

describe('a dead letter that somebody added by hand and that the ledger cannot hold', async () => {
  const own = await openSpace();

  it('does not keep the sweep from others, nor the command from listing them', async () => {
    own.startProcessor();
    const letters = own.queue('dead-letter');
    const letter = {
      size: 1,
      mtimeNs: '1',
      reason: 'by hand',
      failedAt: Date.now(),
      startedAt: Date.now(),
      attempts: 1,
    };
    const name = 'vehicles_events_behind.json';
    // The newest are looked at first.
    await letters.add(name, { ...letter, name });
    await eventually(async () => expect(await letters.getFailedCount()).toBe(1));
    await letters.add('never', { ...letter, name: 'never', failedAt: 1.7e18 });
    await letters.add('often', { ...letter, name: 'often', attempts: 1e12 });
    await eventually(async () => expect(await letters.getFailedCount()).toBe(3));
    await eventually(async () => expect(await statesOf(own, name)).toEqual(['dead_letter']));
    expect(await list(own, all)).toEqual(['never', 'often', name].sort());
  });

  it('is shown, kept by Retry, and given up like others', async () => {
    await own.queue('dead-letter').add('no\nletter', { reason: 'junk' });
    await eventually(async () => expect(await list(own, { reason: 'JUNK' })).toEqual(['no\nletter']));
    await retry(own, { files: ['no\\x0aletter'] });
    await eventually(async () => expect(await list(own, { reason: 'junk' })).toEqual(['no\nletter']));
    await command(own, (runtime) => discardFailed(runtime, { ...some, files: ['never', 'no\nletter'] }));
    expect(await list(own, all)).toEqual(['often', 'vehicles_events_behind.json']);
  });
});
