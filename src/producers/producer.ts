import type { Logger } from 'pino';
import type { Config } from '../config.ts';
import { enqueueFiles, type IngestJob, type IngestQueue } from '../queues/ingest.ts';
import type { QueueConnection } from '../queues/redis.ts';
import type { Reconciliation } from './reconciliation.ts';

/** Arrivals of one burst that are queued in one round trip. */
const BURST = 500;
/** Arrivals that may wait for Redis; more are left to reconciliation. */
const MAX_PENDING = 10_000;
const LOOK_AGAIN_MS = 1_000;

/** Queues what the watcher hints at, at once, and what the ledger lacks, again and again. */
export interface Producer {
  readonly onArrival: (file: IngestJob) => void;
  /** Compares the folder with the ledger as soon as the comparison under way is done. */
  readonly reconcileSoon: () => void;
  readonly close: () => Promise<void>;
}

export function createProducer({
  config,
  queues,
  ingestQueue,
  reconciliation,
  ensureSchedule,
  log,
}: {
  config: Pick<Config, 'INGEST_ATTEMPTS' | 'RECONCILE_SECONDS'>;
  queues: QueueConnection;
  ingestQueue: IngestQueue;
  reconciliation: Reconciliation;
  ensureSchedule: () => Promise<void>;
  log: Logger;
}): Producer {
  let pending: IngestJob[] = [];
  let queueing: Promise<void> | undefined;
  let reconciling: Promise<void> | undefined;
  let again = false;
  let closed = false;
  let timer: NodeJS.Timeout | undefined;

  async function queuePending(): Promise<void> {
    while (pending.length > 0) {
      if (!(await reconciliation.hasRoom())) {
        log.info({ left: pending.length }, 'the queue is full, files are left to reconciliation');
        pending = [];
        return;
      }
      const burst = pending.splice(0, BURST);
      await enqueueFiles(ingestQueue, burst, { attempts: config.INGEST_ATTEMPTS, backlog: false });
    }
  }

  /** @returns whether young files were left, that the watcher may have missed because it was not there yet */
  async function reconcile(): Promise<boolean> {
    try {
      await ensureSchedule();
      const started = performance.now();
      const { seen, queued, removed, young } = await reconciliation.run();
      const ms = Math.round(performance.now() - started);
      if (queued > 0 || removed > 0) log.info({ seen, queued, removed, ms }, 'folder compared with the ledger');
      return young > 0;
    } catch (error) {
      log.warn({ reason: error instanceof Error ? error.message : String(error) }, 'reconciliation put off');
      return false;
    }
  }

  function reconcileSoon(): void {
    run(true);
  }

  /** @param lookAgain whether to look once more soon for files that are too young now */
  function run(lookAgain: boolean): void {
    if (closed) return;
    if (reconciling !== undefined) {
      again = true;
      return;
    }
    clearTimeout(timer);
    again = false;
    reconciling = reconcile().then((leftYoung) => {
      reconciling = undefined;
      if (closed) return;
      if (again) run(true);
      else if (lookAgain && leftYoung) timer = setTimeout(run, LOOK_AGAIN_MS, false);
      else timer = setTimeout(run, config.RECONCILE_SECONDS * 1000, false);
    });
  }

  return {
    onArrival: (file) => {
      if (closed || queues.connection.status !== 'ready' || pending.length >= MAX_PENDING) return;
      pending.push(file);
      queueing ??= queuePending()
        .catch((error: unknown) => log.warn({ err: error }, 'arrivals left to reconciliation'))
        .finally(() => {
          queueing = undefined;
        });
    },
    reconcileSoon,
    close: async () => {
      closed = true;
      clearTimeout(timer);
      await Promise.all([queueing, reconciling]);
    },
  };
}
