import { readFileSync } from 'node:fs';
import { BlockList, isIPv6 } from 'node:net';
import { resolve } from 'node:path';
import { CronExpressionParser } from 'cron-parser';
import { z } from 'zod';
import { parseRedisUrl } from './queues/redis-url.ts';

/** What a person can mend: shown as one sentence, never with a stack trace. */
export class UsageError extends Error {
  override name = 'UsageError';
}

/** A wrong variable or option: exit code 2. */
export class BadUsage extends UsageError {}

const amount = (min: number, max: number) => z.coerce.number('not a number').min(min).max(max);
const count = (min: number, max: number) => amount(min, max).int('not a whole number');
const port = count(0, 65_535);
const flag = z.enum(['true', 'false']).transform((value) => value === 'true');
/** A text that `read` takes without throwing; what it throws is not repeated, the text may be a secret. */
const textFor = (read: (text: string) => unknown, otherwise: string) =>
  z.string().refine((text) => {
    try {
      read(text);
      return true;
    } catch {
      return false;
    }
  }, otherwise);
const timeZone = textFor(
  (zone) => new Intl.DateTimeFormat('en', { timeZone: zone }),
  'not an IANA time zone such as Europe/Berlin',
);
const readableFile = textFor((path) => readFileSync(path), 'not a file that can be read');
const cron = textFor((text) => {
  // H is another number each time that it is read.
  if (/\bH\b/.test(text)) throw new RangeError('not a time');
  return CronExpressionParser.parse(text).next();
}, 'not a cron expression such as 0 * * * *, or one whose time never comes');
const redisUrl = textFor(
  parseRedisUrl,
  'not redis[s]://[user:password@]host[:port], nor its +sentinel or +cluster form (see .env.example); in a password, write / ? # % as %2F %3F %23 %25',
);

const isHops = (text: string) => /^\d$/.test(text);
const proxies = textFor((list) => {
  if (isHops(list)) return;
  for (const item of list.split(/\s*,\s*/).filter((one) => !['loopback', 'linklocal', 'uniquelocal'].includes(one))) {
    // Express takes no network of all addresses: any sender would be believed.
    const [address = '', bits = '1', ...more] = item.split('/');
    if (!/^[1-9]\d*$/.test(bits) || more.length > 0) throw new RangeError('not a network');
    new BlockList().addSubnet(address, Number(bits), isIPv6(address) ? 'ipv6' : 'ipv4');
  }
}, 'not a number of proxies, nor addresses, networks such as 10.0.0.0/8, loopback, linklocal or uniquelocal, separated by commas');

