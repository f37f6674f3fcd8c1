import { setTimeout as sleep } from 'node:timers/promises';
import { UnrecoverableError, type Job, type Worker } from 'bullmq';
import { isInFolder } from '../data-folder.ts';
import { addDeadLetter, DEAD_LETTER_QUEUE, deadLetterJobSchema, type DeadLetterJob } from '../queues/dead-letter.ts';
import {
  enqueueFiles,
  ingestJobId,
  ingestJobSchema,
  versionOf,
  type IngestJob,
  type IngestResult,
} from '../queues/ingest.ts';
import { isRedisAnswer, messageOf } from '../runtime.ts';
import { isStoreAway } from '../storage/client.ts';
import {
  isLoaded,
  ledgerRow,
  readVersions,
  recordDeadLetter,
  settleDeadLetter,
  type KnownVersion,
  type LedgerEntry,
} from '../storage/files.ts';
import { isOutlived } from './ingest.ts';
import { ledgerEntry, startWorker, type ProcessorNeeds } from './processor.ts';

const SWEEP_MS = 10_000;
const SWEEP_PAGE = 500;
/** How often, and how long each time, a letter that is retried waits for the failed job that it was made of to be removed. */
const MOVE_WAITS = 50;
const MOVE_WAIT_MS = 100;

type FailedJob = Job<IngestJob, IngestResult>;

/**
 * Starts the worker of the dead-letter queue. A letter fails at once with the file's reason and so waits, visible, in
 * the Failed tab. Taken a second time, because somebody pressed Retry, it sends its file back to ingest and is gone.
 */
export function createDeadLetterWorker(needs: ProcessorNeeds): Worker<DeadLetterJob, void> {
  const { ingestQueue, log } = needs;

  async function process(job: Job<DeadLetterJob, void>): Promise<void> {
    const letter = deadLetterJobSchema.safeParse(job.data);
    // Of a job that was added by hand, not even the reason is sure to be one.
    if (!letter.success || job.attemptsMade === 0) throw new UnrecoverableError(job.data.reason);
    const { name, size, mtimeNs } = letter.data;
    const jobId = ingestJobId(letter.data);
    // Whoever made this letter removes the failed job next, and must not meet the new one, which has its id.
    for (let waits = 0; waits < MOVE_WAITS && (await ingestQueue.getJobState(jobId)) === 'failed'; waits += 1)
      await sleep(MOVE_WAIT_MS);
    await ingestQueue.remove(jobId);
    await enqueueFiles(ingestQueue, [{ name, size, mtimeNs }], { backlog: false });
    log.info({ queue: DEAD_LETTER_QUEUE, file: name }, 'dead letter sent back to ingest');
  }
  return startWorker(DEAD_LETTER_QUEUE, process, needs, { concurrency: 10 });
}

/**
 * The one place where an ingest job that has failed for good becomes a dead letter: ledger, then dead-letter queue, then
 * out of ingest. Each step can be repeated, and a sweep does so for jobs whose processor died between two of them. What
 * Redis refused is never held against a file: nothing in one can be the cause.
 */
