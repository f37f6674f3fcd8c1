import { readdir, rm } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { TestProject } from 'vitest/node';
import { findCassandraJars, startCassandra } from '../src/local/cassandra.ts';
import { freePort } from '../src/local/ports.ts';
import { findRedisBinary, startRedis } from '../src/local/redis.ts';
import { findServer } from '../src/local/find.ts';
import { PATIENT } from './stores.ts';

declare module 'vitest' {
  interface ProvidedContext {
    redisUrl: string;
    cassandraHost: string;
    cassandraPort: number;
    cassandraDatacenter: string;
  }
}

const LOCAL = resolve(import.meta.dirname, '../.local');

/** An empty folder for this run's stores; those of runs that were killed go, with what they have left running. */
async function claimFolder(): Promise<string> {
  for (const name of await readdir(LOCAL).catch(() => [])) {
    const owner = Number(/^test-(\d+)$/.exec(name)?.[1]);
    if (!owner || isAlive(owner)) continue;
    for (const store of ['redis', 'cassandra']) {
      const left = await findServer(`${LOCAL}/${name}/${store}`);
      if (left !== undefined) process.kill(left.pid, 'SIGKILL');
    }
    await rm(`${LOCAL}/${name}`, { recursive: true, force: true, maxRetries: 10 });
  }
  return `${LOCAL}/test-${process.pid}`;
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

/** One empty Redis and one empty Cassandra for the whole run; every test has a keyspace and a prefix of its own. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const jars = await findCassandraJars(`${LOCAL}/lib`);
  const binary = await findRedisBinary(`${LOCAL}/lib`);
  const folder = await claimFolder();
  const redis = await startRedis({ binary, directory: `${folder}/redis`, port: await freePort(0) });
  const cassandra = await startCassandra({
    jars,
    directory: `${folder}/cassandra`,
    port: await freePort(0),
    heapMb: 768,
    settings: {
      // Tests make and drop many tables: without a snapshot of each dropped one, and with system tables that are not
      // flushed at every change, twelve tables take 0.2 s rather than 0.8 s, dropping them 0.3 s rather than 0.4 s.
      auto_snapshot: false,
      commitlog_sync_period: '10s',
      ...PATIENT,
    },
    flags: ['-Dcassandra.unsafesystem=true'],
  }).catch(async (error: unknown) => {
    await redis.kill();
    throw error;
  });
  // When the run is interrupted, the teardown is not called.
  const killBoth = () => [redis.pid, cassandra.pid].forEach((pid) => process.kill(pid, 'SIGKILL'));
  process.once('exit', killBoth);

  project.provide('redisUrl', redis.url);
  project.provide('cassandraHost', cassandra.host);
  project.provide('cassandraPort', cassandra.port);
  project.provide('cassandraDatacenter', cassandra.datacenter);
  return async () => {
    process.off('exit', killBoth);
    await Promise.all([redis.kill(), cassandra.kill()]);
    await rm(folder, { recursive: true, force: true });
  };
}
