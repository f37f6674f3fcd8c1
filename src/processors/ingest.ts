import { DelayedError, UnrecoverableError, Worker, type Job } from 'bullmq';
import { datasetOf } from '../datasets/catalog.ts';
import {
  enqueueFiles,
  INGEST_QUEUE,
  ingestJobId,
  ingestJobSchema,
  mtimeMs,
  versionOf,
  type IngestJob,
  type IngestResult,
} from '../queues/ingest.ts';
import { isStoreAway } from '../storage/client.ts';
import {
  isLoaded,
  readVersions,
  recordFile,
  settleDeadLetter,
  type KnownVersion,
  type LedgerEntry,
} from '../storage/files.ts';
import { FileProblem, isSameVersion, openDataFile, type DataFile } from './data-file.ts';
import { checkFile, loadFile, touchFile, type LoadOptions } from './load-file.ts';
import { pauseWhileAway } from './pause-while-away.ts';
import { logFailures, workerOptions, type ProcessorNeeds } from './processor.ts';

/** A file that changed less than this ago may not be whole yet; what is wrong with it may mend itself. */
const STILL_MS = 2_000;
/** A file that ended this many processors is not read again for its rows. */
const MAX_CRASHES = 3;
/** A store that was away is waited for without counting an attempt, but not for ever by one job. */
const MAX_STARTS = 1_000;

type IngestBullJob = Job<IngestJob, IngestResult>;

/** What is wrong with a young file; it is judged when it has stood still, which costs no attempt. */
class NotWholeYet extends Error {
  override name = 'NotWholeYet';
}

/** Starts a worker that loads files. What it cannot load fails for good; see dead-letter.ts for what comes then. */
export function createIngestWorker(needs: ProcessorNeeds): Worker<IngestJob, IngestResult> {
  const { config, log } = needs;
  const away = pauseWhileAway(needs.store, log);

  async function process(job: IngestBullJob, token?: string): Promise<IngestResult> {
    try {
      return await ingest(job, needs);
    } catch (error) {
      const storeAway = isStoreAway(error) && job.attemptsStarted < MAX_STARTS;
      if (!storeAway && !(error instanceof NotWholeYet)) throw error;
      const reason = error instanceof Error ? error.message : String(error);
      log.info({ queue: INGEST_QUEUE, job: job.id, file: job.name, reason }, 'file put back');
      if (storeAway) away.pause(worker);
      await job.log(reason);
      await job.moveToDelayed(
        storeAway ? Date.now() + 1_000 * (1 + Math.random()) : Math.max(Date.now(), mtimeMs(job.data) + STILL_MS),
        token,
      );
      throw new DelayedError();
    }
  }
  const options = { ...workerOptions(needs), concurrency: config.INGEST_CONCURRENCY };
  const worker = new Worker<IngestJob, IngestResult>(INGEST_QUEUE, process, options);
  logFailures(worker, needs);
  return worker;
}

/** A time in the future is a wrong clock's, and says nothing. */
function isYoung(file: IngestJob): boolean {
  const ageMs = Date.now() - mtimeMs(file);
  return ageMs >= 0 && ageMs < STILL_MS;
}

