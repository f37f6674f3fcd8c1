import type { types } from 'cassandra-driver';
import type { Store } from './client.ts';

/** Files that one ledger query asks for; the coordinator reads that many partitions at once. */
const NAMES_PER_QUERY = 50;
/** Characters of a rejected record that are kept. */
const REJECTED_TEXT_LENGTH = 4_000;

/**
 * What has become of a file version. It is `loaded` (every record a row or a rejection), `unchanged` (the content of
 * a loaded version of the same name), `dead_letter`, `discarded` (a dead letter that a person gave up), or
 * `superseded` (a dead letter whose name was loaded in another version).
 */
export type FileState = 'loaded' | 'unchanged' | 'dead_letter' | 'discarded' | 'superseded';

/** The ledger's row of one file version, by its columns. */
export interface LedgerEntry {
  readonly name: string;
  readonly version: string;
  readonly state: FileState;
  readonly dataset: string;
  readonly bytes: bigint;
  /** The file's modification time. */
  readonly file_time: Date;
  readonly attempts: number;
  readonly worker: string;
  readonly started_at: Date;
  readonly finished_at: Date;
  readonly sha256?: string;
  readonly records?: bigint;
  readonly loaded?: bigint;
  readonly rejected?: bigint;
  /** null removes what an earlier attempt left. */
  readonly error?: string | null | undefined;
}

/** The part of the ledger that decisions are made on. `finishedAt` is in ms since the epoch. */
export interface KnownVersion {
  readonly name: string;
  readonly version: string;
  readonly state: FileState;
  readonly sha256: string | null;
  readonly error: string | null;
  readonly finishedAt: number;
}

/** A record that was not taken, as people read it. `text` is the record as it was sent. */
export interface RejectedRecord {
  readonly index: number;
  readonly field: string;
  readonly reason: string;
  readonly text: string;
}

const SELECT_KNOWN = 'SELECT name, version, state, sha256, error, finished_at FROM files';

function knownVersion(row: types.Row): KnownVersion {
  const { name, version, state, sha256, error, finished_at: finishedAt } = row;
  return { name, version, state, sha256, error, finishedAt: Number(finishedAt) };
}

/** All versions of one name. */
export async function readVersions(store: Store, name: string): Promise<KnownVersion[]> {
  const result = await store.run(`${SELECT_KNOWN} WHERE name = ?`, [name]);
  return result.rows.map(knownVersion);
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
export async function settleDeadLetter(
  store: Store,
  { name, version }: { readonly name: string; readonly version: string },
  state: 'discarded' | 'superseded',
): Promise<void> {
  await store.insert({ table: 'files', values: { name, version, state } });
}

/** Writes down what was not taken of a file. Writing it again changes nothing. */
export async function recordRejections(
  store: Store,
  { name, version }: { readonly name: string; readonly version: string },
  rejected: readonly RejectedRecord[],
): Promise<void> {
  const rejected_at = new Date(store.now());
  const writes = rejected.map(({ index, field, reason, text }) => {
    const record = text.slice(0, REJECTED_TEXT_LENGTH);
    const values = { name, version, record_index: BigInt(index), field, reason, record, rejected_at };
    return store.insert({ table: 'rejected_records', values });
  });
  await Promise.all(writes);
}
