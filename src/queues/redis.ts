import { readFileSync } from 'node:fs';
import { Cluster, Redis } from 'ioredis';
import type { Logger } from 'pino';
import { UsageError, type Config } from '../config.ts';
import { within } from '../runtime.ts';
import { parseRedisUrl } from './redis-url.ts';

const PREFLIGHT_MS = 5_000;
/**
 * A server that hangs, or that the network has swallowed, is left after this long; commands of BullMQ block for ten
 * seconds. (ioredis has a detector of failovers, too. One that it sees while connecting ends the connection for good.)
 */
const NO_ANSWER_MS = 15_000;

/** A checked connection, with the prefix of every key that the queues use in it. */
export type QueueConnection = Awaited<ReturnType<typeof connectQueues>>;

/** Not connected yet. Commands wait while the connection is lost, and go to the primary that takes over. */
function openConnection(address: ReturnType<typeof parseRedisUrl>, caFile?: string): Redis | Cluster {
  const { kind, nodes, isTls, primary, database: db, username, password, sentinelLogin } = address;
  const tls = isTls && caFile !== undefined ? { ca: readFileSync(caFile) } : {};
  const retryStrategy = (times: number) => Math.min(times * 100, 1_000);
  const options = {
    lazyConnect: true,
    maxRetriesPerRequest: null,
    // To name the library takes a right that Redis 7.0 does not know.
    disableClientInfo: true,
    // A little more, as the preflight has more to say.
    connectTimeout: PREFLIGHT_MS + 1_000,
    socketTimeout: NO_ANSWER_MS,
    retryStrategy,
    username,
    password,
    db,
    ...(isTls && { tls }),
  };
  if (kind === 'cluster')
    return new Cluster(nodes, {
      lazyConnect: true,
      clusterRetryStrategy: retryStrategy,
      // The names in a certificate are those of the nodes, not their numbers.
      dnsLookup: (name, found) => found(null, name),
      redisOptions: options,
    });
  if (kind === 'single') return new Redis({ ...options, ...nodes[0] });
  return new Redis({
    ...options,
    sentinels: nodes,
    name: primary,
    sentinelUsername: sentinelLogin.get('sentinel_username') ?? '',
    sentinelPassword: sentinelLogin.get('sentinel_password') ?? '',
    enableTLSForSentinelMode: isTls,
    ...(isTls && { sentinelTLS: tls }),
    sentinelRetryStrategy: retryStrategy,
  });
}

/**
 * Why Redis does not let the user work, without doing anything: what is queued in a transaction is checked against the
 * user's rights, and the transaction is discarded.
 */
async function missingRights(connection: Redis | Cluster, prefix: string): Promise<string> {
  const key = `${prefix}:rights`;
  const wanted = [
    ['hgetall', key],
    ['hset', key, 'a', 'b'],
    ['bzpopmin', key, 1],
    ['evalsha', 'a', 1, key],
  ];
  const commands = [['multi'], ...wanted, ['client', 'list'], ['discard']];
  const results = await connection.pipeline(commands.map((command) => ['call', ...command])).exec();
  return [...new Set(results?.map(([error]) => /^NOPERM (.*)/.exec(error?.message ?? '')?.[1]))]
    .filter(Boolean)
    .join('; ');
}

/** What is wrong, by what Redis or the network says, and how to mend it. */
const PROBLEMS: readonly (readonly [RegExp, string, string])[] = [
  [/WRONGPASS|NOAUTH/, 'refuses the login', 'Check the user and password in REDIS_URL.'],
  [/NOPERM/, 'does not let this user work', 'Give it the rule of docs/operations.md.'],
  [/certificate|self-signed|altnames/, 'is not trusted', 'Set REDIS_TLS_CA_FILE to what signed its certificate.'],
  [/invalid reply/, 'knows no primary of that name', 'Check the name at the end of REDIS_URL.'],
  [
    /wrong version number|packet length too long/,
    'does not encrypt',
    'Let REDIS_URL begin with redis://, or let it encrypt.',
  ],
  [/^no answer .* TLS/, 'does not answer', 'If it does not encrypt, let REDIS_URL begin with redis://.'],
  [/^/, 'does not answer', 'Start one with `npx pipeline services`, or set REDIS_URL to one that runs.'],
];

/**
 * Connects to Redis and checks that it is fit for queues. Commands wait while the connection is lost later.
 *
 * @throws UsageError when Redis does not answer within five seconds, refuses the login, withholds rights that the queues
 *   need, or may evict keys (unless `mayEvict`, for who only looks)
 */
export async function connectQueues(config: Config, log: Logger, mayEvict = false) {
  const { REDIS_URL: url, REDIS_TLS_CA_FILE: caFile, QUEUE_PREFIX: prefix, LOCAL_DIR } = config;
  // Whatever listens on the usual port may be of others.
  if (url === undefined)
    throw new UsageError(
      `No Redis runs that was started in ${LOCAL_DIR}: start one with \`npx pipeline services\`, or set REDIS_URL.`,
    );
  const target = parseRedisUrl(url);
  const address = target.nodes.map(({ host, port }) => `${host}:${port}`).join(', ');
  const connection = openConnection(target, caFile);
  // What connecting rejects with says no more than that the connection is closed, or that nobody answers.
  let refusal: Error | undefined;
  const onRefusal = (error: Error & { lastNodeError?: Error }) => (refusal ??= error.lastNodeError ?? error);
  connection.on('error', onRefusal).on('sentinelError', onRefusal);
  const inspect = async () => {
    // While a primary is being replaced, it is worth to go on trying.
    await connection.connect().catch((error: unknown) => {
      if (target.kind === 'single') throw error;
    });
    const nodes = connection instanceof Cluster ? connection.nodes('master') : [connection];
    const infos = await Promise.all(nodes.map((node) => node.info()));
    return { infos, missing: await missingRights(connection, prefix) };
  };
  let infos: readonly string[];
  try {
    const inspected = await within(PREFLIGHT_MS, inspect(), undefined);
    if (inspected === undefined) throw new Error(`no answer in five seconds${target.isTls ? ', by TLS' : ''}`);
    infos = inspected.infos;
    if (inspected.missing !== '') throw new Error(`NOPERM: ${inspected.missing}`);
    const info = infos.join('');
    const policy = /^maxmemory_policy:(?!noeviction)([\w-]+)/m.exec(info)?.[1];
    if (policy !== undefined && !mayEvict)
      throw new UsageError(`Redis evicts keys (${policy}), queued files too: set maxmemory-policy to noeviction.`);
    if (info.includes('aof_enabled:0'))
      log.warn('redis has no append-only file: after a crash of it, reconciliation has to queue the files again');
  } catch (error) {
    connection.disconnect();
    if (error instanceof UsageError) throw error;
    const reason = String(refusal ?? error).replace(/^\w*Error: /, '');
    const [, problem = '', cure = ''] = PROBLEMS.find(([pattern]) => pattern.test(reason)) ?? [];
    throw new UsageError(`Redis at ${address} ${problem} (${reason}). ${cure}`);
  }
  const warnOnce = () => connection.once('reconnecting', () => log.warn({ address }, 'redis is away'));
  warnOnce();
  connection.on('ready', () => {
    log.info({ address }, 'redis is back');
    warnOnce();
  });
  return { connection, prefix, infos, close: () => connection.disconnect() };
}
