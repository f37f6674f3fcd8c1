import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { execa } from 'execa';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { openStore } from '../../src/commands/connect.ts';
import { doctor } from '../../src/commands/doctor.ts';
import type { Config } from '../../src/config.ts';
import { freePort } from '../../src/local/ports.ts';
import { findRedisBinary, startRedis } from '../../src/local/redis.ts';
import { openQueues } from '../../src/queues/open.ts';
import { migrate } from '../../src/storage/migrations.ts';
import { eventually, openSpace } from './pipeline.ts';

const ROOT = resolve(import.meta.dirname, '../..');

interface Line {
  readonly check: string;
  readonly state: string;
  readonly found: string;
  readonly advice: string;
}

const space = await openSpace();

/** Runs `pipeline doctor --json`, and returns its lines and what it failed with. */
async function lookedAt(changes: Partial<Config> = {}) {
  const printed: string[] = [];
  const print = vi.spyOn(process.stdout, 'write').mockImplementation((text) => printed.push(String(text)) > 0);
  let failure = '';
  try {
    await doctor(space.runtime(changes), { json: true });
  } catch (error) {
    failure = error instanceof Error ? error.message : String(error);
  } finally {
    print.mockRestore();
  }
  const lines = JSON.parse(printed.join('')) as Line[];
  return { lines, failure, line: (check: string) => lines.find((one) => one.check === check) };
}

/** A Redis of the test's own. */
async function ownRedis(...args: string[]): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'doctor-redis-'));
  const binary = await findRedisBinary(join(ROOT, '.local/lib'));
  const redis = await startRedis({ binary, directory, port: await freePort(0), args });
  onTestFinished(async () => {
    await redis.kill();
    await rm(directory, { recursive: true, force: true });
  });
  return redis.url;
}

/** A keyspace with so many copies on the one node that there is. */
async function keyspaceWith(copies: number): Promise<Partial<Config>> {
  const keyspace = `${space.config.CASSANDRA_KEYSPACE}_${copies}`;
  const replication = `{'class': 'NetworkTopologyStrategy', 'datacenter1': ${copies}}`;
  await space.read(`CREATE KEYSPACE ${keyspace} WITH replication = ${replication}`);
  onTestFinished(async () => {
    await space.read(`DROP KEYSPACE ${keyspace}`);
  });
  return { CASSANDRA_KEYSPACE: keyspace };
}

