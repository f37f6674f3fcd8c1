import type { Row } from '../datasets/dataset.ts';
import type { Store } from './client.ts';

/** Cassandra warns about a batch over 5 KiB. */
const BATCH_BYTES = 4_500;
/** What a row costs beside its texts: clustering, cell headers, numbers. An estimate, on the high side. */
const ROW_OVERHEAD_BYTES = 220;

function estimatedBytes({ values }: Row): number {
  const texts = Object.values(values).filter((value) => typeof value === 'string');
  return Buffer.byteLength(texts.join('')) + ROW_OVERHEAD_BYTES;
}

/** Cuts rows into batches of one table and partition, in their order, under the size that Cassandra warns about. */
export function batchesOf(rows: readonly Row[]): Row[][] {
  const open = new Map<string, { rows: Row[]; bytes: number }>();
  const batches: Row[][] = [];
  for (const row of rows) {
    const key = `${row.table} ${row.partition}`;
    const bytes = estimatedBytes(row);
    let batch = open.get(key);
    if (batch === undefined || batch.bytes + bytes > BATCH_BYTES) {
      batch = { rows: [], bytes: 0 };
      open.set(key, batch);
      batches.push(batch.rows);
    }
    batch.rows.push(row);
    batch.bytes += bytes;
  }
  return batches;
}

/** Writes rows and resolves when every one is acknowledged. Writing them again changes nothing. */
export async function writeRows(store: Store, rows: readonly Row[]): Promise<void> {
  await Promise.all(batchesOf(rows).map((batch) => store.insert(...batch)));
}
