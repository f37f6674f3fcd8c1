import { lstat, mkdir, readdir, readFile, rename, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import { createMetrics } from '../../src/board/metrics.ts';
import { renderPage } from '../../src/board/page.ts';
import { createSnapshotReader } from '../../src/board/snapshot.ts';
import { openAll } from '../../src/commands/connect.ts';
import { verifyFiles } from '../../src/commands/verify.ts';
import type { Config } from '../../src/config.ts';
import { verify } from '../../src/processors/verification.ts';
import type { VerificationReport } from '../../src/queues/verification.ts';
import { afterFirstLookUp, eventually, openSpace, type Space } from './pipeline.ts';
import { startProvider } from './provider.ts';
import { idOf, storedSummaries, summariesOf } from './recomputation.ts';
import { event, events, status } from './records.ts';

const DAY_MS = 86_400_000;
const DAY = "day = '2026-11-20'";

/** Runs `pipeline verify --json`, and returns its report and what it failed with. */
async function verified(
  space: Space,
  options: { repair?: boolean; sample?: number } = {},
  changes: Partial<Config> = {},
) {
  const printed: string[] = [];
  const print = vi.spyOn(process.stdout, 'write').mockImplementation((text) => printed.push(String(text)) > 0);
  const runtime = space.runtime(changes);
  let failure = '';
  try {
    await verifyFiles(runtime, { json: true, repair: false, sample: 1, ...options });
  } catch (error) {
    failure = error instanceof Error ? error.message : String(error);
  } finally {
    print.mockRestore();
    await runtime.stop();
  }
  const report = JSON.parse(printed.join('') || '{}') as VerificationReport;
  return { ...report, failure };
}

/** Loads what is in the folder by now, aggregates it, and stops. */
async function settle(space: Space, names: readonly string[]): Promise<void> {
  const roles = [space.startWatcher(), space.startProcessor()];
  await space.loaded(names);
  await space.aggregated();
  await Promise.all(roles.map((role) => role.stop()));
}

describe('what is stored', async () => {
  const space = await openSpace();
  const first = events(20, { vehicle_id: 'one' });
  const second = events(20, { vehicle_id: 'two' });
  const third = event({ vehicle_id: 'one' });
  const reports = [
    status({ vehicle_id: 'one', status: 'driving' }),
    status({ vehicle_id: 'one', status: 'parked', report_time: '2026-11-20T11:00:00.000002' }),
    status({ vehicle_id: 'two', status: 'charging', extra: 1 }),
    // Of two in one microsecond the newest status may be a mixture.
    status({ vehicle_id: 'tie', status: 'a', status_source: 'z' }),
    status({ vehicle_id: 'tie', status: 'z', status_source: 'a' }),
  ];
  const names = [
    'vehicles_events_1.json',
    'below/vehicles_events_2.jsonl',
    'vehicles_events_3.json',
    'vehicles_status_1.json',
  ];

  beforeAll(async () => {
    await space.put('vehicles_events_1.json', first);
    await space.put(
      'below/vehicles_events_2.jsonl',
      [...second, ''].map((one) => one && JSON.stringify(one)).join('\n'),
    );
    await space.put('vehicles_events_3.json', [...first.slice(0, 2), { vehicle_id: 'nameless' }, third]);
    await space.put('vehicles_status_1.json', reports);
    await space.put('vehicles_events_broken.json', '[{', { stoodStill: true });
    await settle(space, names);
    // The same content in another version.
    await space.put('vehicles_events_1.json', first, { stoodStill: true });
    const roles = [space.startWatcher(), space.startProcessor()];
    await eventually(async () => expect((await space.ledger()).map(({ state }) => state)).toContain('unchanged'));
    await eventually(async () => expect(await space.letters()).toHaveLength(1));
    await Promise.all(roles.map((role) => role.stop()));
  });

  it('is right as it was loaded', async () => {
    expect(await verified(space)).toEqual({
      failure: '',
      files: 4,
      records: 49,
      days: 2,
      waiting: 0,
      deadLetters: 1,
      discarded: 0,
      gone: 0,
      notDue: 0,
      differences: 0,
      mended: 0,
      examples: [],
    });
  });

  const key = `vehicle_id = 'one' AND ${DAY} AND event_time = '2026-11-20T10:00:03.123Z' AND event_id = '${idOf(first[3] ?? {})}'`;
  const id = idOf(reports[1] ?? {});
  const history = `vehicle_id = 'one' AND month = '2026-11' AND report_time = '2026-11-20T11:00:00.000Z' AND status_id = '${id}'`;
  const broken: { what: string; by: string; problem: RegExp }[] = [
    {
      what: 'a count of an hour',
      by: `UPDATE hourly_summary SET event_count = 7 WHERE vehicle_id = 'one' AND ${DAY} AND hour = 10`,
      problem: /^2026-11-20 of vehicle one: not what its rows give: hourly_summary of hour 10$/,
    },
    {
      what: 'a day that is gone',
      by: "DELETE FROM daily_summary WHERE vehicle_id = 'two'",
      problem: /^2026-11-20 of vehicle two: not what its rows give: daily_summary$/,
    },
    {
      what: 'a last event of a day',
      by: `UPDATE daily_summary_by_day SET last_event_type = 'x' WHERE vehicle_id = 'two' AND ${DAY}`,
      problem: /daily_summary_by_day$/,
    },
    {
      what: 'an hour that no rows stand behind',
      by: `INSERT INTO hourly_summary (vehicle_id, day, hour, event_count) VALUES ('nobody', '2026-11-20', 3, 1)`,
      problem: /vehicle nobody: not what its rows give: hourly_summary of hour 3$/,
    },
    {
      what: 'an event that is gone',
      by: `DELETE FROM vehicle_events WHERE ${key}`,
      problem: /vehicle_events of 2026-11-20 one.*: missing$/,
    },
    {
      what: 'a value of an event',
      by: `UPDATE vehicle_events SET event_value = '0', event_time_nanos = 7 WHERE ${key}`,
      problem: /: wrong event_value, event_time_nanos$|: wrong event_time_nanos, event_value$/,
    },
    {
      what: 'a value that an event does not have',
      by: `UPDATE vehicle_events SET unknown_fields = '{}' WHERE ${key}`,
      problem: /: wrong unknown_fields$/,
    },
    {
      what: 'an event that names no file',
      by: `DELETE file_name, file_version FROM vehicle_events WHERE ${key}`,
      problem: /: wrong file_name, file_version$/,
    },
    {
      what: 'a whole day of events',
      by: `DELETE FROM vehicle_events WHERE vehicle_id = 'two' AND ${DAY}`,
      problem: /vehicle_events of 2026-11-20 two.*: missing$/,
    },
    {
      what: 'a report that is gone',
      by: `DELETE FROM vehicle_status_history WHERE ${history}`,
      problem: /vehicle_status_history .*: missing$/,
    },
    {
      what: 'a newest status that is gone',
      by: "DELETE FROM vehicle_status WHERE vehicle_id = 'two'",
      problem: /vehicle_status of two.*: missing$/,
    },
    {
      what: 'a newest status that was changed',
      by: "UPDATE vehicle_status SET status = 'stolen' WHERE vehicle_id = 'one'",
      problem: /vehicle_status of one.*: wrong status$/,
    },
    {
      what: 'a newest status that is not the newest',
      by: "UPDATE vehicle_status SET report_time = '2026-11-20T10:00:00.000Z' WHERE vehicle_id = 'one'",
      problem: /vehicle_status of one.*: older than the newest report$/,
    },
    {
      what: 'a rejection that is gone',
      by: "DELETE FROM rejected_records WHERE name = 'vehicles_events_3.json' AND version = '$VERSION'",
      problem: /rejected_records: record 2 of vehicles_events_3.json: missing$/,
    },
    ...[1, 3, 99].map((index) => ({
      what: `a rejection of record ${index}, which is not rejected`,
      by: `INSERT INTO rejected_records (name, version, record_index) VALUES ('vehicles_events_3.json', '$VERSION', ${index})`,
      problem: new RegExp(`rejected_records: record ${index} of vehicles_events_3.json: is not rejected$`),
    })),
    {
      what: 'counts in the ledger',
      by: "UPDATE files SET loaded = 7, sha256 = 'x' WHERE name = 'vehicles_events_3.json' AND version = '$VERSION'",
      problem: /^files: vehicles_events_3.json: wrong sha256, loaded$/,
    },
  ];

  it.each(broken)('$what: found, mended, and right after that', async ({ by, problem }) => {
    // A summary is not judged that is about to be aggregated, as those are that the test before has mended.
    if (by.includes('_summary')) await space.read('TRUNCATE change_log');
    const file = (await space.ledger()).find(({ name }) => name === 'vehicles_events_3.json');
    await space.read(by.replace('$VERSION', file?.version ?? ''));
    const found = await verified(space);
    expect(found.examples.map(({ what, problem: why }) => `${what}: ${why}`)).toContainEqual(
      expect.stringMatching(problem),
    );
    // Beside that only its consequence: the summaries are not those of the rows.
    const others = found.examples.filter(({ what, problem: why }) => !problem.test(`${what}: ${why}`));
    expect(others.filter(({ problem: why }) => !/^(hourly|daily)_summary/.test(why))).toEqual([]);
    expect(found.failure).toMatch(/^\d+ difference\(s\) are left: --repair mends/);

    const repaired = await verified(space, { repair: true });
    expect(repaired).toMatchObject({ mended: repaired.differences, failure: '' });
    expect(repaired.mended).toBeGreaterThan(0);
    expect(await verified(space)).toMatchObject({ differences: 0, failure: '' });
  });

  it('has the newest of many reports again, of which any may be compared first', async () => {
    const many = Array.from({ length: 60 }, (_, n) =>
      status({ vehicle_id: 'many', status: String(n), report_time: `2026-11-20T10:00:${String(n).padStart(2, '0')}` }),
    );
    const files = many.map((_, n) => `vehicles_status_many_${n % 20}.json`);
    for (const name of new Set(files))
      await space.put(
        name,
        many.filter((_, n) => files[n] === name),
      );
    await settle(space, files);
    await space.read("DELETE FROM vehicle_status WHERE vehicle_id = 'many'");
    const found = await verified(space);
    expect(found.examples.map(({ problem }) => problem)).toEqual(['missing']);
    const repaired = await verified(space, { repair: true });
    expect(repaired).toMatchObject({ mended: repaired.differences, failure: '' });
    expect(await verified(space)).toMatchObject({ differences: 0 });
    expect(await space.read("SELECT status FROM vehicle_status WHERE vehicle_id = 'many'")).toEqual([{ status: '59' }]);
    for (const name of new Set(files)) await rm(join(space.config.DATA_DIR, name));
  });

  it('is aggregated once more when a summary was mended: a run that was under way may have read what was wrong', async () => {
    await space.read(`UPDATE hourly_summary SET event_count = 99 WHERE vehicle_id = 'one' AND ${DAY} AND hour = 10`);
    const announced = await space.count('change_log');
    expect(await verified(space, { repair: true })).toMatchObject({ failure: '' });
    expect(await space.count('change_log')).toBeGreaterThan(announced);
  });

  it('is in the end what it was', async () => {
    const processor = space.startProcessor();
    await space.queue('aggregation').add('run by hand', {});
    await eventually(async () => expect(await verified(space)).toMatchObject({ differences: 0, notDue: 0 }));
    await processor.stop();
    expect(await storedSummaries(space.read)).toEqual(summariesOf([...first, ...second, third]));
    const rows = await space.read("SELECT status FROM vehicle_status WHERE vehicle_id IN ('one', 'two')");
    expect(rows.map((row) => row['status'])).toEqual(['parked', 'charging']);
  });

  it('may hold a row that no file has: found, left to a person, and in the summaries meanwhile', async () => {
    // In its first hour, which mending the day announces.
    const day = "day = '2026-11-21'";
    const columns = '(vehicle_id, day, event_time, event_id, event_time_nanos, event_source, event_type, event_value)';
    const row = "('one', '2026-11-21', '2026-11-21T00:00:03.000Z', 'by-hand', 0, 'a', 'b', 'c')";
    await space.read(`INSERT INTO vehicle_events ${columns} VALUES ${row}`);
    const repaired = await verified(space, { repair: true });
    expect(repaired).toMatchObject({ differences: 2, mended: 1, failure: '1 difference(s) are left.' });
    expect(repaired.examples[1]?.what).toMatch(
      /^2026-11-21 of vehicle one: rows of files that the ledger does not call loaded$/,
    );
    expect(repaired.examples[1]?.problem).toBe('no file');
    const [summary] = await space.read(`SELECT event_count FROM daily_summary WHERE vehicle_id = 'one' AND ${day}`);
    expect(summary?.['event_count']).toBe(1);
    const where = `vehicle_id = 'one' AND ${day} AND event_time = '2026-11-21T00:00:03.000Z' AND event_id = 'by-hand'`;
    await space.read(`DELETE FROM vehicle_events WHERE ${where}`);
    // That hour is announced, and the next aggregation removes its summary.
    expect(await verified(space, { repair: true })).toMatchObject({ differences: 0, notDue: 1, failure: '' });
  });

  it('is no longer compared with a file that is gone, or that cannot be read any more', async () => {
    await rm(join(space.config.DATA_DIR, 'vehicles_status_1.json'));
    expect(await verified(space)).toMatchObject({ gone: 21, files: 3, differences: 0, failure: '' });
    const path = join(space.config.DATA_DIR, 'vehicles_events_3.json');
    const { mtimeNs, size } = await lstat(path, { bigint: true });
    await writeFile(path, 'x'.repeat(Number(size)));
    await execa('touch', [
      '-d',
      `@${mtimeNs / 1_000_000_000n}.${String(mtimeNs % 1_000_000_000n).padStart(9, '0')}`,
      path,
    ]);
    const { examples, failure } = await verified(space, { repair: true });
    expect(examples).toEqual([
      {
        what: 'vehicles_events_3.json',
        problem: 'cannot be read: not a JSON array of records: it does not begin with [',
        mended: false,
      },
    ]);
    expect(failure).toBe('1 difference(s) are left.');
  });
});

it('a link that leads in a circle, or nowhere, is a dead letter for the verification, too, and nothing wrong', async () => {
  const own = await openSpace({ INGEST_ATTEMPTS: 1 });
  own.startProcessor();
  own.startWatcher();
  for (const [n, target] of ['vehicles_events_0.json', 'nowhere'].entries())
    await symlink(target, join(own.config.DATA_DIR, `vehicles_events_${n}.json`));
  await eventually(async () => expect(await own.letters()).toHaveLength(2));
  const report = await verify(await openAll(own.runtime()), { share: 1, repair: false, goesOn: () => true });
  expect(report).toMatchObject({ deadLetters: 2, differences: 0 });
});

describe('a file that the ledger does not know any more', async () => {
  const space = await openSpace({ AFTER_LOAD: 'archive' });
  const names = ['vehicles_events_1.json', 'vehicles_events_2.json'];
  const archive = join(space.config.DATA_DIR, 'archive');

  it('is loaded again, from the archive too', async () => {
    const records = names.map((_, n) => events(5, { vehicle_id: `v${n}` }));
    const roles = [space.startWatcher(), space.startProcessor()];
    for (const [n, name] of names.entries()) await space.put(name, records[n] ?? []);
    await space.loaded(names);
    await eventually(async () => expect((await readdir(archive)).sort()).toEqual(names));
    await space.aggregated();
    await Promise.all(roles.map((role) => role.stop()));
    expect(await verified(space)).toMatchObject({ files: 2, records: 10, gone: 0, differences: 0 });

    await rename(join(archive, names[0] ?? ''), join(space.config.DATA_DIR, names[0] ?? ''));
    for (const { name, version } of await space.ledger())
      await space.read('DELETE FROM files WHERE name = ? AND version = ?', [name, version]);
    const found = await eventually(async () => {
      const report = await verified(space);
      expect(report.differences).toBe(2);
      return report;
    });
    expect(found.examples).toContainEqual({ what: names[0], problem: 'neither loaded nor queued', mended: false });
    expect(found.examples).toContainEqual({ what: names[1], problem: 'neither loaded nor queued', mended: false });
    // While a backlog is queued, more of it waits in the folder.
    const backlog = await space.queue('ingest').add('x', { name: 'x', size: 1, mtimeNs: '1' }, { priority: 10 });
    expect((await verified(space)).examples).toMatchObject([{ what: names[1] }]);
    await backlog.remove();

    expect((await verified(space, { repair: true })).mended).toBe(2);
    expect(await readdir(archive)).toEqual([]);
    const processor = space.startProcessor();
    await space.loaded(names);
    await processor.stop();
    expect(await verified(space)).toMatchObject({ files: 2, differences: 0, failure: '' });
  });

  it('is not taken out of the archive where it would not go back, nor over another version of its name', async () => {
    const own = await openSpace({ AFTER_LOAD: 'archive' });
    const name = 'vehicles_events_twice.json';
    const path = (below: string) => join(own.config.DATA_DIR, below);
    const versions = ['first', 'second'].map((vehicle) => JSON.stringify(events(2, { vehicle_id: vehicle })));
    const roles = [own.startWatcher(), own.startProcessor()];
    for (const [n, text] of versions.entries()) {
      await own.put(name, text);
      await eventually(async () => expect(await readdir(path('archive'))).toHaveLength(n + 1));
    }
    await Promise.all(roles.map((role) => role.stop()));
    await own.read('DELETE FROM files WHERE name = ?', [name]);
    const problem = 'neither loaded nor queued';
    const left = { differences: 2, mended: 0, failure: '2 difference(s) are left.' };
    const kept = await eventually(async () => {
      const report = await verified(own, { repair: true }, { AFTER_LOAD: 'delete' });
      expect(report).toMatchObject(left);
      return report;
    });
    expect(kept.examples[0]?.problem).toBe(`${problem}: set AFTER_LOAD=archive while it is repaired`);
    expect(await readdir(path('archive'))).toHaveLength(2);

    expect(await verified(own, { repair: true })).toMatchObject({ differences: 2, mended: 1 });
    const [archived = ''] = await readdir(path('archive'));
    const there = await Promise.all([path(name), path(`archive/${archived}`)].map((file) => readFile(file, 'utf8')));
    expect(there.sort()).toEqual(versions);
  });
});

it.each([
  ['events', '2026-11-20 of vehicle half: ', events(3, { vehicle_id: 'half' })],
  ['status', '2026-11 of vehicle half: status reports, ', [status({ vehicle_id: 'half' })]],
])('rows that a dead letter of %s has left are found', async (kind, where, records) => {
  const space = await openSpace();
  const name = `vehicles_${kind}_half.json`;
  await space.put(name, records);
  await settle(space, [name]);
  const set = 'UPDATE files SET state = ? WHERE name = ? AND version = ?';
  await space.read(set, ['dead_letter', name, (await space.ledger())[0]?.version]);
  const { examples, deadLetters } = await verified(space);
  const what = `${where}rows of files that the ledger does not call loaded`;
  expect(examples).toEqual([{ what, problem: name, mended: false }]);
  expect(deadLetters).toBe(1);
});

it.each([
  ['taken out', 'TRUNCATE files', []],
  ['put in doubt', "UPDATE files SET state = 'superseded' WHERE name = ? AND version = ?", ['superseded']],
])(
  'a ledger row that is %s while its file is compared stays so, for the file to be loaded again',
  async (_what, change, states) => {
    const space = await openSpace();
    const name = 'vehicles_events_doubtful.json';
    await space.put(name, events(3, {}));
    await settle(space, [name]);
    const runtime = space.runtime();
    const opened = await openAll(runtime);
    let isOut = false;
    const [row] = await space.ledger();
    async function* rows(query: string, parameters: readonly unknown[]) {
      if (query.startsWith('SELECT * FROM files')) {
        await space.read(change, states.length > 0 ? [row?.name, row?.version] : []);
        isOut = true;
      }
      yield* opened.store.rows(query, parameters);
    }
    const store = { ...opened.store, rows };
    const options = { share: 1, repair: true, goesOn: () => !isOut };
    expect(await verify({ ...opened, store }, options)).toMatchObject({ files: 1, differences: 0 });
    expect(isOut).toBe(true);
    expect((await space.ledger()).map(({ state }) => state)).toEqual(states);
    await runtime.stop();
  },
);

it('a file that the provider replaces while it is compared is not taken for the one that was loaded', async () => {
  const space = await openSpace();
  const name = 'vehicles_events_current.json';
  await space.put(name, events(5, { vehicle_id: 'old' }));
  await settle(space, [name]);
  const runtime = space.runtime();
  const opened = await openAll(runtime);
  let isReplaced = false;
  const store = afterFirstLookUp(opened.store, async () => {
    isReplaced = true;
    await space.put(name, events(5, { vehicle_id: 'new' }));
  });
  const options = { share: 1, repair: true, goesOn: () => true };
  expect(await verify({ ...opened, store }, options)).toMatchObject({ files: 0, differences: 0 });
  expect(isReplaced).toBe(true);
  expect(await space.read('SELECT DISTINCT vehicle_id, day FROM vehicle_events')).toHaveLength(1);
  await runtime.stop();
});

describe('an archive on a file system of its own', async () => {
  const space = await openSpace({ AFTER_LOAD: 'archive' });
  const names = ['vehicles_events_1.json', 'below/vehicles_events_2.json'];
  const archive = join(space.config.DATA_DIR, 'archive');

  it('is read, under the versions that its files had, and what the ledger forgot is loaded from there', async ({
    skip,
  }) => {
    await mkdir(archive);
    const { failed } = await execa('mount', ['-t', 'tmpfs', 'none', archive], { reject: false });
    if (failed) skip('needs the right to mount');
    try {
      const roles = [space.startWatcher(), space.startProcessor()];
      for (const [n, name] of names.entries()) await space.put(name, events(5, { vehicle_id: `v${n}` }));
      await space.loaded(names);
      const archived = (await space.ledger()).map(({ name, version }) => `${name}.${version}`);
      const files = async () => (await readdir(archive, { recursive: true })).filter((path) => path.includes('.'));
      await eventually(async () => expect((await files()).sort()).toEqual(archived.sort()));
      await space.aggregated();
      await Promise.all(roles.map((role) => role.stop()));
      for (const name of archived) {
        const { mtimeNs } = await lstat(join(archive, name), { bigint: true });
        // Cut to the microsecond, after two roundings to a double of a quarter of one at most.
        expect(Math.abs(Number(mtimeNs - BigInt(/\d+$/.exec(name)?.[0] ?? 0)))).toBeLessThan(1_500);
      }
      const compared = { files: 2, records: 10, waiting: 0, gone: 0, differences: 0, failure: '' };
      expect(await verified(space)).toMatchObject(compared);

      for (const name of names) await space.read('DELETE FROM files WHERE name = ?', [name]);
      const problem = 'neither loaded nor queued';
      const missing = names.map((what) => ({ what, problem, mended: false }));
      await eventually(async () => {
        const { examples } = await verified(space);
        expect(examples).toHaveLength(2);
        expect(examples).toEqual(expect.arrayContaining(missing));
      });
      expect(await verified(space, { repair: true })).toMatchObject({ differences: 2, mended: 2, failure: '' });
      expect(await files()).toEqual([]);
      const processor = space.startProcessor();
      await space.loaded(names);
      await processor.stop();
      expect(await space.letters()).toEqual([]);
      expect(await verified(space)).toMatchObject(compared);
    } finally {
      await execa('umount', ['-l', archive]);
    }
  });
});

describe('a record about a day ahead of its file', async () => {
  const space = await openSpace();
  const name = 'vehicles_events_ahead.json';
  const path = join(space.config.DATA_DIR, name);
  const counts = async () => [await space.count('vehicle_events'), await space.count('rejected_records')];

  it('is rejected each time that version is read, though it is less than a day ahead by then', async () => {
    const records = events(2, { vehicle_id: 'ahead' });
    const ahead = event({ vehicle_id: 'ahead', event_time: new Date(Date.now() + DAY_MS - 30_000).toISOString() });
    // A minute before, by its time.
    await space.put(name, [...records, ahead], { stoodStill: true });
    await settle(space, [name]);
    expect(await counts()).toEqual([2, 1]);

    const [loaded] = await space.ledger();
    await space.read('DELETE FROM files WHERE name = ?', [name]);
    await settle(space, [name]);
    expect(await space.ledger()).toMatchObject([{ version: loaded?.version, loaded: 2, rejected: 1 }]);
    expect(await counts()).toEqual([2, 1]);
    expect(await verified(space)).toMatchObject({ differences: 0, failure: '' });
  });

  it('is taken of a later version, which is no copy then, but further ones of the same bytes are', async () => {
    const roles = [space.startWatcher(), space.startProcessor()];
    for (const states of [
      ['loaded', 'loaded'],
      ['loaded', 'loaded', 'unchanged'],
    ]) {
      await utimes(path, new Date(), new Date());
      await eventually(async () => expect((await space.ledger()).map(({ state }) => state).sort()).toEqual(states));
      expect(await counts()).toEqual([3, 1]);
    }
    await space.aggregated();
    await Promise.all(roles.map((role) => role.stop()));
    expect(await verified(space)).toMatchObject({ files: 1, records: 3, differences: 0, failure: '' });
  });
});

describe('while files arrive', async () => {
  // Twice that, and a second, is how long a file may lie there that is not queued.
  const space = await openSpace({ RECONCILE_SECONDS: 10 });

  it('nothing that is under way is taken for wrong, and a sample is smaller than the whole', async () => {
    const roles = [space.startWatcher(), space.startProcessor()];
    const provider = startProvider(space, 'arriving');
    await provider.hasWritten(20);
    for (let round = 0; round < 5; round += 1) {
      await provider.hasWritten(provider.written.length + 5);
      expect(await verified(space)).toMatchObject({ differences: 0, examples: [], failure: '' });
    }
    await provider.stop();
    await space.loaded(provider.written.map(({ name }) => name));
    await Promise.all(roles.map((role) => role.stop()));
    const { files } = await verified(space, { sample: 0.5 });
    expect(files).toBeGreaterThan(0);
    expect(files).toBeLessThan(provider.written.length);
  });
});

describe('on a schedule', async () => {
  const space = await openSpace({ VERIFY_EVERY_SECONDS: 1, VERIFY_SAMPLE: 1 });

  it('a sample is compared, and what differs is shown on the board, in its job and in the metrics', async () => {
    const roles = [space.startWatcher(), space.startProcessor()];
    await space.put('vehicles_events_1.json', events(5, { vehicle_id: 'watched' }));
    await space.loaded(['vehicles_events_1.json']);
    await space.aggregated();
    const wrong = `UPDATE hourly_summary SET event_count = 7 WHERE vehicle_id = 'watched' AND ${DAY} AND hour = 10`;
    const runtime = space.runtime();
    const needs = await openAll(runtime);
    const readSnapshot = createSnapshotReader(needs);
    const newest = await eventually(async () => {
      // A run that makes the hour once more may be under way.
      await space.read(wrong);
      const { redis } = await readSnapshot();
      expect(redis?.verified[0]).toMatchObject({ files: 1, records: 5, days: 1, differences: 1 });
      return readSnapshot();
    });
    expect(renderPage(newest)).toContain('Newest verification');
    const jobs = await needs.verificationQueue.getCompleted();
    const found = jobs.find((job) => job.returnvalue.differences > 0);
    const { logs } = await needs.verificationQueue.getJobLogs(found?.id ?? '');
    expect(logs).toEqual(['2026-11-20 of vehicle watched: not what its rows give: hourly_summary of hour 10']);
    await eventually(async () => {
      const text = await createMetrics(needs, readSnapshot)();
      expect(text).toMatch(/^vehicle_data_verification_differences_total [1-9]/m);
      expect(text).toMatch(/^vehicle_data_verified_files_total [1-9]/m);
    });
    await Promise.all(roles.map((role) => role.stop()));
  });
});

it('of a newest status that was lost, the newest report of the history is written again, whose file may be gone', async () => {
  const own = await openSpace();
  const reports = ['parked', 'driving', 'charging'].map((name, n) =>
    status({ vehicle_id: 'lost', status: name, report_time: `2026-1${n === 0 ? 0 : 1}-20T10:00:0${n}.000001` }),
  );
  const names = reports.map((_, n) => `vehicles_status_${n}.json`);
  for (const [n, name] of names.entries()) await own.put(name, [reports[n]]);
  await settle(own, names);
  for (const name of names.slice(1)) await rm(join(own.config.DATA_DIR, name));
  const newest = () => own.read("SELECT * FROM vehicle_status WHERE vehicle_id = 'lost'");
  const before = await newest();
  await own.read("DELETE FROM vehicle_status WHERE vehicle_id = 'lost'");
  expect(await verified(own, { repair: true })).toMatchObject({ differences: 1, mended: 1, failure: '' });
  expect(await newest()).toEqual(before);
});

it('rows of a version that was never loaded whole are told of, also when another version of the name has superseded it', async () => {
  const own = await openSpace();
  const name = 'vehicles_events_1.json';
  await own.put(name, [event({ vehicle_id: 'left' })]);
  await settle(own, [name]);
  const [first] = await own.ledger();
  const roles = [own.startWatcher(), own.startProcessor()];
  await own.put(name, [event({ vehicle_id: 'right' })]);
  await eventually(async () => expect(await own.ledger()).toHaveLength(2));
  await own.aggregated();
  await Promise.all(roles.map((role) => role.stop()));
  await own.read("UPDATE files SET state = 'superseded' WHERE name = ? AND version = ?", [name, first?.version]);
  const { examples } = await verified(own);
  const what = '2026-11-20 of vehicle left: rows of files that the ledger does not call loaded';
  const stray = { what, problem: name, mended: false };
  expect(examples).toEqual([stray]);
  // The version that is there is but to be loaded once more.
  const second = (await own.ledger()).find(({ version }) => version !== first?.version);
  await own.read("UPDATE files SET state = 'superseded' WHERE name = ? AND version = ?", [name, second?.version]);
  await sleep(3_000);
  const unloaded = { what: name, problem: 'neither loaded nor queued', mended: false };
  expect((await verified(own)).examples).toEqual([unloaded, stray]);
});

describe('times without a zone', async () => {
  const space = await openSpace({ SOURCE_TIME_ZONE: 'America/New_York' });

  it('are in SOURCE_TIME_ZONE, for the rows, the summaries and the verification alike', async () => {
    // Five hours behind UTC; in October still four.
    await space.put('vehicles_events_zone.json', [event({ event_time: '2026-11-20T21:30:00.5' })]);
    await space.put('vehicles_status_zone.json', [status({ report_time: '2026-10-31T23:30:00' })]);
    await settle(space, ['vehicles_events_zone.json', 'vehicles_status_zone.json']);
    expect(await space.read('SELECT day, event_time FROM vehicle_events')).toEqual([
      { day: '2026-11-21', event_time: '2026-11-21T02:30:00.500Z' },
    ]);
    expect(await space.read('SELECT month, report_time FROM vehicle_status_history')).toEqual([
      { month: '2026-11', report_time: '2026-11-01T03:30:00.000Z' },
    ]);
    expect(await space.read('SELECT day, event_count FROM daily_summary')).toEqual([
      { day: '2026-11-21', event_count: 1 },
    ]);
    expect(await verified(space)).toMatchObject({ files: 2, records: 2, differences: 0, failure: '' });
    // It is by the zone that it reads the files as they were loaded.
    expect((await verified(space, {}, { SOURCE_TIME_ZONE: 'UTC' })).differences).toBeGreaterThan(0);
  });
});
