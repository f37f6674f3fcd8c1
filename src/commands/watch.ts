import { ensureAggregationSchedule } from '../producers/aggregation-schedule.ts';
import { createProducer } from '../producers/producer.ts';
import { createReconciliation } from '../producers/reconciliation.ts';
import { watchFolder } from '../producers/watcher.ts';
import { openDataFolder, openQueues, openStore } from './connect.ts';
import type { Runtime } from './runtime.ts';

/** How long after the start, and the settle time, the first aggregation runs. */
const FIRST_SUMMARY_SECONDS = 5;

/** Queues the files that arrive, and those that were missed; keeps the aggregation's schedule. */
export async function watch(runtime: Runtime): Promise<void> {
  const { config, log, shutdown } = runtime;
  await openDataFolder(runtime);
  const { queues, ingestQueue, deadLetterQueue, aggregationQueue } = await openQueues(runtime);
  const store = await openStore(runtime);
  const reconciliation = createReconciliation({
    config,
    store,
    ingestQueue,
    deadLetterQueue,
    log,
    signal: shutdown.signal,
  });
  const producer = createProducer({
    config,
    queues,
    ingestQueue,
    reconciliation,
    ensureSchedule: () => ensureAggregationSchedule(aggregationQueue, config),
    log,
  });
  shutdown.defer('producer', producer.close);
  const watcher = await watchFolder({ dataDir: config.DATA_DIR, onArrival: producer.onArrival, log });
  shutdown.defer('file watcher', watcher.close);
  store.onReturn(() => {
    reconciliation.forget();
    producer.reconcileSoon();
  });
  queues.connection.on('ready', producer.reconcileSoon);
  producer.reconcileSoon();
  // The first files are summarized soon, and not only when the schedule comes round.
  const delay = (config.SETTLE_SECONDS + FIRST_SUMMARY_SECONDS) * 1000;
  await aggregationQueue.add('after start', {}, { delay });
  log.info({ folder: config.DATA_DIR }, 'watching for files');
  await shutdown.requested;
}
