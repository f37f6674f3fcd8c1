import { UnrecoverableError, WaitingChildrenError, Worker, type Job } from 'bullmq';
import pLimit from 'p-limit';
import type { Logger } from 'pino';
import type { Config } from '../config.ts';
import { dayOf, DAY_MS } from '../datasets/time.ts';
import {
  AGGREGATION_QUEUE,
  AGGREGATION_SLICE_QUEUE,
  aggregationJobSchema,
  aggregationSliceSchema,
  type AggregationJob,
  type AggregationQueue,
  type AggregationResult,
  type AggregationSlice,
  type AggregationSliceQueue,
  type SliceResult,
} from '../queues/aggregation.ts';
import type { Counters } from '../queues/counters.ts';
import type { QueueConnection } from '../queues/redis.ts';
import {
  claimEpoch,
  moveWatermark,
  readAggregationState,
  recordRun,
  type AggregationRun,
} from '../storage/aggregation-state.ts';
import { readChanges, SHARDS, type TouchedHour } from '../storage/change-log.ts';
import type { Store } from '../storage/client.ts';
import { CHANGE_LOG_DAYS } from '../storage/schema.ts';
import { recomputeDay, storedDays, type StoredDay } from '../storage/summaries.ts';
import { LOCK_MS, STALLED_CHECK_MS } from './ingest.ts';

/** Days that one process recomputes at once; each asks for a handful of partitions. */
const DAYS_AT_ONCE = 32;
/** Keys, (vehicle, hour), that are held in memory; a slice with more takes them in turns. */
const KEYS_IN_MEMORY = 50_000;
/** A run with more keys than this is cut into slices that the replicas share. */
const KEYS_OF_ONE_JOB = 20_000;

export interface AggregationNeeds {
  readonly config: Pick<Config, 'SETTLE_SECONDS'>;
  readonly store: Store;
  readonly queues: QueueConnection;
  readonly aggregationQueue: AggregationQueue;
  readonly sliceQueue: AggregationSliceQueue;
  readonly counters: Counters;
  readonly log: Logger;
  readonly workerName: string;
}

/** One vehicle's day, and which hours of it are to be recomputed: starts in ms since the epoch, or all. */
interface DayWork extends StoredDay {
  hours: Set<number> | 'all';
}

/** Distinct keys, gathered by vehicle and day. */
function createWork() {
  const days = new Map<string, DayWork>();
  let keys = 0;
  return {
    keys: () => keys,
    add: (key: TouchedHour | StoredDay) => {
      const day = 'hour' in key ? dayOf(key.hour) : key.day;
      const id = `${day} ${key.vehicleId}`;
      const work = days.get(id) ?? { vehicleId: key.vehicleId, day, hours: new Set<number>() };
      days.set(id, work);
      if (!('hour' in key)) {
        work.hours = 'all';
        keys += 1;
      } else if (work.hours !== 'all' && !work.hours.has(key.hour)) {
        work.hours.add(key.hour);
        keys += 1;
      }
    },
    take: (): DayWork[] => {
      const taken = [...days.values()];
      days.clear();
      keys = 0;
      return taken;
    },
  };
}

async function recompute(store: Store, work: readonly DayWork[], epoch: bigint): Promise<SliceResult> {
  const limit = pLimit(DAYS_AT_ONCE);
  const hours = await Promise.all(
    work.map(({ vehicleId, day, hours }) => limit(() => recomputeDay(store, vehicleId, day, hours, epoch))),
  );
  return { hours: hours.reduce((sum, count) => sum + count, 0), days: work.length };
}

/** What a slice recomputes: its shard of the change log, or its share of everything that is stored. */
function keysOf(store: Store, slice: AggregationSlice): AsyncIterable<TouchedHour | StoredDay> {
  return slice.kind === 'incremental'
    ? readChanges(store, slice.shard, slice.after, slice.until)
    : storedDays(store, slice.shard, SHARDS);
}

/** Recomputes one shard, some tens of thousands of keys at a time. A vehicle's days are in no other slice. */
async function runSlice(store: Store, slice: AggregationSlice): Promise<SliceResult> {
  const epoch = BigInt(slice.epoch);
  const total = { hours: 0, days: 0 };
  const work = createWork();
  const flush = async () => {
    const done = await recompute(store, work.take(), epoch);
    total.hours += done.hours;
    total.days += done.days;
  };
  if ((await readAggregationState(store)).epoch !== epoch) return total;
  for await (const key of keysOf(store, slice)) {
    work.add(key);
    if (work.keys() >= KEYS_IN_MEMORY) await flush();
  }
  await flush();
  return total;
}

/**
 * Starts the workers that keep the summaries right. A run is only a nudge: it does all that is due, so missed, doubled
 * or overlapping runs do no harm.
 */
export function createAggregationWorkers(needs: AggregationNeeds): Worker[] {
  const { queues, store, log, workerName } = needs;
  const options = {
    connection: queues.connection,
    prefix: queues.prefix,
    name: workerName,
    lockDuration: LOCK_MS,
    stalledInterval: STALLED_CHECK_MS,
    maxStalledCount: Number.MAX_SAFE_INTEGER,
    runRetryDelay: 1_000,
    metrics: { maxDataPoints: 24 * 60 },
  };
  const runs = new Worker<AggregationJob, AggregationResult>(
    AGGREGATION_QUEUE,
    (job, token) => aggregate(job, token ?? '', needs),
    options,
  );
  const slices = new Worker<AggregationSlice, SliceResult>(
    AGGREGATION_SLICE_QUEUE,
    (job) => runSlice(store, aggregationSliceSchema.parse(job.data)),
    options,
  );
  for (const worker of [runs, slices]) {
    worker.on('error', (error) => log.warn({ queue: worker.name, reason: error.message }, 'worker error'));
    worker.on('failed', (job, error) => {
      log.warn({ queue: worker.name, job: job?.id, attempt: job?.attemptsMade, reason: error.message }, 'job failed');
    });
  }
  return [runs, slices];
}

