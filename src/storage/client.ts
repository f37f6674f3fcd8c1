import { readFileSync } from 'node:fs';
import { auth, Client, errors, policies, types, type ClientOptions } from 'cassandra-driver';
import pLimit from 'p-limit';
import type { Logger } from 'pino';
import { UsageError, type Config } from '../config.ts';

/** Requests of one process under way at once. A connection refuses more than 2,048; far fewer keep Cassandra busy. */
const MAX_IN_FLIGHT = 256;
const CONNECT_TIMEOUT_MS = 5_000;
const CLOCK_EVERY_MS = 60_000;

export type StoreConfig = Pick<
  Config,
  | 'CASSANDRA_CONTACT_POINTS'
  | 'CASSANDRA_PORT'
  | 'CASSANDRA_LOCAL_DATACENTER'
  | 'CASSANDRA_KEYSPACE'
  | 'CASSANDRA_CONSISTENCY'
  | 'CASSANDRA_USERNAME'
  | 'CASSANDRA_PASSWORD'
  | 'CASSANDRA_TLS'
  | 'CASSANDRA_TLS_CA_FILE'
>;

/** The connection to Cassandra. Every statement is prepared and idempotent but for the conditional ones. */
export interface Store {
  /** Runs one statement. `undefined` parameters are left unset. */
  run(query: string, parameters?: readonly unknown[]): Promise<types.ResultSet>;
  /** Runs statements of one partition as one unlogged batch. */
  runBatch(queries: readonly { query: string; params: unknown[] }[]): Promise<void>;
  /** Runs a lightweight transaction, which is never retried. Resolves to whether it was applied. */
  runIf(query: string, parameters: readonly unknown[]): Promise<boolean>;
  /** Reads all pages of a query, one page in memory. */
  rows(query: string, parameters?: readonly unknown[]): AsyncIterable<types.Row>;
  /** ms since the epoch by Cassandra's clock, so that a wrong or stepped clock of this machine does no harm. */
  now(): number;
  /** How far this machine's clock is ahead of Cassandra's, in ms. */
  clockSkewMs(): number;
  /** Calls back when Cassandra answers again after it was away: what was remembered of it may be gone. */
  onReturn(listener: () => void): void;
  readonly close: () => Promise<void>;
}

function clientOptions(config: StoreConfig, keyspace: string): ClientOptions {
  const clientPolicies = { reconnection: new policies.reconnection.ConstantReconnectionPolicy(500) };
  // Write timestamps are Cassandra's own, whose clocks are kept in step; the typings lack the documented null.
  Object.assign(clientPolicies, { timestampGeneration: null });
  return {
    contactPoints: config.CASSANDRA_CONTACT_POINTS ?? ['127.0.0.1'],
    localDataCenter: config.CASSANDRA_LOCAL_DATACENTER,
    ...(keyspace === '' ? {} : { keyspace }),
    protocolOptions: { port: config.CASSANDRA_PORT },
    queryOptions: {
      consistency: types.consistencies[consistencyName(config.CASSANDRA_CONSISTENCY)],
      serialConsistency: types.consistencies.localSerial,
      prepare: true,
      isIdempotent: true,
      fetchSize: 1_000,
    },
    policies: clientPolicies,
    socketOptions: { connectTimeout: CONNECT_TIMEOUT_MS, readTimeout: 12_000 },
    pooling: { heartBeatInterval: 5_000 },
    encoding: { useBigIntAsLong: true, map: Map, set: Set },
    ...(config.CASSANDRA_USERNAME !== undefined && config.CASSANDRA_PASSWORD !== undefined
      ? { authProvider: new auth.PlainTextAuthProvider(config.CASSANDRA_USERNAME, config.CASSANDRA_PASSWORD) }
      : {}),
    ...(config.CASSANDRA_TLS
      ? {
          sslOptions:
            config.CASSANDRA_TLS_CA_FILE === undefined ? {} : { ca: [readFileSync(config.CASSANDRA_TLS_CA_FILE)] },
        }
      : {}),
  };
}

function consistencyName(name: StoreConfig['CASSANDRA_CONSISTENCY']) {
  const names = { ONE: 'one', LOCAL_ONE: 'localOne', QUORUM: 'quorum', LOCAL_QUORUM: 'localQuorum', ALL: 'all' } as const;
  return names[name];
}

