import { setTimeout as sleep } from 'node:timers/promises';
import type { Worker } from 'bullmq';
import type { Logger } from 'pino';
import type { Store } from '../storage/client.ts';

const ASK_EVERY_MS = 1_000;

/** Keeps a worker from taking jobs that it could only put back: paused until Cassandra answers again. */
export function pauseWhileAway(store: Store, log: Logger) {
  let isPaused = false;

  async function resumeWhenBack(worker: Worker): Promise<void> {
    do await sleep(ASK_EVERY_MS, undefined, { ref: false });
    while ((await store.run('SELECT key FROM system.local').catch(() => undefined)) === undefined);
    log.info('cassandra answers again, jobs are taken again');
    isPaused = false;
    if (worker.closing === undefined) void worker.resume();
  }

  const pause = (worker: Worker): void => {
    void worker.pause(true).catch((error: unknown) => log.warn({ err: error }, 'worker did not pause'));
    if (!isPaused) void resumeWhenBack(worker);
    isPaused = true;
  };
  return { pause };
}
