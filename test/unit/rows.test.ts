import { expect, it } from 'vitest';
import type { Row } from '../../src/datasets/dataset.ts';
import { createRowWriter } from '../../src/storage/rows.ts';

function rowsOf(count: number, bytes: number): Row[] {
  return Array.from({ length: count }, (_, n) => ({
    table: n % 2 === 0 ? 'one' : 'two',
    partition: `partition ${n % 60}`,
    key: `${n}`,
    columns: ['key', 'text'],
    values: [n, 'x'.repeat(bytes)],
  }));
}

const rowOf = (partition: string, key: string, value = key): Row => {
  return { table: 't', partition, key, columns: ['value'], values: [value] };
};

/** A writer whose batches are kept and, at first, not acknowledged. */
function openWriter(everyNodeHasAll: boolean, filesArrive = () => false) {
  const batches: Row[][] = [];
  const waiting: { resolve: () => void; reject: (error: Error) => void }[] = [];
  const insertRows = (rows: readonly Row[]) => {
    batches.push([...rows]);
    return new Promise<void>((resolve, reject) => waiting.push({ resolve, reject }));
  };
  const write = createRowWriter({ insertRows, everyNodeHasAll: () => everyNodeHasAll }, filesArrive);
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
      { table: 'one', partition: 'wide', key: '', columns: ['key', 'text'], values: [0, '😀'.repeat(bytes)] },
    ]);
    await acknowledgeAll();
    await written;
    const bytesOf = (batch: readonly Row[]) =>
      batch.reduce((sum, { values }) => sum + Buffer.byteLength(String(values[1])), 0);
    for (const batch of batches.filter(({ length }) => length > 1))
      expect(bytesOf(batch)).toBeLessThan(partitionsOf(batch).size > 1 ? 5 * 1024 : 16_000);
  },
);

it('urgent rows go before those that wait longer', async () => {
  const { batches, write, acknowledgeAll, turn } = openWriter(false);
  const backlog = Array.from({ length: 50 }, (_, n) => rowOf(`${n}`, 'backlog'));
  const written = [write(backlog)];
  await turn();
  const sent = batches.length;
  written.push(write([rowOf('49', 'urgent'), rowOf('new', 'urgent')], true));
  await acknowledgeAll();
  await Promise.all(written);
  expect(batches.slice(sent, sent + 2)).toEqual([[rowOf('49', 'urgent')], [rowOf('new', 'urgent')]]);
});

it('while files arrive, few batches of a backlog are under way, and the rows of those files wait for none of them', async () => {
  let filesArrive = false;
  const { batches, waiting, write, acknowledgeAll, turn } = openWriter(false, () => filesArrive);
  const written = [write(Array.from({ length: 100 }, (_, n) => rowOf(`${n}`, 'backlog')))];
  await turn();
  const alone = waiting.length;
  filesArrive = true;
  for (let acknowledged = 0; acknowledged < alone; acknowledged += 1) {
    waiting.shift()?.resolve();
    await turn();
  }
  const beside = waiting.length;
  expect(beside).toBeGreaterThan(0);
  expect(beside).toBeLessThan(alone / 4);
  written.push(write([rowOf('new', 'urgent')], true));
  await turn();
  expect(waiting).toHaveLength(beside + 1);
  expect(batches.at(-1)).toEqual([rowOf('new', 'urgent')]);
  // However many of those are under way, the backlog goes on.
  written.push(
    write(
      Array.from({ length: 12 }, (_, n) => rowOf(`new ${n}`, 'urgent')),
      true,
    ),
  );
  await turn();
  waiting.shift()?.resolve();
  await turn();
  expect(batches.at(-1)?.[0]?.key).toBe('backlog');
  await acknowledgeAll();
  await Promise.all(written);
  expect(batches.flat()).toHaveLength(113);
});

it('rows that come while batches are under way go together with those of their partition', async () => {
  const { batches, write, acknowledgeAll, turn } = openWriter(false);
  const one = (key: number) => rowOf('p', `${key}`);
  const first = Array.from({ length: 100 }, (_, n) => rowOf(`${n}`, 'only'));
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
    key: '',
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
  const bad = write([rowOf('bad', '1')]);
  const good = write([rowOf('good', '1')]);
  await turn();
  waiting.shift()?.reject(new Error('refused'));
  await expect(bad).rejects.toThrow('refused');
  await acknowledgeAll();
  await good;
});

it('a row that replaces a smaller one counts with its own size', async () => {
  const { batches, write, acknowledgeAll } = openWriter(true);
  const report = (partition: string, timestamp: bigint, text: string): Row => {
    return { ...rowOf(partition, '', text), timestamp };
  };
  const others = Array.from({ length: 9 }, (_, n) => report(`${n}`, 1n, 'short'));
  const written = write([...others, report('large', 1n, 'short'), report('large', 2n, 'x'.repeat(60_000))]);
  await acknowledgeAll();
  await written;
  expect(batches.map((batch) => batch.length).toSorted()).toEqual([1, 9]);
});

it('a row that two files hold is sent once, as one of them has it, and both are told', async () => {
  const { batches, write, acknowledgeAll } = openWriter(true);
  const written = Promise.all([write([rowOf('p', 'same', 'first file')]), write([rowOf('p', 'same', 'second file')])]);
  await acknowledgeAll();
  await written;
  expect(batches).toEqual([[rowOf('p', 'same', 'second file')]]);
});

it('who wrote a row that failed is told when the others were tried, so that none is written later', async () => {
  const { batches, waiting, write, turn } = openWriter(false);
  let isTold = false;
  const written = write([rowOf('a', '1'), rowOf('b', '1')]).catch((error: unknown) => {
    isTold = true;
    return error;
  });
  await turn();
  expect(batches).toHaveLength(2);
  waiting[0]?.reject(new Error('refused'));
  await turn();
  expect(isTold).toBe(false);
  waiting[1]?.resolve();
  await expect(written).resolves.toEqual(new Error('refused'));
});

it.each([false, true])('a partition that is never empty does not hold up others (urgent: %s)', async (isUrgent) => {
  const { batches, waiting, write, turn } = openWriter(false);
  const hot = (from: number) => Array.from({ length: 200 }, (_, n) => rowOf('hot', `${from + n}`, 'x'.repeat(400)));
  const written = [write(hot(0), isUrgent)];
  await turn();
  written.push(write([rowOf('other', '1')], isUrgent));
  // Each batch of the hot partition that is acknowledged is followed by as many new rows of it.
  for (let round = 1; round < 4; round += 1) {
    written.push(write(hot(round * 1_000), isUrgent));
    await turn();
    for (const { resolve } of waiting.splice(0)) resolve();
    await turn();
  }
  expect(batches.flat().map(({ partition }) => partition)).toContain('other');
  for (; waiting.length > 0; await turn()) for (const { resolve } of waiting.splice(0)) resolve();
  await Promise.all(written);
});
