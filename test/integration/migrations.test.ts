import { describe, expect, it } from 'vitest';
import { migrate } from '../../src/storage/migrations.ts';
import { migrations, migrationsTable } from '../../src/storage/schema.ts';
import { eventually, openSpace, type Space } from './pipeline.ts';
import { columnsOf, idOf, nanosOf, storedSummaries, summariesOf } from './recomputation.ts';
import { event } from './records.ts';

const BUCKET_MS = 600_000;

describe('a keyspace of version 1', async () => {
  const space = await openSpace();
  const keyspace = `${space.config.CASSANDRA_KEYSPACE}_old`;
  /** In that keyspace. */
  const read: Space['read'] = (query, parameters) =>
    space.read(query.replace(/(FROM|INTO|EXISTS) (?=\w+ ?)/, `$1 ${keyspace}.`), parameters);

  it('is brought up to date by two processes at once, and what was about to be aggregated is', async () => {
    await space.read(
      `CREATE KEYSPACE ${keyspace} WITH replication = {'class': 'NetworkTopologyStrategy', 'datacenter1': 1}`,
    );
    for (const statement of migrations[0]?.statements ?? []) await read(statement);
    await read(`CREATE TABLE IF NOT EXISTS ${migrationsTable}`);
    await read("INSERT INTO schema_migrations (version, description) VALUES (1, 'the first one')");
    const now = Date.now();
    await read("INSERT INTO aggregation_state (job, watermark, epoch) VALUES ('summaries', ?, 1)", [
      new Date(now - 60_000),
    ]);
    const record = event();
    const { vehicle_id, event_time, event_source, event_type, event_value } = record;
    const { time, rest } = columnsOf(nanosOf(event_time));
    const values = [vehicle_id, time.slice(0, 10), new Date(time), idOf(record), rest];
    await read(
      `INSERT INTO vehicle_events (vehicle_id, day, event_time, event_id, event_time_nanos, event_source, event_type, event_value)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
      [...values, event_source, event_type, event_value],
    );
    const hours = new Map([[new Date(`${time.slice(0, 13)}:00:00Z`), new Set([vehicle_id])]]);
    const bucket = new Date(Math.floor((now - 30_000) / BUCKET_MS) * BUCKET_MS);
    await read('INSERT INTO change_log (bucket, shard, at, hours) VALUES (?, 0, minTimeuuid(?), ?)', [
      bucket,
      new Date(now - 30_000),
      hours,
    ]);

    const { log } = space.runtime();
    const config = { ...space.config, CASSANDRA_KEYSPACE: keyspace };
    await Promise.all([migrate(config, log), migrate(config, log)]);
    const versions = await read('SELECT version FROM schema_migrations');
    expect(versions.map(({ version }) => version).sort()).toEqual(migrations.map(({ version }) => version));
    const roles = [space.startWatcher(config), space.startProcessor(config)];
    await eventually(async () => expect(await storedSummaries(read)).toEqual(summariesOf([record])));
    await Promise.all(roles.map((role) => role.stop()));
    await space.read(`DROP KEYSPACE ${keyspace}`);
  });
});
