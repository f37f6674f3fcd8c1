import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { datasetOf } from '../../src/datasets/catalog.ts';
import type { Row } from '../../src/datasets/dataset.ts';
import { closeDataFile, openDataFile } from '../../src/processors/data-file.ts';
import { checkFile, loadFile, type LoadOptions } from '../../src/processors/load-file.ts';
import { events } from '../integration/records.ts';

const folder = await mkdtemp(join(tmpdir(), 'load-file-'));
afterAll(() => rm(folder, { recursive: true }));

it('a large file that is rewritten between its check and its load: no record of the new version is written as one of the old', async () => {
  const name = 'vehicles_events_1.json';
  const content = (vehicle: string) => JSON.stringify(events(3_000, { vehicle_id: vehicle }));
  const written: Row[] = [];
  const kind = datasetOf(name);
  if (kind === undefined) throw new Error('no kind of file');
  const options = {
    ...kind,
    context: { lineage: { name, version: '1-1' }, writtenAt: Date.now(), sourceTimeZone: 'UTC' },
    maxRecordBytes: 1e6,
    maxBytes: 1e9,
    mayGrow: false,
    maxRejectedRatio: 0,
    writeRows: (rows: readonly Row[]) => Promise.resolve(written.push(...rows)),
    announced: (_file: unknown, _touched: unknown, write: () => Promise<unknown>) => write(),
  } as unknown as LoadOptions;

  await writeFile(join(folder, name), content('old'));
  const file = await openDataFile(folder, name, 1e9);
  const checked = await checkFile(file, options);
  expect(checked).toMatchObject({ records: 3_000, chunks: undefined });
  await writeFile(join(folder, name), content('new'));
  await expect(loadFile(file, checked, options, () => undefined)).rejects.toThrow('changed while it was read');
  expect(written).toEqual([]);
  closeDataFile(file);
});
