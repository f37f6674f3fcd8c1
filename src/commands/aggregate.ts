import { QueueEvents } from 'bullmq';
import { createAggregationWorkers } from '../processors/aggregation.ts';
import { AGGREGATION_QUEUE, type AggregationResult } from '../queues/aggregation.ts';
import type { Runtime } from '../runtime.ts';
import { print } from '../terminal.ts';
import { openForWork } from './connect.ts';

const ASK_AGAIN_MS = 1_000;

/** Runs one aggregation now, here or on any processor, waits for it and says what it did. */
export async function aggregateNow(runtime: Runtime, options: { rebuild: boolean; json: boolean }): Promise<void> {
  const { log, shutdown } = runtime;
  const needs = await openForWork(runtime);
  const { connection, prefix } = needs.queues;
  const events = new QueueEvents(AGGREGATION_QUEUE, { connection, prefix });
  shutdown.defer('queue events', () => events.close());
  await events.waitUntilReady();
  const workers = createAggregationWorkers(needs);
  shutdown.defer('workers', () => Promise.all(workers.map((worker) => worker.close())));

  let result: AggregationResult;
  do {
    const job = await needs.aggregationQueue.add('run by hand', { rebuild: options.rebuild });
    const stopped = shutdown.requested.then(() => {
      throw new Error('stopped before the run was done; it goes on where a processor runs');
    });
    result = await Promise.race([job.waitUntilFinished(events), stopped]);
    if (result.outcome === 'done') break;
    log.info({ outcome: result.outcome }, 'asking again');
    await new Promise((resolve) => setTimeout(resolve, ASK_AGAIN_MS));
  } while (!shutdown.signal.aborted);
  const { hours, days, ms, watermark } = result;
  const done = `${hours} hours of ${days} vehicle days recomputed in ${ms} ms`;
  print(options.json, result, `${done}; summaries are right up to ${watermark}.`);
}
