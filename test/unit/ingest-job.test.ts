import { describe, expect, it } from 'vitest';
import { datasetOf } from '../../src/datasets/catalog.ts';
import {
  ingestJobId,
  ingestJobSchema,
  isYoungerThan,
  mtimeMs,
  relativePath,
  versionOf,
} from '../../src/queues/ingest.ts';

describe('a file version', () => {
  it('is named by its size and its modification time in nanoseconds', () => {
    expect(versionOf({ size: 123, mtimeNs: '1763829506123456789' })).toBe('123-1763829506123456789');
    expect(versionOf({ size: 0, mtimeNs: '-1' })).toBe('0--1');
  });

  it.each([
    { machine: 0, store: 0, young: true },
    { machine: 600_000, store: 0, young: true },
    { machine: 0, store: 600_000, young: true },
    { machine: 600_000, store: 600_000, young: false },
    // A network file system whose clock is ahead of both.
    { machine: -3_000, store: -3_000, young: true },
    { machine: -600_000, store: -600_000, young: false },
  ])('may still be written when either clock says so: %o ms ahead', ({ machine, store, young }) => {
    const changedAt = Date.now() - 1_000 - machine;
    const file = { name: 'vehicles_events_1.json', size: 1, mtimeNs: `${BigInt(Math.trunc(changedAt)) * 1_000_000n}` };
    expect(isYoungerThan(2_000, file, changedAt + 1_000 + store)).toBe(young);
  });

  it('has one job id, which differs with name and version and is one that BullMQ takes', () => {
    const id = (name: string, version: string) => ingestJobId({ name, version });
    expect(id('a.json', '1-2')).toBe(id('a.json', '1-2'));
    const ids = [id('a.json', '1-2'), id('a.json', '1-3'), id('b.json', '1-2'), id('a.json1', '-2'), id('', '')];
    expect(new Set(ids).size).toBe(ids.length);
    // No colon, and not all digits.
    for (const one of ids) expect(one).toMatch(/^f[0-9a-f]{31}$/);
  });

  it('may be of a time that no date holds', () => {
    const file = { name: 'a.json', size: 1, mtimeNs: '1795000000000000000000000' };
    expect(ingestJobSchema.safeParse(file).success).toBe(true);
    expect(new Date(mtimeMs(file)).toISOString()).toBe('+275760-09-13T00:00:00.000Z');
    const earlier = { ...file, mtimeNs: `-${file.mtimeNs}` };
    expect(new Date(mtimeMs(earlier)).toISOString()).toBe('-271821-04-20T00:00:00.000Z');
  });

  it('is what the data of a job must be', () => {
    expect(ingestJobSchema.safeParse({ name: 'a.json', size: 1, mtimeNs: '5' }).success).toBe(true);
    for (const data of [
      null,
      [],
      {},
      { name: 'a.json', size: 1 },
      { name: 'a.json', size: -1, mtimeNs: '5' },
      { name: 'a.json', size: 1.5, mtimeNs: '5' },
      { name: 'a.json', size: '1', mtimeNs: '5' },
      { name: 'a.json', size: 1, mtimeNs: 5 },
      { name: 'a.json', size: 1, mtimeNs: '5; DROP' },
      { name: 7, size: 1, mtimeNs: '5' },
    ]) {
      expect(ingestJobSchema.safeParse(data).success, JSON.stringify(data)).toBe(false);
    }
  });
});

it.each(['a.json', 'a/b/c.json', '..a/b..json', '...', 'a\\b', 'a\\..\\b', 'ü/😀 \n.json'])(
  '%j is a path below the data folder',
  (path) => {
    expect(relativePath.safeParse(path).success).toBe(true);
  },
);

it.each(['', '/etc/passwd', '..', '../a', 'a/../../b', 'a/..', 'a\0b', 'x'.repeat(4_352)])(
  '%j is no path below the data folder',
  (path) => {
    expect(relativePath.safeParse(path).success).toBe(false);
  },
);

it.each([
  ['vehicles_events_1.json', 'events', false, false],
  ['deep/er/vehicles_events_1.jsonl', 'events', true, false],
  ['vehicles_status_x.y.json.gz', 'status', false, true],
  ['vehicles_status_.jsonl.gz', 'status', true, true],
  ['vehicles_status_a\nb.json', 'status', false, false],
])('%s is a file of %s', (path, name, lines, gzip) => {
  expect(datasetOf(path)).toMatchObject({ dataset: { name }, format: { lines, gzip } });
});

it.each([
  'vehicles_events_1.json.tmp',
  '.vehicles_events_1.json',
  'vehicles_events_1.json.gz.part',
  'vehicles_events_1.csv',
  'vehicles_events_1',
  'vehicles_other_1.json',
  'VEHICLES_EVENTS_1.JSON',
  'vehicles_events_1.json/inside',
  '',
])('%j is nobody’s file', (path) => {
  expect(datasetOf(path)).toBeUndefined();
});
