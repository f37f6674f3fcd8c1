import { EventEmitter } from 'node:events';
import { createWriteStream } from 'node:fs';
import { appendFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Queue } from 'bullmq';
import { policies, types } from 'cassandra-driver';
import { execa } from 'execa';
import { Redis } from 'ioredis';
import { findCassandraJars, startCassandra } from '../../src/local/cassandra.ts';
import { findRedisBinary, startRedis } from '../../src/local/redis.ts';
import { createClient } from '../../src/storage/driver.ts';
import { quietPort } from '../stores.ts';
import { startProxy } from './proxy.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const PROGRAM = join(ROOT, 'bin/pipeline.js');
const LIBRARIES = join(ROOT, '.local/lib');
const KEYSPACE = 'torture';
const PREFIX = '{torture}';
const RESTART_AFTER_MS = 300;
/** A store that was killed is back within this time. */
const PATIENCE_MS = 60_000;

/** What the pipeline under test is told, beside where everything is: small times, so that rounds are short. */
const SETTINGS = {
  AFTER_LOAD: 'archive',
  DURABLE_SECONDS: '5',
  RECONCILE_SECONDS: '1',
  SETTLE_SECONDS: '2',
  AGGREGATION_EVERY_SECONDS: '1',
  INGEST_ATTEMPTS: '3',
  LOG_LEVEL: 'debug',
  LOG_FORMAT: 'json',
};

/** A row with plain values: times as ISO texts, days as texts, counts as numbers, maps as objects. */
export type StoredRow = Readonly<Record<string, unknown>>;
export type RoleName = 'watch' | 'process-1' | 'process-2' | 'board';
export const PROCESSORS = ['process-1', 'process-2'] as const;
export const ROLES = ['watch', ...PROCESSORS, 'board'] as const;

/** A role in a process of its own, started again whenever it ends, as a service manager does. */
export interface Role {
  readonly pid: number;
  /** How often it was started. */
  readonly starts: number;
  signal(signal: NodeJS.Signals): void;
  /** Ends it with the signal and resolves when it was started again. */
  restart(signal: NodeJS.Signals): Promise<void>;
  stop(): Promise<void>;
}

/** The stores, the proxies before them and every role; the tests' own look at the stores goes past the proxies. */
export type Rig = Awaited<ReturnType<typeof startRig>>;

function plain(value: unknown): unknown {
  if (value instanceof Date) return value.toISOString();
  if (value instanceof types.LocalDate) return value.toString();
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, held]) => [key, plain(held)]));
  return typeof value === 'bigint' ? Number(value) : value;
}

function superviseRole(name: RoleName, cwd: string, env: Readonly<Record<string, string>>): Role {
  const log = join(cwd, `log.${name}`);
  const [command = ''] = name.split('-');
  const output = { file: log, append: true };
  const options = { cwd, env, stdin: 'ignore', stdout: output, stderr: output, reject: false } as const;
  const launch = () => execa(process.execPath, [PROGRAM, command], options);
  let child: ReturnType<typeof launch> | undefined;
  let stopping = false;
  let starts = 0;
  async function keepRunning(): Promise<void> {
    while (!stopping) {
      await appendFile(log, `--- start at ${new Date().toISOString()}\n`);
      child = launch();
      starts += 1;
      const { signal, exitCode } = await child;
      await appendFile(log, `--- ended by ${signal ?? exitCode} at ${new Date().toISOString()}\n`);
      await sleep(RESTART_AFTER_MS);
    }
  }
  const running = keepRunning();
  return {
    get pid() {
      return child?.pid ?? 0;
    },
    get starts() {
      return starts;
    },
    signal: (signal) => void child?.kill(signal),
    restart: async (signal) => {
      const before = starts;
      child?.kill(signal);
      while (starts === before) await sleep(20);
    },
    stop: async () => {
      stopping = true;
      child?.kill('SIGCONT');
      child?.kill('SIGTERM');
      await running;
    },
  };
}

// Each request that waits for a store that is away listens for its return.
EventEmitter.defaultMaxListeners = 1_000;

