import type { Queue } from 'bullmq';
import type { Runtime } from '../runtime.ts';
import { createAggregationQueue, createAggregationSliceQueue } from './aggregation.ts';
import { createDeadLetterQueue } from './dead-letter.ts';
import { createIngestQueue } from './ingest.ts';
import { connectQueues } from './redis.ts';
import { createVerificationQueue } from './verification.ts';

export type Queues = Awaited<ReturnType<typeof openQueues>>;

/** Connects to Redis and opens all queues; main releases them. */
export async function openQueues({ config, log, shutdown }: Runtime) {
  const queues = await connectQueues(config, log);
  shutdown.defer('redis', queues.close);
  const opened = {
    queues,
    ingestQueue: createIngestQueue(queues, config.INGEST_ATTEMPTS),
    deadLetterQueue: createDeadLetterQueue(queues),
    aggregationQueue: createAggregationQueue(queues),
    sliceQueue: createAggregationSliceQueue(queues),
    verificationQueue: createVerificationQueue(queues),
  };
  for (const queue of allQueues(opened)) {
    shutdown.defer(`${queue.name} queue`, () => queue.close());
    queue.on('error', (error) => log.debug({ queue: queue.name, reason: error.message }, 'queue connection error'));
  }
  return opened;
}

/** In the order in which they are shown. */
export function allQueues(opened: Queues): readonly Queue[] {
  const { ingestQueue, deadLetterQueue, aggregationQueue, sliceQueue, verificationQueue } = opened;
  return [ingestQueue, deadLetterQueue, aggregationQueue, sliceQueue, verificationQueue];
}
