import { expect, it } from 'vitest';
import type { Row } from '../../src/datasets/dataset.ts';
import { batchesOf } from '../../src/storage/rows.ts';

function rows(count: number, bytes: number): Row[] {
  return Array.from({ length: count }, (_, n) => ({
    table: n % 2 === 0 ? 'one' : 'two',
    partition: `partition ${n % 6}`,
    values: { key: n, text: 'x'.repeat(bytes) },
  }));
}

it('a batch holds rows of one table and one partition, in their order, and none is lost', () => {
  const all = rows(600, 200);
  const batches = batchesOf(all);
  for (const batch of batches) {
    expect(new Set(batch.map(({ table, partition }) => `${table} ${partition}`)).size).toBe(1);
    const numbers = batch.map(({ values }) => Number(values['key']));
    expect(numbers).toEqual(numbers.toSorted((a, b) => a - b));
  }
  expect(new Set(batches.flat())).toEqual(new Set(all));
  expect(batches.flat()).toHaveLength(all.length);
});

it('a batch stays under the 5 KiB that Cassandra warns about, and a larger row is alone', () => {
  for (const bytes of [10, 1_000, 4_000]) {
    for (const batch of batchesOf(rows(200, bytes))) {
      expect(batch.length * bytes).toBeLessThan(5 * 1024);
    }
  }
  for (const batch of batchesOf(rows(50, 20_000))) expect(batch).toHaveLength(1);
});

it('a batch counts the bytes of a text, not its characters', () => {
  const wide: Row[] = rows(60, 0).map((row) => ({ ...row, partition: 'p', values: { text: '😀'.repeat(300) } }));
  for (const batch of batchesOf(wide)) {
    const bytes = batch.reduce((sum, { values }) => sum + Buffer.byteLength(String(values['text'])), 0);
    expect(bytes).toBeLessThan(5 * 1024);
  }
});
