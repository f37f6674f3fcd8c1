import type { Queue } from 'bullmq';
import type { ProducerNeeds } from './reconciliation.ts';

/** Jobs put off that are looked at in one go: those with the latest times, which a wrong clock may have set. */
const PAGE = 500;

type Schedule = { readonly every: number } | { readonly pattern: string; readonly tz: string };

/** Redis may have lost a schedule, or its next run may be at a time that a wrong clock has set. */
export async function ensureSchedules(needs: ProducerNeeds): Promise<void> {
  const { aggregationQueue, verificationQueue, config, store } = needs;
  const { AGGREGATION_EVERY_SECONDS: seconds, AGGREGATION_CRON: pattern, AGGREGATION_TIME_ZONE: tz } = config;
  const wanted = pattern === undefined ? { every: seconds * 1000 } : { pattern, tz };
  await ensureSchedule(aggregationQueue, wanted, store.now());
  await ensureSchedule(verificationQueue, { every: config.VERIFY_EVERY_SECONDS * 1000 }, store.now());
}

/** One that is there and right stays: to upsert it would put its next run off each time. */
async function ensureSchedule(queue: Queue, wanted: Schedule, now: number): Promise<void> {
  const there = await queue.getJobScheduler(queue.name);
  await queue.setGlobalConcurrency(1);
  const isAhead = there?.every !== undefined && (there.next ?? 0) > now + 2 * there.every;
  const isSame =
    'every' in wanted ? there?.every === wanted.every : there?.pattern === wanted.pattern && there.tz === wanted.tz;
  if (isSame && !isAhead) return;
  // An upsert alone goes on from the time of the run that was next.
  if (isAhead) await queue.removeJobScheduler(queue.name);
  await queue.upsertJobScheduler(queue.name, wanted, { name: 'scheduled run', data: {} });
}

/**
 * Takes up jobs that have waited longer than they were put off for. BullMQ lets them wait for a time by the clock of the
 * processor that put them off, which may have been ahead; how long they wait is measured here by the monotonic clock.
 */
export function createOverdue(queues: readonly Queue[]): () => Promise<void> {
  let seen = new Map<string, number>();
  return async () => {
    const jobs = (await Promise.all(queues.map((queue) => queue.getJobs(['delayed'], 0, PAGE - 1)))).flat();
    const now = performance.now();
    const waits = jobs.map((job) => ({ job, id: `${job.id} ${job.attemptsStarted}` }));
    seen = new Map(waits.map(({ id }) => [id, seen.get(id) ?? now]));
    const overdue = waits.filter(({ job, id }) => now - (seen.get(id) ?? now) > job.delay);
    // A worker may have taken one up since.
    await Promise.all(overdue.map(({ job }) => job.promote().catch(() => undefined)));
  };
}
