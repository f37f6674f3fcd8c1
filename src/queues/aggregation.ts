import { Queue } from 'bullmq';
import { z } from 'zod';
import type { QueueConnection } from './redis.ts';

/** The queue of aggregation runs: one at a time in the whole fleet. */
export const AGGREGATION_QUEUE = 'aggregation';
/** The queue of a large run's shares: one a shard of the change log, on all replicas. */
export const AGGREGATION_SLICE_QUEUE = 'aggregation-slice';

/** What a run claimed before it cut its window into slices. Times in ms since the epoch, the epoch in µs. */
const claimedWindow = z.object({
  kind: z.enum(['incremental', 'rebuild']),
  epoch: z.string().regex(/^\d+$/),
  after: z.number(),
  until: z.number(),
});

export const aggregationJobSchema = z.object({
  /** Recompute every summary from all raw rows instead of the changed ones. */
  rebuild: z.boolean().default(false),
  /** Set by the run itself, when its slices are on their way. */
  sliced: claimedWindow.extend({ startedAt: z.number() }).optional(),
});
export type AggregationJob = z.input<typeof aggregationJobSchema>;

export const aggregationSliceSchema = claimedWindow.extend({ shard: z.number().int().nonnegative() });
export type AggregationSlice = z.infer<typeof aggregationSliceSchema>;

/** What a run or a slice of it did. */
export interface AggregationResult {
  readonly outcome: 'done' | 'overtaken' | 'another run is under way';
  readonly hours: number;
  readonly days: number;
  readonly slices: number;
  readonly watermark: string;
  readonly ms: number;
}

export interface SliceResult {
  readonly hours: number;
  readonly days: number;
}

export type AggregationQueue = Queue<AggregationJob, AggregationResult>;
export type AggregationSliceQueue = Queue<AggregationSlice, SliceResult>;

const kept = { stackTraceLimit: 0, removeOnComplete: { count: 200 }, removeOnFail: { count: 200 } };

export async function createAggregationQueue({ connection, prefix }: QueueConnection): Promise<AggregationQueue> {
  const queue: AggregationQueue = new Queue(AGGREGATION_QUEUE, { connection, prefix, defaultJobOptions: kept });
  await queue.setGlobalConcurrency(1);
  return queue;
}

export function createAggregationSliceQueue({ connection, prefix }: QueueConnection): AggregationSliceQueue {
  return new Queue(AGGREGATION_SLICE_QUEUE, {
    connection,
    prefix,
    defaultJobOptions: { ...kept, attempts: 8, backoff: { type: 'exponential', delay: 500, jitter: 0.5 } },
  });
}
