import { DelayedError, UnrecoverableError, Worker, type Job } from 'bullmq';
import type { Logger } from 'pino';
import type { Config } from '../config.ts';
import { datasetOf } from '../datasets/catalog.ts';
import type { Counters } from '../queues/counters.ts';
import type { DeadLetterQueue } from '../queues/dead-letter.ts';
import {
  enqueueFiles,
  INGEST_QUEUE,
  ingestJobId,
  ingestJobSchema,
  versionOf,
  type IngestJob,
  type IngestQueue,
  type IngestResult,
} from '../queues/ingest.ts';
import type { QueueConnection } from '../queues/redis.ts';
import { isStoreAway, type Store } from '../storage/client.ts';
import { readVersions, recordFile, settleDeadLetter, type KnownVersion, type LedgerEntry } from '../storage/files.ts';
import { FileProblem, isSameVersion, openDataFile, type DataFile } from './data-file.ts';
import { checkFile, loadFile, touchFile, type LoadOptions } from './load-file.ts';
import { pauseWhileAway } from './pause-while-away.ts';

/** A file that changed less than this ago may not be whole yet; what is wrong with it may mend itself. */
const STILL_MS = 2_000;
/** A file that ended this many processors is not read again for its rows. */
const MAX_CRASHES = 3;
/** A store that was away is waited for without counting an attempt, but not for ever by one job. */
const MAX_STARTS = 1_000;
/** A lock is renewed at half of this; a job of a killed processor comes back after it and the stalled check. */
export const LOCK_MS = 10_000;
export const STALLED_CHECK_MS = 5_000;

export interface IngestNeeds {
  readonly config: Pick<
    Config,
    | 'DATA_DIR'
    | 'INGEST_CONCURRENCY'
    | 'INGEST_ATTEMPTS'
    | 'MAX_FILE_BYTES'
    | 'MAX_RECORD_BYTES'
    | 'MAX_REJECTED_RATIO'
    | 'SETTLE_SECONDS'
    | 'SOURCE_TIME_ZONE'
  >;
  readonly store: Store;
  readonly queues: QueueConnection;
  readonly ingestQueue: IngestQueue;
  readonly deadLetterQueue: DeadLetterQueue;
  readonly counters: Counters;
  readonly log: Logger;
  /** What the ledger and Bull Board call this process. */
  readonly workerName: string;
}

type IngestBullJob = Job<IngestJob, IngestResult>;

