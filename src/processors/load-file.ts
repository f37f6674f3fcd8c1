import { appendChanges, createTouchedHours } from '../storage/change-log.ts';
import type { Store } from '../storage/client.ts';
import { recordRejections, type RejectedRecord } from '../storage/files.ts';
import { writeRows } from '../storage/rows.ts';
import { FileProblem, type DataFile } from './data-file.ts';
import { readRecords, type Chunk, type ReadOptions } from './record-reader.ts';

/** Records that are kept between the check of a file and its load; a file with more is read twice. */
const KEPT_RECORDS = 5_000;
/** Characters of records that are kept, likewise. */
const KEPT_LENGTH = 8 * 1024 ** 2;
/** Keys of summary buckets that are kept before they go to the change log. */
const TOUCHED_KEYS = 5_000;

/** What a file holds, once it was read whole; `chunks` are its records when they are few enough to keep. */
export interface CheckedFile {
  readonly sha256: string;
  readonly records: number;
  readonly rejected: number;
  readonly chunks: readonly Chunk[] | undefined;
}

/** How a file is read and written. */
export interface LoadOptions extends ReadOptions {
  readonly store: Store;
  readonly maxRejectedRatio: number;
  readonly settleMs: number;
}

/**
 * Reads the whole file before anything of it is written, so that a file that is given up leaves no rows behind.
 *
 * @throws FileProblem when it is no such file, or too many of its records are bad
 */
export async function checkFile(file: DataFile, options: LoadOptions): Promise<CheckedFile> {
  const reading = readRecords(file, options);
  const chunks: Chunk[] = [];
  let records = 0;
  let rejected = 0;
  let length = 0;
  const isSmall = () => records <= KEPT_RECORDS && length <= KEPT_LENGTH;
  let first: RejectedRecord | undefined;
  let next = await reading.next();
  for (; next.done !== true; next = await reading.next()) {
    const chunk = next.value;
    records += chunk.taken.length + chunk.rejected.length;
    rejected += chunk.rejected.length;
    length += chunk.length;
    first ??= chunk.rejected[0];
    if (isSmall()) chunks.push(chunk);
    else chunks.length = 0;
  }
  if (first !== undefined && rejected > records * options.maxRejectedRatio) {
    const { index, field, reason } = first;
    const why = field === '' ? reason : `${field}: ${reason}`;
    throw new FileProblem(`${rejected} of ${records} records are bad, the first is record ${index}: ${why}`);
  }
  return { sha256: next.value, records, rejected, chunks: isSmall() ? chunks : undefined };
}

/**
 * Writes a checked file: rows, then what they touched, chunk by chunk. Writing it again changes nothing.
 *
 * @param onProgress called after each chunk with the bytes of the file that are done
 * @throws when a file that is read twice was another one the second time
 */
export async function loadFile(
  file: DataFile,
  checked: CheckedFile,
  options: LoadOptions,
  onProgress: (bytesDone: number) => void,
): Promise<void> {
  const { store, context, settleMs } = options;
  const touched = createTouchedHours();
  try {
    for await (const chunk of chunksOf(file, checked, options)) {
      for (const record of chunk.taken) if (record.touched !== undefined) touched.add(record.touched);
      const rows = chunk.taken.flatMap((record) => record.rows);
      await Promise.all([writeRows(store, rows), recordRejections(store, context.lineage, chunk.rejected)]);
      if (touched.size() >= TOUCHED_KEYS) await appendChanges(store, touched, settleMs);
      onProgress(chunk.bytesRead);
    }
  } finally {
    // Also when the load failed half-way: what it wrote is there, and the summaries are to show it.
    await appendChanges(store, touched, settleMs);
  }
}

async function* chunksOf(file: DataFile, checked: CheckedFile, options: LoadOptions): AsyncIterable<Chunk> {
  if (checked.chunks !== undefined) {
    yield* checked.chunks;
    return;
  }
  const sha256 = yield* readRecords(file, options);
  if (sha256 !== checked.sha256) throw new Error('changed while it was read');
}

/** Notes for the aggregation every summary bucket that a file could have touched, without loading it. */
export async function touchFile(file: DataFile, options: LoadOptions): Promise<void> {
  const touched = createTouchedHours();
  for await (const { taken } of readRecords(file, options)) {
    for (const record of taken) if (record.touched !== undefined) touched.add(record.touched);
    if (touched.size() >= TOUCHED_KEYS) await appendChanges(options.store, touched, options.settleMs);
  }
  await appendChanges(options.store, touched, options.settleMs);
}
