import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { UsageError, type Config } from '../config.ts';
import { messageOf, type Shutdown } from '../runtime.ts';
import { step } from '../terminal.ts';
import { findCassandraJars, startCassandra } from './cassandra.ts';
import { freePort } from './ports.ts';
import { findRedisBinary, startRedis } from './redis.ts';
import { endLeftover, type LocalServer, type Place } from './server.ts';

/** Ends what a start that was killed has left running, which has the ports. @throws UsageError when its owner lives */
export async function endLeftovers({ LOCAL_DIR, CASSANDRA_CONTACT_POINTS, REDIS_URL }: Config): Promise<void> {
  if (CASSANDRA_CONTACT_POINTS === undefined) await endLeftover('Cassandra', join(LOCAL_DIR, 'cassandra'));
  if (REDIS_URL === undefined) await endLeftover('Redis', join(LOCAL_DIR, 'redis'));
}

/**
 * Starts the stores that the environment does not point to; `shutdown` stops them.
 *
 * @returns `died`, which rejects with a UsageError when one has ended
 */
export async function startLocalServices(config: Config, shutdown: Shutdown) {
  const { signal } = shutdown;
  const lib = join(config.LOCAL_DIR, 'lib');
  const ends: Promise<string>[] = [];
  await mkdir(lib, { recursive: true }).catch((error: unknown) => {
    throw new UsageError(`LOCAL_DIR cannot be used (${messageOf(error)}): name a folder that this user may write.`);
  });

  async function run(name: string, wanted: number, start: (place: Place) => Promise<LocalServer>): Promise<void> {
    const directory = join(config.LOCAL_DIR, name.toLowerCase());
    const server = await step(
      `${name} starts (the first time, Maven fetches 95 MB for both)`,
      async () => start({ directory, port: await freePort(wanted), signal }),
      ({ host, port }) =>
        `${name} answers on ${host}:${port}${port > wanted && wanted > 0 ? `, as port ${wanted} is taken` : ''}`,
    );
    shutdown.defer(`local ${name}`, server.stop);
    ends.push(server.exited);
  }

  if (config.CASSANDRA_CONTACT_POINTS === undefined)
    await run('Cassandra', config.LOCAL_CASSANDRA_PORT, async (place) =>
      startCassandra({ ...place, jars: await findCassandraJars(lib, signal) }),
    );
  if (config.REDIS_URL === undefined)
    await run('Redis', config.LOCAL_REDIS_PORT, async (place) =>
      startRedis({ ...place, binary: await findRedisBinary(lib, signal) }),
    );
  const died = Promise.race(ends).then((how): never => {
    throw new UsageError(`${how}; its logs are under ${config.LOCAL_DIR}.`);
  });
  // Whoever waits for it is told; it may be that nobody does yet.
  died.catch(() => undefined);
  return { died };
}
