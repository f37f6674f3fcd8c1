import { readdirSync } from 'node:fs';
import { utimes } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { eventually, fixture, openSpace } from './pipeline.ts';
import { idOf, nanosOf, storedSummaries, summariesOf } from './recomputation.ts';
import type { ProviderEvent, ProviderStatus } from './records.ts';

const names = readdirSync(resolve(import.meta.dirname, '../fixtures'));
const eventFiles = names.filter((name) => name.startsWith('vehicles_events_'));
const statusFiles = names.filter((name) => name.startsWith('vehicles_status_'));

async function recordsOf<T>(files: readonly string[]): Promise<T[]> {
  const parsed = await Promise.all(files.map(async (name) => JSON.parse(String(await fixture(name))) as T[]));
  return parsed.flat();
}

describe("the provider's own files", async () => {
  const space = await openSpace();
  const events = await recordsOf<ProviderEvent>(eventFiles);
  const statuses = await recordsOf<ProviderStatus>(statusFiles);

  beforeAll(async () => {
    space.startWatcher();
    space.startProcessor();
    space.startProcessor();
    for (const name of names) await space.put(name, await fixture(name));
    await space.loaded(names);
    await space.aggregated();
  });

  /** Everything that people query, without where it was read from. */
  async function everything() {
    const table = async (name: string) =>
      (await space.read(`SELECT * FROM ${name}`))
        .map(({ file_name: _name, file_version: _version, ...row }) => JSON.stringify(row))
        .sort();
    return {
      events: await table('vehicle_events'),
      newest: await table('vehicle_status'),
      history: await table('vehicle_status_history'),
      summaries: await storedSummaries(space.read),
    };
  }

  it('end as exactly one row a record, a hundred an event file', async () => {
    const rows = await space.read('SELECT event_id, file_name FROM vehicle_events');
    expect(rows.map((row) => row['event_id']).sort()).toEqual(events.map(idOf).sort());
    for (const name of eventFiles) expect(rows.filter((row) => row['file_name'] === name)).toHaveLength(100);
    expect(eventFiles).toHaveLength(5);
    const ledger = await space.ledger();
    expect(ledger).toHaveLength(10);
    for (const file of ledger) expect(file).toMatchObject({ state: 'loaded', records: 100, loaded: 100, rejected: 0 });
  });

  it('keep every field of an event as it was sent', async () => {
    for (const record of events.slice(0, 20)) {
      const nanos = nanosOf(record.event_time);
      const [row] = await space.read(
        'SELECT * FROM vehicle_events WHERE vehicle_id = ? AND day = ? AND event_time = ? AND event_id = ?',
        [record.vehicle_id, record.event_time.slice(0, 10), new Date(Number(nanos / 1_000_000n)), idOf(record)],
      );
      expect(row).toMatchObject({
        event_time_nanos: Number(nanos % 1_000_000n),
        event_source: record.event_source,
        event_type: record.event_type,
        event_value: record.event_value,
        unknown_fields: null,
      });
      expect(JSON.parse(String(row?.['event_extra_data']))).toEqual(record.event_extra_data);
    }
  });

  it('end as two rows where one vehicle has two events in one millisecond', async () => {
    const milliseconds = new Map<string, number>();
    for (const { vehicle_id, event_time } of events) {
      const key = `${vehicle_id} ${event_time.slice(0, 23)}`;
      milliseconds.set(key, (milliseconds.get(key) ?? 0) + 1);
    }
    const shared = [...milliseconds].filter(([, count]) => count > 1);
    expect(shared.length).toBeGreaterThan(10);
    for (const [key, count] of shared) {
      const [vehicleId = '', time = ''] = key.split(' ');
      const rows = await space.read(
        'SELECT event_id FROM vehicle_events WHERE vehicle_id = ? AND day = ? AND event_time = ?',
        [vehicleId, time.slice(0, 10), new Date(`${time}Z`)],
      );
      expect(rows).toHaveLength(count);
    }
  });

  it('give the whole history of each status and the newest one', async () => {
    const history = await space.read('SELECT status_id FROM vehicle_status_history');
    expect(history.map((row) => row['status_id']).sort()).toEqual(statuses.map(idOf).sort());

    const newest = new Map<string, ProviderStatus>();
    for (const report of statuses) {
      const best = newest.get(report.vehicle_id);
      if (best === undefined || nanosOf(report.report_time) > nanosOf(best.report_time)) {
        newest.set(report.vehicle_id, report);
      }
    }
    const rows = await space.read('SELECT * FROM vehicle_status');
    expect(new Map(rows.map((row) => [row['vehicle_id'], [row['status_id'], row['status']]]))).toEqual(
      new Map([...newest].map(([vehicleId, report]) => [vehicleId, [idOf(report), report.status]])),
    );
  });

  it('give the summaries of a recomputation', async () => {
    expect(await storedSummaries(space.read)).toEqual(summariesOf(events));
  });

  it('change no row and no summary when they are loaded again, touched or under another name', async () => {
    const before = await everything();
    const now = new Date();
    for (const name of names) await utimes(join(space.config.DATA_DIR, name), now, now);
    for (const name of names) await space.put(`copies/${name}`, await fixture(name));
    await eventually(async () => {
      const states = (await space.ledger()).map(({ name, state }) => `${name} ${state}`).sort();
      expect(states).toEqual(
        names.flatMap((name) => [`${name} loaded`, `${name} unchanged`, `copies/${name} loaded`]).sort(),
      );
    });
    await space.aggregated();
    expect(await everything()).toEqual(before);
  });
});
