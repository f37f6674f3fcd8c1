import { readFileSync } from 'node:fs';
import { auth, Client, errors, policies, types, type ClientOptions } from 'cassandra-driver';
import pLimit from 'p-limit';
import type { Logger } from 'pino';
import { UsageError, type Config } from '../config.ts';

/** Requests of one process under way at once. A connection refuses more than 2,048; far fewer keep Cassandra busy. */
const MAX_IN_FLIGHT = 256;
const CONNECT_TIMEOUT_MS = 5_000;
const CLOCK_EVERY_MS = 60_000;

/** One row to insert. `undefined` leaves a column unset, `null` empties it; `timestamp` is the write time in µs. */
export interface Insert {
  readonly table: string;
  readonly values: Readonly<Record<string, unknown>>;
  readonly timestamp?: bigint;
}

/** The connection to Cassandra. Every statement is prepared, and idempotent but for the conditional ones. */
export interface Store {
  run(query: string, parameters?: readonly unknown[]): Promise<types.ResultSet>;
  /** Inserts rows of one partition together; several are an unlogged batch. */
  insert(...rows: readonly Insert[]): Promise<void>;
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

function clientOptions(config: Config, keyspace: string): ClientOptions {
  const { CASSANDRA_USERNAME: username, CASSANDRA_PASSWORD: password, CASSANDRA_TLS_CA_FILE: caFile } = config;
  const clientPolicies = { reconnection: new policies.reconnection.ConstantReconnectionPolicy(500) };
  // Write timestamps are Cassandra's own, whose clocks are kept in step; the typings lack the documented null.
  Object.assign(clientPolicies, { timestampGeneration: null });
  const consistencies = {
    ONE: 'one',
    LOCAL_ONE: 'localOne',
    QUORUM: 'quorum',
    LOCAL_QUORUM: 'localQuorum',
    ALL: 'all',
  } as const;
  return {
    contactPoints: config.CASSANDRA_CONTACT_POINTS ?? ['127.0.0.1'],
    localDataCenter: config.CASSANDRA_LOCAL_DATACENTER,
    ...(keyspace && { keyspace }),
    protocolOptions: { port: config.CASSANDRA_PORT },
    queryOptions: {
      consistency: types.consistencies[consistencies[config.CASSANDRA_CONSISTENCY]],
      serialConsistency: types.consistencies.localSerial,
      prepare: true,
      isIdempotent: true,
      fetchSize: 1_000,
    },
    policies: clientPolicies,
    socketOptions: { connectTimeout: CONNECT_TIMEOUT_MS, readTimeout: 12_000 },
    pooling: { heartBeatInterval: 5_000 },
    encoding: { useBigIntAsLong: true, map: Map, set: Set },
    ...(username && password && { authProvider: new auth.PlainTextAuthProvider(username, password) }),
    ...(config.CASSANDRA_TLS && { sslOptions: caFile === undefined ? {} : { ca: [readFileSync(caFile)] } }),
  };
}

function insertQuery({ table, values, timestamp }: Insert): { query: string; params: unknown[] } {
  const columns = Object.keys(values);
  const query = `INSERT INTO ${table} (${columns.join(', ')}) VALUES (${columns.map(() => '?').join(', ')})`;
  const params = Object.values(values);
  return timestamp === undefined
    ? { query, params }
    : { query: `${query} USING TIMESTAMP ?`, params: [...params, timestamp] };
}

/**
 * Connects to Cassandra.
 *
 * @param keyspace the keyspace that unqualified table names mean; '' where it may not exist yet
 * @throws UsageError when no contact point answers within five seconds, the login is refused or the keyspace is missing
 */
export async function connectStore(config: Config, log: Logger, keyspace = config.CASSANDRA_KEYSPACE): Promise<Store> {
  const client = new Client(clientOptions(config, keyspace));
  try {
    await client.connect();
  } catch (error) {
    await client.shutdown();
    throw new UsageError(connectProblem(error, config, keyspace));
  }
  const limit = pLimit(MAX_IN_FLIGHT);
  // Cassandra's clock, carried on by this process's monotonic one between measurements.
  let clockBase = 0;
  async function measureClock(): Promise<void> {
    const before = performance.now();
    const result = await client.execute('SELECT toUnixTimestamp(now()) AS ms FROM system.local');
    clockBase = Number(result.first().get('ms')) - (before + performance.now()) / 2;
  }
  await measureClock();
  const timer = setInterval(() => void measureClock().catch(() => undefined), CLOCK_EVERY_MS).unref();

  const returnListeners: (() => void)[] = [];
  client.on('hostDown', (host: { address: string }) => log.warn({ host: host.address }, 'cassandra is away'));
  client.on('hostUp', (host: { address: string }) => {
    log.info({ host: host.address }, 'cassandra is back');
    for (const listener of returnListeners) listener();
  });

  const run = (query: string, parameters: readonly unknown[] = []) =>
    limit(() => client.execute(query, [...parameters]));
  const now = () => clockBase + performance.now();
  return {
    run,
    insert: async (...rows) => {
      const queries = rows.map(insertQuery);
      const [first] = queries;
      if (queries.length === 1 && first !== undefined) await run(first.query, first.params);
      else await limit(() => client.batch(queries, { logged: false, prepare: true }));
    },
    runIf: async (query, parameters) => {
      const result = await limit(() => client.execute(query, [...parameters], { isIdempotent: false }));
      return result.wasApplied();
    },
    rows: async function* (query, parameters = []) {
      yield* await run(query, parameters);
    },
    now,
    clockSkewMs: () => Date.now() - now(),
    onReturn: (listener) => returnListeners.push(listener),
    close: async () => {
      clearInterval(timer);
      await client.shutdown();
    },
  };
}

const { serverError, overloaded, isBootstrapping, unavailableException, ...otherCodes } = types.responseErrorCodes;
const { readTimeout, writeTimeout, readFailure, writeFailure } = otherCodes;
const AWAY_CODES = new Set<number>([
  ...[serverError, overloaded, isBootstrapping, unavailableException],
  ...[readTimeout, writeTimeout, readFailure, writeFailure],
]);

/** Whether an error means that Cassandra is away or overloaded, and the same request may well work later. */
export function isStoreAway(error: unknown): boolean {
  if (error instanceof errors.ResponseError) return AWAY_CODES.has(error.code);
  const { NoHostAvailableError, OperationTimedOutError, BusyConnectionError } = errors;
  return [NoHostAvailableError, OperationTimedOutError, BusyConnectionError].some((kind) => error instanceof kind);
}

function connectProblem(error: unknown, config: Config, keyspace: string): string {
  const where = `Cassandra at ${(config.CASSANDRA_CONTACT_POINTS ?? ['127.0.0.1']).join(', ')} port ${config.CASSANDRA_PORT}`;
  const inner: unknown = error instanceof errors.NoHostAvailableError ? Object.values(error.innerErrors)[0] : error;
  const reason = inner instanceof Error ? inner.message : String(inner);
  if (inner instanceof errors.AuthenticationError || /credentials|auth/i.test(reason)) {
    return `${where} refuses the login: check CASSANDRA_USERNAME and CASSANDRA_PASSWORD.`;
  }
  if (keyspace !== '' && reason.includes(keyspace)) {
    return `${where} has no keyspace ${keyspace}: run \`npx pipeline migrate\` first.`;
  }
  return (
    `${where} does not answer (${reason}). Start one with \`npx pipeline services\`, ` +
    'or set CASSANDRA_CONTACT_POINTS and CASSANDRA_PORT to one that runs.'
  );
}
