import type { Row } from '../datasets/dataset.ts';

/** Cassandra warns about a batch of several partitions over 5 KiB, and about one of over ten partitions. */
const MIXED_BYTES = 4_500;
const MIXED_PARTITIONS = 10;
/** One of a single partition is one mutation, of whatever size; beyond some tens of rows nothing is gained. */
const SINGLE_BYTES = 16_000;
/** What a row and each of its cells cost beside the texts, as Cassandra reckons. On the high side. */
const ROW_BYTES = 60;
const CELL_BYTES = 18;
/** Batches under way at once: enough to keep Cassandra busy. While all are, rows gather, so that those of one partition go together. */
const MAX_BATCHES = 8;

/** One call of `write`: how many of its rows are not acknowledged yet. */
type Call = { left: number; resolve: () => void; reject: (error: unknown) => void };
/** The rows of one partition that wait. `calls` are those that wait for them, one for each row that was added. */
type Group = { rows: Row[]; sizes: number[]; calls: Call[] };

export type RowWriter = ReturnType<typeof createRowWriter>;

function estimatedBytes({ values }: Row): number {
  let bytes = ROW_BYTES + CELL_BYTES * values.length;
  for (const value of values) if (typeof value === 'string') bytes += Buffer.byteLength(value);
  return bytes;
}

/** Whether a row of one key would win over another one of it. */
function isNewer(row: Row, other: Row): boolean {
  const [own, others] = [row.timestamp ?? 0n, other.timestamp ?? 0n];
  return own === others ? (row.rank ?? '') > (other.rank ?? '') : own > others;
}

/** Takes the rows that waited longest, as many as fit into so many bytes, and at least one. */
function takeRows({ rows, sizes, calls }: Group, room: number) {
  let fitting = 0;
  let bytes = 0;
  for (const size of sizes) {
    if (fitting > 0 && bytes + size > room) break;
    bytes += size;
    fitting += 1;
  }
  sizes.splice(0, fitting);
  const taken = rows.splice(0, fitting);
  // Of rows that overwrite one another only one is left, and all calls wait for it.
  return { rows: taken, bytes, calls: rows.length === 0 ? calls : calls.splice(0, fitting) };
}

const total = (sizes: readonly number[]) => sizes.reduce((sum, size) => sum + size, 0);

/**
 * Makes the writer that all loads of a process share. It sends unlogged batches: of one partition, or of several where
 * every node has all of them, so that no coordinator has to ask others. Rows are sent again without harm.
 */
export function createRowWriter(store: {
  insertRows(rows: readonly Row[]): Promise<void>;
  everyNodeHasAll(): boolean;
}) {
  /** By table and partition, in the order in which they came. */
  const groups = new Map<string, Group>();
  /** Groups with rows that go before all others. */
  const urgent = new Set<string>();
  let underWay = 0;

  function add(row: Row, call: Call, isUrgent: boolean): void {
    const key = `${row.table} ${row.partition}`;
    if (isUrgent) urgent.add(key);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, { rows: [row], sizes: [estimatedBytes(row)], calls: [call] });
    else {
      const [waiting] = group.rows;
      group.calls.push(call);
      if (row.timestamp === undefined || waiting === undefined) {
        group.rows.push(row);
        group.sizes.push(estimatedBytes(row));
      } else if (isNewer(row, waiting)) group.rows[0] = row;
    }
  }

  /** Takes rows of the partition that waited longest, and all of further ones where they are few and there is room. */
  function takeBatch(): { rows: Row[]; calls: Call[] } {
    const batch: { rows: Row[]; calls: Call[] } = { rows: [], calls: [] };
    const maxPartitions = store.everyNodeHasAll() ? MIXED_PARTITIONS : 1;
    let [bytes, partitions] = [0, 0];
    for (const key of urgent.size > 0 ? urgent : groups.keys()) {
      const group = groups.get(key);
      if (group === undefined) continue;
      if (partitions > 0 && bytes + total(group.sizes) > MIXED_BYTES) break;
      const taken = takeRows(group, SINGLE_BYTES);
      batch.rows.push(...taken.rows);
      batch.calls.push(...taken.calls);
      bytes += taken.bytes;
      partitions += 1;
      if (group.rows.length > 0) break;
      groups.delete(key);
      urgent.delete(key);
      if (partitions === maxPartitions) break;
    }
    return batch;
  }

  function send(): void {
    while (underWay < MAX_BATCHES && groups.size > 0) {
      const { rows, calls } = takeBatch();
      underWay += 1;
      store
        .insertRows(rows)
        .then(
          () => {
            for (const call of calls) if ((call.left -= 1) === 0) call.resolve();
          },
          (error: unknown) => {
            for (const call of calls) call.reject(error);
          },
        )
        .finally(() => {
          underWay -= 1;
          send();
        });
    }
  }

  /** Resolves when every row is acknowledged. Writing them again changes nothing. Urgent ones go before all others. */
  return (rows: readonly Row[], isUrgent = false): Promise<void> =>
    new Promise((resolve, reject) => {
      if (rows.length === 0) {
        resolve();
        return;
      }
      const call = { left: rows.length, resolve, reject };
      for (const row of rows) add(row, call, isUrgent);
      // At the end of the turn, so that what is read in the same one goes together.
      setImmediate(send);
    });
}
