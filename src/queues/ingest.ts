import { createHash } from 'node:crypto';
import { isAbsolute } from 'node:path';
import { Queue, type JobsOptions } from 'bullmq';
import { z } from 'zod';
import type { Config } from '../config.ts';
import type { QueueConnection } from './redis.ts';

/** The queue of files to load: one job a file version. */
export const INGEST_QUEUE = 'ingest';

/** Files that the watcher saw arrive have no priority and go first; what reconciliation finds waits behind them. */
const BACKLOG_PRIORITY = 10;

/** A path below the data folder, with forward slashes, that cannot lead out of it by its text. */
export const relativePath = z
  .string()
  .min(1)
  .max(4_096)
  .refine(
    (path) => !isAbsolute(path) && !path.includes('\0') && !path.split(/[/\\]/).includes('..'),
    'must be a path below the data folder',
  );

/** One version of a file: its path, its size in bytes and its modification time in ns since the epoch. */
export const ingestJobSchema = z.object({
  name: relativePath,
  size: z.number().int().nonnegative(),
  mtimeNs: z.string().regex(/^-?\d{1,20}$/),
});

export type IngestJob = z.infer<typeof ingestJobSchema>;

/** What a finished job says; the same for every size of file. */
export interface IngestResult {
  readonly state: 'loaded' | 'unchanged' | 'already loaded' | 'superseded';
  readonly records: number;
  readonly loaded: number;
  readonly rejected: number;
  readonly ms: number;
}

export type IngestQueue = Queue<IngestJob, IngestResult>;

/** How the ledger writes a version: `<bytes>-<modification time in ns>`. */
export function versionOf({ size, mtimeNs }: Pick<IngestJob, 'size' | 'mtimeNs'>): string {
  return `${size}-${mtimeNs}`;
}

/** The modification time, in ms since the epoch. */
export function mtimeMs({ mtimeNs }: Pick<IngestJob, 'mtimeNs'>): number {
  return Number(BigInt(mtimeNs) / 1_000_000n);
}

/** The same version always has the same id, so it is never queued twice. */
export function ingestJobId(file: { readonly name: string; readonly version: string }): string {
  return `f${createHash('sha256').update(`${file.name}\0${file.version}`).digest('hex').slice(0, 31)}`;
}

export function createIngestQueue({ connection, prefix }: QueueConnection): IngestQueue {
  return new Queue(INGEST_QUEUE, { connection, prefix, streams: { events: { maxLen: 1_000 } } });
}

function jobOptions(jobId: string, attempts: number, priority: number | undefined): JobsOptions {
  return {
    jobId,
    attempts,
    backoff: { type: 'exponential', delay: 500, jitter: 0.5 },
    ...(priority === undefined ? {} : { priority }),
    keepLogs: 20,
    stackTraceLimit: 0,
    removeOnComplete: { count: 1_000, age: 86_400 },
  };
}

/**
 * Queues file versions in one round trip. One that is queued already is left as it is. One that is kept as completed
 * is queued again: whoever asks has read in the ledger that it is not loaded.
 *
 * @param backlog whether the files wait behind those that arrive now
 */
export async function enqueueFiles(
  queue: IngestQueue,
  files: readonly IngestJob[],
  { attempts, backlog }: { attempts: Config['INGEST_ATTEMPTS']; backlog: boolean },
): Promise<void> {
  if (files.length === 0) return;
  const jobs = files.map((file) => ({ id: ingestJobId({ name: file.name, version: versionOf(file) }), file }));
  if (backlog)
    await removeCompleted(
      queue,
      jobs.map(({ id }) => id),
    );
  await queue.addBulk(
    jobs.map(({ id, file: { name, size, mtimeNs } }) => ({
      name,
      data: { name, size, mtimeNs },
      opts: jobOptions(id, attempts, backlog ? BACKLOG_PRIORITY : undefined),
    })),
  );
}

/** BullMQ ignores an added job whose id is kept as completed, without a word. */
async function removeCompleted(queue: IngestQueue, ids: readonly string[]): Promise<void> {
  if ((await queue.getCompletedCount()) === 0) return;
  const completed = new Set((await queue.getRanges(['completed'], 0, -1)).filter(Boolean));
  await Promise.all(ids.filter((id) => completed.has(id)).map((id) => queue.remove(id)));
}

/** Jobs that are yet to be done, whether they wait, are delayed by a retry, or are under way. */
export function countUnfinished(queue: IngestQueue): Promise<number> {
  return queue.getJobCountByTypes('waiting', 'prioritized', 'delayed', 'active');
}
