import { setTimeout as sleep } from 'node:timers/promises';
import { QueueEvents } from 'bullmq';
import { UsageError } from '../config.ts';
import { createAggregationWorkers } from '../processors/aggregation.ts';
import { AGGREGATION_QUEUE, type AggregationResult } from '../queues/aggregation.ts';
import { messageOf, type Runtime } from '../runtime.ts';
import { print } from '../terminal.ts';
import { openForWork } from './connect.ts';

const ASK_AGAIN_MS = 1_000;

/** Runs one aggregation now, here or on any processor, waits for it and says what it did. */
export async function aggregateNow(runtime: Runtime, options: { rebuild: boolean; json: boolean }): Promise<void> {
  const { log, shutdown } = runtime;
  const needs = await openForWork(runtime);
  const { connection, prefix } = needs.queues;
  const events = new QueueEvents(AGGREGATION_QUEUE, { connection, prefix });
  events.on('error', (error) => log.debug({ err: error }, 'no events of the queue'));
  shutdown.defer('queue events', () => events.close());
  await events.waitUntilReady();
  const workers = createAggregationWorkers(needs);
  shutdown.defer('workers', () => Promise.all(workers.map((worker) => worker.close())));

  const stopped = shutdown.requested.then(() => {
    throw new UsageError('Stopped before the run was done; it goes on where a processor runs.');
  });
  stopped.catch(() => undefined);
  if (await needs.aggregationQueue.isPaused())
    log.warn({ queue: AGGREGATION_QUEUE }, 'the queue is paused: resume it in Bull Board, until then this waits');
  let result: AggregationResult;
  for (;;) {
    const job = await needs.aggregationQueue.add('run by hand', { rebuild: options.rebuild });
    const finished = job.waitUntilFinished(events).catch((error: unknown) => {
      throw new UsageError(
        `The run failed (${messageOf(error)}): \`npx pipeline doctor\` looks at the stores; run it again then.`,
      );
    });
    result = await Promise.race([finished, stopped]);
    if (result.outcome === 'done') break;
    log.info({ outcome: result.outcome }, 'asking again');
    await Promise.race([sleep(ASK_AGAIN_MS), stopped]);
  }
  const { hours, days, ms, watermark } = result;
  const done = `${hours} hours of ${days} vehicle days recomputed in ${ms} ms`;
  print(options.json, result, `${done}; summaries are right up to ${watermark}.`);
}
