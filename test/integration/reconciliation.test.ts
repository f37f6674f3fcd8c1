import { utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, describe, it } from 'vitest';
import { openAll } from '../../src/commands/connect.ts';
import { createReconciliation } from '../../src/producers/reconciliation.ts';
import { eventually, openSpace } from './pipeline.ts';
import { events } from './records.ts';

describe('what the ledger says of the last seconds before Cassandra went', async () => {
  const space = await openSpace();
  const copied = 'vehicles_events_copied.json';
  const durable = 'vehicles_events_durable.json';
  const states = async () => (await space.ledger()).map(({ name, state }) => `${name} ${state}`).sort();

  it('is forgotten, of a copy with what it is a copy of, so that all is loaded again', async () => {
    const roles = [space.startWatcher(), space.startProcessor()];
    await space.put(durable, events(2, { vehicle_id: 'durable' }));
    await space.put(copied, events(3, { vehicle_id: 'copied' }), { stoodStill: true });
    await space.loaded([durable, copied]);
    await utimes(join(space.config.DATA_DIR, copied), new Date(), Date.now() / 1_000 - 30);
    await eventually(async () =>
      expect(await states()).toEqual([`${copied} loaded`, `${copied} unchanged`, `${durable} loaded`]),
    );
    await Promise.all(roles.map((role) => role.stop()));
    // Its rows were not on disk yet, and the ledger's were.
    await space.read("DELETE FROM vehicle_events WHERE vehicle_id = 'copied' AND day = '2026-11-20'");
    await space.read("UPDATE files SET finished_at = '2026-11-20' WHERE name = ? AND version = ?", [
      durable,
      (await space.ledger()).find(({ name }) => name === durable)?.version,
    ]);

    const runtime = space.runtime({ DURABLE_SECONDS: 60 });
    const needs = await openAll(runtime);
    const { run, forget } = createReconciliation(needs);
    expect(await run()).toMatchObject({ seen: 2, queued: 0 });
    forget(needs.store.now());
    expect(await run()).toMatchObject({ seen: 2, queued: 1 });
    expect(await states()).toEqual([`${durable} loaded`]);
    await runtime.stop();
    const processor = space.startProcessor();
    await space.loaded([copied]);
    await processor.stop();
    expect(await states()).toEqual([`${copied} loaded`, `${durable} loaded`]);
    expect(await space.count('vehicle_events')).toBe(5);
  });
});
