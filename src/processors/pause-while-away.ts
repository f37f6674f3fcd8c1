import type { Worker } from 'bullmq';
import type { Logger } from 'pino';
import type { Store } from '../storage/client.ts';

const ASK_EVERY_MS = 1_000;

/** Keeps workers from taking jobs that they could only put back: paused until Cassandra answers again. */
export function pauseWhileAway(store: Store, log: Logger): { pause(worker: Worker): void } {
  const paused = new Set<Worker>();

  async function ask(): Promise<void> {
    try {
      await store.run('SELECT key FROM system.local');
    } catch {
      setTimeout(() => void ask(), ASK_EVERY_MS).unref();
      return;
    }
    log.info('cassandra answers again, jobs are taken again');
    for (const worker of paused) if (worker.closing === undefined) void worker.resume();
    paused.clear();
  }

  return {
    pause: (worker) => {
      const first = paused.size === 0;
      paused.add(worker);
      void worker.pause(true).catch((error: unknown) => log.warn({ err: error }, 'worker did not pause'));
      if (first) setTimeout(() => void ask(), ASK_EVERY_MS).unref();
    },
  };
}