describe('pipeline doctor', () => {
  it('finds the stores of the tests fit, and says what it found of each', async () => {
    // Where this process stands still meanwhile, a clock looks wrong.
    const lines = await eventually(async () => {
      const looked = await lookedAt();
      expect(looked.failure).toBe('');
      const isWrong = ({ state, check }: Line) => state !== 'ok' && !/^(Node|Replication|Free disk)$/.test(check);
      expect(looked.lines.filter(isWrong)).toEqual([]);
      return looked.lines;
    });
    const isSupported = !process.version.startsWith('v20.');
    expect(lines[0]).toMatchObject({ found: process.versions.node, state: isSupported ? 'ok' : 'warn' });
    expect(lines.map(({ check }) => check)).toEqual([
      'Node',
      ...['Redis version', 'Redis append-only file', 'Redis eviction', 'Redis memory', 'Redis clock'],
      ...['Cassandra version', 'Cassandra clock', 'Replication', 'Schema'],
      ...['DATA_DIR', 'File system', 'Free disk', 'Folders', 'inotify'],
    ]);
    expect(lines.find(({ check }) => check === 'Replication')).toMatchObject({
      state: 'warn',
      found: '1 copies on 1 node(s) of datacenter1, consistency LOCAL_QUORUM',
    });
  });

  it('finds a Redis that evicts keys, keeps no append-only file and is nearly full', async () => {
    const url = await ownRedis('--maxmemory-policy', 'allkeys-lru', '--appendonly', 'no', '--maxmemory', '1mb');
    const { line, failure } = await lookedAt({ REDIS_URL: url });
    expect(line('Redis eviction')).toMatchObject({ state: 'wrong', found: 'allkeys-lru' });
    expect(line('Redis append-only file')).toMatchObject({ state: 'warn', found: 'off' });
    expect(line('Redis memory')?.state).toMatch(/warn|wrong/);
    expect(line('Redis version')?.state).toBe('ok');
    expect(failure).toMatch(/^\d of \d+ checks found something wrong\.$/);
    // And everybody else refuses it.
    await expect(openQueues(space.runtime({ REDIS_URL: url }))).rejects.toThrow(
      'Redis evicts keys (allkeys-lru), queued files too: set maxmemory-policy to noeviction.',
    );
  });

  it('names the datacenters that there are, where another is set', async () => {
    await expect(openStore(space.runtime({ CASSANDRA_LOCAL_DATACENTER: 'elsewhere' }))).rejects.toThrow(
      / answers, but .*elsewhere.*\[datacenter1\]: set CASSANDRA_LOCAL_DATACENTER to one of these\.$/,
    );
  });

  it('looks at the rest when the stores are away, and says so without a stack trace', async () => {
    const { stdout, stderr, exitCode } = await execa(process.execPath, [join(ROOT, 'bin/pipeline.js'), 'doctor'], {
      cwd: tmpdir(),
      env: {
        REDIS_URL: `redis://127.0.0.1:${await freePort(0)}`,
        CASSANDRA_CONTACT_POINTS: '127.0.0.1',
        CASSANDRA_PORT: String(await freePort(0)),
        DATA_DIR: space.config.DATA_DIR,
      },
      reject: false,
    });
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/^2 of \d+ checks found something wrong\.$/);
    expect(stdout).toMatch(/^wrong +Redis +Redis at 127.0.0.1:\d+ does not answer .* Start one with/m);
    expect(stdout).toMatch(/^wrong +Cassandra +Cassandra at 127.0.0.1 port \d+ does not answer .* Start one with/m);
    expect(stdout).toMatch(/^ok +DATA_DIR /m);
    expect(stdout + stderr).not.toMatch(/^ +at /m);
  });

  it('finds fewer nodes than the consistency needs, and no tables', async () => {
    const { line } = await lookedAt(await keyspaceWith(3));
    expect(line('Replication')).toMatchObject({
      state: 'wrong',
      advice: expect.stringMatching(/^LOCAL_QUORUM needs 2 nodes/) as string,
    });
    expect(line('Schema')).toMatchObject({ state: 'wrong', advice: 'Run `npx pipeline migrate`.' });
  });

  it('is what migrate names when too few nodes are up', async () => {
    const runtime = space.runtime({
      CASSANDRA_KEYSPACE: `${space.config.CASSANDRA_KEYSPACE}_rf3`,
      CASSANDRA_REPLICATION_FACTOR: 3,
    });
    onTestFinished(async () => {
      await space.read(`DROP KEYSPACE IF EXISTS ${runtime.config.CASSANDRA_KEYSPACE}`);
      await runtime.stop();
    });
    await expect(migrate(runtime.config, runtime.log)).rejects.toThrow(/^Too few nodes of Cassandra are up .*doctor/);
  });

  it('finds a consistency that may not read what was written', async () => {
    const { line } = await lookedAt({ ...(await keyspaceWith(2)), CASSANDRA_CONSISTENCY: 'LOCAL_ONE' });
    expect(line('Replication')).toMatchObject({
      state: 'wrong',
      advice: expect.stringMatching(/LOCAL_QUORUM: reads may miss/) as string,
    });
  });

  it('finds a keyspace that is not there', async () => {
    const { line } = await lookedAt({ CASSANDRA_KEYSPACE: 'nothing' });
    expect(line('Keyspace')).toMatchObject({ state: 'wrong', found: 'no nothing' });
  });

  it('finds tables of a newer program', async () => {
    await space.read("INSERT INTO schema_migrations (version, description) VALUES (99, 'later')");
    onTestFinished(async () => {
      await space.read('DELETE FROM schema_migrations WHERE version = 99');
    });
    const { line } = await lookedAt();
    expect(line('Schema')).toMatchObject({ state: 'warn', found: expect.stringMatching(/^version 99, /) as string });
  });

  it('counts folders for inotify, not files, and not those that are not watched', async () => {
    const folder = join(space.config.DATA_DIR, 'counted');
    for (const path of ['a/b', '.hidden/c']) await mkdir(join(folder, path), { recursive: true });
    await mkdir(join(space.config.DATA_DIR, 'archive/d'), { recursive: true });
    await space.put('counted/a/vehicles_events_1.json', []);
    const { line } = await lookedAt();
    expect(line('inotify')?.found).toMatch(/^4 folder\(s\) to watch, \d+ watches at most/);
  });

  it('finds a data folder that is not there, and one that cannot be entered', async () => {
    const missing = await lookedAt({ DATA_DIR: '/nowhere/at/all' });
    expect(missing.line('DATA_DIR')).toMatchObject({ state: 'warn', found: '/nowhere/at/all is not there' });
    // Not even root can enter a file.
    const closed = await lookedAt({ DATA_DIR: import.meta.filename });
    expect(closed.line('DATA_DIR')).toMatchObject({
      state: 'wrong',
      found: expect.stringMatching(/: no reading/) as string,
    });
    expect(closed.line('inotify')).toBeUndefined();
  });
});
