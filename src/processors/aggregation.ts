import { UnrecoverableError, WaitingChildrenError, type Job, type Worker } from 'bullmq';
import pLimit from 'p-limit';
import { DAY_MS } from '../datasets/time.ts';
import {
  AGGREGATION_QUEUE,
  AGGREGATION_SLICE_QUEUE,
  aggregationJobSchema,
  aggregationSliceSchema,
  type AggregationJob,
  type AggregationResult,
  type AggregationSlice,
  type ClaimedWindow,
  type SliceResult,
} from '../queues/aggregation.ts';
import { hasJob } from '../queues/ingest.ts';
import { claimWindow, moveWatermark, readAggregationState, recordRun, TURNS } from '../storage/aggregation-state.ts';
import { ABANDONED_MS, readChanges, SHARDS, type LogReader } from '../storage/change-log.ts';
import type { Store } from '../storage/client.ts';
import { CHANGE_LOG_DAYS } from '../storage/schema.ts';
import { recomputeDay, storedDays } from '../storage/summaries.ts';
import { createDayHours, type DayHours } from './day-hours.ts';
import { startWorker, type ProcessorNeeds } from './processor.ts';

/** Days that one process recomputes at once; each asks for a handful of partitions. */
const DAYS_AT_ONCE = 32;
/** Keys, (vehicle, hour), that are held in memory; a slice with more takes them in turns. */
const KEYS_IN_MEMORY = 50_000;
/** Attempts of a slice that each have write times of their own; all further ones share those of the last. */
const ATTEMPTS = 10;
/** A run with more keys than this is cut into slices that the replicas share. */
const KEYS_OF_ONE_JOB = 20_000;

type RunJob = Job<AggregationJob, AggregationResult>;

const readerOf = ({ store, ingestQueue }: ProcessorNeeds): LogReader => ({
  store,
  hasJob: (file) => hasJob(ingestQueue, file),
});

/** After a failure no further day is begun, and none is under way when it rejects: what is tried again stands alone. */
async function recompute(store: Store, work: readonly DayHours[], epoch: bigint) {
  const limit = pLimit(DAYS_AT_ONCE);
  let failure: { error: unknown } | undefined;
  const count = async ({ stored, hours }: DayHours): Promise<number> => {
    if (failure !== undefined) return 0;
    return recomputeDay(store, stored, hours, epoch).catch((error: unknown) => {
      failure ??= { error };
      return 0;
    });
  };
  const counts = await Promise.all(work.map((day) => limit(count, day)));
  if (failure !== undefined) throw failure.error;
  return { hours: counts.reduce((sum, one) => sum + one, 0), days: work.length };
}

/**
 * Recomputes one shard, some tens of thousands of keys at a time. A vehicle's days are in no other slice, but for some
 * of a rebuild, of which both slices compute the same.
 */
