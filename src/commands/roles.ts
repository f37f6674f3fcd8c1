import { createBoard, listen } from '../board/server.ts';
import { createAggregationWorkers } from '../processors/aggregation.ts';
import { createDeadLetters, createDeadLetterWorker } from '../processors/dead-letter.ts';
import { createIngestWorker } from '../processors/ingest.ts';
import { createVerificationWorker } from '../processors/verification.ts';
import { allFiles } from '../producers/data-folder.ts';
import { generate, type GeneratorOptions } from '../producers/generator.ts';
import { startProducer } from '../producers/producer.ts';
import type { Runtime } from '../runtime.ts';
import { openAll, openDataFolder, openForWork } from './connect.ts';

/** How long after the start, and the settle time, the first aggregation runs. */
const FIRST_SUMMARY_SECONDS = 5;

/** Queues the files that arrive, and those that were missed; keeps the schedules of the aggregation and of the comparison. */
export async function watch(runtime: Runtime): Promise<void> {
  const { config, log, shutdown } = runtime;
  await openDataFolder(runtime);
  const opened = await openAll(runtime);
  const producer = await startProducer(opened);
  shutdown.defer('producer', producer.close);
  // The first files are summarized soon, and not only when the schedule comes round.
  const delay = (config.SETTLE_SECONDS + FIRST_SUMMARY_SECONDS) * 1000;
  await opened.aggregationQueue.add('after start', {}, { delay });
  log.info({ folder: config.DATA_DIR }, 'watching for files');
  await shutdown.requested;
}

/** One processor replica: loads files, moves dead letters, takes its share of the aggregation and of the comparison. */
export async function processJobs(runtime: Runtime): Promise<void> {
  const { config, log, shutdown } = runtime;
  await openDataFolder(runtime);
  const needs = await openForWork(runtime);
  const deadLetters = createDeadLetters(needs);
  shutdown.defer('dead letters', deadLetters.close);
  const ingest = createIngestWorker(needs);
  ingest.on('failed', deadLetters.onFailed);
  const verification = createVerificationWorker(needs, () => allFiles(config.DATA_DIR));
  const workers = [ingest, createDeadLetterWorker(needs), ...createAggregationWorkers(needs), verification];
  shutdown.defer('workers', () => Promise.all(workers.map((worker) => worker.close())));
  log.info({ worker: needs.workerName, concurrency: config.INGEST_CONCURRENCY }, 'processing jobs');
  await shutdown.requested;
}

/** Serves the overview, Bull Board, metrics and health until asked to stop. */
export async function board(runtime: Runtime): Promise<void> {
  const { config, log, shutdown } = runtime;
  const server = await listen(createBoard(await openAll(runtime)), config);
  shutdown.defer('board', server.close);
  log.info({ url: server.url }, 'the board is there');
  await shutdown.requested;
}

/** Simulates the provider until asked to stop or the wanted rounds are written. */
export async function generateFiles({ config, shutdown }: Runtime, options: Omit<GeneratorOptions, 'directory'>) {
  const say = (name: string, records: number) => void process.stdout.write(`wrote ${records} records to ${name}\n`);
  await generate({ ...options, directory: config.DATA_DIR }, say, shutdown.signal);
}
