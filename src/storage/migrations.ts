import type { Logger } from 'pino';
import { UsageError, type Config } from '../config.ts';
import { connectStore, type Store } from './client.ts';
import { migrations } from './schema.ts';

/** How long before the migration the first watermark lies: loads of a slightly wrong clock are not missed. */
const FIRST_WATERMARK_MARGIN_MS = 3_600_000;

/** Asked once by every role: a process must not work on tables that it does not know. */
export async function requireSchema(store: Store): Promise<void> {
  const newest = migrations.at(-1)?.version ?? 0;
  const applied = await appliedVersions(store).catch(() => new Set<number>());
  if (!applied.has(newest)) {
    throw new UsageError(`The keyspace is not at schema version ${newest}: run \`npx pipeline migrate\` first.`);
  }
}

async function appliedVersions(store: Store): Promise<Set<number>> {
  const result = await store.run('SELECT version FROM schema_migrations');
  return new Set(result.rows.map((row) => Number(row.get('version'))));
}

/**
 * Creates the keyspace and the tables, and applies what is missing. Idempotent.
 *
 * @returns the versions that were applied now
 * @throws UsageError when Cassandra does not answer
 */
export async function migrate(config: Config, log: Logger): Promise<number[]> {
  const admin = await connectStore(config, log, '');
  const replication = `{'class': 'NetworkTopologyStrategy', '${config.CASSANDRA_LOCAL_DATACENTER}': ${config.CASSANDRA_REPLICATION_FACTOR}}`;
  await admin
    .run(`CREATE KEYSPACE IF NOT EXISTS ${config.CASSANDRA_KEYSPACE} WITH replication = ${replication}`)
    .finally(admin.close);
  const store = await connectStore(config, log);
  try {
    await store.run(
      'CREATE TABLE IF NOT EXISTS schema_migrations (version int PRIMARY KEY, description text, applied_at timestamp)',
    );
    const applied = await appliedVersions(store);
    const missing = migrations.filter(({ version }) => !applied.has(version));
    for (const { version, description, statements } of missing) {
      for (const statement of statements) await store.run(statement);
      const values = { version, description, applied_at: new Date(store.now()) };
      await store.insert({ table: 'schema_migrations', values });
      log.info({ version, description }, 'migration applied');
    }
    await store.runIf('INSERT INTO aggregation_state (job, watermark, epoch) VALUES (?, ?, ?) IF NOT EXISTS', [
      'summaries',
      new Date(store.now() - FIRST_WATERMARK_MARGIN_MS),
      0n,
    ]);
    return missing.map(({ version }) => version);
  } finally {
    await store.close();
  }
}
