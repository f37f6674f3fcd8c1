import type { types } from 'cassandra-driver';
import type { FileVersion, Rejection } from '../datasets/dataset.ts';
import type { Store } from './client.ts';

/** Files that one ledger query asks for; the coordinator reads that many partitions at once. */
const NAMES_PER_QUERY = 50;
/** Characters of a rejected record that are kept. */
const REJECTED_TEXT_LENGTH = 4_000;
const SELECT_KNOWN = 'SELECT name, version, state, sha256, error, finished_at FROM files';

/**
 * `loaded`: every record is a row or a rejection. `unchanged`: the content of a loaded version of the name.
 * `discarded`: a dead letter that a person gave up. `superseded`: one whose name was loaded in another version.
 */
export type FileState = 'loaded' | 'unchanged' | 'dead_letter' | 'discarded' | 'superseded';

/** The ledger's row of one file version, by its columns. `null` as the error removes that of an earlier attempt. */
export interface LedgerEntry extends FileVersion {
  readonly state: FileState;
  readonly dataset: string;
  readonly bytes: bigint;
  readonly file_time: Date;
  readonly attempts: number;
  readonly worker: string;
  readonly started_at: Date;
  readonly finished_at: Date;
  readonly sha256?: string;
  readonly records?: bigint;
  readonly loaded?: bigint;
  readonly rejected?: bigint;
  readonly error?: string | null | undefined;
}

/** The part of the ledger that decisions are made on. `finishedAt` is in ms since the epoch. */
export interface KnownVersion extends FileVersion {
  readonly state: FileState;
  readonly sha256: string | null;
  readonly error: string | null;
  readonly finishedAt: number;
}

/** A record that was not taken; `text` is the record as it was sent. */
export interface RejectedRecord extends Rejection {
  readonly index: number;
  readonly text: string;
}

function knownVersion({ name, version, state, sha256, error, finished_at }: types.Row): KnownVersion {
  return { name, version, state, sha256, error, finishedAt: Number(finished_at) };
}

/** All versions of one name. */
export async function readVersions(store: Store, name: string): Promise<KnownVersion[]> {
  return (await store.run(`${SELECT_KNOWN} WHERE name = ?`, [name])).rows.map(knownVersion);
}

/** All versions of many names, a few dozen names a query. */
export async function* readManyVersions(store: Store, names: readonly string[]): AsyncIterable<KnownVersion> {
  for (let start = 0; start < names.length; start += NAMES_PER_QUERY) {
    const rows = store.rows(`${SELECT_KNOWN} WHERE name IN ?`, [names.slice(start, start + NAMES_PER_QUERY)]);
    for await (const row of rows) yield knownVersion(row);
  }
}

/** Writes the ledger's row of a file version; it is the last write of a load. */
export function recordFile(store: Store, entry: LedgerEntry): Promise<void> {
  return store.insert({ table: 'files', values: { ...entry } });
}

/** Changes the state of a dead letter; what else its row says stays. */
export function settleDeadLetter(store: Store, { name, version }: FileVersion, state: FileState): Promise<void> {
  return store.insert({ table: 'files', values: { name, version, state } });
}

/** Writes down what was not taken of a file. Writing it again changes nothing. */
export async function recordRejections(store: Store, file: FileVersion, rejected: readonly RejectedRecord[]) {
  const rejected_at = new Date(store.now());
  const writes = rejected.map(({ index, field, reason, text }) => {
    const record = text.slice(0, REJECTED_TEXT_LENGTH);
    const values = { ...file, record_index: BigInt(index), field, reason, record, rejected_at };
    return store.insert({ table: 'rejected_records', values });
  });
  await Promise.all(writes);
}
