import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Client, policies, types } from 'cassandra-driver';
import { afterAll, expect, inject, it } from 'vitest';
import { findCassandraJars, startCassandra } from '../../src/local/cassandra.ts';
import { eventually, openSpace } from '../integration/pipeline.ts';
import { expectAllLoaded, startProvider, type ProvidedFile } from '../integration/provider.ts';
import { quietPort } from '../stores.ts';

const LIB = resolve(import.meta.dirname, '../../.local/lib');
const HOSTS = ['127.0.0.11', '127.0.0.12', '127.0.0.13'];
const [SEED = ''] = HOSTS;

/** A cluster of three nodes, each on a loopback address of its own. */
async function startCluster() {
  const folder = await mkdtemp(join(tmpdir(), 'nodes-'));
  const jars = await findCassandraJars(LIB);
  const [port, storagePort] = [await quietPort(SEED), await quietPort(SEED)];
  const nodes = new Map<string, Awaited<ReturnType<typeof startCassandra>>>();
  const end = async () => {
    await Promise.all([...nodes.values()].map((node) => node.kill()));
    await rm(folder, { recursive: true, maxRetries: 10 });
  };
  afterAll(end);
  /** Where a test file cannot even be set up, no hook of it is called. */
  const orEnd = async <T>(setUp: Promise<T>): Promise<T> => {
    try {
      return await setUp;
    } catch (error) {
      await end();
      throw error;
    }
  };
  const seed_provider = [
    {
      class_name: 'org.apache.cassandra.locator.SimpleSeedProvider',
      parameters: [{ seeds: `${SEED}:${storagePort}` }],
    },
  ];
  async function start(host: string): Promise<void> {
    const addresses = { listen_address: host, rpc_address: host, storage_port: storagePort, seed_provider };
    const settings = { ...addresses, num_tokens: 1, auto_snapshot: false };
    nodes.set(host, await startCassandra({ jars, directory: join(folder, host), port, heapMb: 512, settings }));
  }
  // One after the other: two that join at once may choose the same place in the ring.
  for (const host of HOSTS) await orEnd(start(host));
  return { port, start, orEnd, kill: async (host: string) => nodes.get(host)?.kill() };
}

const cluster = await startCluster();

/** Resolves when each node, asked alone, can read from all three. */
async function allAreBack(keyspace: string): Promise<void> {
  const { AllowListPolicy, RoundRobinPolicy } = policies.loadBalancing;
  for (const host of HOSTS) {
    const client = new Client({
      contactPoints: [host],
      localDataCenter: 'datacenter1',
      protocolOptions: { port: cluster.port },
      policies: { loadBalancing: new AllowListPolicy(new RoundRobinPolicy(), [`${host}:${cluster.port}`]) },
      queryOptions: { consistency: types.consistencies.all },
      keyspace,
    });
    await eventually(() => client.execute('SELECT name FROM files LIMIT 1'));
    await client.shutdown();
  }
}

const space = await cluster.orEnd(
  openSpace(
    { CASSANDRA_REPLICATION_FACTOR: 3, CASSANDRA_CONSISTENCY: 'LOCAL_QUORUM', INGEST_ATTEMPTS: 1 },
    { redisUrl: inject('redisUrl'), cassandraPort: cluster.port, cassandraHosts: HOSTS },
  ),
);
space.startRole('watch');
space.startRole('process');
const provided: ProvidedFile[] = [];

it.each(HOSTS)(
  'node %s is killed while files arrive, and comes back: none fails, all are loaded once',
  async (host) => {
    const provider = startProvider(space, host);
    await provider.hasWritten(20);
    await space.loaded([`vehicles_events_${host}_0.json`]);
    await cluster.kill(host);
    const files = provider.written.length;
    await provider.hasWritten(files + 60);
    // Two nodes are enough to go on.
    await space.loaded([`vehicles_events_${host}_${files + 40}.json`]);
    await cluster.start(host);
    await allAreBack(space.config.CASSANDRA_KEYSPACE);
    await provider.stop();
    provided.push(...provider.written);
    await expectAllLoaded(space, provided);
    expect(await space.queue('ingest').getFailedCount()).toBe(0);
  },
);
