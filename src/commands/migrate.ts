import type { Runtime } from '../runtime.ts';
import { migrate } from '../storage/migrations.ts';

export async function migrateSchema({ config, log }: Runtime): Promise<void> {
  const applied = await migrate(config, log);
  process.stdout.write(
    applied.length === 0
      ? `Keyspace ${config.CASSANDRA_KEYSPACE} is up to date.\n`
      : `Keyspace ${config.CASSANDRA_KEYSPACE}: applied version ${applied.join(', ')}.\n`,
  );
}