/**
 * Connects to Cassandra.
 *
 * @param keyspace the keyspace that unqualified table names mean; '' where it may not exist yet
 * @throws UsageError when no contact point answers within five seconds, the login is refused or the keyspace is missing
 */
export async function connectStore(
  config: StoreConfig,
  log: Logger,
  keyspace: string = config.CASSANDRA_KEYSPACE,
): Promise<Store> {
  const client = new Client(clientOptions(config, keyspace));
  const where = `${(config.CASSANDRA_CONTACT_POINTS ?? ['127.0.0.1']).join(', ')} port ${config.CASSANDRA_PORT}`;
  try {
    await client.connect();
  } catch (error) {
    await client.shutdown();
    throw new UsageError(connectProblem(error, where, keyspace));
  }
  const limit = pLimit(MAX_IN_FLIGHT);
  const clock = createClock(() => client.execute('SELECT toUnixTimestamp(now()) AS ms FROM system.local'));
  await clock.measure();
  const timer = setInterval(() => void clock.measure().catch(() => undefined), CLOCK_EVERY_MS);
  timer.unref();

  const returnListeners: (() => void)[] = [];
  client.on('hostDown', (host: { address: string }) => log.warn({ host: host.address }, 'cassandra is away'));
  client.on('hostUp', (host: { address: string }) => {
    log.info({ host: host.address }, 'cassandra is back');
    for (const listener of returnListeners) listener();
  });

  const run = (query: string, parameters: readonly unknown[] = []) =>
    limit(() => client.execute(query, [...parameters]));

  return {
    run,
    runBatch: async (queries) => {
      await limit(() => client.batch([...queries], { logged: false, prepare: true }));
    },
    runIf: async (query, parameters) => {
      const result = await limit(() => client.execute(query, [...parameters], { isIdempotent: false }));
      return result.wasApplied();
    },
    rows: async function* (query, parameters = []) {
      yield* await run(query, parameters);
    },
    now: clock.now,
    clockSkewMs: () => Date.now() - clock.now(),
    onReturn: (listener) => returnListeners.push(listener),
    close: async () => {
      clearInterval(timer);
      await client.shutdown();
    },
  };
}

/** Cassandra's clock, carried on by this process's monotonic one between measurements. */
function createClock(ask: () => Promise<types.ResultSet>) {
  let base = 0;
  return {
    now: () => base + performance.now(),
    measure: async () => {
      const before = performance.now();
      const result = await ask();
      const middle = (before + performance.now()) / 2;
      base = Number(result.first().get('ms')) - middle;
    },
  };
}

const codes = types.responseErrorCodes;
const AWAY_CODES = new Set<number>([
  codes.serverError,
  codes.overloaded,
  codes.isBootstrapping,
  codes.unavailableException,
  codes.readTimeout,
  codes.writeTimeout,
  codes.readFailure,
  codes.writeFailure,
]);

/** Whether an error means that Cassandra is away or overloaded, and the same request may well work later. */
export function isStoreAway(error: unknown): boolean {
  if (error instanceof errors.ResponseError) {
    return AWAY_CODES.has(error.code);
  }
  return (
    error instanceof errors.NoHostAvailableError ||
    error instanceof errors.OperationTimedOutError ||
    error instanceof errors.BusyConnectionError
  );
}

function connectProblem(error: unknown, where: string, keyspace: string): string {
  const inner: unknown = error instanceof errors.NoHostAvailableError ? Object.values(error.innerErrors)[0] : error;
  const reason = inner instanceof Error ? inner.message : String(inner);
  if (inner instanceof errors.AuthenticationError || /credentials|auth/i.test(reason)) {
    return `Cassandra at ${where} refuses the login: check CASSANDRA_USERNAME and CASSANDRA_PASSWORD.`;
  }
  if (keyspace !== '' && reason.includes(keyspace)) {
    return `Cassandra at ${where} has no keyspace ${keyspace}: run \`npx pipeline migrate\` first.`;
  }
  return (
    `Cassandra at ${where} does not answer (${reason}). Start one with \`npx pipeline services\`, ` +
    'or set CASSANDRA_CONTACT_POINTS and CASSANDRA_PORT to one that runs.'
  );
}
