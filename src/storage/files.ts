import type { types } from 'cassandra-driver';
import type { FileVersion, Rejection, Row } from '../datasets/dataset.ts';
import { microsOfClock } from '../datasets/time.ts';
import { piecesOf } from '../pieces.ts';
import type { Store } from './client.ts';
import { tokensOf } from './token-ring.ts';

/** Files that one ledger query asks for; the coordinator reads that many partitions at once. */
export const NAMES_PER_QUERY = 50;
/** Characters of a rejected record that are kept. */
const REJECTED_TEXT_LENGTH = 4_000;

/**
 * `loaded`: every record is a row or a rejection. `unchanged`: the content of a loaded version of the name.
 * `discarded`: a dead letter that a person gave up. `superseded`: one whose name was loaded in another version, or a version
 * that is to be loaded once more.
 */
export type FileState = 'loaded' | 'unchanged' | 'dead_letter' | 'discarded' | 'superseded';

/** Whether every record of the version is a row or a rejection, its own or those of a copy. */
export const isLoaded = (state: FileState | undefined) => state === 'loaded' || state === 'unchanged';

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

/**
 * The part of the ledger that decisions are made on. Times are in ms since the epoch, by the process that wrote the row, which
 * may have stood still; the write time is Cassandra's own, in µs.
 */
export interface KnownVersion extends FileVersion {
  readonly state: FileState;
  readonly sha256: string | null;
  readonly rejected: number;
  readonly error: string | null;
  readonly startedAt: number;
  readonly finishedAt: number;
  readonly writeTime: bigint;
}

/**
 * The loaded one of some versions of a name whose rows and rejections are those of another with this content. One of
 * another time may take other records of the same bytes: fewer or more, as there is one limit.
 */
export function originOf(
  { sha256, rejected }: Pick<KnownVersion, 'sha256' | 'rejected'>,
  known: readonly KnownVersion[],
): KnownVersion | undefined {
  return known.find((one) => one.state === 'loaded' && one.sha256 === sha256 && one.rejected === rejected);
}

/** A record that was not taken; `text` is the record as it was sent. */
export interface RejectedRecord extends Rejection {
  readonly index: number;
  readonly text: string;
}

const KNOWN_COLUMNS = 'name, version, state, sha256, rejected, error, started_at, finished_at';
const KNOWN_VERSIONS = `SELECT ${KNOWN_COLUMNS}, writetime(state) AS write_time FROM files`;

function knownVersion(row: types.Row): KnownVersion {
  const { name, version, state, sha256, error, started_at, finished_at } = row;
  const times = { startedAt: Number(started_at), finishedAt: Number(finished_at) };
  const writeTime = BigInt(row['write_time'] ?? 0);
  return { name, version, state, sha256, rejected: Number(row['rejected']), error, ...times, writeTime };
}

/** All versions of some names, of which there may be a few thousand. */
export async function readVersions(store: Store, ...names: readonly string[]): Promise<KnownVersion[]> {
  async function readSome(some: readonly string[]): Promise<KnownVersion[]> {
    const known: KnownVersion[] = [];
    for await (const row of store.rows(`${KNOWN_VERSIONS} WHERE name IN ?`, [some])) known.push(knownVersion(row));
    return known;
  }
  return (await Promise.all(piecesOf(names, NAMES_PER_QUERY).map(readSome))).flat();
}

/** The ledger, or one share of its token ring, a page in memory. */
export async function* readLedger(store: Store, share = 0, shares = 1): AsyncGenerator<KnownVersion, undefined> {
  const query = `${KNOWN_VERSIONS} WHERE token(name) >= ? AND token(name) <= ?`;
  for await (const row of store.rows(query, tokensOf(share, shares))) yield knownVersion(row);
}

const LEDGER_COLUMNS: readonly (keyof LedgerEntry)[] = [
  ...(['name', 'version', 'state', 'dataset', 'bytes', 'file_time', 'attempts', 'worker'] as const),
  ...(['started_at', 'finished_at', 'sha256', 'records', 'loaded', 'rejected', 'error'] as const),
];

/** The ledger's row of a file version; it is the last write of a load. */
export function ledgerRow(entry: LedgerEntry): Row {
  const values = LEDGER_COLUMNS.map((column) => entry[column]);
  return { table: 'files', partition: entry.name, key: entry.version, columns: LEDGER_COLUMNS, values };
}

/** Writes over the row that a version had, also where Cassandra's clock was ahead when that was written. */
export async function overwriteEntry(store: Store, entry: LedgerEntry, { writeTime }: KnownVersion): Promise<void> {
  // Of this machine's clock nothing may depend: it may have stood still.
  const now = microsOfClock(await store.freshNow(true));
  await store.insert({ table: 'files', values: { ...entry }, timestamp: writeTime < now ? now : writeTime + 1n });
}

