import type { Queue } from 'bullmq';
import { CronExpressionParser } from 'cron-parser';
import type { Store } from '../storage/client.ts';
import type { ProducerNeeds } from './reconciliation.ts';

/** Jobs put off that are looked at in one go: those with the latest times, which a wrong clock may have set. */
const PAGE = 500;
/** A run that waits for another time than its schedule's, by more than this, was put off by hand. */
const PUT_OFF_MS = 60_000;

type CronSchedule = { readonly pattern: string; readonly tz: string };
type Schedule = { readonly every: number } | CronSchedule;

/**
 * Makes what keeps the time of jobs right, to be called again and again. BullMQ lets jobs wait for a time by the clock of the
 * processor that put them off, or took the run before, which may have been ahead; how long they wait is measured here by the
 * monotonic clock.
 */
export function createTimekeeper(needs: ProducerNeeds): () => Promise<void> {
  const { aggregationQueue, verificationQueue, ingestQueue, sliceQueue, config, store } = needs;
  const { AGGREGATION_EVERY_SECONDS: seconds, AGGREGATION_CRON: pattern, AGGREGATION_TIME_ZONE: tz } = config;
  const aggregation = pattern === undefined ? { every: seconds * 1000 } : { pattern, tz };
  const tasks = [
    keepSchedule(aggregationQueue, aggregation, store),
    keepSchedule(verificationQueue, { every: config.VERIFY_EVERY_SECONDS * 1000 }, store),
    takeUpOverdue([ingestQueue, sliceQueue]),
  ];
  return async () => {
    // What one of them fails at holds up no other.
    for (const result of await Promise.allSettled(tasks.map((task) => task())))
      if (result.status === 'rejected') throw result.reason;
  };
}

/** When a run of a cron schedule is to come next, in ms since the epoch, by the clock that is ahead: ours sets the time of the next run. */
function timeOf({ pattern, tz }: CronSchedule, store: Store): number {
  const currentDate = new Date(Math.max(Date.now(), store.now()));
  return CronExpressionParser.parse(pattern, { currentDate, tz }).next().getTime();
}

/** Redis may have lost a schedule. One that is there and goes on stays: to upsert it would put its next run off each time. */
function keepSchedule(queue: Queue, wanted: Schedule, store: Store): () => Promise<void> {
  let last = { next: 0, since: 0 };
  return async () => {
    const there = await queue.getJobScheduler(queue.name);
    await queue.setGlobalConcurrency(1);
    const next = there?.next ?? 0;
    if (next !== last.next) last = { next, since: performance.now() };
    const waits = next > store.now() ? performance.now() - last.since : 0;
    const isAhead = 'every' in wanted ? waits > 2 * wanted.every : next > timeOf(wanted, store) + PUT_OFF_MS;
    // The job of the next run, whose end is what the one after it waits for: it was lost, or somebody has put it off.
    const armed = await queue.getJob(`repeat:${queue.name}:${next}`);
    const isPutOff = armed && armed.delay > 0 && Math.abs(armed.timestamp + armed.delay - next) > PUT_OFF_MS;
    const isAstray = isAhead || armed === undefined || isPutOff === true;
    const isSame =
      'every' in wanted ? there?.every === wanted.every : there?.pattern === wanted.pattern && there.tz === wanted.tz;
    if (isSame && !isAstray) return;
    // An upsert alone goes on from the time of the run that was next.
    if (isAstray) await queue.removeJobScheduler(queue.name);
    await queue.upsertJobScheduler(queue.name, wanted, { name: 'scheduled run', data: {} });
  };
}

/** Promotes jobs that have waited longer than they were put off for. */
function takeUpOverdue(queues: readonly Queue[]): () => Promise<void> {
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
