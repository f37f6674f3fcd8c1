import { mkdir, readdir, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { findCassandraJars, startCassandra } from '../src/local/cassandra.ts';
import { freePort } from '../src/local/ports.ts';
import { findRedisBinary, startRedis } from '../src/local/redis.ts';
import { findServer } from '../src/local/find.ts';

const LOCAL = resolve(import.meta.dirname, '../.local');
/** Where a local start keeps what it has fetched; the benchmarks use the same. */
export const LIBRARIES = join(LOCAL, 'lib');

/**
 * What a server that runs for days is given: the collector and the compiler that pay off after minutes, and memory.
 * Every measurement and its baseline use the same Cassandra, warmed up first.
 */
const LONG_RUN = ['-XX:-UseSerialGC', '-XX:+UseG1GC', '-XX:TieredStopAtLevel=4', '-Xms2048M'];

/** The servers of one run of the benchmarks, and their process ids. */
export interface Stores {
  readonly redisUrl: string;
  readonly redisPid: number;
  readonly cassandraPort: number;
  readonly cassandraPid: number;
  /** A folder for the files of the measurements, on the disk that the stores use. */
  readonly scratch: string;
  stop(): Promise<void>;
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

/** An empty folder for this run; those of runs that were killed go, with the servers that they have left running. */
async function claimFolder(): Promise<string> {
  for (const name of await readdir(LOCAL).catch(() => [])) {
    const owner = Number(/^bench-(\d+)$/.exec(name)?.[1]);
    if (!owner || isAlive(owner)) continue;
    for (const store of ['redis', 'cassandra', 'start/redis', 'start/cassandra']) {
      const left = await findServer(join(LOCAL, name, store));
      if (left !== undefined) process.kill(left.pid, 'SIGKILL');
    }
    await rm(join(LOCAL, name), { recursive: true, force: true, maxRetries: 10 });
  }
  return join(LOCAL, `bench-${process.pid}`);
}

/** Starts one Redis and one Cassandra that all measurements and their baselines share. */
export async function startStores(): Promise<Stores> {
  const jars = await findCassandraJars(LIBRARIES);
  const binary = await findRedisBinary(LIBRARIES);
  const folder = await claimFolder();
  const scratch = join(folder, 'scratch');
  await mkdir(scratch, { recursive: true });
  const redis = await startRedis({ binary, directory: join(folder, 'redis'), port: await freePort(0) });
  const stop = async (...servers: { stop(): Promise<void> }[]) => {
    await Promise.all(servers.map((server) => server.stop()));
    await rm(folder, { recursive: true, force: true, maxRetries: 10 });
  };
  try {
    const cassandra = await startCassandra({
      jars,
      directory: join(folder, 'cassandra'),
      port: await freePort(0),
      heapMb: 2_048,
      // Keyspaces come and go here; a snapshot of each would fill the disk.
      settings: { auto_snapshot: false },
      flags: LONG_RUN,
    });
    return {
      redisUrl: redis.url,
      redisPid: redis.pid,
      cassandraPort: cassandra.port,
      cassandraPid: cassandra.pid,
      scratch,
      stop: () => stop(redis, cassandra),
    };
  } catch (error) {
    await stop(redis);
    throw error;
  }
}
