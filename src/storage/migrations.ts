import { setTimeout as sleep } from 'node:timers/promises';
import { errors, types } from 'cassandra-driver';
import type { Logger } from 'pino';
import { UsageError, type Config } from '../config.ts';
import { HOUR_MS } from '../datasets/time.ts';
import { startAggregation } from './aggregation-state.ts';
import { messageOf } from '../runtime.ts';
import { connectStore, isShortOfReplicas, type Store } from './client.ts';
import { migrations, migrationsTable } from './schema.ts';

/** How long the nodes of a cluster may take to learn of a new keyspace or table. */
const AGREEMENT_MS = 15_000;

/** The newest version that was applied, 0 where none was. `keyspace` ends with a point where it is not the store's own. */
export async function appliedVersion(store: Store, keyspace = ''): Promise<number> {
  const result = await store.run(`SELECT version FROM ${keyspace}schema_migrations`);
  return Math.max(0, ...result.rows.map((row) => Number(row['version'])));
}

const isResponse = (error: unknown, code: number) => error instanceof errors.ResponseError && error.code === code;

/** @throws UsageError when a right is missing or too few nodes are up, otherwise the error itself */
function explain(error: unknown): never {
  if (isShortOfReplicas(error))
    throw new UsageError(
      'Too few nodes of Cassandra are up for CASSANDRA_CONSISTENCY: start more; `npx pipeline doctor` says how many.',
    );
  if (!isResponse(error, types.responseErrorCodes.unauthorized)) throw error;
  throw new UsageError(`Cassandra withholds a right: ${messageOf(error)}. Grant what docs/operations.md lists.`);
}

/**
 * Asked once by every role: a process must not work on tables that it does not know, nor on ones that it may only read.
 *
 * @throws UsageError when the tables are not those of this version, or a right is missing
 */
export async function requireSchema(store: Store): Promise<void> {
  const applied = await appliedVersion(store).catch((error: unknown) =>
    isResponse(error, types.responseErrorCodes.invalid) ? 0 : explain(error),
  );
  if (applied < migrations.length)
    throw new UsageError(
      `The keyspace is not at schema version ${migrations.length}: run \`npx pipeline migrate\` first.`,
    );
  // There is no version 0; to try it is how one learns whether writing is allowed.
  await store.runIf('DELETE FROM schema_migrations WHERE version = ? IF EXISTS', [0]).catch(explain);
}

/**
 * Does what needs a keyspace or table that was just made, again until it works: a node that has only just joined learns
 * of it, and they of it, seconds after the others; and one that knows a table may not have opened it yet ("Unknown CF").
 */
async function onceKnown<T>(work: () => Promise<T>): Promise<T> {
  const deadline = performance.now() + AGREEMENT_MS;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (isResponse(error, types.responseErrorCodes.unauthorized) || performance.now() > deadline) throw error;
    }
    await sleep(250);
  }
}

/** Creates the keyspace and the tables that are missing. Idempotent. Resolves to the versions that were applied now. */
export async function migrate(config: Config, log: Logger): Promise<number[]> {
  const { CASSANDRA_LOCAL_DATACENTER: center, CASSANDRA_REPLICATION_FACTOR: factor } = config;
  const replication = `{'class': 'NetworkTopologyStrategy', '${center}': ${factor}}`;
  const keyspace = `CREATE KEYSPACE IF NOT EXISTS ${config.CASSANDRA_KEYSPACE} WITH replication = ${replication}`;
  const admin = await connectStore(config, log, '');
  await admin.run(keyspace).catch(explain).finally(admin.close);
  const store = await onceKnown(() => connectStore(config, log));
  const done: number[] = [];
  async function apply(): Promise<void> {
    await store.run(`CREATE TABLE IF NOT EXISTS ${migrationsTable}`);
    const applied = await appliedVersion(store);
    for (const { version, description, statements } of migrations.filter((one) => one.version > applied)) {
      for (const statement of statements) await store.run(statement);
      const values = { version, description, applied_at: new Date(store.now()) };
      await store.insert({ table: 'schema_migrations', values });
      done.push(version);
      log.info({ version, description }, 'migration applied');
    }
    // An hour back, so that loads of a slightly wrong clock are not missed.
    await startAggregation(store, store.now() - HOUR_MS);
  }
  try {
    await onceKnown(apply);
    return done;
  } catch (error) {
    return explain(error);
  } finally {
    await store.close();
  }
}
