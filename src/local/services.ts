import { join } from 'node:path';
import { z } from 'zod';
import type { Config } from '../config.ts';
import type { Progress } from '../progress.ts';
import { findCassandraJars, startCassandra } from './cassandra.ts';
import { freePort } from './ports.ts';
import { findRedisBinary, startRedis } from './redis.ts';
import { findServer, type LocalServer } from './server.ts';

const redisSchema = z.object({ url: z.string() });
const cassandraSchema = z.object({ contactPoint: z.string(), port: z.int(), datacenter: z.string() });

/** Where the local stores listen; a part is missing when that store does not run here. */
export interface LocalServices {
  readonly redisUrl?: string;
  readonly cassandra?: z.infer<typeof cassandraSchema>;
}

const redisDirectory = (localDir: string) => join(localDir, 'redis');
const cassandraDirectory = (localDir: string) => join(localDir, 'cassandra');

/** The local stores that run now, whichever process started them; undefined when there are none. */
export async function findLocalServices(localDir: string): Promise<LocalServices | undefined> {
  const [redis, cassandra] = await Promise.all([
    findServer(redisDirectory(localDir)),
    findServer(cassandraDirectory(localDir)),
  ]);
  const redisUrl = redisSchema.safeParse(redis?.address).data?.url;
  const node = cassandraSchema.safeParse(cassandra?.address).data;
  if (redisUrl === undefined && node === undefined) return undefined;
  return {
    ...(redisUrl === undefined ? {} : { redisUrl }),
    ...(node === undefined ? {} : { cassandra: node }),
  };
}

/** The port to listen on: the wanted one, or the next free one, which is said. */
async function choosePort(
  wanted: number,
  name: string,
  variable: string,
  progress: Progress,
): Promise<number> {
  const port = await freePort(wanted);
  if (wanted !== 0 && port !== wanted) {
    progress.say(
      `Port ${wanted} is taken, so the local ${name} listens on ${port} (${variable} sets another).`,
    );
  }
  return port;
}

interface Started {
  readonly server?: LocalServer;
  readonly environment: Record<string, string>;
}

/** A store that another living process runs on the same folder is shared. */
async function localRedis({ config, progress, signal }: LocalServicesOptions): Promise<Started> {
  const directory = redisDirectory(config.LOCAL_DIR);
  const shared = await findServer(directory);
  const known = shared?.inUse === true ? redisSchema.safeParse(shared.address).data : undefined;
  if (known !== undefined) return { environment: { REDIS_URL: known.url } };

  const server = await progress.step(
    'Redis starts',
    async () => {
      const binary = await findRedisBinary(join(config.LOCAL_DIR, 'lib'), signal);
      const port = await choosePort(config.LOCAL_REDIS_PORT, 'Redis', 'LOCAL_REDIS_PORT', progress);
      return startRedis({ binary, directory, port, signal });
    },
    ({ host, port }) => `Redis answers on ${host}:${port}`,
  );
  return { server, environment: { REDIS_URL: server.url } };
}

async function localCassandra({ config, progress, signal }: LocalServicesOptions): Promise<Started> {
  const directory = cassandraDirectory(config.LOCAL_DIR);
  const shared = await findServer(directory);
  const known = shared?.inUse === true ? cassandraSchema.safeParse(shared.address).data : undefined;
  if (known !== undefined) return { environment: cassandraEnvironment(known) };

  const server = await progress.step(
    'Cassandra starts (the first time, Maven fetches it: 66 MB)',
    async () => {
      const jars = await findCassandraJars(join(config.LOCAL_DIR, 'lib'), signal);
      const port = await choosePort(
        config.LOCAL_CASSANDRA_PORT,
        'Cassandra',
        'LOCAL_CASSANDRA_PORT',
        progress,
      );
      return startCassandra({ jars, directory, port, signal });
    },
    ({ host, port }) => `Cassandra answers on ${host}:${port}`,
  );
  return {
    server,
    environment: cassandraEnvironment({
      contactPoint: server.host,
      port: server.port,
      datacenter: server.datacenter,
    }),
  };
}

function cassandraEnvironment(address: z.infer<typeof cassandraSchema>): Record<string, string> {
  return {
    CASSANDRA_CONTACT_POINTS: address.contactPoint,
    CASSANDRA_PORT: String(address.port),
    CASSANDRA_LOCAL_DATACENTER: address.datacenter,
  };
}

export interface LocalServicesOptions {
  readonly config: Pick<
    Config,
    'LOCAL_DIR' | 'LOCAL_REDIS_PORT' | 'LOCAL_CASSANDRA_PORT' | 'REDIS_URL' | 'CASSANDRA_CONTACT_POINTS'
  >;
  readonly progress: Progress;
  readonly signal: AbortSignal;
}

/**
 * Starts, side by side, the stores that the environment does not point to.
 *
 * @returns the variables that lead other processes to them, and `died`, which resolves with a sentence when one ends
 * unasked
 * @throws UsageError when one cannot be started; nothing is left running then
 */
export async function startLocalServices(options: LocalServicesOptions) {
  const { REDIS_URL, CASSANDRA_CONTACT_POINTS } = options.config;
  const results = await Promise.allSettled([
    ...(REDIS_URL === undefined ? [localRedis(options)] : []),
    ...(CASSANDRA_CONTACT_POINTS === undefined ? [localCassandra(options)] : []),
  ]);
  const started = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
  const servers = started.flatMap(({ server }) => (server === undefined ? [] : [server]));
  const stop = async () => {
    await Promise.all(servers.map((server) => server.stop()));
  };
  const failure = results.find((result) => result.status === 'rejected');
  if (failure !== undefined) {
    await stop();
    throw failure.reason;
  }
  return {
    environment: Object.assign({}, ...started.map(({ environment }) => environment)) as Record<
      string,
      string
    >,
    died: Promise.race([new Promise<string>(() => undefined), ...servers.map(({ exited }) => exited)]),
    stop,
  };
}