/** Every variable that the pipeline reads. An empty value counts as not set. */
const environmentSchema = z.object({
  DATA_DIR: z.string().default('./data'),
  REDIS_URL: redisUrl.optional(),
  REDIS_TLS_CA_FILE: readableFile.optional(),
  QUEUE_PREFIX: z.string().default('{vehicle-data}'),
  CASSANDRA_CONTACT_POINTS: z
    .string()
    .trim()
    .transform((list) => list.split(/\s*,\s*/).filter(Boolean))
    .pipe(z.array(z.string()).min(1, 'names no host'))
    .optional(),
  CASSANDRA_PORT: port.default(9042),
  CASSANDRA_LOCAL_DATACENTER: z.string().default('datacenter1'),
  CASSANDRA_KEYSPACE: z
    .string()
    .regex(/^[a-z][a-z0-9_]{0,47}$/, 'lower-case letters, digits and _, at most 48, starting with a letter')
    .default('vehicle_data'),
  CASSANDRA_REPLICATION_FACTOR: count(1, 9).default(1),
  CASSANDRA_CONSISTENCY: z.enum(['ONE', 'LOCAL_ONE', 'QUORUM', 'LOCAL_QUORUM', 'ALL']).default('LOCAL_QUORUM'),
  CASSANDRA_USERNAME: z.string().optional(),
  CASSANDRA_PASSWORD: z.string().optional(),
  CASSANDRA_TLS: flag.default(false),
  CASSANDRA_TLS_CA_FILE: readableFile.optional(),
  PROCESSORS: count(1, 64).default(2),
  INGEST_CONCURRENCY: count(1, 256).default(128),
  INGEST_ATTEMPTS: count(1, 100).default(6),
  MAX_FILE_BYTES: count(1, Number.MAX_SAFE_INTEGER).default(2 * 1024 ** 3),
  MAX_RECORD_BYTES: count(64, 8 * 1024 ** 2).default(1024 ** 2),
  MAX_QUEUED_FILES: count(1, 10_000_000).default(10_000),
  MAX_REJECTED_RATIO: amount(0, 1).default(0.5),
  AFTER_LOAD: z.enum(['keep', 'archive', 'delete']).default('keep'),
  DURABLE_SECONDS: amount(0, 86_400).default(30),
  RECONCILE_SECONDS: amount(0.1, 86_400).default(30),
  AGGREGATION_EVERY_SECONDS: amount(1, 86_400).default(60),
  AGGREGATION_CRON: cron.optional(),
  AGGREGATION_TIME_ZONE: timeZone.default('UTC'),
  SETTLE_SECONDS: amount(0.1, 3_600).default(5),
  VERIFY_EVERY_SECONDS: amount(1, 604_800).default(3_600),
  VERIFY_SAMPLE: amount(0, 1).default(0.01),
  SOURCE_TIME_ZONE: timeZone.default('UTC'),
  BOARD_HOST: z.string().default('127.0.0.1'),
  BOARD_PORT: port.default(3000),
  BOARD_USERNAME: z.string().default('admin'),
  BOARD_PASSWORD: z.string().min(12, 'at least 12 characters').optional(),
  BOARD_PROXIES: proxies.default('loopback').transform((list) => (isHops(list) ? Number(list) : list)),
  LOCAL_DIR: z.string().default('./.local'),
  LOCAL_REDIS_PORT: port.default(6379),
  LOCAL_CASSANDRA_PORT: port.default(9042),
  LOG_LEVEL: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'silent']).default('info'),
  LOG_FORMAT: z.enum(['pretty', 'json']).optional(),
  HEARTBEAT_FILE: z.string().optional(),
});

export const environmentVariables = Object.keys(environmentSchema.shape);

/** The environment, with the folders' paths made absolute; REDIS_URL and the like are still unset when a local store is meant. */
export type Config = z.infer<typeof environmentSchema>;

/**
 * Checks the whole environment at once.
 *
 * @throws BadUsage that lists every bad variable with its reason; values are not repeated, they may be secrets.
 */
export function parseConfig(environment: Record<string, string | undefined>): Config {
  const given = Object.fromEntries(Object.entries(environment).filter(([, value]) => value?.trim() !== ''));
  const parsed = environmentSchema.safeParse(given);
  if (!parsed.success) {
    const lines = parsed.error.issues.map((issue) => `  ${issue.path.join('.')}: ${issue.message}`);
    throw new BadUsage(`The environment has ${lines.length} bad value(s):\n${lines.join('\n')}`);
  }
  const config = parsed.data;
  if ((config.CASSANDRA_USERNAME === undefined) !== (config.CASSANDRA_PASSWORD === undefined))
    throw new BadUsage(
      'Of CASSANDRA_USERNAME and CASSANDRA_PASSWORD, one is set and the other is not: set both or none.',
    );
  if (config.REDIS_URL?.includes('+cluster:') && !/\{[^}]+\}/.test(config.QUEUE_PREFIX))
    throw new BadUsage(
      'QUEUE_PREFIX needs a part in braces, as in {vehicle-data}: it keeps all keys on one cluster node.',
    );
  return { ...config, DATA_DIR: resolve(config.DATA_DIR), LOCAL_DIR: resolve(config.LOCAL_DIR) };
}

/** @throws UsageError when other machines could reach the board without a password */
export function requireBoardPassword({ BOARD_HOST, BOARD_PASSWORD }: Config): void {
  if (BOARD_PASSWORD === undefined && !/^(localhost|::1|127(\.\d+){3})$/.test(BOARD_HOST))
    throw new UsageError('Everybody could open the board: set BOARD_PASSWORD, or leave BOARD_HOST at 127.0.0.1.');
}
