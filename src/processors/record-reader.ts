import { isUtf8 } from 'node:buffer';
import type { Hash } from 'node:crypto';
import { pipeline } from 'node:stream';
import { createGunzip } from 'node:zlib';
import type { Config } from '../config.ts';
import type { FileKind } from '../datasets/catalog.ts';
import { isRejection, type FileVersion, type RecordContext, type TakenRecord } from '../datasets/dataset.ts';
import { isLossless, parseJson, type Json } from '../datasets/json.ts';
import { mtimeMs, mtimeNsOf } from '../queues/ingest.ts';
import { codeOf, messageOf } from '../runtime.ts';
import type { RejectedRecord } from '../storage/files.ts';
import { FileProblem, readBytes, readWhole, type DataFile } from './data-file.ts';
import { createArraySplitter, createLineSplitter, type RawRecord } from './record-splitter.ts';

/** Bytes read at once; a chunk of records is what they end. A provider's usual file is one chunk. */
const READ_BYTES = 256 * 1024;

/** Bytes that are cut into records at once, and records that are enough for a chunk: tiny ones are many to a read. */
const CUT_BYTES = 16 * 1024;
const CHUNK_RECORDS = 2_000;

/** Records that one read ended, the characters of their texts, and the bytes of the file that are read so far. */
export interface Chunk {
  readonly taken: readonly TakenRecord[];
  readonly rejected: readonly RejectedRecord[];
  readonly length: number;
  readonly bytesRead: number;
}

/** What reading needs beside the file. */
export interface ReadOptions extends FileKind {
  readonly context: RecordContext;
  /** Bytes of one record at most; a larger one is rejected. */
  readonly maxRecordBytes: number;
  /** Bytes that a compressed file may expand to. */
  readonly maxBytes: number;
  /** The file may still grow, so that half a line at its end is no bad record yet, but a problem of the file. */
  readonly mayGrow: boolean;
}

/** How a version of a file is read; a verification has to read it as the load did. */
export function readOptions(config: Config, kind: FileKind, lineage: FileVersion, mayGrow: boolean): ReadOptions {
  const { MAX_RECORD_BYTES: maxRecordBytes, MAX_FILE_BYTES: maxBytes, SOURCE_TIME_ZONE: sourceTimeZone } = config;
  const writtenAt = mtimeMs({ mtimeNs: mtimeNsOf(lineage.version) });
  return { ...kind, context: { lineage, writtenAt, sourceTimeZone }, maxRecordBytes, maxBytes, mayGrow };
}

/**
 * Reads a file from its start, in chunks, and adds all of its bytes to the hash.
 *
 * @throws FileProblem when the file as a whole is no such file
 */
export async function* readRecords(file: DataFile, options: ReadOptions, hash: Hash): AsyncGenerator<Chunk> {
  const { format, maxRecordBytes, maxBytes, mayGrow } = options;
  const isSmall = file.size <= Math.min(READ_BYTES, maxRecordBytes);
  if (isSmall && !format.lines && !format.gzip) {
    const whole = readWhole(file);
    const taken = takeAll(whole, options);
    if (taken !== undefined) {
      hash.update(whole);
      yield { taken, rejected: [], length: whole.length, bytesRead: whole.length };
      return;
    }
  }
  let bytesRead = 0;
  const raw = async function* () {
    for await (const bytes of readBytes(file, READ_BYTES)) {
      hash.update(bytes);
      bytesRead += bytes.length;
      yield bytes;
    }
  };
  const splitter = format.lines ? createLineSplitter(maxRecordBytes) : createArraySplitter(maxRecordBytes);
  for await (const bytes of format.gzip ? expand(raw(), file.size, maxBytes) : raw()) {
    let records: RawRecord[] = [];
    for (let at = 0; at < bytes.length; at += CUT_BYTES) {
      records = records.concat(splitter.push(bytes.subarray(at, at + CUT_BYTES)));
      const isEnough = records.length >= CHUNK_RECORDS || at + CUT_BYTES >= bytes.length;
      if (!isEnough || records.length === 0) continue;
      yield { ...check(records, options), bytesRead };
      records = [];
    }
  }
  const last = check(splitter.end(), options);
  const [bad] = last.rejected;
  if (mayGrow && bad !== undefined) throw new FileProblem(`ends with record ${bad.index}: ${bad.reason}`);
  if (last.taken.length + last.rejected.length > 0) yield { ...last, bytesRead };
}

/**
 * The records of an array in one go, which takes a fraction of the time. Undefined when there is anything about them
 * that has to be looked at one by one.
 */
function takeAll(bytes: Buffer, { dataset, context }: ReadOptions): TakenRecord[] | undefined {
  const text = isUtf8(bytes) ? bytes.toString() : '';
  if (text === '' || !isLossless(text)) return undefined;
  try {
    const values: Json = JSON.parse(text);
    if (!Array.isArray(values) || values.length === 0) return undefined;
    const taken: TakenRecord[] = [];
    for (const value of values) {
      const outcome = dataset.read(value, context);
      if (isRejection(outcome)) return undefined;
      taken.push(outcome);
    }
    return taken;
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof RangeError) return undefined;
    throw error;
  }
}

async function* expand(source: AsyncIterable<Buffer>, size: number, maxBytes: number): AsyncGenerator<Buffer> {
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
    throw codeOf(error).startsWith('Z_') ? new FileProblem(`not a whole gzip file: ${messageOf(error)}`) : error;
  }
  // A zero byte between two parts is taken for padding, and what follows it is left unread.
  const left = size - gunzip.bytesWritten;
  if (left > 0) throw new FileProblem(`not a whole gzip file: the last ${left} bytes are not compressed data`);
}

/** A line that is not JSON is bad alone; in an array it makes the whole file doubtful. */
function check(records: readonly RawRecord[], { dataset, context, format }: ReadOptions) {
  const taken: TakenRecord[] = [];
  const rejected: RejectedRecord[] = [];
  const read = ({ text, index, problem }: RawRecord) => {
    if (problem !== undefined) return { field: '', reason: problem };
    try {
      return dataset.read(parseJson(text), context);
    } catch (error) {
      if (error instanceof RangeError) return { field: '', reason: error.message };
      if (!(error instanceof SyntaxError)) throw error;
      if (!format.lines) throw new FileProblem(`not JSON: record ${index}: ${error.message}`);
      return { field: '', reason: `not JSON: ${error.message}` };
    }
  };
  for (const record of records) {
    const outcome = read(record);
    if (isRejection(outcome)) rejected.push({ index: record.index, text: record.text, ...outcome });
    else taken.push(outcome);
  }
  return { taken, rejected, length: records.reduce((sum, { text }) => sum + text.length, 0) };
}