async function aggregate(
  job: Job<AggregationJob, AggregationResult>,
  token: string,
  needs: AggregationNeeds,
): Promise<AggregationResult> {
  const parsed = aggregationJobSchema.safeParse(job.data);
  if (!parsed.success) throw new UnrecoverableError('the data of the job is not that of an aggregation run');
  const { rebuild, sliced } = parsed.data;
  if (sliced !== undefined) return finishSliced(job, sliced, needs);
  const { store, aggregationQueue, config } = needs;
  const startedAt = store.now();
  if ((await aggregationQueue.getWaitingChildrenCount()) > 0) {
    const { watermark } = await readAggregationState(store);
    return {
      outcome: 'another run is under way',
      hours: 0,
      days: 0,
      slices: 0,
      watermark: new Date(watermark).toISOString(),
      ms: 0,
    };
  }

  const { watermark, epoch } = await claimEpoch(store);
  const expired = watermark < store.now() - CHANGE_LOG_DAYS * DAY_MS;
  const window = {
    kind: rebuild || expired ? ('rebuild' as const) : ('incremental' as const),
    epoch: String(epoch),
    after: watermark,
    until: Math.max(watermark, Math.floor(store.now() - config.SETTLE_SECONDS * 1000)),
  };
  const work = window.kind === 'rebuild' ? undefined : await smallWork(store, window);
  if (work === undefined) {
    const claimed = { ...window, startedAt };
    if (await startSlices(job, token, claimed, needs)) throw new WaitingChildrenError();
    return finishSliced(job, claimed, needs);
  }
  const done = await recompute(store, work, epoch);
  return finish(job, { ...window, startedAt, ...done, slices: 0 }, needs);
}

/** All keys of the window, or undefined when they are too many for one job. */
async function smallWork(store: Store, window: { after: number; until: number }): Promise<DayWork[] | undefined> {
  const work = createWork();
  await Promise.all(
    Array.from({ length: SHARDS }, async (_, shard) => {
      for await (const key of readChanges(store, shard, window.after, window.until)) {
        work.add(key);
        if (work.keys() > KEYS_OF_ONE_JOB) return;
      }
    }),
  );
  return work.keys() > KEYS_OF_ONE_JOB ? undefined : work.take();
}

type SlicedWindow = NonNullable<AggregationJob['sliced']>;

/** Adds one child job a shard and lets this job wait for them without holding a worker; false if all are done. */
async function startSlices(
  job: Job<AggregationJob, AggregationResult>,
  token: string,
  { startedAt, ...window }: SlicedWindow,
  { sliceQueue }: AggregationNeeds,
): Promise<boolean> {
  if (job.id === undefined) throw new Error('a job without an id');
  const parent = { id: job.id, queue: job.queueQualifiedName };
  await sliceQueue.addBulk(
    Array.from({ length: SHARDS }, (_, shard) => ({
      name: `${window.kind} slice ${shard + 1} of ${SHARDS}`,
      data: { ...window, shard },
      opts: { parent, failParentOnFailure: true },
    })),
  );
  await job.updateData({ ...job.data, sliced: { ...window, startedAt } });
  await job.log(`cut into ${SHARDS} slices, shared by all processors`);
  return job.moveToWaitingChildren(token);
}

async function finishSliced(
  job: Job<AggregationJob, AggregationResult>,
  sliced: SlicedWindow,
  needs: AggregationNeeds,
): Promise<AggregationResult> {
  const results = Object.values(await job.getChildrenValues<SliceResult>());
  const sum = (field: keyof SliceResult) => results.reduce((total, result) => total + result[field], 0);
  return finish(job, { ...sliced, hours: sum('hours'), days: sum('days'), slices: SHARDS }, needs);
}

/** Moves the watermark to the end of the window, if no newer run has claimed it, and writes the run's history. */
async function finish(
  job: Job<AggregationJob, AggregationResult>,
  run: SlicedWindow & SliceResult & { slices: number },
  { store, counters, log, workerName }: AggregationNeeds,
): Promise<AggregationResult> {
  const moved = await moveWatermark(store, BigInt(run.epoch), run.until);
  const outcome: AggregationRun['outcome'] = moved ? 'done' : 'overtaken';
  await recordRun(store, {
    runId: job.id ?? '',
    kind: run.kind,
    startedAt: run.startedAt,
    windowStart: run.after,
    windowEnd: run.until,
    hours: run.hours,
    days: run.days,
    slices: run.slices,
    outcome,
    worker: workerName,
  });
  const ms = Math.round(store.now() - run.startedAt);
  counters.add(`aggregation_runs_total{outcome="${outcome}"}`, 1);
  counters.add('aggregation_hours_total', run.hours);
  counters.add('aggregation_seconds_total', ms / 1000);
  const watermark = new Date(run.until).toISOString();
  await job.log(`${run.kind}: ${run.hours} hours of ${run.days} days in ${ms} ms, watermark ${watermark}, ${outcome}`);
  if (run.hours > 0) log.info({ queue: AGGREGATION_QUEUE, kind: run.kind, hours: run.hours, days: run.days, ms }, 'aggregated');
  return { outcome, hours: run.hours, days: run.days, slices: run.slices, watermark, ms };
}
