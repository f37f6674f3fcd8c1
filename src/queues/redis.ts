import { readFileSync } from 'node:fs';
import { Redis } from 'ioredis';
import type { Logger } from 'pino';
import { UsageError, type Config } from '../config.ts';

const PREFLIGHT_MS = 5_000;
const RECONNECT_MS = 1_000;

/** A checked connection, with the prefix of every key that the queues use in it. */
export interface QueueConnection {
  readonly connection: Redis;
  readonly prefix: string;
  readonly close: () => void;
}

/** The address without its user and password. */
export function redisAddress(url: string): string {
  const { hostname, port } = new URL(url);
  return `${hostname}:${port || '6379'}`;
}

/**
 * Connects to Redis and checks that it is fit for queues: it answers, it keeps all keys (noeviction), it has an
 * append-only file. Later losses of the connection are mended by reconnecting; commands wait meanwhile.
 *
 * @throws UsageError when it does not answer within five seconds, refuses the login, or may evict keys
 */
export async function connectQueues(
  config: Pick<Config, 'REDIS_TLS_CA_FILE' | 'QUEUE_PREFIX'> & { readonly REDIS_URL?: string | undefined },
  log: Logger,
): Promise<QueueConnection> {
  const url = config.REDIS_URL ?? 'redis://127.0.0.1:6379';
  const connection = new Redis(url, {
    lazyConnect: true,
    maxRetriesPerRequest: null,
    connectTimeout: PREFLIGHT_MS,
    retryStrategy: (times) => Math.min(times * 100, RECONNECT_MS),
    ...(config.REDIS_TLS_CA_FILE === undefined ? {} : { tls: { ca: readFileSync(config.REDIS_TLS_CA_FILE) } }),
  });
  const address = redisAddress(url);
  let lastError: Error | undefined;
  let lost = false;
  connection.on('error', (error: Error) => {
    lastError = error;
    if (!lost && connection.status !== 'connecting') log.warn({ address, reason: error.message }, 'redis is away');
    lost = true;
  });
  connection.on('ready', () => {
    if (lost) log.info({ address }, 'redis is back');
    lost = false;
  });

  const late = AbortSignal.timeout(PREFLIGHT_MS);
  const timedOut = new Promise<never>((_, reject) => {
    late.addEventListener('abort', () => reject(lastError ?? new Error('no answer in five seconds')), { once: true });
  });
  try {
    await Promise.race([preflight(connection, log), timedOut]);
  } catch (error) {
    connection.disconnect();
    if (error instanceof UsageError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new UsageError(
      /WRONGPASS|NOAUTH|NOPERM/.test(reason)
        ? `Redis at ${address} refuses the login (${reason}): check the user and password in REDIS_URL.`
        : `Redis at ${address} does not answer (${reason || 'connection refused'}). Start one with ` +
            '`npx pipeline services`, or set REDIS_URL to one that runs.',
    );
  }
  return {
    connection,
    prefix: config.QUEUE_PREFIX,
    close: () => {
      connection.disconnect();
    },
  };
}

async function preflight(connection: Redis, log: Logger): Promise<void> {
  await connection.connect();
  const info = await connection.info();
  const field = (name: string) => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1];
  const policy = field('maxmemory_policy');
  if (policy !== undefined && policy !== 'noeviction') {
    throw new UsageError(
      `Redis has the eviction policy ${policy} and may drop queued files: set maxmemory-policy to noeviction.`,
    );
  }
  if (field('aof_enabled') === '0') {
    log.warn('redis has no append-only file: after a crash of it, reconciliation has to queue the files again');
  }
}