/** Starts everything in `folder`: real stores on free ports, with what they would have in production on disk. */
export async function startRig(folder: string) {
  const control = join(folder, 'control');
  const data = join(folder, 'data');
  await Promise.all([control, data].map((path) => mkdir(path, { recursive: true })));
  const binary = await findRedisBinary(LIBRARIES);
  const jars = await findCassandraJars(LIBRARIES);
  const [redisPort, cassandraPort] = [await quietPort(), await quietPort()];
  const startOwnRedis = () => startRedis({ binary, directory: join(folder, 'redis'), port: redisPort });
  const startOwnCassandra = () =>
    startCassandra({
      jars,
      directory: join(folder, 'cassandra'),
      port: cassandraPort,
      heapMb: 512,
      // Compressed, the commit log is in memory until it is synced: a kill takes all that was acknowledged since.
      settings: {
        auto_snapshot: false,
        commitlog_sync: 'periodic',
        commitlog_sync_period: '2s',
        commitlog_compression: [{ class_name: 'LZ4Compressor' }],
      },
    });
  let redisServer = await startOwnRedis();
  let cassandraServer = await startOwnCassandra();
  const killStores = () => [redisServer.pid, cassandraServer.pid].forEach((pid) => process.kill(pid, 'SIGKILL'));
  process.once('exit', killStores);
  const proxies = { redis: await startProxy(redisPort), cassandra: await startProxy(cassandraPort) };

  const environment = {
    ...SETTINGS,
    DATA_DIR: data,
    REDIS_URL: `redis://127.0.0.1:${proxies.redis.port}`,
    QUEUE_PREFIX: PREFIX,
    CASSANDRA_CONTACT_POINTS: '127.0.0.1',
    CASSANDRA_PORT: String(proxies.cassandra.port),
    CASSANDRA_KEYSPACE: KEYSPACE,
    BOARD_PORT: String(await quietPort()),
    TORTURE_CONTROL: control,
  };
  await execa(process.execPath, [PROGRAM, 'migrate'], { cwd: folder, env: environment });
  const client = createClient({
    contactPoints: [`127.0.0.1:${cassandraPort}`],
    localDataCenter: 'datacenter1',
    keyspace: KEYSPACE,
    encoding: { map: Map, set: Set, useBigIntAsLong: true },
    policies: { reconnection: new policies.reconnection.ConstantReconnectionPolicy(100) },
  });
  await client.connect();
  const redis = new Redis(`redis://127.0.0.1:${redisPort}`, { maxRetriesPerRequest: null });
  redis.on('error', () => undefined);
  const queueOf = (name: string) => {
    const queue = new Queue<Record<string, unknown>>(name, { connection: redis, prefix: PREFIX });
    // A lost connection is what this is about.
    return queue.on('error', () => undefined);
  };
  const queues = {
    ingest: queueOf('ingest'),
    deadLetter: queueOf('dead-letter'),
    aggregation: queueOf('aggregation'),
    slices: queueOf('aggregation-slice'),
  };
  const preload = `--import=${join(import.meta.dirname, 'failpoints.js')}`;
  const startRole = (name: RoleName) =>
    superviseRole(name, folder, { ...environment, NODE_OPTIONS: preload, TORTURE_ROLE: name });
  const roles = Object.fromEntries(ROLES.map((name) => [name, startRole(name)])) as Record<RoleName, Role>;
  const journal = createWriteStream(join(folder, 'journal'), { flags: 'a' });

  return {
    folder,
    data,
    boardUrl: `http://127.0.0.1:${environment.BOARD_PORT}`,
    proxies,
    redis,
    queues,
    roles,
    /** Rows by the tests' own connection; while Cassandra is away it asks again. */
    read: async (query: string, parameters: readonly unknown[] = []): Promise<StoredRow[]> => {
      const until = Date.now() + PATIENCE_MS;
      for (;;) {
        try {
          const rows: StoredRow[] = [];
          for await (const row of await client.execute(query, [...parameters], { prepare: true, fetchSize: 5_000 }))
            rows.push(Object.fromEntries(row.keys().map((column) => [column, plain(row.get(column))])));
          return rows;
        } catch (error) {
          if (Date.now() > until) throw error;
          await sleep(100);
        }
      }
    },
    killRedis: () => redisServer.kill(),
    startRedis: async () => void (redisServer = await startOwnRedis()),
    killCassandra: () => cassandraServer.kill(),
    startCassandra: async () => void (cassandraServer = await startOwnCassandra()),
    /** Tells the preloaded failpoints something; without a text it is taken back. */
    tell: (file: string, text?: string) =>
      text === undefined ? rm(join(control, file), { force: true }) : writeFile(join(control, file), text),
    told: (file: string) => readFile(join(control, file), 'utf8').catch(() => ''),
    /** Writes down what the suite did, for whoever looks for the cause of a failure. */
    note: (text: string) => void journal.write(`${new Date().toISOString()} ${text}\n`),
    close: async () => {
      await Promise.all(Object.values(roles).map((role) => role.stop()));
      await Promise.all(Object.values(queues).map((queue) => queue.close()));
      redis.disconnect();
      await client.shutdown();
      Object.values(proxies).forEach((proxy) => proxy.close());
      process.off('exit', killStores);
      await Promise.all([redisServer.kill(), cassandraServer.kill()]);
      journal.end();
    },
  };
}
