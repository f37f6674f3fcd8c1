import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { findCassandraJars, startCassandra } from '../../src/local/cassandra.ts';
import { freePort } from '../../src/local/ports.ts';
import type { Figures, Measurement } from '../measurement.ts';
import { createProvider } from '../provider.ts';
import { partitionsOf, writePartitions } from '../rows.ts';
import { openSpace } from '../space.ts';
import { LIBRARIES, type Stores } from '../stores.ts';
import { providerOf } from './drain.ts';

const TABLES = ['vehicle_events', 'vehicle_status_history'];

async function bytesBelow(folder: string): Promise<number> {
  const names = await readdir(folder, { recursive: true });
  const sizes = await Promise.all(names.map(async (name) => (await stat(join(folder, name))).size));
  return sizes.reduce((sum, size) => sum + size, 0);
}

/** Rows go into a Cassandra of their own, which writes them to disk when it stops. */
async function measureStorage(stores: Stores, round: number, pairs: number): Promise<{ figures: Figures }> {
  const directory = join(stores.scratch, `storage-${round}`);
  const jars = await findCassandraJars(LIBRARIES);
  const server = await startCassandra({ jars, directory, port: await freePort(0) });
  try {
    const space = await openSpace({ ...stores, cassandraPort: server.port });
    const provider = providerOf(round);
    await writePartitions(space.client, partitionsOf(createProvider(provider).pairs(pairs)));
    const { config } = space;
    await space.client.shutdown();
    await space.ingest.close();
    space.redis.disconnect();
    await server.stop();
    const keyspace = join(directory, 'data', config.CASSANDRA_KEYSPACE);
    const folders = await readdir(keyspace);
    const figures: Record<string, number> = {};
    for (const table of TABLES) {
      const folder = folders.find((name) => name.startsWith(`${table}-`)) ?? '';
      figures[`a row of ${table} on disk, bytes`] =
        (await bytesBelow(join(keyspace, folder))) / (pairs * provider.records);
    }
    return { figures };
  } finally {
    await server.stop();
  }
}

export const storage: Measurement = {
  name: 'storage',
  about: 'what rows take on disk, compressed, on one node',
  plan: (stores, options) => ({
    contenders: [{ name: 'Cassandra', run: (round) => measureStorage(stores, round, options.quick ? 300 : 2_000) }],
    warmUps: 0,
    rounds: 1,
  }),
};