/** Loads the file version that a job names, or says with an error why not. */
async function ingest(job: IngestBullJob, needs: ProcessorNeeds): Promise<IngestResult> {
  const { store, config } = needs;
  const started = { at: new Date(store.now()), clock: performance.now() };
  const parsed = ingestJobSchema.safeParse(job.data);
  if (!parsed.success) {
    const problems = parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`);
    throw new UnrecoverableError(`the job's data is not a file version: ${problems.join('; ')}`);
  }
  const wanted = parsed.data;
  const kind = datasetOf(wanted.name);
  if (kind === undefined) throw new UnrecoverableError('no kind of file has a name like this');
  const lineage = { name: wanted.name, version: versionOf(wanted) };
  const known = await readVersions(store, wanted.name);
  const own = known.find(({ version }) => version === lineage.version);
  const result = (state: IngestResult['state'], records = 0, rejected = 0): IngestResult => {
    const ms = Math.round(performance.now() - started.clock);
    return { state, records, loaded: records - rejected, rejected, ms };
  };

  // Judged once, before reading: what is found in a file that was young then is looked at again.
  const young = isYoung(wanted);
  let file: DataFile | undefined;
  try {
    if (own?.state === 'discarded') return result('discarded');
    if (isLoaded(own?.state)) {
      await settleOthers(needs, wanted, known);
      return result('already loaded');
    }
    file = await openDataFile(config.DATA_DIR, wanted.name, config.MAX_FILE_BYTES);
    const there = { name: wanted.name, size: file.size, mtimeNs: String(file.mtimeNs) };
    if (versionOf(there) !== lineage.version) {
      await enqueueFiles(needs.ingestQueue, [there], { attempts: config.INGEST_ATTEMPTS, backlog: false });
      await job.log(`it is another version by now, ${versionOf(there)}, which is queued instead`);
      await settleOthers(needs, there, known);
      return result('superseded');
    }

    const options: LoadOptions = {
      ...kind,
      store,
      context: { lineage, sourceTimeZone: config.SOURCE_TIME_ZONE, now: store.now() },
      maxRecordBytes: config.MAX_RECORD_BYTES,
      maxBytes: config.MAX_FILE_BYTES,
      maxRejectedRatio: config.MAX_REJECTED_RATIO,
      settleMs: config.SETTLE_SECONDS * 1000,
      mayGrow: young,
    };
    if (job.stalledCounter >= MAX_CRASHES) await giveUpAfterCrashes(job, file, options);
    const checked = await checkFile(file, options);
    if (!(await isSameVersion(file))) throw new Error('changed while it was read');
    const { sha256, records, rejected } = checked;
    const isCopy = known.some((one) => one.state === 'loaded' && one.sha256 === sha256);
    if (!isCopy) await loadFile(file, checked, options, progressOf(job, file.size));
    const entry: LedgerEntry = {
      ...lineage,
      state: isCopy ? 'unchanged' : 'loaded',
      dataset: kind.dataset.name,
      bytes: BigInt(file.size),
      file_time: new Date(mtimeMs(wanted)),
      attempts: job.attemptsMade + 1,
      worker: needs.workerName,
      started_at: started.at,
      finished_at: new Date(store.now()),
      sha256,
      records: BigInt(records),
      loaded: BigInt(isCopy ? 0 : records - rejected),
      rejected: BigInt(rejected),
      error: own === undefined ? undefined : null,
    };
    await recordFile(store, entry);
    await settleOthers(needs, wanted, known);
    const done = result(isCopy ? 'unchanged' : 'loaded', records, rejected);
    const said = `${done.loaded} loaded, ${rejected} rejected, in ${done.ms} ms by ${needs.workerName}`;
    await Promise.all([
      job.updateProgress(100),
      job.log(`${done.state}: read ${records} records of ${file.size} bytes: ${said}`),
    ]);
    if (!isCopy) count(needs, kind.dataset.name, done, wanted);
    return done;
  } catch (error) {
    if (!(error instanceof FileProblem)) throw error;
    if (young) throw new NotWholeYet(`not whole yet? ${error.message}`, { cause: error });
    throw new UnrecoverableError(error.message);
  } finally {
    await file?.handle.close();
  }
}

/** Dead letters of the same name are settled by a version that is loaded, or is about to be. */
async function settleOthers(
  { store, deadLetterQueue }: ProcessorNeeds,
  file: IngestJob,
  known: readonly KnownVersion[],
): Promise<void> {
  for (const letter of known.filter(({ state }) => state === 'dead_letter')) {
    if (letter.version !== versionOf(file)) await settleDeadLetter(store, letter, 'superseded');
    await deadLetterQueue.remove(ingestJobId(letter));
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

/** Shows the share of a large file that is done, in percent, twice a second at most. */
function progressOf(job: IngestBullJob, size: number): (bytesDone: number) => void {
  let shown = performance.now();
  return (bytesDone) => {
    if (performance.now() - shown < 500) return;
    shown = performance.now();
    void job.updateProgress(Math.min(99, Math.floor((100 * bytesDone) / Math.max(1, size)))).catch(() => undefined);
  };
}

const LATENCY_BOUNDS_S = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60, 600, Infinity];

function count({ counters, store }: ProcessorNeeds, dataset: string, done: IngestResult, file: IngestJob): void {
  const label = `{dataset="${dataset}"}`;
  counters.add(`files_loaded_total${label}`, 1);
  counters.add(`records_loaded_total${label}`, done.loaded);
  counters.add(`records_rejected_total${label}`, done.rejected);
  counters.add(`bytes_loaded_total${label}`, file.size);
  const latencyS = Math.max(0, store.now() - mtimeMs(file)) / 1000;
  for (const bound of LATENCY_BOUNDS_S.filter((one) => latencyS <= one)) {
    counters.add(`file_to_rows_seconds_bucket{le="${bound === Infinity ? '+Inf' : bound}"}`, 1);
  }
  counters.add('file_to_rows_seconds_sum', latencyS);
  counters.add('file_to_rows_seconds_count', 1);
}