export function createDeadLetters(needs: ProcessorNeeds) {
  const { config, store, ingestQueue, deadLetterQueue, counters, log, workerName } = needs;
  const moving = new Set<Promise<void>>();
  /** Most letters stay where they are: each sweep looks at the next page of them. */
  let sweptTo = 0;

  async function move(job: FailedJob): Promise<void> {
    // Another processor, or a person, may have been faster.
    if (!(await job.isFailed())) return;
    if (isRedisAnswer(job.failedReason)) {
      await job.retry('failed', { resetAttemptsMade: true });
      return;
    }
    const file = ingestJobSchema.safeParse(job.data);
    if (file.success) await moveFile(job, file.data);
    else await moveUnreadable(job);
    if (await job.isFailed()) await job.remove();
  }

  /** A job that somebody added by hand with data that names no file version. Nothing but the job itself tells it from others. */
  async function moveUnreadable(job: FailedJob): Promise<void> {
    const { timestamp, failedReason: reason, attemptsMade: attempts, finishedOn: failedAt = timestamp } = job;
    const name = `${job.name.slice(0, 200)} (job ${job.id})`;
    await addDeadLetter(deadLetterQueue, { name, size: 0, mtimeNs: String(timestamp), reason, failedAt, attempts });
  }

  async function moveFile(job: FailedJob, file: IngestJob): Promise<void> {
    const known = await readVersions(store, file.name);
    const own = known.find(({ version }) => version === versionOf(file));
    if (isLoaded(own?.state) || own?.state === 'discarded') return;
    const { failedReason: reason, attemptsMade: attempts, finishedOn: failedAt = store.now() } = job;
    const startedAt = (job.processedOn ?? failedAt) - store.clockSkewMs();
    const letter = { ...file, reason, startedAt, failedAt, attempts };
    const isWritten = await recordDeadLetter(store, entryOf(letter, startedAt, job.processedBy), own);
    if (!isWritten) throw new Error(`${file.name} was loaded, or judged by another processor, meanwhile`);
    await addDeadLetter(deadLetterQueue, letter);
    counters.add('files_dead_lettered_total', 1);
    log.warn({ queue: DEAD_LETTER_QUEUE, file: file.name, reason }, 'file is a dead letter');
  }

  function entryOf(letter: DeadLetterJob, startedAt: number, worker = workerName): LedgerEntry {
    const { attempts, reason: error } = letter;
    const times = { started_at: new Date(startedAt), finished_at: new Date(store.now()) };
    return ledgerEntry(letter, { state: 'dead_letter', attempts, worker, ...times, error });
  }

  async function sweep(): Promise<void> {
    await each(await ingestQueue.getFailed(0, SWEEP_PAGE - 1), move);
    await each(await deadLetterQueue.getFailed(sweptTo, sweptTo + SWEEP_PAGE - 1), sweepLetter);
    const next = sweptTo + SWEEP_PAGE;
    // A page is shorter than it was, too, when letters leave while it is read.
    sweptTo = next < (await deadLetterQueue.getFailedCount()) ? next : 0;
  }

  /**
   * Removes a letter whose file was loaded after all, or was mended and loaded while this version was being judged, or was
   * replaced by one that is a dead letter, too; brings back its row in the ledger.
   */
  async function sweepLetter(letter: Job<DeadLetterJob, void>): Promise<void> {
    const parsed = deadLetterJobSchema.safeParse(letter.data);
    if (!parsed.success) return;
    const known = await readVersions(store, parsed.data.name);
    const own = known.find(({ version }) => version === versionOf(parsed.data));
    if (own === undefined) {
      // A Cassandra that was killed forgot it. Of a version that is no longer in the folder, only the letter is left.
      const { startedAt } = parsed.data;
      if (startedAt !== undefined) await store.insertIfNew(ledgerRow(entryOf(parsed.data, startedAt)));
      return;
    }
    const loadedSince = known.filter(({ finishedAt }) => finishedAt >= own.startedAt);
    if (own.state === 'dead_letter' && !isOutlived(parsed.data, loadedSince) && !isReplaced(own, known)) return;
    await settleDeadLetter(store, own, 'superseded');
    await letter.remove();
  }

  /** Whether another version lies there by now, which could not be loaded either: what is to be mended has one letter. */
  function isReplaced({ version }: KnownVersion, known: readonly KnownVersion[]): boolean {
    return known.some(
      (one) => one.state === 'dead_letter' && one.version !== version && isInFolder(config.DATA_DIR, one),
    );
  }

  function onLeft(error: unknown): void {
    log.warn({ queue: DEAD_LETTER_QUEUE, reason: messageOf(error) }, 'a dead letter is left to the next sweep');
  }

  /** What is wrong with one of them holds up no other; a store that is away does. */
  async function each<J extends Job>(jobs: readonly J[], act: (job: J) => Promise<void>): Promise<void> {
    for (const job of jobs)
      await act(job).catch((error: unknown) => {
        if (isStoreAway(error)) throw error;
        onLeft(error);
      });
  }

  function track(work: Promise<void>): void {
    const tracked = work.catch(onLeft).finally(() => moving.delete(tracked));
    moving.add(tracked);
  }

  const timer = setInterval(() => {
    if (moving.size === 0) track(sweep());
  }, SWEEP_MS);
  return {
    /** To be called with every failure of an ingest job; only final ones count. Never rejects. */
    onFailed: (job: FailedJob | undefined): void => {
      // What Redis refused is left to the sweep, so that Redis has some time.
      if (job?.finishedOn !== undefined && !isRedisAnswer(job.failedReason)) track(move(job));
    },
    close: async (): Promise<void> => {
      clearInterval(timer);
      await Promise.all(moving);
    },
  };
}
