import { startProducer } from '../producers/producer.ts';
import type { Runtime } from '../runtime.ts';
import { openAll, openDataFolder } from './connect.ts';

/** How long after the start, and the settle time, the first aggregation runs. */
const FIRST_SUMMARY_SECONDS = 5;

/** Queues the files that arrive, and those that were missed; keeps the schedules of the aggregation and of the comparison. */
export async function watch(runtime: Runtime): Promise<void> {
  const { config, log, shutdown } = runtime;
  await openDataFolder(runtime, { mayMake: true });
  const opened = await openAll(runtime);
  const producer = await startProducer(opened);
  shutdown.defer('producer', producer.close);
  // The first files are summarized soon, and not only when the schedule comes round.
  const delay = (config.SETTLE_SECONDS + FIRST_SUMMARY_SECONDS) * 1000;
  await opened.aggregationQueue.add('after start', {}, { delay });
  log.info({ folder: config.DATA_DIR }, 'watching for files');
  await shutdown.requested;
}
