import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rename, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Queue } from 'bullmq';
import { policies, types } from 'cassandra-driver';
import { execa } from 'execa';
import { Redis, type Cluster } from 'ioredis';
import { destination, pino } from 'pino';
import { afterAll, afterEach, expect, inject } from 'vitest';
import { processJobs } from '../../src/commands/process.ts';
import { watch } from '../../src/commands/watch.ts';
import { parseConfig, type Config } from '../../src/config.ts';
import { createShutdown, messageOf, type Runtime } from '../../src/runtime.ts';
import type { Store } from '../../src/storage/client.ts';
import { createClient } from '../../src/storage/driver.ts';
import { migrate } from '../../src/storage/migrations.ts';

const PROGRAM = resolve(import.meta.dirname, '../../bin/pipeline.js');

/** Where the stores are. */
export interface Stores {
  readonly redisUrl: string;
  readonly cassandraPort: number;
  /** Several nodes, where 127.0.0.1 is not the only one. */
  readonly cassandraHosts?: readonly string[];
  /** The tests' own connection, where it takes more than the URL. */
  readonly connectRedis?: () => Redis | Cluster;
}

/** A part of the pipeline that a test started. */
export interface Running {
  stop(): Promise<void>;
}

/** A role in a process of its own. */
export interface Role extends Running {
  readonly pid: number;
  /** What a crash does. Resolves when the process is gone. */
  kill(): Promise<void>;
}

/** A row of the ledger. */
export interface LedgerRow {
  readonly name: string;
  readonly version: string;
  readonly state: string;
  readonly error: string | null;
  readonly records: number;
  readonly loaded: number;
  readonly rejected: number;
  /** ms since the epoch. */
  readonly finishedAt: number;
}

/** A failed job of the dead-letter queue. */
export interface Letter {
  readonly id: string;
  readonly name: string;
  readonly reason: string;
  retry(): Promise<void>;
}

export type QueueName = 'ingest' | 'dead-letter' | 'aggregation' | 'aggregation-slice' | 'verification';

/** A row with plain values: times as ISO texts, days as texts, counts as numbers, maps as objects. */
export type StoredRow = Readonly<Record<string, unknown>>;

/** A keyspace, a queue prefix and a data folder that nobody else uses. */
export interface Space {
  readonly config: Config;
  /** Rows by the tests' own driver, which knows nothing of src. */
  readonly read: (query: string, parameters?: readonly unknown[]) => Promise<StoredRow[]>;
  /** How many rows a table has. */
  count(table: string): Promise<number>;
  ledger(): Promise<LedgerRow[]>;
  letters(): Promise<Letter[]>;
  queue(name: QueueName): Queue<Readonly<Record<string, unknown>>>;
  /**
   * Puts a file into the data folder as a careful provider does: under a temporary name, then renamed.
   *
   * @param content records, or the very text or bytes
   * @param stoodStill whether it looks a minute old, so that what is wrong with it is final at once
   */
  put(name: string, content: string | Buffer | readonly unknown[], options?: { stoodStill?: boolean }): Promise<void>;
  /** What main hands to a command; released with the space. */
  runtime(changes?: Partial<Config>): Runtime & Running;
  /** Starts what `pipeline watch` is, in this process. */
  startWatcher(changes?: Partial<Config>): Running;
  /** Starts what `pipeline process` is, in this process. */
  startProcessor(changes?: Partial<Config>): Running;
  /** Starts a role as a process of its own; `through` is a program, with arguments, that turns into it. */
  startRole(role: string, through?: readonly string[]): Role;
  /** What the roles of that name have printed so far. */
  readonly said: (role: string) => Promise<string>;
  /** Resolves when each of the files is in the ledger as loaded or unchanged. */
  loaded(names: readonly string[], options?: { withinMs?: number }): Promise<void>;
  /** Resolves when the summaries show everything that the ledger says is loaded or dead by now. */
  aggregated(): Promise<void>;
}

function plain(value: unknown): unknown {
  if (value instanceof Date) return value.toISOString();
  if (value instanceof types.LocalDate) return value.toString();
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, held]) => [key, plain(held)]));
  return typeof value === 'bigint' ? Number(value) : value;
}

function plainRow(row: types.Row): StoredRow {
  return Object.fromEntries(row.keys().map((column) => [column, plain(row.get(column))]));
}

/**
 * Waits until an assertion holds. The time runs while others do their work: of one in which this process itself stood
 * still, no more counts than a second.
 */
export async function eventually<T>(assertion: () => Promise<T> | T, { withinMs = 60_000 } = {}): Promise<T> {
  for (let leftMs = withinMs; ;) {
    const began = performance.now();
    try {
      return await assertion();
    } catch (error) {
      if (leftMs <= 0) throw error;
    }
    await sleep(100);
    leftMs -= Math.min(1_000, performance.now() - began);
  }
}

