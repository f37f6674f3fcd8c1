import { expect, it } from 'vitest';
import type { Row } from '../../src/datasets/dataset.ts';
import { createRowWriter } from '../../src/storage/rows.ts';

function rowsOf(count: number, bytes: number): Row[] {
  return Array.from({ length: count }, (_, n) => ({
    table: n % 2 === 0 ? 'one' : 'two',
    partition: `partition ${n % 60}`,
    columns: ['key', 'text'],
    values: [n, 'x'.repeat(bytes)],
  }));
}

/** A writer whose batches are kept and, at first, not acknowledged. */
function openWriter(everyNodeHasAll: boolean) {
  const batches: Row[][] = [];
  const waiting: { resolve: () => void; reject: (error: Error) => void }[] = [];
  const insertRows = (rows: readonly Row[]) => {
    batches.push([...rows]);
    return new Promise<void>((resolve, reject) => waiting.push({ resolve, reject }));
  };
  const write = createRowWriter({ insertRows, everyNodeHasAll: () => everyNodeHasAll });
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  async function acknowledgeAll(): Promise<void> {
    for (await turn(); waiting.length > 0; await turn()) for (const { resolve } of waiting.splice(0)) resolve();
  }
  return { batches, waiting, write, turn, acknowledgeAll };
}

const partitionsOf = (batch: readonly Row[]) => new Set(batch.map(({ table, partition }) => `${table} ${partition}`));

it.each([
  [false, 1],
  [true, 10],
])('no row is lost, and a batch has few partitions (all nodes alike: %s)', async (alike, most) => {
  const { batches, write, acknowledgeAll } = openWriter(alike);
  const all = [...rowsOf(6_000, 100), ...rowsOf(120, 20).map((row) => ({ ...row, table: 'small' }))];
  const written = Promise.all([write(all.slice(0, 10)), write(all.slice(10)), write([])]);
  await acknowledgeAll();
  await written;
  expect(batches.flat()).toHaveLength(all.length);
  expect(new Set(batches.flat())).toEqual(new Set(all));
  expect(Math.max(...batches.map((batch) => partitionsOf(batch).size))).toBe(most);
});

it.each([10, 1_000, 4_000, 20_000])(
  'a batch of several partitions stays under the 5 KiB that Cassandra warns about, one of a single one is bounded: %i bytes',
  async (bytes) => {
    const { batches, write, acknowledgeAll } = openWriter(true);
    const written = write([
      ...rowsOf(200, bytes),
      { table: 'one', partition: 'wide', columns: ['key', 'text'], values: [0, '😀'.repeat(bytes)] },
    ]);
    await acknowledgeAll();
    await written;
    const bytesOf = (batch: readonly Row[]) =>
      batch.reduce((sum, { values }) => sum + Buffer.byteLength(String(values[1])), 0);
    for (const batch of batches.filter(({ length }) => length > 1))
      expect(bytesOf(batch)).toBeLessThan(partitionsOf(batch).size > 1 ? 5 * 1024 : 16_000);
  },
);

it('urgent rows go before those that wait longer, with what waits of their partitions', async () => {
  const { batches, write, acknowledgeAll, turn } = openWriter(false);
  const rowOf = (partition: string, key: string): Row => ({ table: 't', partition, columns: ['key'], values: [key] });
  const backlog = Array.from({ length: 50 }, (_, n) => rowOf(`${n}`, 'backlog'));
  const written = [write(backlog)];
  await turn();
  const sent = batches.length;
  written.push(write([rowOf('49', 'urgent'), rowOf('new', 'urgent')], true));
  await acknowledgeAll();
  await Promise.all(written);
  expect(batches.slice(sent, sent + 2)).toEqual([
    [rowOf('49', 'backlog'), rowOf('49', 'urgent')],
    [rowOf('new', 'urgent')],
  ]);
});

it('rows that come while batches are under way go together with those of their partition', async () => {
  const { batches, write, acknowledgeAll, turn } = openWriter(false);
  const one = (key: number): Row => ({ table: 'one', partition: 'p', columns: ['key'], values: [key] });
  const first = Array.from({ length: 100 }, (_, n): Row => ({
    table: 'one',
    partition: `${n}`,
    columns: ['key'],
    values: [n],
  }));
  const written = [write(first)];
  await turn();
  const sent = batches.length;
  expect(sent).toBeLessThan(100);
  for (let key = 0; key < 5; key += 1) {
    written.push(write([one(key)]));
    await turn();
  }
  await acknowledgeAll();
  await Promise.all(written);
  expect(batches.filter((batch) => batch[0]?.partition === 'p')).toEqual([[0, 1, 2, 3, 4].map(one)]);
});

it('of rows that overwrite one another only the newest is sent, and all who wrote one wait for it', async () => {
  const { batches, waiting, write, turn } = openWriter(true);
  const report = (timestamp: bigint, rank: string): Row => ({
    table: 't',
    partition: 'v',
    columns: ['rank'],
    values: [rank],
    timestamp,
    rank,
  });
  const reports = [report(1n, 'z'), report(3n, 'b'), report(3n, 'c'), report(3n, 'a'), report(2n, 'y')];
  let done = 0;
  const written = Promise.all(reports.map((row) => write([row]).then(() => (done += 1))));
  await turn();
  expect(batches).toEqual([[report(3n, 'c')]]);
  await turn();
  expect(done).toBe(0);
  waiting[0]?.resolve();
  await written;
  expect(done).toBe(5);
});

it('who wrote a row of a batch that failed hears of it, and others do not', async () => {
  const { waiting, write, acknowledgeAll, turn } = openWriter(false);
  const bad = write([{ table: 't', partition: 'bad', columns: ['key'], values: [1] }]);
  const good = write([{ table: 't', partition: 'good', columns: ['key'], values: [1] }]);
  await turn();
  waiting.shift()?.reject(new Error('refused'));
  await expect(bad).rejects.toThrow('refused');
  await acknowledgeAll();
  await good;
});
