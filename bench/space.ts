import { randomBytes } from 'node:crypto';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Queue } from 'bullmq';
import { Client } from 'cassandra-driver';
import { execa } from 'execa';
import { Redis } from 'ioredis';
import { pino } from 'pino';
import { parseConfig, type Config } from '../src/config.ts';
import { migrate } from '../src/storage/migrations.ts';
import type { Stores } from './stores.ts';

const PROGRAM = resolve(import.meta.dirname, '../bin/pipeline.js');
/** What a role logs when it works. */
const READY: Readonly<Record<string, string>> = { process: 'processing jobs', watch: 'watching for files' };

/** A role in a process of its own. */
export interface Role {
  readonly pid: number;
  /** Everything that it has logged so far. */
  log(): Promise<string>;
  /** Resolves when it has logged that it works. */
  ready(): Promise<void>;
  stop(): Promise<void>;
}

export type Space = Awaited<ReturnType<typeof openSpace>>;

/** Asks until the condition holds. @throws Error when it does not in time */
export async function until(
  what: string,
  condition: () => Promise<boolean> | boolean,
  { everyMs = 20, withinMs = 600_000 } = {},
): Promise<void> {
  const deadline = performance.now() + withinMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`waited ${withinMs} ms in vain: ${what}`);
    await sleep(everyMs);
  }
}

/** A driver without the pipeline's settings, for baselines and for looking at results. */
export function bareClient(port: number, keyspace: string): Client {
  return new Client({
    contactPoints: ['127.0.0.1'],
    localDataCenter: 'datacenter1',
    protocolOptions: { port },
    keyspace,
    encoding: { map: Map, set: Set, useBigIntAsLong: true },
    socketOptions: { readTimeout: 120_000 },
  });
}

/** A keyspace with the pipeline's tables, a prefix of queues and a data folder, for one measurement. */
export async function openSpace(stores: Stores, changes: Readonly<Record<string, string | number>> = {}) {
  const id = randomBytes(5).toString('hex');
  const folder = join(stores.scratch, id);
  const environment = Object.fromEntries(
    Object.entries({
      DATA_DIR: join(folder, 'data'),
      REDIS_URL: stores.redisUrl,
      QUEUE_PREFIX: `{bench-${id}}`,
      CASSANDRA_CONTACT_POINTS: '127.0.0.1',
      CASSANDRA_PORT: stores.cassandraPort,
      CASSANDRA_KEYSPACE: `bench_${id}`,
      LOG_FORMAT: 'json',
      ...changes,
    }).map(([name, value]) => [name, String(value)]),
  );
  const config: Config = parseConfig(environment);
  await mkdir(config.DATA_DIR, { recursive: true });
  await migrate({ ...config, CASSANDRA_PORT: stores.cassandraPort }, pino({ level: 'silent' }));
  const client = bareClient(stores.cassandraPort, config.CASSANDRA_KEYSPACE);
  await client.connect();
  const redis = new Redis(stores.redisUrl, { maxRetriesPerRequest: null });
  const ingest = new Queue('ingest', { connection: redis, prefix: config.QUEUE_PREFIX });
  const roles: Role[] = [];
  let started = 0;

  /** @param args of Node itself, which is at the path `node` */
  function startRole(role: string, args: readonly string[] = [], node = process.execPath): Role {
    started += 1;
    const path = join(folder, `${role}-${started}.log`);
    const child = execa(node, ['--max-semi-space-size=16', ...args, PROGRAM, role], {
      // Not in the repository, whose .env is not meant here.
      cwd: folder,
      env: environment,
      stdin: 'ignore',
      stdout: { file: path, append: true },
      stderr: { file: path, append: true },
      reject: false,
    });
    const log = () => readFile(path, 'utf8').catch(() => '');
    const opened: Role = {
      pid: child.pid ?? 0,
      log,
      ready: () =>
        until(`\`pipeline ${role}\` works`, async () => {
          if (child.exitCode !== null) throw new Error(`\`pipeline ${role}\` ended: ${await log()}`);
          return (await log()).includes(READY[role] ?? '');
        }),
      stop: async () => {
        child.kill('SIGTERM');
        await child;
      },
    };
    roles.push(opened);
    return opened;
  }

  return {
    config,
    environment,
    folder,
    client,
    redis,
    ingest,
    startRole,
    /** Files that wait for a processor or are with one. */
    unfinished: () => ingest.getJobCountByTypes('waiting', 'prioritized', 'delayed', 'active'),
    /** Runs a command to its end. @returns what it printed */
    run: async (...args: string[]): Promise<string> =>
      (await execa(process.execPath, [PROGRAM, ...args], { cwd: folder, env: environment, stdin: 'ignore' })).stdout,
    /** Stops the roles; keyspace, keys and files go. */
    close: async (): Promise<void> => {
      await Promise.all(roles.map((role) => role.stop()));
      await ingest.close();
      const keys = await redis.keys(`${config.QUEUE_PREFIX}:*`);
      for (let first = 0; first < keys.length; first += 1_000) await redis.unlink(...keys.slice(first, first + 1_000));
      redis.disconnect();
      await client.execute(`DROP KEYSPACE ${config.CASSANDRA_KEYSPACE}`, [], { readTimeout: 120_000 });
      await client.shutdown();
      await rm(folder, { recursive: true, force: true, maxRetries: 10 });
    },
  };
}
