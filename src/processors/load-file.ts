import { createHash } from 'node:crypto';
import type { ChangeLog } from '../storage/change-log.ts';
import type { Store } from '../storage/client.ts';
import { rejectionRow, type RejectedRecord } from '../storage/files.ts';
import type { Row } from '../datasets/dataset.ts';
import { FileProblem, isSameVersion, type DataFile } from './data-file.ts';
import { readRecords, type Chunk, type ReadOptions } from './record-reader.ts';

/** Records that are kept between the check of a file and its load; a file with more is read twice. */
const KEPT_RECORDS = 2_000;
/** Characters of records that are kept, likewise. */
const KEPT_LENGTH = 1024 ** 2;

/** What a file holds, once it was read whole; `chunks` are its records when they are few enough to keep. */
type CheckedFile = Awaited<ReturnType<typeof checkFile>>;

/** How a file is read and written. */
export interface LoadOptions extends ReadOptions {
  readonly store: Store;
  readonly writeRows: (rows: readonly Row[]) => Promise<unknown>;
  readonly announced: ChangeLog;
  readonly maxRejectedRatio: number;
}

/**
 * Reads the whole file before anything of it is written, so that a file that is given up leaves no rows behind.
 *
 * @throws FileProblem when it is no such file, or too many of its records are bad
 */
export async function checkFile(file: DataFile, options: LoadOptions) {
  const hash = createHash('sha256');
  const chunks: Chunk[] = [];
  let records = 0;
  let rejected = 0;
  let length = 0;
  const isSmall = () => records <= KEPT_RECORDS && length <= KEPT_LENGTH;
  let first: RejectedRecord | undefined;
  for await (const chunk of readRecords(file, options, hash)) {
    records += chunk.taken.length + chunk.rejected.length;
    rejected += chunk.rejected.length;
    length += chunk.length;
    first ??= chunk.rejected[0];
    if (isSmall()) chunks.push(chunk);
    else chunks.length = 0;
  }
  if (first !== undefined && rejected / records > options.maxRejectedRatio) {
    const { index, field, reason } = first;
    const why = field === '' ? reason : `${field}: ${reason}`;
    throw new FileProblem(`${rejected} of ${records} records are bad, the first is record ${index}: ${why}`);
  }
  return { sha256: hash.digest('hex'), records, rejected, chunks: isSmall() ? chunks : undefined };
}

/**
 * Writes a checked file, chunk by chunk. Writing it again changes nothing.
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
  const { store, writeRows, announced, context } = options;
  for await (const { taken, rejected, bytesRead } of chunksOf(file, checked, options)) {
    // Nothing is written that was read of another version.
    if (checked.chunks === undefined && !isSameVersion(file)) throw new Error('changed while it was read');
    const touched = taken.flatMap((record) => record.touched ?? []);
    const rejections = rejected.map((record) => rejectionRow(context.lineage, record, store.now()));
    const rows = [...taken.flatMap((record) => record.rows), ...rejections];
    await announced(context.lineage, touched, () => writeRows(rows));
    onProgress(bytesRead);
  }
}

async function* chunksOf(file: DataFile, checked: CheckedFile, options: LoadOptions): AsyncIterable<Chunk> {
  if (checked.chunks !== undefined) {
    yield* checked.chunks;
    return;
  }
  const hash = createHash('sha256');
  yield* readRecords(file, options, hash);
  if (hash.digest('hex') !== checked.sha256) throw new Error('changed while it was read');
}
