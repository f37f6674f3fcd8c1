import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { datasetOf } from '../../src/datasets/catalog.ts';
import { isRejection } from '../../src/datasets/dataset.ts';
import type { Json } from '../../src/datasets/json.ts';
import { generate, type GeneratorOptions } from '../../src/producers/generator.ts';

const RECORDS = 2_000;

/** What the simulator writes in two rounds: the records of each file by its name. */
async function generated(options: Partial<GeneratorOptions>): Promise<Map<string, Json[]>> {
  const directory = await mkdtemp(join(tmpdir(), 'generator-'));
  onTestFinished(() => rm(directory, { recursive: true }));
  const told: string[] = [];
  const plain = { late: 0, lateSeconds: 3_600, duplicate: 0, bad: 0, outOfOrder: false, inPlace: false };
  const size = { interval: 0, count: 2, records: RECORDS, vehicles: 10, directory };
  await generate({ ...plain, ...size, ...options }, (name) => told.push(name), new AbortController().signal);
  expect((await readdir(directory)).sort()).toEqual(told.sort());
  expect(new Set(told).size).toBe(4);
  const contents = told.map(async (name): Promise<[string, Json[]]> => [
    name,
    JSON.parse(await readFile(join(directory, name), 'utf8')) as Json[],
  ]);
  return new Map(await Promise.all(contents));
}

/** The time of each record that is taken, in ms since the epoch, and how many are not. */
function read(name: string, records: readonly Json[]) {
  const lineage = { name, version: '1-1' };
  const context = { lineage, writtenAt: Date.now(), sourceTimeZone: 'UTC' };
  const kind = datasetOf(name);
  if (kind === undefined) throw new Error(`${name} is no data file`);
  const outcomes = records.map((record) => kind.dataset.read(record, context));
  const rows = outcomes.flatMap((outcome) => (isRejection(outcome) ? [] : (outcome.rows[0] ?? [])));
  return {
    times: rows.map(({ columns, values }) => Number(values[columns.findIndex((column) => column.endsWith('_time'))])),
    vehicles: new Set(rows.map(({ columns, values }) => values[columns.indexOf('vehicle_id')])),
    bad: outcomes.length - rows.length,
  };
}

const isSorted = (times: readonly number[]) => times.every((time, at) => at === 0 || time >= (times[at - 1] ?? 0));

it.each([{ inPlace: false }, { inPlace: true }])(
  'writes good records in order, by $inPlace in place',
  async (options) => {
    for (const [name, records] of await generated(options)) {
      const { times, vehicles, bad } = read(name, records);
      expect([records.length, vehicles.size, bad, isSorted(times)]).toEqual([RECORDS, 10, 0, true]);
    }
  },
);

it('writes as many bad, late and double records as asked for, and shuffles them', async () => {
  const share = 0.2;
  const all = await generated({ bad: share, late: share, duplicate: share, outOfOrder: true });
  for (const [name, records] of all) {
    const { times, bad } = read(name, records);
    const late = times.filter((time) => time < Date.now() - 60_000).length;
    const twice = records.length - RECORDS;
    for (const count of [bad, late, twice]) {
      expect(count).toBeGreaterThan(RECORDS * share * 0.7);
      expect(count).toBeLessThan(RECORDS * share * 1.6);
    }
    expect(isSorted(times)).toBe(false);
  }
});
