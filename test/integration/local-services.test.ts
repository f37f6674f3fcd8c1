import { once } from 'node:events';
import { chmod, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { getPriority, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Client } from 'cassandra-driver';
import { execa } from 'execa';
import { Redis } from 'ioredis';
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { parseConfig } from '../../src/config.ts';
import { findCassandraJars, startCassandra } from '../../src/local/cassandra.ts';
import { fetchLibraries } from '../../src/local/maven.ts';
import { freePort } from '../../src/local/ports.ts';
import { findRedisBinary, startRedis } from '../../src/local/redis.ts';
import { findLocalServices, findServer } from '../../src/local/find.ts';
import type { LocalServer } from '../../src/local/server.ts';
import { startLocalServices } from '../../src/local/services.ts';
import { createLog } from '../../src/log.ts';
import { createShutdown } from '../../src/runtime.ts';
import { quietPort } from '../stores.ts';

const LIB = resolve(import.meta.dirname, '../../.local/lib');

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'local-services-'));
  // After what else a test leaves to this: what is registered first is done last.
  onTestFinished(() => rm(folder, { recursive: true, force: true, maxRetries: 10 }));
});

/** A dead process whose new parent has not taken notice yet (state Z) does not count. */
async function isAlive(pid: number): Promise<boolean> {
  const { stdout } = await execa('ps', ['-o', 'stat=', '-p', String(pid)], { reject: false });
  return stdout !== '' && !stdout.startsWith('Z');
}

function stopAfterTest<T extends LocalServer>(server: T): T {
  onTestFinished(() => server.kill());
  return server;
}

async function redisIn(directory: string, more: { args?: string[] } = {}) {
  const binary = await findRedisBinary(LIB);
  return stopAfterTest(await startRedis({ binary, directory, port: await freePort(0), ...more }));
}

async function cassandraIn(directory: string) {
  const jars = await findCassandraJars(LIB);
  return stopAfterTest(await startCassandra({ jars, directory, port: await freePort(0), heapMb: 512 }));
}

async function withRedis<T>(url: string, use: (redis: Redis) => Promise<T>): Promise<T> {
  const redis = new Redis(url);
  try {
    return await use(redis);
  } finally {
    redis.disconnect();
  }
}

async function query(node: { host: string; port: number; datacenter: string }, ...statements: string[]) {
  const client = new Client({
    contactPoints: [node.host],
    protocolOptions: { port: node.port },
    localDataCenter: node.datacenter,
  });
  try {
    let rows: unknown[] = [];
    for (const statement of statements) rows = [...(await client.execute(statement))];
    return rows;
  } finally {
    await client.shutdown();
  }
}