/** Starts a worker that loads files. What it cannot load fails for good; see dead-letter.ts for what comes then. */
export function createIngestWorker(needs: IngestNeeds): Worker<IngestJob, IngestResult> {
  const { queues, store, config, log, workerName } = needs;
  const away = pauseWhileAway(store, log);
  const worker = new Worker<IngestJob, IngestResult>(
    INGEST_QUEUE,
    async (job, token) => {
      try {
        return await ingest(job, needs);
      } catch (error) {
        if (isStoreAway(error) && job.attemptsStarted < MAX_STARTS) {
          log.warn({ queue: INGEST_QUEUE, job: job.id, file: job.name, reason: messageOf(error) }, 'file put back');
          away.pause(worker);
          await job.moveToDelayed(Date.now() + 1_000 + Math.random() * 1_000, token);
          throw new DelayedError();
        }
        throw error;
      }
    },
    {
      connection: queues.connection,
      prefix: queues.prefix,
      name: workerName,
      concurrency: config.INGEST_CONCURRENCY,
      lockDuration: LOCK_MS,
      stalledInterval: STALLED_CHECK_MS,
      maxStalledCount: Number.MAX_SAFE_INTEGER,
      runRetryDelay: 1_000,
      drainDelay: 5,
      metrics: { maxDataPoints: 24 * 60 },
    },
  );
  worker.on('error', (error) => log.warn({ queue: INGEST_QUEUE, reason: error.message }, 'worker error'));
  return worker;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Loads the file version that a job names, or says with an error why not. */
async function ingest(job: IngestBullJob, needs: IngestNeeds): Promise<IngestResult> {
  const started = performance.now();
  const startedAt = needs.store.now();
  const { store, config, workerName } = needs;
  const parsed = ingestJobSchema.safeParse(job.data);
  if (!parsed.success) {
    throw new UnrecoverableError(
      `the job's data is not a file version: ${parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`).join('; ')}`,
    );
  }
  const wanted = parsed.data;
  const lineage = { name: wanted.name, version: versionOf(wanted) };
  const kind = datasetOf(wanted.name);
  if (kind === undefined) throw new UnrecoverableError('no kind of file has a name like this');
  const known = await readVersions(store, wanted.name);
  const result = (state: IngestResult['state'], records = 0, rejected = 0): IngestResult => ({
    state,
    records,
    loaded: records - rejected,
    rejected,
    ms: Math.round(performance.now() - started),
  });
  if (isLoaded(known, lineage.version)) {
    await settleOthers(needs, wanted, known);
    return result('already loaded');
  }

  const options: LoadOptions = {
    store,
    dataset: kind.dataset,
    format: kind.format,
    lineage,
    sourceTimeZone: config.SOURCE_TIME_ZONE,
    maxRecordBytes: config.MAX_RECORD_BYTES,
    maxFileBytes: config.MAX_FILE_BYTES,
    maxRejectedRatio: config.MAX_REJECTED_RATIO,
    settleMs: config.SETTLE_SECONDS * 1000,
  };
  try {
    const file = await openDataFile(config.DATA_DIR, wanted.name, config.MAX_FILE_BYTES);
    try {
      const there = { name: wanted.name, size: file.size, mtimeNs: String(file.mtimeNs) };
      if (versionOf(there) !== lineage.version) {
        await enqueueFiles(needs.ingestQueue, [there], { attempts: config.INGEST_ATTEMPTS, backlog: false });
        await job.log(`it is another version by now, ${versionOf(there)}, which is queued instead`);
        await settleOthers(needs, there, known);
        return result('superseded');
      }
      if (job.stalledCounter >= MAX_CRASHES) await giveUpAfterCrashes(job, file, options);

      const checked = await checkFile(file, options);
      if (!(await isSameVersion(file))) throw new FileProblem('changed while it was read');
      const entry: LedgerEntry = {
        ...lineage,
        state: 'loaded',
        dataset: kind.dataset.name,
        bytes: file.size,
        fileTime: Number(file.mtimeNs / 1_000_000n),
        attempts: job.attemptsMade + 1,
        worker: workerName,
        startedAt,
        finishedAt: 0,
        sha256: checked.sha256,
        records: checked.records,
        loaded: checked.records - checked.rejected,
        rejected: checked.rejected,
        error: known.some(({ version }) => version === lineage.version) ? null : undefined,
      };
      if (known.some(({ state, sha256 }) => state === 'loaded' && sha256 === checked.sha256)) {
        await recordFile(store, { ...entry, state: 'unchanged', loaded: 0, finishedAt: store.now() });
        await settleOthers(needs, wanted, known);
        return result('unchanged');
      }
      await loadFile(file, checked, options, progressOf(job, file.size));
      await recordFile(store, { ...entry, finishedAt: store.now() });
      await settleOthers(needs, wanted, known);
      const done = result('loaded', checked.records, checked.rejected);
      await Promise.all([
        job.updateProgress(100),
        job.log(
          `read ${done.records} records of ${file.size} bytes: ${done.loaded} loaded, ${done.rejected} rejected, ` +
            `in ${done.ms} ms by ${workerName}`,
        ),
      ]);
      count(needs.counters, kind.dataset.name, done, file, store.now());
      return done;
    } finally {
      await file.handle.close();
    }
  } catch (error) {
    if (!(error instanceof FileProblem)) throw error;
    const ageMs = Date.now() - Number(BigInt(wanted.mtimeNs) / 1_000_000n);
    if (ageMs >= 0 && ageMs < STILL_MS) throw new Error(`not whole yet? ${error.message}`, { cause: error });
    throw new UnrecoverableError(error.message);
  }
}

function isLoaded(known: readonly KnownVersion[], version: string): boolean {
  return known.some((one) => one.version === version && (one.state === 'loaded' || one.state === 'unchanged'));
}

/** Dead letters of the same name are settled by a version that is loaded, or is about to be. */
async function settleOthers(
  { store, deadLetterQueue }: IngestNeeds,
  file: IngestJob,
  known: readonly KnownVersion[],
): Promise<void> {
  for (const { name, version, state } of known) {
    if (state !== 'dead_letter') continue;
    if (version !== versionOf(file)) await settleDeadLetter(store, { name, version }, 'superseded');
    await deadLetterQueue.remove(ingestJobId({ name, version }));
  }
}

/**
 * Ends a job that ended several processors. Rows that they wrote before they died are to be in the summaries, so the
 * file is read once more for what it touches; one that ends even that processor is given up without.
 */
async function giveUpAfterCrashes(job: IngestBullJob, file: DataFile, options: LoadOptions): Promise<never> {
  if (job.stalledCounter === MAX_CRASHES) await touchFile(file, options);
  throw new UnrecoverableError(`ended ${MAX_CRASHES} processors that were loading it`);
}

/** Shows the share of a large file that is done, in percent, a few times a second at most. */
function progressOf(job: IngestBullJob, size: number): (bytesDone: number) => void {
  let shown = performance.now();
  return (bytesDone) => {
    if (performance.now() - shown < 500) return;
    shown = performance.now();
    void job.updateProgress(Math.min(99, Math.floor((100 * bytesDone) / Math.max(1, size)))).catch(() => undefined);
  };
}

const LATENCY_BOUNDS_S = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60, 600];

function count(counters: Counters, dataset: string, done: IngestResult, file: DataFile, now: number): void {
  const label = `{dataset="${dataset}"}`;
  counters.add(`files_loaded_total${label}`, 1);
  counters.add(`records_loaded_total${label}`, done.loaded);
  counters.add(`records_rejected_total${label}`, done.rejected);
  counters.add(`bytes_loaded_total${label}`, file.size);
  const latencyS = Math.max(0, now - Number(file.mtimeNs / 1_000_000n)) / 1000;
  for (const bound of LATENCY_BOUNDS_S) {
    if (latencyS <= bound) counters.add(`file_to_rows_seconds_bucket{le="${bound}"}`, 1);
  }
  counters.add('file_to_rows_seconds_bucket{le="+Inf"}', 1);
  counters.add('file_to_rows_seconds_sum', latencyS);
  counters.add('file_to_rows_seconds_count', 1);
}
