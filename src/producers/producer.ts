import { setTimeout as sleep } from 'node:timers/promises';
import type { AggregationQueue } from '../queues/aggregation.ts';
import { enqueueFiles, type IngestJob } from '../queues/ingest.ts';
import type { QueueConnection } from '../queues/redis.ts';
import { createReconciliation, type ReconciliationNeeds } from './reconciliation.ts';
import { watchFolder } from './watcher.ts';

/** Arrivals of one burst that are queued in one round trip. */
const BURST = 500;
/** Arrivals that may wait for Redis; more are left to reconciliation. */
const MAX_PENDING = 10_000;
const LOOK_AGAIN_MS = 1_000;
const SCHEDULER_ID = 'aggregation';

export interface ProducerNeeds extends ReconciliationNeeds {
  readonly queues: QueueConnection;
  readonly aggregationQueue: AggregationQueue;
}

/** Queues what the watcher hints at, at once, and what the ledger lacks, again and again; keeps the schedule. */
export async function startProducer(needs: ProducerNeeds) {
  const { config, store, queues, ingestQueue, log } = needs;
  const reconciliation = createReconciliation(needs);
  let pending: IngestJob[] = [];
  let queueing: Promise<void> | undefined;
  let closed = false;
  let wake = new AbortController();

  async function queuePending(): Promise<void> {
    while (pending.length > 0) {
      if (!(await reconciliation.hasRoom())) {
        log.info({ left: pending.length }, 'the queue is full, files are left to reconciliation');
        pending = [];
        return;
      }
      await enqueueFiles(ingestQueue, pending.splice(0, BURST), { attempts: config.INGEST_ATTEMPTS, backlog: false });
    }
  }

  function onArrival(file: IngestJob): void {
    if (closed || queues.connection.status !== 'ready' || pending.length >= MAX_PENDING) return;
    pending.push(file);
    queueing ??= queuePending()
      .catch((error: unknown) => log.warn({ err: error }, 'arrivals left to reconciliation'))
      .finally(() => (queueing = undefined));
  }

  /** @returns whether young files were left, that the watcher may have missed because it was not there yet */
  async function reconcile(): Promise<boolean> {
    try {
      await ensureSchedule(needs);
      const started = performance.now();
      const { young, ...done } = await reconciliation.run();
      const ms = Math.round(performance.now() - started);
      if (done.queued + done.removed > 0) log.info({ ...done, ms }, 'folder compared with the ledger');
      return young > 0;
    } catch (error) {
      log.warn({ reason: error instanceof Error ? error.message : String(error) }, 'reconciliation put off');
      return false;
    }
  }

  async function reconcileAgainAndAgain(): Promise<void> {
    for (let isWoken = true; !closed;) {
      wake = new AbortController();
      const leftYoung = await reconcile();
      const ms: number = isWoken && leftYoung ? LOOK_AGAIN_MS : config.RECONCILE_SECONDS * 1000;
      isWoken = await sleep(ms, false, { signal: wake.signal }).catch(() => true);
    }
  }

  const watcher = await watchFolder(config.DATA_DIR, onArrival, log);
  const reconciling = reconcileAgainAndAgain();
  queues.connection.on('ready', () => wake.abort());
  store.onReturn(() => {
    reconciliation.forget();
    wake.abort();
  });
  return {
    close: async () => {
      closed = true;
      wake.abort();
      await watcher.close();
      await Promise.all([queueing, reconciling]);
    },
  };
}

/** Redis may have lost the schedule. One that is there stays: to upsert it would put its next run off each time. */
async function ensureSchedule({ aggregationQueue, config }: ProducerNeeds): Promise<void> {
  const { AGGREGATION_EVERY_SECONDS: seconds, AGGREGATION_CRON: pattern, AGGREGATION_TIME_ZONE: tz } = config;
  const wanted = pattern === undefined ? { every: seconds * 1000 } : { pattern, tz };
  await aggregationQueue.setGlobalConcurrency(1);
  const there = await aggregationQueue.getJobScheduler(SCHEDULER_ID);
  const isThere = 'every' in wanted ? there?.every === wanted.every : there?.pattern === pattern && there?.tz === tz;
  if (!isThere) await aggregationQueue.upsertJobScheduler(SCHEDULER_ID, wanted, { name: 'scheduled run', data: {} });
}
