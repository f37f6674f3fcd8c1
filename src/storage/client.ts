import { readFileSync } from 'node:fs';
import { auth, errors, policies, types, type ClientOptions, type Host } from 'cassandra-driver';
import pLimit from 'p-limit';
import type { Logger } from 'pino';
import { UsageError, type Config } from '../config.ts';
import type { Row } from '../datasets/dataset.ts';
import { createClient } from './driver.ts';
import { batchQuery, insertQuery, parametersOf } from './statements.ts';
import { oneAtATime } from './together.ts';

/** Requests of one process under way at once. A connection refuses more than 2,048; far fewer keep Cassandra busy. */
const MAX_IN_FLIGHT = 256;

/** How often each process measures Cassandra's clock. */
export const MEASURE_EVERY_MS = 60_000;
/** An answer within this time tells Cassandra's clock well enough. */
const GOOD_ROUND_TRIP_MS = 50;
/** The clock of this machine and the monotonic one keep in step but for this, unless one of them was set or stopped. */
const CLOCK_JUMP_MS = 500;

/** One row to insert. `undefined` leaves a column unset, `null` empties it; `timestamp` is the write time in µs. */
type Insert = Pick<Row, 'table' | 'timestamp'> & { readonly values: Readonly<Record<string, unknown>> };

/** By the ids of nodes, which they keep when their address changes, a number of each that grows with every start of it. */
export type Generations = ReadonlyMap<string, bigint>;

/**
 * Whether a node was started anew between two looks. If it was killed, it has forgotten the newest of what it had
 * acknowledged, but for tables that happened to be flushed: a row may be there and one that was written before it not.
 */
export function hasRestarted(before: Generations, now: Generations): boolean {
  return [...now].some(([node, generation]) => (before.get(node) ?? generation) !== generation);
}

/** The connection to Cassandra. Every statement is prepared, and idempotent but for the conditional ones. */
export type Store = Awaited<ReturnType<typeof connectStore>>;

function clientOptions(config: Config, keyspace: string): ClientOptions {
  const { CASSANDRA_USERNAME: username, CASSANDRA_PASSWORD: password, CASSANDRA_TLS_CA_FILE: caFile } = config;
  const { one, localOne, quorum, localQuorum, all, localSerial: serialConsistency } = types.consistencies;
  const levels = { ONE: one, LOCAL_ONE: localOne, QUORUM: quorum, LOCAL_QUORUM: localQuorum, ALL: all };
  const consistency = levels[config.CASSANDRA_CONSISTENCY];
  const clientPolicies = { reconnection: new policies.reconnection.ConstantReconnectionPolicy(500) };
  // Write timestamps are Cassandra's own, whose clocks are kept in step; the typings lack the documented null.
  Object.assign(clientPolicies, { timestampGeneration: null });
  return {
    contactPoints: contactPoints(config),
    localDataCenter: config.CASSANDRA_LOCAL_DATACENTER,
    ...(keyspace && { keyspace }),
    protocolOptions: { port: config.CASSANDRA_PORT },
    queryOptions: { consistency, serialConsistency, prepare: true, isIdempotent: true, fetchSize: 1_000 },
    policies: clientPolicies,
    socketOptions: { connectTimeout: 5_000, readTimeout: 12_000 },
    pooling: { heartBeatInterval: 5_000 },
    encoding: { useBigIntAsLong: true, map: Map, set: Set },
    ...(username && password && { authProvider: new auth.PlainTextAuthProvider(username, password) }),
    // Unless told so, the driver takes any certificate.
    ...(config.CASSANDRA_TLS && {
      sslOptions: { rejectUnauthorized: true, ...(caFile && { ca: [readFileSync(caFile)] }) },
    }),
  };
}

/** Whatever listens on the usual port may be of others. */
function contactPoints({ CASSANDRA_CONTACT_POINTS: hosts, LOCAL_DIR }: Config): string[] {
  if (hosts !== undefined) return hosts;
  throw new UsageError(
    `No Cassandra runs that was started in ${LOCAL_DIR}: start one with \`npx pipeline services\`, or set CASSANDRA_CONTACT_POINTS.`,
  );
}

