import { UnrecoverableError, Worker, type Job } from 'bullmq';
import type { Logger } from 'pino';
import type { Config } from '../config.ts';
import { datasetOf } from '../datasets/catalog.ts';
import type { Counters } from '../queues/counters.ts';
import {
  addDeadLetter,
  DEAD_LETTER_QUEUE,
  deadLetterId,
  deadLetterJobSchema,
  type DeadLetterJob,
  type DeadLetterQueue,
} from '../queues/dead-letter.ts';
import {
  enqueueFiles,
  ingestJobSchema,
  versionOf,
  type IngestJob,
  type IngestQueue,
  type IngestResult,
} from '../queues/ingest.ts';
import type { QueueConnection } from '../queues/redis.ts';
import type { Store } from '../storage/client.ts';
import { readVersions, recordFile } from '../storage/files.ts';
import { LOCK_MS, STALLED_CHECK_MS } from './ingest.ts';

const SWEEP_MS = 10_000;
const SWEEP_PAGE = 500;

export interface DeadLetterNeeds {
  readonly config: Pick<Config, 'INGEST_ATTEMPTS'>;
  readonly store: Store;
  readonly queues: QueueConnection;
  readonly ingestQueue: IngestQueue;
  readonly deadLetterQueue: DeadLetterQueue;
  readonly counters: Counters;
  readonly log: Logger;
  readonly workerName: string;
}

/**
 * Starts the worker of the dead-letter queue. A letter fails at once with the file's reason and so waits, visible, in
 * the Failed tab. Taken a second time, because somebody pressed Retry, it sends its file back to ingest and is gone.
 */
export function createDeadLetterWorker(needs: DeadLetterNeeds): Worker<DeadLetterJob, void> {
  const { queues, ingestQueue, config, log } = needs;
  const worker = new Worker<DeadLetterJob, void>(
    DEAD_LETTER_QUEUE,
    async (job) => {
      const letter = deadLetterJobSchema.safeParse(job.data);
      if (job.attemptsMade === 0 || !letter.success) {
        throw new UnrecoverableError(letter.success ? letter.data.reason : 'the job names no file that could be loaded');
      }
      const { name, size, mtimeNs } = letter.data;
      await ingestQueue.remove(deadLetterId(letter.data));
      await enqueueFiles(ingestQueue, [{ name, size, mtimeNs }], { attempts: config.INGEST_ATTEMPTS, backlog: false });
      log.info({ queue: DEAD_LETTER_QUEUE, file: name }, 'dead letter sent back to ingest');
    },
    {
      connection: queues.connection,
      prefix: queues.prefix,
      name: needs.workerName,
      concurrency: 10,
      lockDuration: LOCK_MS,
      stalledInterval: STALLED_CHECK_MS,
      maxStalledCount: Number.MAX_SAFE_INTEGER,
      runRetryDelay: 1_000,
    },
  );
  worker.on('error', (error) => log.warn({ queue: DEAD_LETTER_QUEUE, reason: error.message }, 'worker error'));
  return worker;
}

/** The one place where an ingest job that has failed for good becomes a dead letter. */
export interface DeadLetters {
  /** Called with every failure of an ingest job; only final ones count. Never rejects. */
  readonly onFailed: (job: Job<IngestJob, IngestResult> | undefined) => void;
  readonly close: () => Promise<void>;
}

/**
 * Moves finally failed ingest jobs: ledger, then dead-letter queue, then out of ingest. Each step can be repeated, and
 * a sweep does so for jobs whose processor died between two of them.
 */
export function createDeadLetters(needs: DeadLetterNeeds): DeadLetters {
  const { store, ingestQueue, deadLetterQueue, counters, log, workerName } = needs;
  const moving = new Set<Promise<void>>();

  async function move(job: Job<IngestJob, IngestResult>): Promise<void> {
    const file = ingestJobSchema.safeParse(job.data);
    if (file.success) await moveFile(job, file.data);
    else await addDeadLetter(deadLetterQueue, unreadableLetter(job));
    // Another processor may have moved it too, and a person may have sent it back to ingest since.
    if (await job.isFailed()) await job.remove();
  }

  async function moveFile(job: Job<IngestJob, IngestResult>, file: IngestJob): Promise<void> {
    const version = versionOf(file);
    const known = (await readVersions(store, file.name)).find((one) => one.version === version);
    if (known?.state === 'loaded' || known?.state === 'unchanged') return;
    const reason = job.failedReason.replace(/^not whole yet\? /, '');
    const failedAt = job.finishedOn ?? store.now();
    await recordFile(store, {
      name: file.name,
      version,
      state: 'dead_letter',
      dataset: datasetOf(file.name)?.dataset.name ?? '',
      bytes: file.size,
      fileTime: Number(BigInt(file.mtimeNs) / 1_000_000n),
      attempts: job.attemptsMade,
      worker: job.processedBy ?? workerName,
      startedAt: job.processedOn ?? failedAt,
      finishedAt: failedAt,
      error: reason,
    });
    await addDeadLetter(deadLetterQueue, { ...file, reason, failedAt, attempts: job.attemptsMade });
    counters.add('files_dead_lettered_total', 1);
    log.warn({ queue: DEAD_LETTER_QUEUE, file: file.name, reason }, 'file is a dead letter');
  }

  function track(work: Promise<void>, message: string): void {
    const tracked = work
      .catch((error: unknown) => {
        log.warn({ queue: DEAD_LETTER_QUEUE, reason: error instanceof Error ? error.message : String(error) }, message);
      })
      .finally(() => moving.delete(tracked));
    moving.add(tracked);
  }

  async function sweep(): Promise<void> {
    for (const job of await ingestQueue.getFailed(0, SWEEP_PAGE - 1)) await move(job);
    await sweepLoaded();
  }

  /** A letter whose file was loaded after all, by a processor that was thought dead. */
  async function sweepLoaded(): Promise<void> {
    for (const letter of await deadLetterQueue.getFailed(0, SWEEP_PAGE - 1)) {
      const file = ingestJobSchema.safeParse(letter.data);
      if (!file.success) continue;
      const known = await readVersions(store, file.data.name);
      const state = known.find(({ version }) => version === versionOf(file.data))?.state;
      if (state !== undefined && state !== 'dead_letter') await letter.remove();
    }
  }

  const timer = setInterval(() => {
    if (moving.size === 0) track(sweep(), 'sweep of dead letters put off');
  }, SWEEP_MS);

  return {
    onFailed: (job) => {
      if (job?.finishedOn !== undefined) track(move(job), 'move to the dead letters put off');
    },
    close: async () => {
      clearInterval(timer);
      await Promise.all(moving);
    },
  };
}

/** A letter for a job that somebody added by hand with data that names no file version. */
function unreadableLetter(job: Job<IngestJob, IngestResult>): DeadLetterJob {
  return {
    name: job.name.slice(0, 200) || '(no name)',
    size: 0,
    mtimeNs: String(job.timestamp),
    reason: job.failedReason,
    failedAt: job.finishedOn ?? job.timestamp,
    attempts: job.attemptsMade,
  };
}
