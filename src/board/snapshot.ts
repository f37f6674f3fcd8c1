import type { Job, Queue } from 'bullmq';
import type { Logger } from 'pino';
import { dayOf, DAY_MS } from '../datasets/time.ts';
import type { AggregationQueue, AggregationSliceQueue } from '../queues/aggregation.ts';
import type { DeadLetterQueue } from '../queues/dead-letter.ts';
import type { IngestQueue } from '../queues/ingest.ts';
import type { QueueConnection } from '../queues/redis.ts';
import { readAggregationState } from '../storage/aggregation-state.ts';
import type { Store } from '../storage/client.ts';
import { dayTotals } from '../storage/summaries.ts';
import { createBoundedRead } from './bounded-read.ts';

/** Files and dead letters that a snapshot names. */
const NEWEST = 10;

export interface SnapshotNeeds {
  readonly store: Store;
  readonly queues: QueueConnection;
  readonly ingestQueue: IngestQueue;
  readonly deadLetterQueue: DeadLetterQueue;
  readonly aggregationQueue: AggregationQueue;
  readonly sliceQueue: AggregationSliceQueue;
  readonly log: Logger;
}

/**
 * The state of the whole pipeline; a part is null while its store does not answer. Times are ISO 8601, days and times
 * are in UTC.
 */
export interface Snapshot {
  readonly at: string;
  readonly redis: Awaited<ReturnType<typeof readRedis>> | null;
  readonly cassandra: Awaited<ReturnType<typeof readCassandra>> | null;
}

/** Makes the function that reads the pipeline's state. It takes at most two seconds and never rejects. */
export function createSnapshotReader(needs: SnapshotNeeds): () => Promise<Snapshot> {
  const askRedis = createBoundedRead('redis', needs.log, () => readRedis(needs));
  const askCassandra = createBoundedRead('cassandra', needs.log, () => readCassandra(needs.store));
  return async () => {
    const [redis, cassandra] = await Promise.all([askRedis(), askCassandra()]);
    return { at: new Date().toISOString(), redis, cassandra };
  };
}

async function readRedis({ queues, ingestQueue, deadLetterQueue, aggregationQueue, sliceQueue }: SnapshotNeeds) {
  if (queues.connection.status !== 'ready') throw new Error('the connection is lost');
  const [counts, perMinute, oldestSeconds, files, letters, letterCount, workers] = await Promise.all([
    Promise.all([ingestQueue, deadLetterQueue, aggregationQueue, sliceQueue].map(countsOf)),
    filesPerMinute(ingestQueue),
    oldestWaitingSeconds(ingestQueue),
    ingestQueue.getCompleted(0, NEWEST - 1),
    deadLetterQueue.getFailed(0, NEWEST - 1),
    deadLetterQueue.getFailedCount(),
    ingestQueue.getWorkers(),
  ]);
  const fileOf = ({ id = '', name, finishedOn }: Job) => ({ id, name, at: isoTime(finishedOn) });
  return {
    queues: Object.fromEntries(counts),
    /** Ingest jobs that ended in the last whole minute. */
    filesPerMinute: perMinute,
    /** Age of the job that waits longest in ingest; 0 when none waits. */
    oldestWaitingSeconds: oldestSeconds,
    newestFiles: files.map((job) => ({ ...fileOf(job), ...job.returnvalue })),
    deadLetters: { count: letterCount, newest: letters.map((job) => ({ ...fileOf(job), reason: job.failedReason })) },
    /** Names of the processors that take ingest jobs. */
    workers: [...new Set(workers.map(({ rawname }) => rawname?.split(':w:')[1] ?? '(no name)'))].sort(),
  };
}

function isoTime(ms: number | undefined): string {
  return new Date(ms ?? 0).toISOString();
}

/** Jobs of a queue by what they do. `backlog` waits behind `waiting`; of the completed ones the newest are kept. */
interface QueueCounts {
  readonly paused: boolean;
  readonly waiting: number;
  readonly backlog: number;
  readonly active: number;
  readonly delayed: number;
  readonly waitingChildren: number;
  readonly completed: number;
  readonly failed: number;
}

async function countsOf(queue: Queue): Promise<[string, QueueCounts]> {
  const [counts, paused] = await Promise.all([queue.getJobCounts(), queue.isPaused()]);
  const { waiting = 0, prioritized = 0, active = 0, delayed = 0, completed = 0, failed = 0 } = counts;
  const waitingChildren = counts['waiting-children'] ?? 0;
  return [queue.name, { paused, waiting, backlog: prioritized, active, delayed, waitingChildren, completed, failed }];
}

/** BullMQ closes a minute when the first job of a later one ends, so the newest minute is not in its list yet. */
async function filesPerMinute(queue: Queue): Promise<number> {
  const { meta, data } = await queue.getMetrics('completed', 0, 0);
  const minutesAgo = Math.floor(Date.now() / 60_000) - Math.floor(meta.prevTS / 60_000);
  if (minutesAgo === 0) return data[0] ?? 0;
  return minutesAgo === 1 ? meta.count - meta.prevCount : 0;
}

async function oldestWaitingSeconds(queue: IngestQueue): Promise<number> {
  const heads = await Promise.all([queue.getWaiting(0, 0), queue.getPrioritized(0, 0), queue.getDelayed(0, 0)]);
  const oldest = Math.min(Date.now(), ...heads.flat().map(({ timestamp }) => timestamp));
  return (Date.now() - oldest) / 1000;
}

async function readCassandra(store: Store) {
  const now = store.now();
  const [{ watermark }, today, yesterday] = await Promise.all([
    readAggregationState(store),
    dayTotals(store, dayOf(now)),
    dayTotals(store, dayOf(now - DAY_MS)),
  ]);
  return {
    /** Summaries are right for all that was loaded before it. */
    watermark: new Date(watermark).toISOString(),
    lagSeconds: Math.max(0, now - watermark) / 1000,
    today,
    yesterday,
    /** How far this process's clock is ahead of Cassandra's. */
    clockSkewMs: store.clockSkewMs(),
  };
}