async function runSlice(slice: AggregationSlice, attempt: number, needs: ProcessorNeeds): Promise<SliceResult> {
  const { kind, shard, after, until } = slice;
  const { store } = needs;
  const epoch = BigInt(slice.epoch);
  const total = { epoch: slice.epoch, hours: 0, days: 0 };
  const work = createDayHours();
  // A day may be in several turns, and in an attempt before: each writes at a time of its own, or ties would be settled column
  // by column.
  const turns = TURNS / BigInt(ATTEMPTS);
  let turn = turns * BigInt(Math.min(attempt, ATTEMPTS) - 1);
  const last = turn + turns - 1n;
  const flush = async () => {
    const done = await recompute(store, work.take(), epoch + turn);
    if (turn < last) turn += 1n;
    total.hours += done.hours;
    total.days += done.days;
  };
  if ((await readAggregationState(store)).epoch !== epoch) return total;
  const keys =
    kind === 'rebuild' ? storedDays(store, shard, SHARDS) : readChanges(readerOf(needs), shard, after, until);
  for await (const key of keys) {
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
export function createAggregationWorkers(needs: ProcessorNeeds): Worker[] {
  const run = (job: RunJob, token = '') => aggregate(job, token, needs);
  const slice = ({ data, attemptsStarted }: Job<AggregationSlice>) =>
    runSlice(aggregationSliceSchema.parse(data), attemptsStarted, needs);
  return [startWorker(AGGREGATION_QUEUE, run, needs), startWorker(AGGREGATION_SLICE_QUEUE, slice, needs)];
}

/** Whether a run waits for its slices, or for its turn to say that they are done: it comes next, but for one that is active. */
async function isAnotherUnderWay({ aggregationQueue }: ProcessorNeeds): Promise<boolean> {
  // In this order, as it goes from the one to the other.
  if ((await aggregationQueue.getWaitingChildrenCount()) > 0) return true;
  return (await aggregationQueue.getWaiting(0, 9)).some(({ data }) => data.sliced !== undefined);
}

async function aggregate(job: RunJob, token: string, needs: ProcessorNeeds): Promise<AggregationResult> {
  const parsed = aggregationJobSchema.safeParse(job.data);
  if (!parsed.success) throw new UnrecoverableError('the data of the job is not that of an aggregation run');
  const { store, config } = needs;
  if (parsed.data.sliced !== undefined) {
    const result = await waitForSlices(job, token, parsed.data.sliced, needs);
    if (result !== undefined) return result;
  }
  if (await isAnotherUnderWay(needs)) {
    const watermark = new Date((await readAggregationState(store)).watermark).toISOString();
    return { outcome: 'another run is under way', hours: 0, days: 0, slices: 0, watermark, ms: 0 };
  }

  const claimed = await claimWindow(store, config.SETTLE_SECONDS * 1000);
  const { epoch } = claimed;
  const isExpired = claimed.after < claimed.startedAt - (CHANGE_LOG_DAYS - 1) * DAY_MS;
  const kind = parsed.data.rebuild || isExpired ? 'rebuild' : 'incremental';
  const window: ClaimedWindow = { ...claimed, kind, epoch: String(epoch) };
  const work = kind === 'rebuild' ? undefined : await smallWork(needs, window);
  if (work === undefined) {
    if (kind === 'rebuild') await appendOpenLoads(needs, window);
    await startSlices(job, window, needs);
    const result = await waitForSlices(job, token, window, needs);
    if (result === undefined) throw new Error('slices of the run are missing');
    return result;
  }
  return finish(job, window, { ...(await recompute(store, work.take(), epoch)), slices: 0 }, needs);
}

/** All keys of the window, or undefined when they are too many for one job. */
async function smallWork(needs: ProcessorNeeds, { after, until }: ClaimedWindow) {
  const work = createDayHours();
  const shards = Array.from({ length: SHARDS }, async (_, shard) => {
    for await (const key of readChanges(readerOf(needs), shard, after, until)) {
      work.add(key);
      if (work.keys() > KEYS_OF_ONE_JOB) return;
    }
  });
  await Promise.all(shards);
  return work.keys() > KEYS_OF_ONE_JOB ? undefined : work;
}

/** A rebuild reads rows and not the log, but it too may come between what a load announced and the rows of that load. */
async function appendOpenLoads(needs: ProcessorNeeds, { after, until }: ClaimedWindow): Promise<void> {
  const since = Math.max(after, until - ABANDONED_MS);
  for (let shard = 0; shard < SHARDS; shard += 1)
    for await (const _key of readChanges(readerOf(needs), shard, since, until));
}

async function startSlices(job: RunJob, window: ClaimedWindow, { sliceQueue }: ProcessorNeeds): Promise<void> {
  const parent = { id: job.id ?? '', queue: job.queueQualifiedName };
  const slices = Array.from({ length: SHARDS }, (_, shard) => ({
    name: `${window.kind} slice ${shard + 1} of ${SHARDS}`,
    data: { ...window, shard },
    opts: { parent, failParentOnFailure: true },
  }));
  await sliceQueue.addBulk(slices);
  await job.updateData({ ...job.data, sliced: window });
  await job.log(`cut into ${SHARDS} slices, shared by all processors`);
}

/**
 * Lets the job wait for its slices without holding a worker, and finishes the run when all of them are done.
 *
 * @returns undefined when slices are missing, because somebody removed them: the run has to start anew
 */
async function waitForSlices(job: RunJob, token: string, window: ClaimedWindow, needs: ProcessorNeeds) {
  if (await job.moveToWaitingChildren(token)) throw new WaitingChildrenError();
  const all = Object.values(await job.getChildrenValues<SliceResult>());
  const results = all.filter(({ epoch }) => epoch === window.epoch);
  if (results.length < SHARDS) return undefined;
  const sum = (field: 'hours' | 'days') => results.reduce((total, result) => total + result[field], 0);
  return finish(job, window, { hours: sum('hours'), days: sum('days'), slices: SHARDS }, needs);
}

/** Moves the watermark to the end of the window, if no newer run has claimed it, and writes the run's history. */
async function finish(
  job: RunJob,
  { kind, epoch, after, until, startedAt }: ClaimedWindow,
  { hours, days, slices }: Pick<AggregationResult, 'hours' | 'days' | 'slices'>,
  { store, config, counters, log, workerName }: ProcessorNeeds,
): Promise<AggregationResult> {
  const claimed = { epoch: BigInt(epoch), until, startedAt };
  const outcome = (await moveWatermark(store, claimed, config.DURABLE_SECONDS * 1000)) ? 'done' : 'overtaken';
  await recordRun(store, {
    run_id: job.id ?? '',
    kind,
    started_at: new Date(startedAt),
    window_start: new Date(after),
    window_end: new Date(until),
    hours: BigInt(hours),
    days: BigInt(days),
    slices,
    outcome,
    worker: workerName,
  });
  const ms = Math.round(store.now() - startedAt);
  counters.add(`aggregation_runs_total{outcome="${outcome}"}`, 1);
  counters.add('aggregation_hours_total', hours);
  counters.add('aggregation_seconds_total', ms / 1000);
  const watermark = new Date(until).toISOString();
  await job.log(`${kind}: ${hours} hours of ${days} days in ${ms} ms, watermark ${watermark}, ${outcome}`);
  if (hours > 0) log.info({ queue: AGGREGATION_QUEUE, kind, hours, days, ms }, 'aggregated');
  return { outcome, hours, days, slices, watermark, ms };
}
