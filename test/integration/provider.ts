import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'vitest';
import { eventually, type Space } from './pipeline.ts';
import { idOf, storedSummaries, summariesOf } from './recomputation.ts';
import { events, type ProviderEvent } from './records.ts';

/** A file that was put into the folder, with its records. */
export interface ProvidedFile {
  readonly name: string;
  readonly records: readonly ProviderEvent[];
}

/** The provider, that goes on whatever happens: a file of ten events every 50 ms until it is told to stop. */
export function startProvider(space: Space, vehicleId: string) {
  const written: ProvidedFile[] = [];
  let goesOn = true;
  const writing = (async () => {
    while (goesOn) {
      const name = `vehicles_events_${vehicleId}_${written.length}.json`;
      const records = events(10, { vehicle_id: `${vehicleId}-${written.length % 7}` });
      await space.put(name, records);
      written.push({ name, records });
      await sleep(50);
    }
  })();
  return {
    written,
    hasWritten: (files: number) => eventually(() => expect(written.length).toBeGreaterThanOrEqual(files)),
    stop: async () => {
      goesOn = false;
      await writing;
    },
  };
}

/** Every record a row and in the summaries, no dead letter, nothing left in the queues. */
export async function expectAllLoaded(space: Space, files: readonly ProvidedFile[]): Promise<void> {
  await space.loaded(files.map(({ name }) => name));
  const records = files.flatMap((file) => file.records);
  // What a Cassandra that was killed may have forgotten is to be loaded once more.
  await eventually(async () => {
    const rows = await space.read('SELECT event_id FROM vehicle_events');
    expect(rows.map((row) => row['event_id']).sort()).toEqual(records.map(idOf).sort());
    for (const row of await space.ledger())
      expect(row).toMatchObject({ state: 'loaded', records: 10, loaded: 10, rejected: 0, error: null });
  });
  expect(await space.letters()).toEqual([]);
  await space.aggregated();
  expect(await storedSummaries(space.read)).toEqual(summariesOf(records));
}
