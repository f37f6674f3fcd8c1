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

/** The ledger's row of one file version. Times in ms since the epoch. */
export interface LedgerEntry {
  readonly name: string;
  readonly version: string;
  readonly state: FileState;
  readonly dataset: string;
  readonly bytes: number;
  /** The file's modification time. */
  readonly fileTime: number;
  readonly attempts: number;
  readonly worker: string;
  readonly startedAt: number;
  readonly finishedAt: number;
  readonly sha256?: string | undefined;
  readonly records?: number | undefined;
  readonly loaded?: number | undefined;
  readonly rejected?: number | undefined;
  /** null removes what an earlier attempt left. */
  readonly error?: string | null | undefined;
}

/** The part of the ledger that decisions are made on. */
export interface KnownVersion {
  readonly name: string;
  readonly version: string;
  readonly state: FileState;
  readonly sha256: string | undefined;
  readonly error: string | undefined;
  readonly finishedAt: number;
}

/** A record that was not taken, as people read it. */
export interface RejectedRecord {
  readonly index: number;
  readonly field: string;
  readonly reason: string;
  /** The record's text as it was sent, cut to 4,000 characters. */
  readonly text: string;
}

const KNOWN_COLUMNS = 'name, version, state, sha256, error, finished_at';

function knownVersion(row: types.Row): KnownVersion {
  const finishedAt: Date | null = row.get('finished_at');
  return {
    name: row.get('name'),
    version: row.get('version'),
    state: row.get('state'),
    sha256: row.get('sha256') ?? undefined,
    error: row.get('error') ?? undefined,
    finishedAt: finishedAt?.getTime() ?? 0,
  };
}

/** All versions of one name. */
export async function readVersions(store: Store, name: string): Promise<KnownVersion[]> {
  const result = await store.run(`SELECT ${KNOWN_COLUMNS} FROM files WHERE name = ?`, [name]);
  return result.rows.map(knownVersion);
}

/** All versions of many names, a few dozen names a query. */
export async function* readManyVersions(store: Store, names: readonly string[]): AsyncIterable<KnownVersion> {
  for (let start = 0; start < names.length; start += NAMES_PER_QUERY) {
    const rows = store.rows(`SELECT ${KNOWN_COLUMNS} FROM files WHERE name IN ?`, [
      names.slice(start, start + NAMES_PER_QUERY),
    ]);
    for await (const row of rows) yield knownVersion(row);
  }
}

/** Writes the ledger's row of a file version; it is the last write of a load. */
export async function recordFile(store: Store, entry: LedgerEntry): Promise<void> {
  const big = (value: number | undefined) => (value === undefined ? undefined : BigInt(value));
  await store.run(
    'INSERT INTO files (name, version, state, dataset, sha256, bytes, file_time, records, loaded, rejected, attempts, ' +
      'worker, error, started_at, finished_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)',
    [
      entry.name,
      entry.version,
      entry.state,
      entry.dataset,
      entry.sha256,
      BigInt(entry.bytes),
      new Date(entry.fileTime),
      big(entry.records),
      big(entry.loaded),
      big(entry.rejected),
      entry.attempts,
      entry.worker,
      entry.error,
      new Date(entry.startedAt),
      new Date(entry.finishedAt),
    ],
  );
}

/** Changes the state of a dead letter; what else its row says stays. */
export async function settleDeadLetter(
  store: Store,
  file: { readonly name: string; readonly version: string },
  state: 'discarded' | 'superseded',
): Promise<void> {
  await store.run('UPDATE files SET state = ? WHERE name = ? AND version = ?', [state, file.name, file.version]);
}

/** Writes down what was not taken of a file. Writing it again changes nothing. */
export async function recordRejections(
  store: Store,
  file: { readonly name: string; readonly version: string },
  rejected: readonly RejectedRecord[],
): Promise<void> {
  const at = new Date(store.now());
  await Promise.all(
    rejected.map(({ index, field, reason, text }) =>
      store.run(
        'INSERT INTO rejected_records (name, version, record_index, field, reason, record, rejected_at) ' +
          'VALUES (?, ?, ?, ?, ?, ?, ?)',
        [file.name, file.version, BigInt(index), field, reason, text.slice(0, REJECTED_TEXT_LENGTH), at],
      ),
    ),
  );
}
