import type { Job, Queue } from 'bullmq';
import type { Logger } from 'pino';
import { dayOf, DAY_MS } from '../datasets/time.ts';
import type { Queues } from '../queues/open.ts';
import type { VerificationReport } from '../queues/verification.ts';
import { within } from '../runtime.ts';
import { readAggregationState } from '../storage/aggregation-state.ts';
import type { Store } from '../storage/client.ts';
import { dayTotals } from '../storage/summaries.ts';
import { oneAtATime } from '../storage/together.ts';

export type SnapshotNeeds = Queues & { readonly store: Store; readonly log: Logger };

/**
 * Makes a read of a store that always ends: with null when the store does not answer within two seconds. One that is
 * under way is waited for instead of asking again, so that questions to a store that is away do not pile up.
 */
export function boundedRead<T>(log: Logger, read: () => Promise<T>): () => Promise<T | null> {
  const away = (error: unknown) => {
    log.debug({ err: error }, 'store not read');
    return null;
  };
  const ask = oneAtATime(() => read().catch(away));
  return () => within(2_000, ask(), null);
}

/** The state of the whole pipeline, with the ten newest files and dead letters. Times are ISO 8601, days in UTC. */
export type Snapshot = Awaited<ReturnType<ReturnType<typeof createSnapshotReader>>>;

/**
 * Makes the function that reads the pipeline's state; a part is null while its store is away. It never rejects. To count
 * the vehicles of a large fleet may take too long: a day is null then, and where `withDays` is false.
 */
export function createSnapshotReader({ store, log, ...queues }: SnapshotNeeds) {
  const askRedis = boundedRead(log, () => readRedis(queues));
  const askWatermark = boundedRead(log, () => readWatermark(store));
  const askToday = boundedRead(log, () => dayTotals(store, dayOf(store.now())));
  const askYesterday = boundedRead(log, () => dayTotals(store, dayOf(store.now() - DAY_MS)));
  return async (withDays = true) => {
    const [redis, watermark, today, yesterday] = await Promise.all([
      askRedis(),
      askWatermark(),
      withDays ? askToday() : null,
      withDays ? askYesterday() : null,
    ]);
    const cassandra = watermark && { ...watermark, today, yesterday };
    return { at: new Date().toISOString(), redis, cassandra };
  };
}

async function readRedis(needs: Queues) {
  const { ingestQueue, deadLetterQueue, verificationQueue } = needs;
  const fileOf = ({ id = '', name, finishedOn = 0 }: Job) => ({ id, name, at: new Date(finishedOn).toISOString() });
  const letters = await deadLetterQueue.getFailed(0, 9);
  const newest = letters.map((job) => ({ ...fileOf(job), reason: job.failedReason }));
  const files = await ingestQueue.getCompleted(0, 9);
  const heads = await ingestQueue.getJobs(['waiting', 'prioritized', 'delayed'], 0, 0, true);
  return {
    queues: Object.fromEntries(await Promise.all(needs.allQueues.map(countsOf))),
    filesPerMinute: await filesPerMinute(ingestQueue),
    oldestWaitingSeconds: Math.max(0, ...heads.map(({ timestamp }) => (Date.now() - timestamp) / 1000)),
    newestFiles: files.map((job) => ({ ...fileOf(job), ...job.returnvalue })),
    verified: (await verificationQueue.getCompleted(0, 0)).map(verificationOf),
    deadLetters: { count: await deadLetterQueue.getFailedCount(), newest },
    workers: [...new Set((await ingestQueue.getWorkers()).map(({ rawname }) => rawname?.split(':w:')[1]))],
  };
}

function verificationOf({ returnvalue, finishedOn = 0 }: Job<object, VerificationReport>) {
  const { examples: _examples, mended: _mended, gone: _gone, ...counts } = returnvalue;
  return { at: new Date(finishedOn).toISOString(), ...counts };
}

/** `backlog` waits behind `waiting`; of the completed ones the newest are kept. */
async function countsOf(queue: Queue) {
  const [counts, paused] = await Promise.all([queue.getJobCounts(), queue.isPaused()]);
  const { waiting = 0, prioritized: backlog = 0, active = 0, delayed = 0, completed = 0, failed = 0 } = counts;
  const parents = counts['waiting-children'] ?? 0;
  return [queue.name, { paused, waiting: waiting + parents, backlog, active, delayed, completed, failed }] as const;
}

/** Jobs that ended in the last whole minute, which BullMQ closes when the first job of a later one ends. */
async function filesPerMinute(queue: Queue): Promise<number> {
  const { meta, data } = await queue.getMetrics('completed', 0, 0);
  const minutesAgo = Math.floor(Date.now() / 60_000) - Math.floor(meta.prevTS / 60_000);
  return [data[0], meta.count - meta.prevCount][minutesAgo] ?? 0;
}

async function readWatermark(store: Store) {
  const { watermark } = await readAggregationState(store);
  const lagSeconds = Math.max(0, store.now() - watermark) / 1000;
  return { watermark: new Date(watermark).toISOString(), lagSeconds, clockSkewMs: store.clockSkewMs() };
}
