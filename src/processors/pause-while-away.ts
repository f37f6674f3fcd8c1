import { setTimeout as sleep } from 'node:timers/promises';
import type { Worker } from 'bullmq';
import type { Logger } from 'pino';
import { within } from '../runtime.ts';
import type { Store } from '../storage/client.ts';
import { tryLedger } from '../storage/files.ts';

const ASK_EVERY_MS = 1_000;

/**
 * Keeps a worker from taking jobs that it could only put back: paused until Cassandra does again what loads need.
 *
 * @returns the function to be called with each such job; resolves to whether Cassandra did all of it at once
 */
export function pauseWhileAway(store: Store, log: Logger): (worker: Worker) => Promise<boolean> {
  let answer: Promise<boolean> | undefined;

  const works = () =>
    tryLedger(store).then(
      () => true,
      () => false,
    );

  async function resumeWhenBack(worker: Worker, first: Promise<boolean>): Promise<void> {
    if (!(await first)) {
      do await sleep(ASK_EVERY_MS, undefined, { ref: false });
      while (!(await works()));
      log.info('cassandra works again, jobs are taken again');
    }
    answer = undefined;
    if (worker.closing === undefined) void worker.resume();
  }

  return (worker) => {
    void worker.pause(true).catch((error: unknown) => log.warn({ err: error }, 'worker did not pause'));
    if (answer === undefined) {
      const first = works();
      void resumeWhenBack(worker, first);
      // One that hangs is not waited for: the job is to be put back soon.
      answer = within(ASK_EVERY_MS, first, false);
    }
    return answer;
  };
}
