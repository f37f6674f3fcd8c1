import type { Row } from '../datasets/dataset.ts';

/** Cassandra warns about a batch over 5 KiB, and about one of over ten partitions. */
const BATCH_BYTES = 4_500;
const BATCH_PARTITIONS = 10;
/** What a row costs beside its texts: clustering, cell headers, numbers. An estimate, on the high side. */
const ROW_OVERHEAD_BYTES = 120;
/** Batches under way at once. While all are, rows gather, so that those of one partition go together. */
const MAX_BATCHES = 24;

/** One call of `write`: how many of its rows are not acknowledged yet. */
type Call = { left: number; resolve: () => void; reject: (error: unknown) => void };
/** The rows of one partition that wait. `calls` are those that wait for them, one for each row that was added. */
type Group = { rows: Row[]; sizes: number[]; calls: Call[] };

export type RowWriter = ReturnType<typeof createRowWriter>;

function estimatedBytes({ values }: Row): number {
  let bytes = ROW_OVERHEAD_BYTES;
  for (const value of values) if (typeof value === 'string') bytes += Buffer.byteLength(value);
  return bytes;
}

/** Whether a row of one key would win over another one of it. */
function isNewer(row: Row, other: Row): boolean {
  const [own, others] = [row.timestamp ?? 0n, other.timestamp ?? 0n];
  return own === others ? (row.rank ?? '') > (other.rank ?? '') : own > others;
}

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
  let underWay = 0;

  function add(row: Row, call: Call): void {
    const key = `${row.table} ${row.partition}`;
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

  /** Takes the rows that waited longest, with those of their partition, and with further partitions where there is room. */
  function takeBatch(): { rows: Row[]; calls: Call[] } {
    const batch: { rows: Row[]; calls: Call[] } = { rows: [], calls: [] };
    const maxPartitions = store.everyNodeHasAll() ? BATCH_PARTITIONS : 1;
    let [room, partitions] = [BATCH_BYTES, 0];
    for (const [key, { rows, sizes, calls }] of groups) {
      let fitting = 0;
      for (const size of sizes) {
        if (size > room && batch.rows.length + fitting > 0) break;
        room -= size;
        fitting += 1;
      }
      batch.rows.push(...rows.splice(0, fitting));
      sizes.splice(0, fitting);
      // Of rows that overwrite one another only one is left, and all calls wait for it.
      batch.calls.push(...(rows.length === 0 ? calls : calls.splice(0, fitting)));
      if (rows.length > 0) break;
      groups.delete(key);
      partitions += 1;
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

  /** Resolves when every row is acknowledged. Writing them again changes nothing. */
  return (rows: readonly Row[]): Promise<void> =>
    new Promise((resolve, reject) => {
      if (rows.length === 0) {
        resolve();
        return;
      }
      const call = { left: rows.length, resolve, reject };
      for (const row of rows) add(row, call);
      // At the end of the turn, so that what is read in the same one goes together.
      setImmediate(send);
    });
}