/** A store that calls back once, right after the ledger was first asked for some names. */
export function afterFirstLookUp<Wrapped extends Pick<Store, 'rows'>>(
  store: Wrapped,
  act: () => Promise<unknown>,
): Wrapped {
  let isDone = false;
  const rows: Store['rows'] = async function* (...asked) {
    yield* store.rows(...asked);
    if (isDone || !asked[0].includes('FROM files WHERE name IN')) return;
    isDone = true;
    await act();
  };
  return { ...store, rows };
}

/** The stores that the whole run shares. */
export function sharedStores(): Stores {
  return { redisUrl: inject('redisUrl'), cassandraPort: inject('cassandraPort') };
}

/**
 * Makes a space for the tests of the file or describe block that calls it. When one of them fails, keyspace, data
 * folder and log are kept, and it says where they are.
 */
export async function openSpace(
  overrides: Readonly<Record<string, string | number>> = {},
  stores: Stores = sharedStores(),
): Promise<Space> {
  const id = randomBytes(5).toString('hex');
  const cassandraHosts = [...(stores.cassandraHosts ?? ['127.0.0.1'])];
  const folder = await mkdtemp(join(tmpdir(), `pipeline-${id}-`));
  const environment = Object.fromEntries(
    Object.entries({
      DATA_DIR: join(folder, 'data'),
      REDIS_URL: stores.redisUrl,
      QUEUE_PREFIX: `{test-${id}}`,
      CASSANDRA_CONTACT_POINTS: cassandraHosts.join(),
      CASSANDRA_PORT: stores.cassandraPort,
      CASSANDRA_KEYSPACE: `test_${id}`,
      RECONCILE_SECONDS: 1,
      SETTLE_SECONDS: 1,
      AGGREGATION_EVERY_SECONDS: 1,
      DURABLE_SECONDS: 1,
      ...overrides,
    }).map(([name, value]) => [name, String(value)]),
  );
  const config = parseConfig(environment);
  const logFile = join(folder, 'log');
  const log = pino({ level: 'debug' }, destination({ dest: logFile, sync: true }));
  await mkdir(config.DATA_DIR);
  await eventually(() => migrate(config, log));

  const client = createClient({
    contactPoints: cassandraHosts,
    localDataCenter: 'datacenter1',
    protocolOptions: { port: config.CASSANDRA_PORT },
    keyspace: config.CASSANDRA_KEYSPACE,
    queryOptions: { consistency: types.consistencies.localQuorum },
    socketOptions: { readTimeout: 60_000 },
    encoding: { map: Map, set: Set, useBigIntAsLong: true },
    policies: { reconnection: new policies.reconnection.ConstantReconnectionPolicy(200) },
  });
  // A machine may be slow for a while, and no test of this is lost for it.
  await eventually(() => client.connect());
  const redis = stores.connectRedis?.() ?? new Redis(stores.redisUrl, { maxRetriesPerRequest: null });
  redis.on('error', () => undefined);
  const queues = new Map<QueueName, ReturnType<Space['queue']>>();
  const running: Running[] = [];
  let failed = false;

  afterEach(({ task }) => {
    failed ||= task.result?.state === 'fail' && task.fails !== true;
  });
  afterAll(async () => {
    await Promise.all(running.map((one) => one.stop()));
    await Promise.all([...queues.values()].map((queue) => queue.close()));
    if (failed) console.log(`kept: keyspace ${config.CASSANDRA_KEYSPACE}, data folder and log in ${folder}`);
    else {
      const keys = await redis.keys(`${config.QUEUE_PREFIX}:*`);
      if (keys.length > 0) await redis.unlink(...keys);
      await client.execute(`DROP KEYSPACE ${config.CASSANDRA_KEYSPACE}`);
      await rm(folder, { recursive: true, maxRetries: 10 });
    }
    redis.disconnect();
    await client.shutdown();
  });

  async function read(query: string, parameters: readonly unknown[] = []): Promise<StoredRow[]> {
    const rows: StoredRow[] = [];
    const result = await client.execute(query, [...parameters], { prepare: true, fetchSize: 2_000 });
    for await (const row of result) rows.push(plainRow(row));
    return rows;
  }

  async function ledger(): Promise<LedgerRow[]> {
    const rows = await read('SELECT * FROM files');
    return rows.map((row) => ({
      name: String(row['name']),
      version: String(row['version']),
      state: String(row['state']),
      error: typeof row['error'] === 'string' ? row['error'] : null,
      records: Number(row['records']),
      loaded: Number(row['loaded']),
      rejected: Number(row['rejected']),
      finishedAt: Date.parse(String(row['finished_at'])),
    }));
  }

  function queue(name: QueueName): ReturnType<Space['queue']> {
    const known = queues.get(name);
    if (known !== undefined) return known;
    const opened: ReturnType<Space['queue']> = new Queue(name, { connection: redis, prefix: config.QUEUE_PREFIX });
    // A lost connection is what some tests are about.
    opened.on('error', () => undefined);
    queues.set(name, opened);
    return opened;
  }

  function runtime(changes: Partial<Config> = {}): Runtime & Running {
    const shutdown = createShutdown(log);
    const opened = {
      config: { ...config, ...changes },
      log,
      shutdown,
      stop: async () => {
        shutdown.request();
        await shutdown.release();
      },
    };
    running.push(opened);
    return opened;
  }

  function startHere(command: (needs: Runtime) => Promise<void>, changes?: Partial<Config>): Running {
    const opened = runtime(changes);
    // A store that stands still as it is connected to ends a role, and whoever keeps the role starts it again.
    const isWorthIt = (error: unknown) => !opened.shutdown.signal.aborted && /does not answer/.test(messageOf(error));
    const start = async (triesLeft: number): Promise<void> =>
      command(opened).catch((error: unknown) => {
        if (triesLeft === 0 || !isWorthIt(error)) throw error;
        return start(triesLeft - 1);
      });
    const done = start(5);
    // Reported by stop(), and not as a rejection that nobody handled.
    done.catch((error: unknown) => log.fatal({ err: error }, 'the command failed'));
    const started = {
      // As main does: what a command has opened is released once it has ended, also when it was still starting.
      stop: async () => {
        opened.shutdown.request();
        try {
          await done;
        } finally {
          await opened.stop();
        }
      },
    };
    running.push(started);
    return started;
  }

  function startRole(role: string, through: readonly string[] = []): Role {
    // By the first line of the program, which tells Node how much memory it may take.
    const child = execa('env', [...through, PROGRAM, role], {
      // Not in the repository, whose .env is not the tests'.
      cwd: folder,
      env: { ...environment, LOG_LEVEL: 'debug', LOG_FORMAT: 'json' },
      stdin: 'ignore',
      stdout: { file: `${logFile}.${role}`, append: true },
      stderr: { file: `${logFile}.${role}`, append: true },
      reject: false,
    });
    const end = async (signal: NodeJS.Signals) => {
      child.kill(signal);
      await child;
    };
    const started = { pid: child.pid ?? 0, stop: () => end('SIGTERM'), kill: () => end('SIGKILL') };
    running.push(started);
    return started;
  }

  return {
    config,
    read,
    count: async (table) => {
      const [row] = await read(`SELECT count(*) AS n FROM ${table}`);
      return Number(row?.['n']);
    },
    ledger,
    letters: async () => {
      const jobs = await queue('dead-letter').getFailed();
      return jobs.map((job) => ({
        id: job.id ?? '',
        name: String(job.data['name']),
        reason: job.failedReason,
        retry: () => job.retry(),
      }));
    },
    queue,
    put: async (name, content, { stoodStill = false } = {}) => {
      const path = join(config.DATA_DIR, name);
      await mkdir(dirname(path), { recursive: true });
      const isText = typeof content === 'string' || Buffer.isBuffer(content);
      await writeFile(`${path}.tmp`, isText ? content : JSON.stringify(content, null, 4));
      const minuteAgo = Date.now() / 1_000 - 60;
      if (stoodStill) await utimes(`${path}.tmp`, minuteAgo, minuteAgo);
      await rename(`${path}.tmp`, path);
    },
    runtime,
    startWatcher: (changes) => startHere(watch, changes),
    startProcessor: (changes) => startHere(processJobs, changes),
    startRole,
    said: (role) => readFile(`${logFile}.${role}`, 'utf8').catch(() => ''),
    loaded: async (names, options) => {
      await eventually(async () => {
        const done = (await ledger()).filter(({ state }) => state === 'loaded' || state === 'unchanged');
        const have = new Set(done.map(({ name }) => name));
        expect(names.filter((name) => !have.has(name))).toEqual([]);
      }, options);
    },
    aggregated: async () => {
      const until = Math.max(0, ...(await ledger()).map(({ finishedAt }) => finishedAt));
      await eventually(async () => {
        const [state] = await read('SELECT watermark FROM aggregation_state');
        expect(Date.parse(String(state?.['watermark']))).toBeGreaterThanOrEqual(until);
      });
    },
  };
}

/** The provider's real files, by name. */
export async function fixture(name: string): Promise<Buffer> {
  return readFile(resolve(import.meta.dirname, '../fixtures', name));
}
