import type { Config } from '../config.ts';
import type { AggregationQueue } from '../queues/aggregation.ts';

const SCHEDULER_ID = 'aggregation';

/**
 * Makes sure that the schedule is in Redis as the environment has it. One that is there stays untouched: an upsert
 * would put its next run off each time.
 */
export async function ensureAggregationSchedule(
  queue: AggregationQueue,
  config: Pick<Config, 'AGGREGATION_EVERY_SECONDS' | 'AGGREGATION_CRON' | 'AGGREGATION_TIME_ZONE'>,
): Promise<void> {
  const repeat =
    config.AGGREGATION_CRON === undefined
      ? { every: config.AGGREGATION_EVERY_SECONDS * 1000 }
      : { pattern: config.AGGREGATION_CRON, tz: config.AGGREGATION_TIME_ZONE };
  const present = await queue.getJobScheduler(SCHEDULER_ID);
  const isSame =
    'every' in repeat
      ? present?.every === repeat.every
      : present?.pattern === repeat.pattern && present.tz === repeat.tz;
  await queue.setGlobalConcurrency(1);
  if (!isSame) await queue.upsertJobScheduler(SCHEDULER_ID, repeat, { name: 'scheduled run', data: {} });
}
