import { Queue, type DefaultJobOptions, type QueueOptions } from 'bullmq';
import type { Runtime } from '../runtime.ts';
import {
  AGGREGATION_JOBS,
  AGGREGATION_QUEUE,
  AGGREGATION_SLICE_JOBS,
  AGGREGATION_SLICE_QUEUE,
  type AggregationJob,
  type AggregationResult,
  type AggregationSlice,
  type SliceResult,
} from './aggregation.ts';
import { DEAD_LETTER_JOBS, DEAD_LETTER_QUEUE, type DeadLetterQueue } from './dead-letter.ts';
import { INGEST_JOBS, INGEST_QUEUE, type IngestJob, type IngestResult } from './ingest.ts';
import { connectQueues } from './redis.ts';
import { VERIFICATION_JOBS, VERIFICATION_QUEUE, type VerificationReport } from './verification.ts';

export type Queues = Awaited<ReturnType<typeof openQueues>>;

/** Connects to Redis and opens all queues; main releases them. */
export async function openQueues({ config, log, shutdown }: Runtime) {
  const queues = await connectQueues(config, log);
  shutdown.defer('redis', queues.close);

  function open<Data, Result>(name: string, jobs: DefaultJobOptions, more: Partial<QueueOptions> = {}) {
    const { connection, prefix } = queues;
    const queue = new Queue<Data, Result, string>(name, { connection, prefix, defaultJobOptions: jobs, ...more });
    shutdown.defer(`${name} queue`, () => queue.close());
    queue.on('error', (error) => log.debug({ queue: name, reason: error.message }, 'queue connection error'));
    return queue;
  }
  const ingestJobs = { ...INGEST_JOBS, attempts: config.INGEST_ATTEMPTS };
  const deadLetterQueue: DeadLetterQueue = open(DEAD_LETTER_QUEUE, DEAD_LETTER_JOBS);
  const opened = {
    ingestQueue: open<IngestJob, IngestResult>(INGEST_QUEUE, ingestJobs, { streams: { events: { maxLen: 1_000 } } }),
    deadLetterQueue,
    aggregationQueue: open<AggregationJob, AggregationResult>(AGGREGATION_QUEUE, AGGREGATION_JOBS),
    sliceQueue: open<AggregationSlice, SliceResult>(AGGREGATION_SLICE_QUEUE, AGGREGATION_SLICE_JOBS),
    verificationQueue: open<object, VerificationReport>(VERIFICATION_QUEUE, VERIFICATION_JOBS),
  };
  /** In the order in which they are shown. */
  const allQueues: readonly Queue[] = Object.values(opened);
  return { queues, allQueues, ...opened };
}
