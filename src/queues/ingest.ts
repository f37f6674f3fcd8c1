import { createHash } from 'node:crypto';
import { isAbsolute, sep } from 'node:path';
import type { Queue } from 'bullmq';
import { z } from 'zod';

/** The queue of files to load: one job a file version. */
export const INGEST_QUEUE = 'ingest';
/** What reconciliation finds waits behind the files that the watcher saw arrive, which have no priority. */
const BACKLOG_PRIORITY = 10;
/** The latest time that a date can be, in ms since the epoch. */
export const MAX_DATE_MS = 8.64e15;
/** Characters of the longest path that a folder can list: it is a folder of the longest path that can be opened, and a name. */
const MAX_PATH = 4_095 + 1 + 255;

/** A backslash is a character like any other where it does not separate folders. */
const SEPARATORS = sep === '/' ? '/' : /[/\\]/;

/** A path below the data folder, with forward slashes, that cannot lead out of it by its text. */
export const relativePath = z
  .string()
  .max(MAX_PATH)
  .refine((path) => path !== '' && !isAbsolute(path) && !path.includes('\0'), 'must be a path below the data folder')
  .refine((path) => !path.split(SEPARATORS).includes('..'), 'must stay below the data folder');

/** One version of a file: its path, its size in bytes and its modification time in ns since the epoch. */
export const ingestJobSchema = z.object({
  name: relativePath,
  size: z.number().int().nonnegative(),
  mtimeNs: z.string().regex(/^-?\d{1,30}$/),
  /** How often its processor died while it was the suspect there. */
  crashes: z.number().int().nonnegative().optional(),
  /** A store went away while it was loaded, so that its load may be announced. */
  interrupted: z.boolean().optional(),
  /** How often Cassandra failed at it while it did other work. */
  refusals: z.number().int().nonnegative().optional(),
});
export type IngestJob = z.infer<typeof ingestJobSchema>;

type Outcome = 'loaded' | 'unchanged' | 'already loaded' | 'superseded' | 'discarded';
/** What a finished job says; the same for every size of file. */
export type IngestResult = { state: Outcome; records: number; loaded: number; rejected: number; ms: number };
export type IngestQueue = Queue<IngestJob, IngestResult>;

/** How the ledger writes a version: `<bytes>-<modification time in ns>`. */
export const versionOf = ({ size, mtimeNs }: Pick<IngestJob, 'size' | 'mtimeNs'>) => `${size}-${mtimeNs}`;
/** The modification time in ns since the epoch that a version, as the ledger writes it, names. */
export const mtimeNsOf = (version: string) => version.slice(version.indexOf('-') + 1);
/** The job of a version, as the ledger writes it. */
export function jobOfVersion({ name, version }: { readonly name: string; readonly version: string }): IngestJob {
  return { name, size: Number.parseInt(version, 10), mtimeNs: mtimeNsOf(version) };
}
/** The modification time, in ms since the epoch, as far as a date goes: a file system may know of earlier and later ones. */
export const mtimeMs = ({ mtimeNs }: Pick<IngestJob, 'mtimeNs'>) =>
  Math.max(-MAX_DATE_MS, Math.min(Number(BigInt(mtimeNs) / 1_000_000n), MAX_DATE_MS));

/** The clock of a network file system may be ahead by so much. */
const CLOCKS_DIFFER_MS = 5_000;

/**
 * Whether a file changed less than so many ms ago, by the clock of this machine or by that of Cassandra, in ms since the
 * epoch: either may be wrong, and a file that may still be written is not to be judged. A time that is further ahead than
 * clocks differ says nothing.
 */
export function isYoungerThan(ms: number, file: IngestJob, storeNow: number): boolean {
  const ages = [Date.now(), storeNow].map((now) => now - mtimeMs(file));
  return ages.some((age) => age > -CLOCKS_DIFFER_MS && age < ms);
}

/** The same version always has the same id, so it is never queued twice. */
export function ingestJobId(file: IngestJob | { readonly name: string; readonly version: string }): string {
  const version = 'version' in file ? file.version : versionOf(file);
  return `f${createHash('sha256').update(`${file.name}\0${version}`).digest('hex').slice(0, 31)}`;
}

/** Loaded files that Bull Board shows, and for how many seconds. An option of the worker: in each job it costs memory. */
export const KEPT_LOADED = { count: 1_000, age: 86_400 };

export const INGEST_JOBS = {
  backoff: { type: 'exponential', delay: 500, jitter: 0.5 },
  keepLogs: 20,
  stackTraceLimit: 0,
};

/**
 * Whether fewer files than so many wait, are delayed by a retry, or are under way. For one that arrives now, the backlog that
 * waits behind it does not count, or it would have to wait until the last file of that is queued.
 */
export async function hasRoom(
  queue: IngestQueue,
  maxFiles: number,
  { backlog }: { backlog: boolean },
): Promise<boolean> {
  const behind = backlog ? (['prioritized'] as const) : [];
  return (await queue.getJobCountByTypes('waiting', 'delayed', 'active', ...behind)) < maxFiles;
}

/** Whether there is a job of a file version that is not done; one that failed for good is on its way to the dead letters. */
export async function hasJob(queue: IngestQueue, file: Parameters<typeof ingestJobId>[0]): Promise<boolean> {
  return !['unknown', 'completed'].includes(await queue.getJobState(ingestJobId(file)));
}

/**
 * Queues file versions in one round trip; one that is queued already is left as it is. The backlog waits behind files
 * that arrive now, and has been looked up in the ledger: what is kept there as a completed job is queued again.
 */
export async function enqueueFiles(
  queue: IngestQueue,
  files: readonly IngestJob[],
  { backlog }: { backlog: boolean },
): Promise<void> {
  if (files.length === 0) return;
  const jobs = files.map(({ name, size, mtimeNs }) => {
    const data = { name, size, mtimeNs };
    return { name, data, opts: { jobId: ingestJobId(data), priority: backlog ? BACKLOG_PRIORITY : 0 } };
  });
  // BullMQ ignores an added job whose id is kept as completed, without a word.
  const completed = new Set(backlog ? await queue.getRanges(['completed'], 0, -1) : []);
  const again = jobs.filter(({ opts }) => completed.has(opts.jobId));
  await Promise.all(again.map(({ opts }) => queue.remove(opts.jobId)));
  await queue.addBulk(jobs);
}
