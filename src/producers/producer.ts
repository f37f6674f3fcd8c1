import { setTimeout as sleep } from 'node:timers/promises';
import { enqueueFiles, hasRoom, type IngestJob } from '../queues/ingest.ts';
import { messageOf } from '../runtime.ts';
import { oneAtATime } from '../storage/together.ts';
import { createLetterRestorer } from './letters.ts';
import { createReconciliation, type ProducerNeeds } from './reconciliation.ts';
import { putBackLeaving } from './removal.ts';
import { createTimekeeper } from './schedule.ts';
import { watchFolder } from './watcher.ts';

/** Arrivals of one burst that are queued in one round trip. */
const BURST = 500;
/** Arrivals that may wait for Redis; more are left to reconciliation. */
const MAX_PENDING = 10_000;
const LOOK_AGAIN_MS = 1_000;

/** Queues what the watcher hints at, at once, and what the ledger lacks, again and again; keeps the schedule. */
export async function startProducer(needs: ProducerNeeds) {
  const { config, store, queues, ingestQueue, log } = needs;
  const { signal } = needs.shutdown;
  const compare = createReconciliation(needs);
  /** A task that is done again and again, once at a time; what it fails at, the next time may do. */
  const again = (task: () => Promise<void>, failure: string) =>
    oneAtATime(() => task().catch((error: unknown) => log.warn({ reason: messageOf(error) }, failure)));
  // Beside the comparison, which may wait for room in the queue for hours.
  const keepTime = again(createTimekeeper(needs), 'the time of jobs was not looked at');
  const restoreLetters = again(createLetterRestorer(needs), 'letters were not restored');
  const queueArrivals = again(queuePending, 'arrivals left to reconciliation');
  let besides: Promise<unknown> | undefined;
  const doBesides = () => void (besides = Promise.all([keepTime(), restoreLetters()]));
  let pending: IngestJob[] = [];
  let queueing: Promise<void> | undefined;
  let wake = new AbortController();
  let isStart = true;

  async function queuePending(): Promise<void> {
    while (pending.length > 0 && (await hasRoom(ingestQueue, config.MAX_QUEUED_FILES, { backlog: false })))
      await enqueueFiles(ingestQueue, pending.splice(0, BURST), { backlog: false });
    if (pending.length > 0) log.info({ left: pending.length }, 'the queue is full, files are left to reconciliation');
    pending = [];
  }

  function onArrival(file: IngestJob): void {
    if (signal.aborted || queues.connection.status !== 'ready' || pending.length >= MAX_PENDING) return;
    pending.push(file);
    queueing = queueArrivals();
  }

  /** @returns how many files were left because they may still be written */
  async function reconcile(): Promise<number> {
    await watcher.refresh();
    await putBackLeaving(config.DATA_DIR, log, isStart);
    isStart = false;
    const started = performance.now();
    const { young, ...done } = await compare('', undefined, wake.signal);
    const ms = Math.round(performance.now() - started);
    if (done.queued + done.removed > 0) log.info({ ...done, ms }, 'folder compared with the ledger');
    return young;
  }

  async function reconcileAgainAndAgain(): Promise<void> {
    let isWoken = true;
    while (!signal.aborted) {
      wake = new AbortController();
      const young = await reconcile().catch((error: unknown) => {
        log.warn({ reason: messageOf(error) }, 'reconciliation put off');
        return 0;
      });
      // Young files are looked at again, once: the watcher may have missed them because it was not there yet.
      const ms: number = isWoken && young > 0 ? LOOK_AGAIN_MS : config.RECONCILE_SECONDS * 1000;
      isWoken = await sleep(ms, false, { signal: wake.signal }).catch(() => true);
    }
  }

  const watcher = await watchFolder(config.DATA_DIR, onArrival, log);
  const reconciling = reconcileAgainAndAgain();
  doBesides();
  const timer = setInterval(doBesides, config.RECONCILE_SECONDS * 1000);
  queues.connection.on('ready', () => {
    doBesides();
    wake.abort();
  });
  store.onReturn(() => wake.abort());
  const close = async () => {
    wake.abort();
    clearInterval(timer);
    watcher.close();
    await Promise.all([queueing, reconciling, besides]);
  };
  return { close };
}
