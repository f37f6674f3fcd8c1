import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import type { Logger } from 'pino';
import { UsageError, type Config } from '../config.ts';

const PREFLIGHT_MS = 5_000;

/** A checked connection, with the prefix of every key that the queues use in it. */
export type QueueConnection = Awaited<ReturnType<typeof connectQueues>>;

/**
 * Connects to Redis and checks that it is fit for queues. Commands wait while the connection is lost later.
 *
 * @throws UsageError when Redis does not answer within five seconds, refuses the login, or may evict keys
 */
export async function connectQueues(config: Config, log: Logger) {
  const { REDIS_URL: url = 'redis://127.0.0.1:6379', REDIS_TLS_CA_FILE: caFile, QUEUE_PREFIX: prefix } = config;
  const { hostname, port } = new URL(url);
  const address = `${hostname}:${port || '6379'}`;
  const connection = new Redis(url, {
    lazyConnect: true,
    maxRetriesPerRequest: null,
    connectTimeout: PREFLIGHT_MS,
    retryStrategy: (times) => Math.min(times * 100, 1_000),
    ...(caFile !== undefined && { tls: { ca: readFileSync(caFile) } }),
  });
  // What connecting rejects with says no more than that the connection is closed.
  let refusal: Error | undefined;
  connection.on('error', (error: Error) => (refusal = error));
  try {
    const info = await Promise.race([
      connection.connect().then(() => connection.info()),
      sleep(PREFLIGHT_MS, undefined, { ref: false }),
    ]);
    if (info === undefined) throw new Error('no answer in five seconds');
    const policy = /^maxmemory_policy:([\w-]+)/m.exec(info)?.[1] ?? 'noeviction';
    if (policy !== 'noeviction')
      throw new UsageError(`Redis evicts keys (${policy}), queued files too: set maxmemory-policy to noeviction.`);
    if (info.includes('aof_enabled:0'))
      log.warn('redis has no append-only file: after a crash of it, reconciliation has to queue the files again');
  } catch (error) {
    connection.disconnect();
    if (error instanceof UsageError) throw error;
    const reason = String(refusal ?? error).replace(/^\w*Error: /, '');
    const [problem, cure] = /WRONGPASS|NOAUTH|NOPERM/.test(reason)
      ? ['refuses the login', 'Check the user and password in REDIS_URL.']
      : ['does not answer', 'Start one with `npx pipeline services`, or set REDIS_URL to one that runs.'];
    throw new UsageError(`Redis at ${address} ${problem} (${reason}). ${cure}`);
  }
  const warnOnce = () => connection.once('reconnecting', () => log.warn({ address }, 'redis is away'));
  warnOnce();
  connection.on('ready', () => {
    log.info({ address }, 'redis is back');
    warnOnce();
  });
  return { connection, prefix, close: () => connection.disconnect() };
}
