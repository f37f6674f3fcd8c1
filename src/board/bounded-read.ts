import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';

/** A person, and a probe, waits no longer than this for a store. */
const LIMIT_MS = 2_000;

/**
 * Makes a read of a store that always ends: with `null` when the store does not answer within two seconds, or with an
 * error. A read that is still under way is waited for instead of asking again, so that questions to a store that is
 * away do not pile up.
 *
 * @param what names the read in the log
 */
export function createBoundedRead<T>(what: string, log: Logger, read: () => Promise<T>): () => Promise<T | null> {
  let underWay: Promise<T | null> | undefined;

  async function readOnce(): Promise<T | null> {
    try {
      return await read();
    } catch (error) {
      log.debug({ what, reason: error instanceof Error ? error.message : String(error) }, 'store not read');
      return null;
    } finally {
      underWay = undefined;
    }
  }

  return () => {
    underWay ??= readOnce();
    return Promise.race([underWay, sleep(LIMIT_MS, null, { ref: false })]);
  };
}
