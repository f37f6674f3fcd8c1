import { createHash } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import pLimit from 'p-limit';
import { look, type StoredFile } from '../data-folder.ts';
import { datasetOf } from '../datasets/catalog.ts';
import type { FileVersion, Row } from '../datasets/dataset.ts';
import { microsOfClock } from '../datasets/time.ts';
import { moveToFree } from '../move-file.ts';
import { enqueueFiles, hasJob, hasRoom, mtimeNsOf, versionOf, type IngestJob } from '../queues/ingest.ts';
import type { VerificationReport } from '../queues/verification.ts';
import { codeOf, isOfSystem, messageOf } from '../runtime.ts';
import { createChangeLog, type TouchedHour } from '../storage/change-log.ts';
import {
  forgetRejection,
  isLoaded,
  originOf,
  readVersions,
  rejectedIndices,
  rejectionRow,
  type KnownVersion,
  type RejectedRecord,
} from '../storage/files.ts';
import { createRowComparison, newestReport } from '../storage/verification.ts';
import { FileGone, FileProblem, closeDataFile, isSameVersion, openDataFile } from './data-file.ts';
import type { ProcessorNeeds } from './processor.ts';
import { readOptions, readRecords, type Chunk } from './record-reader.ts';

/** Something that must be so: what is wrong with it, if anything, and what makes it right. */
export interface Claim {
  readonly what: string;
  readonly problem: () => Promise<string | undefined>;
  /** What only a person can mend has none. */
  readonly mend?: () => Promise<unknown>;
  /** The bucket of the summaries that mending changes. */
  readonly touched?: TouchedHour | undefined;
}

/** What is wrong with a file, or a folder, that cannot be read. */
export function unreadable(what: string, error: unknown): Claim {
  return { what, problem: () => Promise.resolve(`cannot be read: ${messageOf(error)}`) };
}

export const mendAll = (wrong: readonly Claim[]) => Promise.all(wrong.map(async (claim) => claim.mend?.()));

/** Notes what is wrong of some claims, and mends it with `mend` where that is wanted. */
export type Judge = (claims: readonly Claim[], mend?: (wrong: readonly Claim[]) => Promise<unknown>) => Promise<void>;

export type VerificationNeeds = Pick<ProcessorNeeds, 'config' | 'store' | 'ingestQueue'>;

/** A row by its columns; one that the record does not have is to be empty. */
function byColumns({ table, columns, values, timestamp }: Row) {
  const whole = Object.fromEntries(columns.map((column, at) => [column, values[at] ?? null]));
  return { table, values: whole, ...(timestamp !== undefined && { timestamp }) };
}