/**
 * Connects to Cassandra; `keyspace` is '' where it may not exist yet.
 *
 * @throws UsageError when no contact point answers within five seconds, the login is refused or the keyspace is missing
 */
export async function connectStore(config: Config, log: Logger, keyspace = config.CASSANDRA_KEYSPACE) {
  const client = createClient(clientOptions(config, keyspace));
  try {
    await client.connect();
  } catch (error) {
    await client.shutdown();
    throw new UsageError(connectProblem(error, config, keyspace));
  }
  // Cassandra's clock, carried on by this process's monotonic one between measurements.
  let clock = { base: 0, drift: 0 };
  /** Of some tries, the one with the quickest answer: a slow one says little about the moment that it speaks of. */
  const measureClock = oneAtATime(async () => {
    let best = { ms: Infinity, base: 0 };
    for (let tries = 0; tries < 5 && best.ms > GOOD_ROUND_TRIP_MS; tries += 1) {
      const before = performance.now();
      const result = await client.execute('SELECT toUnixTimestamp(now()) AS ms FROM system.local');
      const ms = performance.now() - before;
      if (ms < best.ms) best = { ms, base: Number(result.first()['ms']) - before - ms / 2 };
    }
    clock = { base: best.base, drift: Date.now() - performance.now() };
  });
  await measureClock();
  const timer = setInterval(() => void measureClock().catch(() => undefined), MEASURE_EVERY_MS).unref();
  const now = () => clock.base + performance.now();

  client.on('hostDown', ({ address }: { address: string }) => log.warn({ host: address }, 'cassandra is away'));
  client.on('hostUp', ({ address }: { address: string }) => log.info({ host: address }, 'cassandra is back'));

  const limit = pLimit(MAX_IN_FLIGHT);
  const run = (query: string, parameters: readonly unknown[] = [], options = {}) =>
    limit(() => client.execute(query, [...parameters], options));
  const runIf = async (query: string, parameters: readonly unknown[]): Promise<boolean> =>
    (await run(query, parameters, { isIdempotent: false })).wasApplied();
  return {
    run: (query: string, parameters?: readonly unknown[]) => run(query, parameters),
    /** Whether every node holds every row, so that a batch of several partitions stays on one. */
    everyNodeHasAll: () => client.hosts.length <= config.CASSANDRA_REPLICATION_FACTOR,
    /** Inserts one row, by its columns. */
    insert: async ({ table, values, timestamp }: Insert): Promise<void> => {
      const query = insertQuery(table, Object.keys(values), timestamp !== undefined);
      await run(query, [...Object.values(values), ...(timestamp === undefined ? [] : [timestamp])]);
    },
    /** Inserts rows together, as an unlogged batch. */
    insertRows: async (rows: readonly Row[]): Promise<void> => {
      const [first] = rows;
      if (first !== undefined && rows.every(({ columns }) => columns === first.columns)) {
        await client.execute(batchQuery(first, rows.length), parametersOf(rows));
        return;
      }
      const queries = rows.map((row) => ({ query: batchQuery(row, 1), params: parametersOf([row]) }));
      await client.batch(queries, { logged: false, prepare: true });
    },
    /** Runs a lightweight transaction, which is never retried. Resolves to whether it was applied. */
    runIf,
    /** Inserts a row that has no write time unless there is one of its key, as `runIf`. */
    insertIfNew: (row: Row) => runIf(`${batchQuery(row, 1)} IF NOT EXISTS`, parametersOf([row])),
    /** Reads all pages of a query, one page in memory. */
    rows: async function* (query: string, parameters: readonly unknown[], pageSize?: number): AsyncIterable<types.Row> {
      yield* await run(query, parameters, { fetchSize: pageSize });
    },
    /** ms since the epoch by Cassandra's clock, so that a wrong or stepped clock of this machine does no harm. */
    now,
    /** The same, measured anew when this machine's clock was set or stood still: it may have been suspended. Or always. */
    freshNow: async (always = false): Promise<number> => {
      if (always || Math.abs(Date.now() - performance.now() - clock.drift) > CLOCK_JUMP_MS) await measureClock();
      return now();
    },
    /** How far this machine's clock is ahead of it. */
    clockSkewMs: () => Date.now() - now(),
    /**
     * The nodes of our datacenter: the generations of those that are up, and the addresses of the others.
     *
     * @throws when one that is taken for up does not answer, or none is up
     */
    nodes: async (): Promise<{ readonly generations: Generations; readonly down: readonly string[] }> => {
      const ours = client.hosts.values().filter((host) => host.datacenter === config.CASSANDRA_LOCAL_DATACENTER);
      const up = ours.filter((host) => host.isUp());
      const down = ours.filter((host) => !host.isUp()).map(({ address }) => address);
      if (up.length === 0) throw new errors.NoHostAvailableError({}, 'no node of Cassandra is up');
      const ask = async (host: Host): Promise<[string, bigint]> => {
        const result = await client.execute('SELECT host_id, gossip_generation FROM system.local', [], { host });
        const { host_id: id, gossip_generation: generation } = result.first();
        return [String(id), BigInt(generation)];
      };
      return { generations: new Map(await Promise.all(up.map(ask))), down };
    },
    /** Calls back when a node of Cassandra answers again. */
    onReturn: (listener: () => void) => void client.on('hostUp', listener),
    close: async (): Promise<void> => {
      clearInterval(timer);
      await client.shutdown();
    },
  };
}

