import { createHash } from 'node:crypto';
import { pipeline } from 'node:stream';
import { createGunzip } from 'node:zlib';
import type { FileFormat } from '../datasets/catalog.ts';
import { isRejection, type Dataset, type RecordContext, type TakenRecord } from '../datasets/dataset.ts';
import { parseJson } from '../datasets/json.ts';
import type { RejectedRecord } from '../storage/files.ts';
import { FileProblem, type DataFile } from './data-file.ts';
import { createArraySplitter, createLineSplitter, type RawRecord } from './record-splitter.ts';

/** Bytes read at once; a chunk of records is what they end. A provider's usual file is one chunk. */
const READ_BYTES = 256 * 1024;

/** The records that one read ended. */
export interface Chunk {
  readonly taken: readonly TakenRecord[];
  readonly rejected: readonly RejectedRecord[];
  /** Bytes of the file read so far. */
  readonly bytesRead: number;
}

/** What reading needs beside the file. */
export interface ReadOptions {
  readonly dataset: Dataset;
  readonly format: FileFormat;
  readonly context: RecordContext;
  /** Bytes of one record at most; a larger one is rejected. */
  readonly maxRecordBytes: number;
  /** Bytes that a compressed file may expand to. */
  readonly maxBytes: number;
}

/**
 * Reads a file from its start, in chunks.
 *
 * @returns (from the generator) the SHA-256 of the file's bytes, in hexadecimal digits
 * @throws FileProblem when the file as a whole is no such file
 */
export async function* readRecords(file: DataFile, options: ReadOptions): AsyncGenerator<Chunk, string> {
  const hash = createHash('sha256');
  let bytesRead = 0;
  const raw = async function* () {
    for await (const bytes of readBytes(file)) {
      hash.update(bytes);
      bytesRead += bytes.length;
      yield bytes;
    }
  };
  const splitter = options.format.lines
    ? createLineSplitter(options.maxRecordBytes)
    : createArraySplitter(options.maxRecordBytes);
  for await (const bytes of options.format.gzip ? expand(raw(), options.maxBytes) : raw()) {
    const records = splitter.push(bytes);
    if (records.length > 0) yield { ...check(records, options), bytesRead };
  }
  const last = splitter.end();
  if (last.length > 0) yield { ...check(last, options), bytesRead };
  return hash.digest('hex');
}

async function* readBytes({ handle, size }: DataFile): AsyncGenerator<Buffer> {
  for (let position = 0; ; ) {
    const buffer = Buffer.allocUnsafe(Math.max(1, Math.min(READ_BYTES, size - position)));
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, position);
    if (bytesRead === 0) return;
    position += bytesRead;
    yield buffer.subarray(0, bytesRead);
    if (position >= size) return;
  }
}

async function* expand(source: AsyncIterable<Buffer>, maxBytes: number): AsyncGenerator<Buffer> {
  let expanded = 0;
  const gunzip = createGunzip({ chunkSize: READ_BYTES });
  // The iteration below rejects with the same error; the callback only keeps it from being unhandled.
  const stream: AsyncIterable<Buffer> = pipeline(source, gunzip, () => undefined);
  try {
    for await (const bytes of stream) {
      expanded += bytes.length;
      if (expanded > maxBytes) throw new FileProblem(`expands to more than MAX_FILE_BYTES: ${maxBytes} bytes`);
      yield bytes;
    }
  } catch (error) {
    if (error instanceof Error && 'code' in error && String(error.code).startsWith('Z_')) {
      throw new FileProblem(`not a whole gzip file: ${error.message}`);
    }
    throw error;
  }
}

function check(records: readonly RawRecord[], options: ReadOptions): Omit<Chunk, 'bytesRead'> {
  const taken: TakenRecord[] = [];
  const rejected: RejectedRecord[] = [];
  for (const { index, text, problem } of records) {
    const outcome = problem === undefined ? checkText(text, index, options) : { field: '', reason: problem };
    if (isRejection(outcome)) rejected.push({ index, text, ...outcome });
    else taken.push(outcome);
  }
  return { taken, rejected };
}

/** A record that is not JSON makes a whole array doubtful; a line that is not JSON only itself. */
function checkText(text: string, index: number, { dataset, format, context }: ReadOptions) {
  try {
    return dataset.read(parseJson(text), context);
  } catch (error) {
    if (error instanceof RangeError) return { field: '', reason: error.message };
    if (!(error instanceof SyntaxError)) throw error;
    if (!format.lines) throw new FileProblem(`not JSON: record ${index}: ${error.message}`);
    return { field: '', reason: `not JSON: ${error.message}` };
  }
}