/** Makes the function that compares a file with the ledger and its records with the rows; `onTouched` is told their hours. */
export function createFileCheck(
  { config, store, ingestQueue }: VerificationNeeds,
  judge: Judge,
  report: VerificationReport,
  onTouched: (hour: TouchedHour) => void,
  repair: boolean,
) {
  const { DATA_DIR } = config;
  const { rowProblem, statusProblem } = createRowComparison(store);
  /** Vehicles whose newest status is known to be wrong: one report of each is told of. */
  const wrongStatuses = new Set<string>();
  const oneByOne = pLimit(1);

  /** What lies at a path below the folder, as a version of a name. @throws FileProblem where it cannot be looked at */
  function fileAt(name: string, path: string): (IngestJob & { ctimeMs: number }) | undefined {
    try {
      const there = look(join(DATA_DIR, path));
      return (
        there && { name, size: Number(there.size), mtimeNs: String(there.mtimeNs), ctimeMs: Number(there.ctimeMs) }
      );
    } catch (error) {
      if (codeOf(error) === 'ENOTDIR') return undefined;
      throw isOfSystem(error) ? new FileProblem(messageOf(error)) : error;
    }
  }

  /** A file that is not loaded has to be in the queue, or be too young for that, or find it full. */
  async function checkQueued(found: IngestJob, path: string, changedMs: number): Promise<void> {
    let file = found;
    // Once loaded, it would not be archived again, but stay in the folder or be deleted.
    const isKept = path !== file.name && config.AFTER_LOAD !== 'archive';
    const problem = async () => {
      const isQueued = await hasJob(ingestQueue, file);
      if (isQueued || Date.now() - changedMs < 2_000 * config.RECONCILE_SECONDS + 1_000) return undefined;
      // While there is a backlog, more of it may wait in the folder.
      const isCompared = path === file.name && !repair;
      const hasBacklog = isCompared && (await ingestQueue.getJobCountByTypes('prioritized')) > 0;
      const isFull = hasBacklog || !(await hasRoom(ingestQueue, config.MAX_QUEUED_FILES, { backlog: true }));
      const known = await readVersions(store, file.name);
      const isKnown = known.some(({ version, state }) => version === versionOf(file) && state !== 'superseded');
      if (isKnown || isFull) return undefined;
      return `neither loaded nor queued${isKept ? ': set AFTER_LOAD=archive while it is repaired' : ''}`;
    };
    const mend = async () => {
      if (path !== file.name) {
        // From the archive it goes back into the folder, and is archived again when it is loaded.
        const target = join(DATA_DIR, file.name);
        await mkdir(dirname(target), { recursive: true });
        if (!(await moveToFree(join(DATA_DIR, path), target))) return;
        file = fileAt(file.name, file.name) ?? file;
      }
      await enqueueFiles(ingestQueue, [file], { backlog: true });
    };
    if ((await problem()) === undefined) report.waiting += 1;
    else await judge([{ what: file.name, problem, ...(!isKept && { mend: () => oneByOne(mend) }) }]);
  }

  function rowClaim(row: Row, touched: TouchedHour | undefined, { name }: FileVersion): Claim {
    const expected = byColumns(row);
    const what = `${row.table} of ${row.partition}: a record of ${name}`;
    if (row.timestamp === undefined)
      return { what, touched, problem: () => rowProblem(expected), mend: () => store.insert(expected) };

    const { partition: vehicle, timestamp } = row;
    const statusIs = () => statusProblem(expected, timestamp);
    const problem = async () => {
      const wrong = await statusIs();
      // To be told once is enough of a vehicle, but to be mended, its newest report must not be passed over.
      if (wrong === undefined || (!repair && wrongStatuses.has(vehicle))) return undefined;
      wrongStatuses.add(vehicle);
      return wrong;
    };
    // One by one, and only what is still wrong, so that of several reports the newest is what is left.
    const mend = () =>
      oneByOne(async () => {
        if ((await statusIs()) === undefined) return;
        // The file of a newer report may be gone, or in no sample.
        const newest = await newestReport(store, expected, timestamp);
        await store.insert(newest);
        // Somebody deleted or changed it after the report was made, and that wins over the report's own time. With this
        // one, reports that were made before now and come later do not show until the next verification or report.
        const now = microsOfClock(store.now());
        if ((await statusIs()) !== undefined) await store.insert({ ...newest, timestamp: now });
      });
    return { what, problem, mend };
  }

  const announced = createChangeLog(store, config.SETTLE_SECONDS * 1000);
  /** Writes what is missing or wrong as a load does, so that an aggregation takes it up whatever becomes of us. */
  function reload(wrong: readonly Claim[]): Promise<void> {
    const touched = wrong.flatMap((claim) => claim.touched ?? []);
    return announced(undefined, touched, () => mendAll(wrong));
  }

  async function checkChunk({ taken, rejected }: Chunk, lineage: FileVersion): Promise<void> {
    const rows = taken.flatMap((record) => record.rows.map((row) => rowClaim(row, record.touched, lineage)));
    const rejections = rejected.map((one): Claim => {
      const values = { ...lineage, record_index: BigInt(one.index), field: one.field };
      return {
        what: `rejected_records: record ${one.index} of ${lineage.name}`,
        problem: () => rowProblem({ table: 'rejected_records', values }),
        mend: () => store.insertRows([rejectionRow(lineage, one, store.now())]),
      };
    });
    for (const { touched } of taken) if (touched !== undefined) onTouched(touched);
    await judge([...rows, ...rejections], reload);
  }

  /**
   * Makes what is told the rejections of a version as it is read, in the order of the records, and judges those that are
   * stored beside them, such as an earlier version of this program may have left.
   */
  function createStrayCheck(lineage: FileVersion) {
    const stored = rejectedIndices(store, lineage);
    let next: IteratorResult<number, undefined> | undefined;
    return async (rejected: readonly RejectedRecord[], upTo = rejected.at(-1)?.index ?? -1): Promise<void> => {
      const given = new Set(rejected.map(({ index }) => index));
      for (next ??= await stored.next(); next.done !== true && next.value <= upTo; next = await stored.next()) {
        const index = next.value;
        if (given.has(index)) continue;
        const row = { table: 'rejected_records', values: { ...lineage, record_index: BigInt(index) } };
        const what = `rejected_records: record ${index} of ${lineage.name}`;
        const problem = async () => ((await rowProblem(row)) === undefined ? 'is not rejected' : undefined);
        await judge([{ what, problem, mend: () => forgetRejection(store, lineage, index) }]);
      }
    };
  }

  /**
   * What the provider replaces or writes meanwhile is left to the next verification.
   *
   * @param there what the ledger was asked about lies at the path
   * @param origin the version that the rows name: of a copy, the one that was loaded
   */
  async function checkContent(file: IngestJob, there: IngestJob, path: string, origin: KnownVersion): Promise<void> {
    const kind = datasetOf(file.name);
    if (kind === undefined) return;
    const lineage = { name: origin.name, version: origin.version };
    const opened = await openDataFile(DATA_DIR, path, config.MAX_FILE_BYTES);
    const isStill = () => isSameVersion(opened);
    try {
      if (versionOf(opened) !== versionOf(there)) return;
      const checkStrays = createStrayCheck(lineage);
      let [taken, rejected] = [0, 0];
      const hash = createHash('sha256');
      for await (const chunk of readRecords(opened, readOptions(config, kind, lineage, false), hash)) {
        if (!isStill()) return;
        await checkChunk(chunk, lineage);
        await checkStrays(chunk.rejected);
        taken += chunk.taken.length;
        rejected += chunk.rejected.length;
      }
      if (!isStill()) return;
      await checkStrays([], Infinity);
      report.files += 1;
      report.records += taken + rejected;
      const isOrigin = origin.version === versionOf(file);
      const values = {
        name: file.name,
        version: versionOf(file),
        state: isOrigin ? 'loaded' : 'unchanged',
        sha256: hash.digest('hex'),
        bytes: BigInt(file.size),
        records: BigInt(taken + rejected),
        loaded: BigInt(isOrigin ? taken : 0),
        rejected: BigInt(rejected),
      };
      const row = { table: 'files', values };
      const problem = async () => {
        const wrong = await rowProblem(row);
        // One that is not called loaded any more is to be loaded again.
        const known = wrong === undefined ? [] : await readVersions(store, file.name);
        return known.some(({ version, state }) => version === values.version && isLoaded(state)) ? wrong : undefined;
      };
      const mend = () => store.insert({ ...row, values: { ...values, finished_at: new Date(store.now()) } });
      await judge([{ what: `files: ${file.name}`, problem, mend }]);
    } catch (error) {
      // What is wrong with bytes of two versions is wrong with neither.
      if (isStill()) throw error;
    } finally {
      closeDataFile(opened);
    }
  }

  async function check({ name, path, version = '' }: StoredFile): Promise<void> {
    const there = fileAt(name, path);
    if (there === undefined) return;
    // Of a copy, its name tells the modification time.
    const named = { ...there, mtimeNs: mtimeNsOf(version) };
    const file = versionOf(named) === version ? named : there;
    const known = await readVersions(store, name);
    const own = known.find((one) => one.version === versionOf(file));
    if (own === undefined || own.state === 'superseded') return checkQueued(file, path, there.ctimeMs);
    if (own.state === 'dead_letter') report.deadLetters += 1;
    else if (own.state === 'discarded') report.discarded += 1;
    else {
      const origin = own.state === 'loaded' ? own : (originOf(own, known) ?? own);
      await checkContent(file, there, path, origin);
    }
  }
  return (stored: StoredFile): Promise<void> =>
    check(stored).catch(async (error: unknown) => {
      if (error instanceof FileGone) return;
      if (!(error instanceof FileProblem)) throw error;
      await judge([unreadable(stored.name, error)]);
    });
}