/** Whether an error means that Cassandra is away or overloaded, and the same request may well work later. */
export function isStoreAway(error: unknown): boolean {
  // 0 is an error of the server; 0x1000 to 0x1fff are of requests that were right and could not be carried out.
  if (error instanceof errors.ResponseError) return error.code === 0 || (error.code >= 0x1000 && error.code < 0x2000);
  const { NoHostAvailableError, OperationTimedOutError, BusyConnectionError } = errors;
  return [NoHostAvailableError, OperationTimedOutError, BusyConnectionError].some((kind) => error instanceof kind);
}

/** Whether too few replicas were up for a request, whatever it was: it has not even been tried. */
export function isShortOfReplicas(error: unknown): boolean {
  // The driver asks another node then. Where there is none, it says that none is available, and why.
  const causes = error instanceof errors.NoHostAvailableError ? Object.values(error.innerErrors) : [error];
  const code: number = types.responseErrorCodes.unavailableException;
  return causes.some((cause) => cause instanceof errors.ResponseError && cause.code === code);
}

function connectProblem(error: unknown, config: Config, keyspace: string): string {
  const where = `Cassandra at ${contactPoints(config).join(', ')} port ${config.CASSANDRA_PORT}`;
  const [first] = error instanceof errors.NoHostAvailableError ? Object.values(error.innerErrors) : [];
  const inner: unknown = first ?? error;
  const reason = inner instanceof Error ? inner.message : String(inner);
  const trust = 'set CASSANDRA_TLS_CA_FILE to what signed its certificate, which has to name the address.';
  if (/certificate|self-signed|altnames/.test(reason)) return `${where} is not trusted (${reason}): ${trust}`;
  if (/wrong version number|packet length too long/.test(reason))
    return `${where} does not encrypt: set CASSANDRA_TLS=false, or let it encrypt.`;
  if (/^(localDataCenter|Datacenter) /.test(reason))
    return `${where} answers, but ${reason}: set CASSANDRA_LOCAL_DATACENTER to one of these.`;
  const login = 'check CASSANDRA_USERNAME and CASSANDRA_PASSWORD.';
  if (inner instanceof errors.AuthenticationError) return `${where} refuses the login: ${login}`;
  const missing = `has no keyspace ${keyspace}: run \`npx pipeline migrate\`.`;
  if (keyspace && reason.includes(keyspace)) return `${where} ${missing}`;
  const advice = 'Start one with `npx pipeline services`, or set CASSANDRA_CONTACT_POINTS and CASSANDRA_PORT.';
  return `${where} does not answer (${reason}). ${advice}`;
}
