import type { Queue } from 'bullmq';
import type { Logger } from 'pino';
import { dayOf, DAY_MS } from '../datasets/time.ts';
import type { AggregationQueue, AggregationSliceQueue } from '../queues/aggregation.ts';
import type { DeadLetterQueue } from '../queues/dead-letter.ts';
import type { IngestQueue, IngestResult } from '../queues/ingest.ts';
import type { QueueConnection } from '../queues/redis.ts';
import { readAggregationState } from '../storage/aggregation-state.ts';
import type { Store } from '../storage/client.ts';
import { dayTotals, type DayTotals } from '../storage/summaries.ts';
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

/** Jobs of one queue by what they do. `backlog` waits behind `waiting`; of the completed ones only the newest are kept. */
export interface QueueCounts {
  readonly paused: boolean;
  readonly waiting: number;
  readonly backlog: number;
  readonly active: number;
  readonly delayed: number;
  readonly waitingChildren: number;
  readonly completed: number;
  readonly failed: number;
}

/** What Redis says. Times are ISO 8601 in UTC. */
export interface RedisSnapshot {
  readonly queues: Readonly<Record<string, QueueCounts>>;
  /** Ingest jobs that ended in the last whole minute. */
  readonly filesPerMinute: number;
  /** Age of the job that waits longest in ingest; 0 when none waits. */
  readonly oldestWaitingSeconds: number;
  readonly newestFiles: readonly (IngestResult & { readonly name: string; readonly at: string })[];
  readonly deadLetters: {
    readonly count: number;
    readonly newest: readonly { readonly id: string; readonly name: string; readonly reason: string; readonly at: string }[];
  };
  /** Names of the processors that take ingest jobs. */
  readonly workers: readonly string[];
}

/** What Cassandra says. Summaries are right for all that was loaded before the watermark. */
export interface CassandraSnapshot {
  readonly watermark: string;
  readonly lagSeconds: number;
  /** UTC days. */
  readonly today: DayTotals;
  readonly yesterday: DayTotals;
  /** How far this process's clock is ahead of Cassandra's. */
  readonly clockSkewMs: number;
}

/** The state of the whole pipeline; a part is null while its store does not answer. */
export interface Snapshot {
  readonly at: string;
  readonly redis: RedisSnapshot | null;
  readonly cassandra: CassandraSnapshot | null;
}

/** Makes the function that reads the pipeline's state. It takes at most two seconds and never rejects. */
export function createSnapshotReader(needs: SnapshotNeeds): () => Promise<Snapshot> {
  const redis = createBoundedRead('redis', needs.log, () => readRedis(needs));
  const cassandra = createBoundedRead('cassandra', needs.log, () => readCassandra(needs.store));
  return async () => {
    const [redisPart, cassandraPart] = await Promise.all([redis(), cassandra()]);
    return { at: new Date().toISOString(), redis: redisPart, cassandra: cassandraPart };
  };
}

async function readRedis(needs: SnapshotNeeds): Promise<RedisSnapshot> {
  const { ingestQueue, deadLetterQueue, aggregationQueue, sliceQueue } = needs;
  if (needs.queues.connection.status !== 'ready') throw new Error('the connection is lost');
  const [counts, perMinute, oldestSeconds, files, letters, letterCount, workers] = await Promise.all([
    Promise.all([ingestQueue, deadLetterQueue, aggregationQueue, sliceQueue].map(countsOf)),
    filesPerMinute(ingestQueue),
    oldestWaitingSeconds(ingestQueue),
    ingestQueue.getCompleted(0, NEWEST - 1),
    deadLetterQueue.getFailed(0, NEWEST - 1),
    deadLetterQueue.getFailedCount(),
    ingestQueue.getWorkers(),
  ]);
  return {
    queues: Object.fromEntries(counts),
    filesPerMinute: perMinute,
    oldestWaitingSeconds: oldestSeconds,
    newestFiles: files.map(({ name, returnvalue, finishedOn }) => ({ ...returnvalue, name, at: isoTime(finishedOn) })),
    deadLetters: {
      count: letterCount,
      newest: letters.map(({ id, name, failedReason, finishedOn }) => ({
        id: id ?? '',
        name,
        reason: failedReason,
        at: isoTime(finishedOn),
      })),
    },
    workers: [...new Set(workers.map(({ rawname }) => rawname?.split(':w:')[1] ?? '(no name)'))].sort(),
  };
}

function isoTime(ms: number | undefined): string {
  return new Date(ms ?? 0).toISOString();
}

async function countsOf(queue: Queue): Promise<[string, QueueCounts]> {
  const [counts, paused] = await Promise.all([queue.getJobCounts(), queue.isPaused()]);
  const of = (state: string) => counts[state] ?? 0;
  return [
    queue.name,
    {
      paused,
      waiting: of('waiting') + of('paused'),
      backlog: of('prioritized'),
      active: of('active'),
      delayed: of('delayed'),
      waitingChildren: of('waiting-children'),
      completed: of('completed'),
      failed: of('failed'),
    },
  ];
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

async function readCassandra(store: Store): Promise<CassandraSnapshot> {
  const now = store.now();
  const [{ watermark }, today, yesterday] = await Promise.all([
    readAggregationState(store),
    dayTotals(store, dayOf(now)),
    dayTotals(store, dayOf(now - DAY_MS)),
  ]);
  return {
    watermark: new Date(watermark).toISOString(),
    lagSeconds: Math.max(0, now - watermark) / 1000,
    today,
    yesterday,
    clockSkewMs: store.clockSkewMs(),
  };
}
