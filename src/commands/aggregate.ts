import { setTimeout as sleep } from 'node:timers/promises';
import { UsageError } from '../config.ts';
import { createAggregationWorkers } from '../processors/aggregation.ts';
import type { AggregationResult } from '../queues/aggregation.ts';
import type { Runtime } from '../runtime.ts';
import { print } from '../terminal.ts';
import { openForWork } from './connect.ts';

const POLL_MS = 200;
const ASK_AGAIN_MS = 1_000;

/** Runs one aggregation now, here or on any processor, waits for it and says what it did. */
export async function aggregateNow(runtime: Runtime, options: { rebuild: boolean; json: boolean }): Promise<void> {
  const { log, shutdown } = runtime;
  const needs = await openForWork(runtime);
  const queue = needs.aggregationQueue;
  const workers = createAggregationWorkers(needs);
  shutdown.defer('workers', () => Promise.all(workers.map((worker) => worker.close())));

  const pause = (ms: number) =>
    sleep(ms, undefined, { signal: shutdown.signal }).catch(() => {
      throw new UsageError('Stopped before the run was done; it goes on where a processor runs.');
    });
  for (const needed of [queue, needs.sliceQueue])
    if (await needed.isPaused())
      log.warn({ queue: needed.name }, 'the queue is paused: resume it in Bull Board, until then this may wait');
  const add = () => queue.add('run by hand', { rebuild: options.rebuild });
  let { id = '' } = await add();
  let result: AggregationResult | undefined;
  for (;;) {
    await pause(POLL_MS);
    const job = await queue.getJob(id);
    if (job !== undefined && job.finishedOn === undefined) continue;
    if ((await job?.isFailed()) === true)
      throw new UsageError(
        `The run failed (${job?.failedReason}): \`npx pipeline doctor\` looks at the stores; run it again then.`,
      );
    result = job?.returnvalue;
    if (result?.outcome === 'done') break;
    log.info({ outcome: result?.outcome ?? 'the run was removed' }, 'asking again');
    await pause(ASK_AGAIN_MS);
    ({ id = '' } = await add());
  }
  const { hours, days, ms, watermark } = result;
  const done = `${hours} hours of ${days} vehicle days recomputed in ${ms} ms`;
  print(options.json, result, `${done}; summaries are right up to ${watermark}.`);
}