async function takePort(): Promise<{ port: number; server: Server }> {
  const port = await quietPort();
  const server = createServer().listen(port, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  return { port, server };
}

/** A PATH with nothing but the given tools. */
async function usePath(...tools: string[]): Promise<void> {
  for (const tool of tools) {
    const { stdout } = await execa('which', [tool]);
    await symlink(stdout, join(folder, tool));
  }
  vi.stubEnv('PATH', folder);
  onTestFinished(() => {
    vi.unstubAllEnvs();
  });
}

describe('a local Redis', () => {
  it('keeps what was written over a stop and a start, and over being killed', async () => {
    const first = await redisIn(folder);
    await withRedis(first.url, (redis) => redis.set('stopped', 'yes'));
    await first.stop();
    expect(await isAlive(first.pid)).toBe(false);

    const second = await redisIn(folder);
    expect(await withRedis(second.url, (redis) => redis.get('stopped'))).toBe('yes');
    await withRedis(second.url, (redis) => redis.set('killed', 'yes'));
    await second.kill();

    const third = await redisIn(folder);
    expect(await withRedis(third.url, (redis) => redis.get('killed'))).toBe('yes');
  });

  it('never evicts, has an append-only file and takes further settings', async () => {
    const server = await redisIn(folder, { args: ['--maxmemory', '64mb'] });
    const setting = (name: string) => withRedis(server.url, async (redis) => redis.config('GET', name));
    expect(await setting('maxmemory-policy')).toEqual(['maxmemory-policy', 'noeviction']);
    expect(await setting('appendonly')).toEqual(['appendonly', 'yes']);
    expect(await setting('bind')).toEqual(['bind', '127.0.0.1']);
    expect(await setting('maxmemory')).toEqual(['maxmemory', String(64 * 1024 ** 2)]);
  });

  it('that a killed start has left behind is stopped by the next start', async () => {
    const script = `
      const { startRedis } = await import(${JSON.stringify(resolve('src/local/redis.ts'))});
      await startRedis(${JSON.stringify({ binary: await findRedisBinary(LIB), directory: folder, port: await freePort(0) })});
      process.kill(process.pid, 'SIGKILL');`;
    await execa(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], { reject: false });
    const left = await findServer(folder);
    expect(await isAlive(left?.pid ?? 0)).toBe(true);
    // Another process has the number of the killed one by now.
    await writeFile(join(folder, 'server.json'), JSON.stringify({ ...left, owner: process.ppid }));

    const next = await redisIn(folder);
    expect(await isAlive(left?.pid ?? 0)).toBe(false);
    expect(await findServer(folder)).toMatchObject({ pid: next.pid, owner: process.pid });
  });

  it('refuses a folder that a living process uses', async () => {
    await redisIn(folder);
    await expect(redisIn(folder)).rejects.toThrow(
      /Redis already runs on .*: stop process \d+, or set another LOCAL_DIR/,
    );
  });

  it('says why it does not start', async () => {
    await expect(redisIn(folder, { args: ['--no-such-option', 'x'] })).rejects.toThrow(
      /Redis ended \(exit code 1\); the last it said, in .*console\.log:[^]*no-such-option/,
    );
    expect(await findServer(folder)).toBeUndefined();
  });
});

describe('a local Cassandra', () => {
  it('keeps acknowledged rows over a stop, which takes less than five seconds, and a start', async () => {
    const startedAt = performance.now();
    const first = await cassandraIn(folder);
    const tookMs = performance.now() - startedAt;
    const insert = Array.from({ length: 200 }, (_, n) => `INSERT INTO kept.rows (n) VALUES (${n})`);
    await query(
      first,
      `CREATE KEYSPACE kept WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}`,
      'CREATE TABLE kept.rows (n int PRIMARY KEY)',
      ...insert,
    );
    const since = performance.now();
    await first.stop();
    // Where a start takes longer than ten, so may a stop.
    expect(performance.now() - since).toBeLessThan(Math.max(5_000, tookMs / 2));
    expect(await isAlive(first.pid)).toBe(false);

    const second = await cassandraIn(folder);
    expect(await query(second, 'SELECT n FROM kept.rows')).toHaveLength(200);
    expect(await readFile(join(folder, 'console.log'), 'utf8')).toContain('Startup complete');
  });

  it('gives way to other processes', async () => {
    const { pid } = await cassandraIn(folder);
    expect(getPriority(pid)).toBe(Math.min(getPriority() + 5, 19));
    // The session counts where sessions share the processor; other systems know of no such thing.
    const session = await readFile(`/proc/${pid}/autogroup`, 'utf8').catch(() => 'nice 5\n');
    expect(session).toMatch(/nice 5$/m);
  });

  it('says why it does not start', async () => {
    const { port } = await takePort();
    const jars = await findCassandraJars(LIB);
    await expect(startCassandra({ jars, directory: folder, port, heapMb: 512 })).rejects.toThrow(
      /Cassandra ended \(exit code \d+\); the last it said, in .*console\.log:[^]*in use/,
    );
  });
});

