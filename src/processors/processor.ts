import type { Worker, WorkerOptions } from 'bullmq';
import type { Logger } from 'pino';
import type { Config } from '../config.ts';
import type { Counters } from '../queues/counters.ts';
import type { Queues } from '../queues/open.ts';
import type { Store } from '../storage/client.ts';

/** What the processors of one process share. */
export interface ProcessorNeeds extends Queues {
  readonly config: Config;
  readonly store: Store;
  readonly counters: Counters;
  readonly log: Logger;
  /** What the ledger and Bull Board call this process; without spaces. */
  readonly workerName: string;
}

/**
 * What every worker has in common. A lock is renewed at half of its time, so a job of a killed processor is back within
 * 15 s. Stalls are not limited by BullMQ: past its limit a job would fail in another worker, without a processor.
 */
export function workerOptions({ queues, workerName }: ProcessorNeeds): WorkerOptions {
  return {
    connection: queues.connection,
    prefix: queues.prefix,
    name: workerName,
    lockDuration: 10_000,
    stalledInterval: 5_000,
    maxStalledCount: Number.MAX_SAFE_INTEGER,
    runRetryDelay: 1_000,
    metrics: { maxDataPoints: 24 * 60 },
  };
}

/** Logs what goes wrong in a worker and between it and Redis. */
export function logFailures(worker: Worker, { log }: ProcessorNeeds): void {
  worker.on('error', (error) => log.warn({ queue: worker.name, reason: error.message }, 'worker error'));
  worker.on('failed', (job, error) => {
    log.warn({ queue: worker.name, job: job?.name, attempt: job?.attemptsMade, reason: error.message }, 'job failed');
  });
}
