import { z } from 'zod';

/** The queue of aggregation runs: one at a time in the whole fleet. */
export const AGGREGATION_QUEUE = 'aggregation';
/** The queue of a large run's shares: one a shard of the change log, on all replicas. */
export const AGGREGATION_SLICE_QUEUE = 'aggregation-slice';

/** What a run has claimed: the window (after, until] of the change log. Times in ms since the epoch, the epoch in µs. */
const claimedWindow = z.object({
  kind: z.enum(['incremental', 'rebuild']),
  epoch: z.string().regex(/^\d+$/),
  after: z.number(),
  until: z.number(),
  startedAt: z.number(),
});
/** `rebuild` recomputes every summary; `sliced` is set by the run itself when its slices are on their way. */
export const aggregationJobSchema = z.object({ rebuild: z.boolean().default(false), sliced: claimedWindow.optional() });
export const aggregationSliceSchema = claimedWindow.extend({ shard: z.number().int().nonnegative() });

export type ClaimedWindow = z.infer<typeof claimedWindow>;
export type AggregationJob = z.input<typeof aggregationJobSchema>;
export type AggregationSlice = z.infer<typeof aggregationSliceSchema>;

type Outcome = 'done' | 'overtaken' | 'another run is under way';
type Recomputed = { hours: number; days: number };
/** What a run did; `slices` is 0 when one job did it alone. */
export type AggregationResult = Recomputed & { outcome: Outcome; slices: number; watermark: string; ms: number };
/** What a slice of the run with this epoch did. */
export type SliceResult = Recomputed & { epoch: string };

export const AGGREGATION_JOBS = { stackTraceLimit: 0, removeOnComplete: { count: 200 }, removeOnFail: { count: 200 } };
const retried = { attempts: 8, backoff: { type: 'exponential', delay: 500, jitter: 0.5 } };
export const AGGREGATION_SLICE_JOBS = { ...AGGREGATION_JOBS, ...retried };
