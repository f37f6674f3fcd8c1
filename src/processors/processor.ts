import { Worker, type Processor, type WorkerOptions } from 'bullmq';
import type { Logger } from 'pino';
import type { Config } from '../config.ts';
import { datasetOf } from '../datasets/catalog.ts';
import type { Counters } from '../queues/counters.ts';
import { DEAD_LETTER_QUEUE } from '../queues/dead-letter.ts';
import { mtimeMs, versionOf, type IngestJob } from '../queues/ingest.ts';
import type { Queues } from '../queues/open.ts';
import { isOfSystem } from '../runtime.ts';
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

/** What the ledger says of a version, beside what became of it. */
export function ledgerEntry<Rest>(file: IngestJob, rest: Rest) {
  const dataset = datasetOf(file.name)?.dataset.name ?? '';
  const { name, size } = file;
  return { name, version: versionOf(file), dataset, bytes: BigInt(size), file_time: new Date(mtimeMs(file)), ...rest };
}

/**
 * Starts a worker that logs what goes wrong in it and between it and Redis. A lock is renewed at half of its time, so a job
 * of a killed processor is back within 15 s. Stalls are not limited by BullMQ: past its limit a job would fail in another
 * worker, without a processor.
 */
export function startWorker<Data, Result>(
  queue: string,
  run: Processor<Data, Result>,
  { queues: { connection, prefix }, workerName: name, log }: ProcessorNeeds,
  options: Partial<WorkerOptions> = {},
): Worker<Data, Result> {
  const worker = new Worker<Data, Result>(queue, run, {
    connection,
    prefix,
    name,
    lockDuration: 10_000,
    stalledInterval: 5_000,
    maxStalledCount: Number.MAX_SAFE_INTEGER,
    runRetryDelay: 1_000,
    metrics: { maxDataPoints: 24 * 60 },
    ...options,
  });
  worker.on('error', (error) => {
    // That Redis is away is told once, by its connection.
    const isOfConnection = isOfSystem(error) || connection.status !== 'ready';
    log[isOfConnection ? 'debug' : 'warn']({ queue, reason: error.message }, 'worker error');
  });
  worker.on('failed', (job, error) => {
    // To fail is how a dead letter waits there, which was told before.
    if (queue === DEAD_LETTER_QUEUE) return;
    log.warn({ queue, job: job?.name, attempt: job?.attemptsMade, reason: error.message }, 'job failed');
  });
  return worker;
}