describe('the local stores together', () => {
  /** Starts them with a port of Cassandra's that may be taken; the jars are there already. */
  async function startBoth(environment: Record<string, string> = {}) {
    await symlink(LIB, join(folder, 'lib'));
    const config = parseConfig({
      LOCAL_DIR: folder,
      LOCAL_REDIS_PORT: '0',
      LOCAL_CASSANDRA_PORT: '0',
      LOG_LEVEL: 'silent',
      ...environment,
    });
    const shutdown = createShutdown(createLog(config, 'test'));
    onTestFinished(() => shutdown.release());
    const said = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
    onTestFinished(() => said.mockRestore());
    const started = startLocalServices(config, shutdown);
    return { started, shutdown, said: () => said.mock.calls.join('\n') };
  }

  it('are found by other processes while they run, and listen on the next port where one is taken', async () => {
    const { port } = await takePort();
    const { started, shutdown, said } = await startBoth({ LOCAL_CASSANDRA_PORT: String(port) });
    await started;
    const found = await findLocalServices(folder);
    const chosen = found.CASSANDRA_PORT ?? 0;
    expect(chosen).toBeGreaterThan(port);
    expect(said()).toContain(`Cassandra answers on 127.0.0.1:${chosen}, as port ${port} is taken`);
    await query({ host: '127.0.0.1', port: chosen, datacenter: 'datacenter1' }, 'SELECT now() FROM system.local');
    expect(await withRedis(found.REDIS_URL ?? '', (redis) => redis.ping())).toBe('PONG');
    await shutdown.release();
    expect(await findLocalServices(folder)).toEqual({});
  });

  it('are not started where the environment points to others', async () => {
    const others = { REDIS_URL: 'redis://redis.example.com', CASSANDRA_CONTACT_POINTS: 'cassandra.example.com' };
    const { started } = await startBoth(others);
    await started;
    expect(await findLocalServices(folder)).toEqual({});
  });

  it('leave nothing running when one of them cannot start', async () => {
    await writeFile(join(folder, 'redis'), 'in the way of the folder');
    const { started, shutdown } = await startBoth();
    await expect(started).rejects.toThrow('EEXIST');
    await shutdown.release();
    expect(await findLocalServices(folder)).toEqual({});
  });

  it('are cut short by the wish to stop, and leave nothing running', async () => {
    const { started, shutdown } = await startBoth({ REDIS_URL: 'redis://redis.example.com' });
    const refused = expect(started).rejects.toThrow('abort');
    await vi.waitUntil(async () => (await findLocalServices(folder)).CASSANDRA_PORT, { timeout: 120_000 });
    shutdown.request();
    await refused;
    expect(await findLocalServices(folder)).toEqual({});
  });
});

describe('a missing tool is one sentence that says what to install, and the compose way', () => {
  it('java', async () => {
    await usePath('mvn');
    await expect(findCassandraJars(join(folder, 'lib'))).rejects.toThrow(
      /^The local stores need java, which is not on the PATH\. Install a JDK 17 and Maven .*docker compose --profile demo up\.$/,
    );
  });

  it('mvn', async () => {
    await usePath('java');
    await expect(findCassandraJars(join(folder, 'lib'))).rejects.toThrow(
      /^The local stores need mvn, which is not on the PATH\. Install .*docker compose --profile demo up\.$/,
    );
  });
});

it('an mvn that fails gives its reason in the sentence, and leaves nothing behind', async () => {
  const mvn = join(folder, 'mvn');
  await writeFile(
    mvn,
    `#!/bin/sh
mkdir -p "${folder}/lib"; echo "[INFO] resolving"; echo "[ERROR] Unknown host repo.example.com"; exit 1
`,
  );
  await chmod(mvn, 0o755);
  vi.stubEnv('PATH', `${folder}:${process.env['PATH'] ?? ''}`);
  onTestFinished(() => void vi.unstubAllEnvs());
  await expect(fetchLibraries(join(folder, 'lib'))).rejects.toThrow(
    /^The local stores need mvn, which failed: \[ERROR\] Unknown host repo\.example\.com\. Install /,
  );
  expect(await readdir(join(folder, 'lib'))).toEqual([]);
});

it('libraries that several processes fetch at once arrive whole, once', async () => {
  const [one, other] = await Promise.all([fetchLibraries(folder), fetchLibraries(folder)]);
  expect(one).toBe(other);
  expect(await readdir(folder)).toHaveLength(1);
  const files = await readdir(one);
  expect(files).toContain('cassandra-all-5.0.6.jar');
  expect(files.filter((file) => file.startsWith('redis-server-')).length).toBeGreaterThan(1);
});