/**
 * Writes the row of a version that could not be loaded, over the one that it had before, if any. Resolves to whether that
 * was still there as it was: a version that was loaded meanwhile stays loaded. Over one of a clock that was ahead, it is
 * written in any case.
 */
export async function recordDeadLetter(store: Store, entry: LedgerEntry, before?: KnownVersion): Promise<boolean> {
  if (before === undefined) return store.insertIfNew(ledgerRow(entry));
  if (before.writeTime >= microsOfClock(await store.freshNow(true))) {
    // A transaction would be of a time before it, and change nothing.
    await overwriteEntry(store, entry, before);
    return true;
  }
  const { name, version, ...rest } = entry;
  const set = Object.keys(rest).map((column) => `${column} = ?`);
  const update = `UPDATE files SET ${set.join(', ')} WHERE name = ? AND version = ? IF state = ?`;
  return store.runIf(update, [...Object.values(rest), name, version, before.state]);
}

/**
 * Makes a version one that is to be loaded again: just after its row was written, as the row of a later load is to stay, and
 * Cassandra's clock may have been set back since. The row is not deleted: that would hide what is written before that time.
 */
export async function forgetFile(store: Store, { name, version, writeTime }: KnownVersion): Promise<void> {
  const forget = "UPDATE files USING TIMESTAMP ? SET state = 'superseded' WHERE name = ? AND version = ?";
  await store.run(forget, [writeTime + 1n, name, version]);
}

/** Names that no file has, as none has an absolute path: enough for many parts of the token ring. */
const NAMES_OF_NOBODY = Array.from({ length: 16 }, (_, n) => `/nobody-${n}`);

/** Reads the ledger and writes to it as loads do, and changes nothing. Rejects when loads would fail now. */
export async function tryLedger(store: Store): Promise<void> {
  await readVersions(store, ...NAMES_OF_NOBODY);
  const forget = "DELETE FROM files USING TIMESTAMP 0 WHERE name = ? AND version = ''";
  await Promise.all(NAMES_OF_NOBODY.map((name) => store.run(forget, [name])));
}

/** Changes the state of a dead letter; one that was loaded meanwhile stays loaded. Resolves to whether it was one. */
export function settleDeadLetter(store: Store, file: FileVersion, state: 'discarded' | 'superseded'): Promise<boolean> {
  const settle = "UPDATE files SET state = ? WHERE name = ? AND version = ? IF state = 'dead_letter'";
  return store.runIf(settle, [state, file.name, file.version]);
}

/**
 * Gives a dead letter up, before it is removed: else reconciliation would bring it back. One that a Cassandra which was
 * killed has forgotten is written down anew; `startedAt`, in ms since the epoch, tells that it was in the ledger.
 */
export async function discardDeadLetter(
  store: Store,
  { name, version }: FileVersion,
  startedAt?: number,
): Promise<void> {
  if ((await settleDeadLetter(store, { name, version }, 'discarded')) || startedAt === undefined) return;
  const columns = '(name, version, state, started_at, finished_at)';
  const insert = `INSERT INTO files ${columns} VALUES (?, ?, 'discarded', ?, ?) IF NOT EXISTS`;
  await store.runIf(insert, [name, version, new Date(startedAt), new Date(store.now())]);
}

const REJECTION_COLUMNS = ['name', 'version', 'record_index', 'field', 'reason', 'record', 'rejected_at'];

/** Which records of a file are stored as not taken, in their order; from one page to the next as they are asked for. */
export async function* rejectedIndices(
  store: Store,
  { name, version }: FileVersion,
): AsyncGenerator<number, undefined> {
  const query = 'SELECT record_index FROM rejected_records WHERE name = ? AND version = ?';
  for await (const row of store.rows(query, [name, version])) yield Number(row['record_index']);
}

/** Takes a record out of those that were not taken. */
export async function forgetRejection(store: Store, { name, version }: FileVersion, index: number): Promise<void> {
  const forget = 'DELETE FROM rejected_records WHERE name = ? AND version = ? AND record_index = ?';
  await store.run(forget, [name, version, BigInt(index)]);
}

/** The row of a record that was not taken of a file, at a time in ms since the epoch. */
export function rejectionRow({ name, version }: FileVersion, rejected: RejectedRecord, at: number): Row {
  const { index, field, reason, text } = rejected;
  const values = [name, version, BigInt(index), field, reason, text.slice(0, REJECTED_TEXT_LENGTH), new Date(at)];
  const partition = `${version} ${name}`;
  return { table: 'rejected_records', partition, key: String(index), columns: REJECTION_COLUMNS, values };
}
