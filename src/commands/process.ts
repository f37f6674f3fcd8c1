import { createAggregationWorkers } from '../processors/aggregation.ts';
import { createDeadLetters, createDeadLetterWorker } from '../processors/dead-letter.ts';
import { createIngestWorker } from '../processors/ingest.ts';
import { createVerificationWorker } from '../processors/verification.ts';
import type { Runtime } from '../runtime.ts';
import { openDataFolder, openForWork } from './connect.ts';

/** One processor replica: loads files, moves dead letters, takes its share of the aggregation and of the comparison. */
export async function processJobs(runtime: Runtime): Promise<void> {
  const { config, log, shutdown } = runtime;
  await openDataFolder(runtime, { mayMake: false });
  const needs = await openForWork(runtime);
  const deadLetters = createDeadLetters(needs);
  shutdown.defer('dead letters', deadLetters.close);
  const ingest = createIngestWorker(needs);
  ingest.on('failed', deadLetters.onFailed);
  const others = [createDeadLetterWorker(needs), ...createAggregationWorkers(needs), createVerificationWorker(needs)];
  shutdown.defer('workers', () => Promise.all([ingest, ...others].map((worker) => worker.close())));
  log.info({ worker: needs.workerName, concurrency: config.INGEST_CONCURRENCY }, 'processing jobs');
  await shutdown.requested;
}
