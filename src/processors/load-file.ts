import type { FileFormat } from '../datasets/catalog.ts';
import type { Dataset } from '../datasets/dataset.ts';
import { appendChanges, createTouchedHours } from '../storage/change-log.ts';
import type { Store } from '../storage/client.ts';
import { recordRejections, type RejectedRecord } from '../storage/files.ts';
import { writeRows } from '../storage/rows.ts';
import { FileProblem, type DataFile } from './data-file.ts';
import { readRecords, type Chunk, type ReadOptions } from './record-reader.ts';

/** Records that are kept between the check of a file and its load; a file with more is read twice. */
const KEPT_RECORDS = 5_000;
/** Keys of summary buckets that are kept before they go to the change log. */
const TOUCHED_KEYS = 5_000;

/** What a file holds, once it was read whole. */
export interface CheckedFile {
  readonly sha256: string;
  readonly records: number;
  readonly rejected: number;
  /** The records, when they are few enough to keep. */
  readonly chunks: readonly Chunk[] | undefined;
}

/** How a file is read and written; the values come from the configuration. */
export interface LoadOptions {
  readonly store: Store;
  readonly dataset: Dataset;
  readonly format: FileFormat;
  readonly lineage: { readonly name: string; readonly version: string };
  readonly sourceTimeZone: string;
  readonly maxRecordBytes: number;
  readonly maxFileBytes: number;
  readonly maxRejectedRatio: number;
  readonly settleMs: number;
}

function readOptions(options: LoadOptions): ReadOptions {
  return {
    dataset: options.dataset,
    format: options.format,
    context: {
      lineage: options.lineage,
      sourceTimeZone: options.sourceTimeZone,
      now: options.store.now(),
    },
    maxRecordBytes: options.maxRecordBytes,
    maxBytes: options.maxFileBytes,
  };
}

/**
 * Reads the whole file before anything of it is written, so that a file that is given up leaves no rows behind.
 *
 * @throws FileProblem when it is no such file, or too many of its records are bad
 */
export async function checkFile(file: DataFile, options: LoadOptions): Promise<CheckedFile> {
  const reading = readRecords(file, readOptions(options));
  const chunks: Chunk[] = [];
  let records = 0;
  let rejected = 0;
  let firstRejected: RejectedRecord | undefined;
  for (;;) {
    const next = await reading.next();
    if (next.done === true) {
      if (firstRejected !== undefined && rejected > records * options.maxRejectedRatio) {
        const { index, field, reason } = firstRejected;
        throw new FileProblem(
          `${rejected} of ${records} records are bad, the first is record ${index}: ${field === '' ? '' : `${field}: `}${reason}`,
        );
      }
      return { sha256: next.value, records, rejected, chunks: records <= KEPT_RECORDS ? chunks : undefined };
    }
    records += next.value.taken.length + next.value.rejected.length;
    rejected += next.value.rejected.length;
    firstRejected ??= next.value.rejected[0];
    if (records <= KEPT_RECORDS) chunks.push(next.value);
    else chunks.length = 0;
  }
}

/**
 * Writes a checked file: rows, then what they touched, chunk by chunk. Writing it again changes nothing.
 *
 * @param onProgress called after each chunk with the bytes of the file that are done
 * @throws FileProblem when a file that is read twice was another one the second time
 */
export async function loadFile(
  file: DataFile,
  checked: CheckedFile,
  options: LoadOptions,
  onProgress: (bytesDone: number) => void,
): Promise<void> {
  const { store, lineage, settleMs } = options;
  const touched = createTouchedHours();
  try {
    for await (const chunk of chunksOf(file, checked, options)) {
      for (const record of chunk.taken) if (record.touched !== undefined) touched.add(record.touched);
      await Promise.all([
        writeRows(store, chunk.taken.flatMap(({ rows }) => rows)),
        recordRejections(store, lineage, chunk.rejected),
      ]);
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
  const sha256 = yield* readRecords(file, readOptions(options));
  if (sha256 !== checked.sha256) throw new FileProblem('changed while it was read');
}

/** Notes for the aggregation every summary bucket that a file could have touched, without loading it. */
export async function touchFile(file: DataFile, options: LoadOptions): Promise<void> {
  const touched = createTouchedHours();
  for await (const chunk of readRecords(file, readOptions(options))) {
    for (const record of chunk.taken) if (record.touched !== undefined) touched.add(record.touched);
    if (touched.size() >= TOUCHED_KEYS) await appendChanges(options.store, touched, options.settleMs);
  }
  await appendChanges(options.store, touched, options.settleMs);
}
