import { DelayedError, UnrecoverableError, type Job, type Worker } from 'bullmq';
import { isInFolder } from '../data-folder.ts';
import { datasetOf } from '../datasets/catalog.ts';
import {
  enqueueFiles,
  hasJob,
  INGEST_QUEUE,
  KEPT_LOADED,
  ingestJobId,
  ingestJobSchema,
  isYoungerThan,
  mtimeMs,
  mtimeNsOf,
  versionOf,
  type IngestJob,
  type IngestResult,
} from '../queues/ingest.ts';
import { messageOf } from '../runtime.ts';
import { createChangeLog } from '../storage/change-log.ts';
import { isShortOfReplicas, isStoreAway } from '../storage/client.ts';
import {
  isLoaded,
  ledgerRow,
  originOf,
  overwriteEntry,
  NAMES_PER_QUERY,
  readVersions,
  settleDeadLetter,
  type FileState,
  type KnownVersion,
  type LedgerEntry,
} from '../storage/files.ts';
import { createRowWriter } from '../storage/rows.ts';
import { together } from '../storage/together.ts';
import {
  closeDataFile,
  FileGone,
  FileProblem,
  isSameVersion,
  NotNow,
  openDataFile,
  type DataFile,
} from './data-file.ts';
import { createGathering } from './gather.ts';
import { checkFile, loadFile, type LoadOptions } from './load-file.ts';
import { pauseWhileAway } from './pause-while-away.ts';
import { ledgerEntry, startWorker, type ProcessorNeeds } from './processor.ts';
import { readOptions } from './record-reader.ts';
import { createTurns, isSmall } from './turns.ts';

/** A file that changed less than this ago may not be whole yet; what is wrong with it may mend itself. */
const STILL_MS = 2_000;
/** A file that was the suspect when its processor ended, so many times, after it was among those of another. */
const MAX_CRASHES = 2;
/** A file that Cassandra failed at, so many times within about an hour, while it did other work. */
const MAX_REFUSALS = 12;
/** How long small files of a backlog wait for each other at most, while no file arrives. */
const GATHER_MS = 200;
/** How long a file waits that is put back because of what is the case now; a young one has then stood still. */
const PUT_BACK_MS = STILL_MS;

type IngestBullJob = Job<IngestJob, IngestResult>;
/** What the loads of one process share, beside what all processors do. */
interface IngestNeeds extends ProcessorNeeds, Pick<LoadOptions, 'announced' | 'writeRows'> {
  readonly lookUp: (name: string) => Promise<KnownVersion[]>;
  readonly gathered: () => Promise<void>;
}

/** Starts a worker that loads files. What it cannot load fails for good; see dead-letter.ts for what comes then. */
export function createIngestWorker(shared: ProcessorNeeds): Worker<IngestJob, IngestResult> {
  const { config, store, log } = shared;
  const turns = createTurns(shared, () => worker.closing !== undefined);
  // One half is read while the other is written. One that arrives would have to wait for them, so they do only while none does.
  const gather = createGathering(config.INGEST_CONCURRENCY / 2, GATHER_MS);
  const gathered = async () => {
    if (!turns.filesArrive()) await gather();
  };
  const writeRows = createRowWriter(store, turns.filesArrive);
  // Files that arrive now share no request with those of a backlog, as they would have to wait for the ones under way.
  const [ofArrivals, ofBacklog] = [createNeeds(true), createNeeds(false)];
  const pause = pauseWhileAway(store, log);

  function createNeeds(isUrgent: boolean): IngestNeeds {
    return {
      ...shared,
      gathered,
      lookUp: together<string, KnownVersion[]>(NAMES_PER_QUERY, async (names) => {
        const known = await readVersions(store, ...names);
        return names.map((name) => known.filter((version) => version.name === name));
      }),
      announced: createChangeLog(store, config.SETTLE_SECONDS * 1000),
      writeRows: (rows) => writeRows(rows, isUrgent),
    };
  }

  function load(job: IngestBullJob, wanted: IngestJob): Promise<IngestResult> {
    return ingest(job, wanted, isArrival(job) ? ofArrivals : ofBacklog);
  }

  /**
   * Counts what ends the processor while this file is loaded, but for a stop that was asked for, and a lock that was lost
   * while Redis was away or this process stood still: its job comes back as if it had ended.
   *
   * @throws UnrecoverableError at the third time
   */
  async function loadSuspect(job: IngestBullJob, wanted: IngestJob): Promise<IngestResult> {
    // Its turn came too late for the event below.
    if (worker.closing !== undefined) throw new NotNow('the processor stops');
    const { crashes = 0, ...file } = wanted;
    if (crashes >= MAX_CRASHES)
      throw new UnrecoverableError(`ended ${MAX_CRASHES + 1} processors that were loading it`);
    await job.updateData({ ...file, crashes: crashes + 1 });
    const takeBack = () => job.updateData({ ...file, crashes });
    const tryToTakeBack = () => void takeBack().catch(() => undefined);
    const onLocksLost = (jobs: readonly string[]) => {
      if (jobs.includes(String(job.id))) tryToTakeBack();
    };
    worker.once('closing', tryToTakeBack).on('lockRenewalFailed', onLocksLost);
    try {
      return await load(job, wanted);
    } catch (error) {
      await takeBack();
      throw error;
    } finally {
      worker.off('closing', tryToTakeBack).off('lockRenewalFailed', onLocksLost);
    }
  }

  /**
   * How long a file waits that Cassandra failed at. When Cassandra fails at all else, too, that says nothing about the file,
   * and the worker is paused. Otherwise it may be this file that it cannot take: others go on, and this one is tried again
   * later and later, at times of its own, so that what it failed together with does not fail with it again.
   *
   * @throws UnrecoverableError at the last time
   */
  async function waitForStore(job: IngestBullJob, error: unknown): Promise<number> {
    const isAboutFile = (await pause(worker)) && !isShortOfReplicas(error);
    if (!isAboutFile) return PUT_BACK_MS;
    const refusals = (job.data.refusals ?? 0) + 1;
    if (refusals >= MAX_REFUSALS)
      throw new UnrecoverableError(`Cassandra failed at it ${refusals} times and did other work: ${messageOf(error)}`);
    await job.updateData({ ...job.data, refusals });
    return PUT_BACK_MS * 2 ** (refusals - 1) * (0.5 + Math.random());
  }

  async function process(job: IngestBullJob, token?: string): Promise<IngestResult> {
    try {
      const wanted = fileOf(job);
      if (job.stalledCounter > 0)
        return await turns.suspectInTurn(wanted, isArrival(job), () => loadSuspect(job, wanted));
      return await turns.inTurn(wanted, isArrival(job), () => load(job, wanted));
    } catch (error) {
      const storeAway = isStoreAway(error);
      if (!storeAway && !(error instanceof NotNow)) throw error;
      const reason = messageOf(error);
      log[storeAway ? 'info' : 'debug']({ queue: INGEST_QUEUE, job: job.id, file: job.name, reason }, 'file put back');
      if (storeAway) await job.updateData({ ...job.data, interrupted: true });
      const delay = storeAway ? await waitForStore(job, error) : PUT_BACK_MS;
      await job.log(reason);
      await job.moveToDelayed(Date.now() + delay, token);
      throw new DelayedError();
    }
  }
  const options = { concurrency: config.INGEST_CONCURRENCY, removeOnComplete: KEPT_LOADED };
  const worker = startWorker(INGEST_QUEUE, process, shared, options);
  return worker;
}

/** Whether the file came just now, or was retried; what reconciliation or `backfill` finds has a priority, which is behind none. */
const isArrival = (job: IngestBullJob) => job.priority === 0;

/** The file version that a job names. @throws UnrecoverableError for one that somebody added with other data */
function fileOf(job: IngestBullJob): IngestJob {
  const parsed = ingestJobSchema.safeParse(job.data);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`);
  throw new UnrecoverableError(`the job's data is not a file version: ${problems.join('; ')}`);
}

/** Loads the file version that a job names, or says with an error why not. */
async function ingest(job: IngestBullJob, wanted: IngestJob, needs: IngestNeeds): Promise<IngestResult> {
  const { store, config } = needs;
  const started = { at: new Date(await store.freshNow()), clock: performance.now() };
  const kind = datasetOf(wanted.name);
  if (kind === undefined) throw new UnrecoverableError('no kind of file has a name like this');
  const lineage = { name: wanted.name, version: versionOf(wanted) };
  const known = await needs.lookUp(wanted.name);
  const own = known.find(({ version }) => version === lineage.version);
  const result = (state: IngestResult['state'], records = 0, rejected = 0): IngestResult => {
    const ms = Math.round(performance.now() - started.clock);
    return { state, records, loaded: records - rejected, rejected, ms };
  };
  const entryOf = (state: FileState, counts?: Pick<LedgerEntry, 'sha256' | 'records' | 'loaded' | 'rejected'>) =>
    ledgerEntry(wanted, {
      state,
      attempts: job.attemptsMade + 1,
      worker: needs.workerName,
      started_at: started.at,
      finished_at: new Date(store.now()),
      ...(own !== undefined && { error: null }),
      ...counts,
    });

  /** An earlier attempt that failed, died or was interrupted may have announced a load, which ends with this. */
  const superseded = async () => {
    const isAnnounced = job.attemptsMade + job.stalledCounter > 0 || wanted.interrupted === true;
    if (own?.state === 'dead_letter') await settleDeadLetter(store, own, 'superseded');
    else if (isAnnounced && own === undefined) await store.insertIfNew(ledgerRow(entryOf('superseded')));
    return result('superseded');
  };

  // Judged once, before reading: what is found in a file that was young then is looked at again.
  const young = isYoungerThan(STILL_MS, wanted, store.now());
  let file: DataFile | undefined;
  try {
    if (own?.state === 'discarded') return result('discarded');
    if (isLoaded(own?.state)) {
      // Where a later version lies by now, a letter may be of that.
      if (isInFolder(config.DATA_DIR, lineage)) await settleOthers(needs, wanted, known);
      return result('already loaded');
    }
    file = await openDataFile(config.DATA_DIR, wanted.name, config.MAX_FILE_BYTES);
    const there = { name: wanted.name, size: file.size, mtimeNs: file.mtimeNs };
    if (versionOf(there) !== lineage.version) {
      if (await hasJob(needs.ingestQueue, there)) return await superseded();
      // While it is written, it is another one each time.
      if (isYoungerThan(STILL_MS, there, store.now())) throw new NotNow('another version of it is being written');
      // Before: should it fail at once, its letter is not to be taken for an older one.
      await settleOthers(needs, there, known);
      await enqueueFiles(needs.ingestQueue, [there], { backlog: false });
      await job.log(`it is another version by now, ${versionOf(there)}, which is queued instead`);
      return await superseded();
    }

    const options: LoadOptions = {
      ...needs,
      ...readOptions(config, kind, lineage, young),
      maxRejectedRatio: config.MAX_REJECTED_RATIO,
    };
    const checked = await checkFile(file, options);
    if (!isSameVersion(file)) throw new Error('changed while it was read');
    const { sha256, records, rejected } = checked;
    const isCopy = originOf({ sha256, rejected }, known) !== undefined;
    if (!isCopy) {
      // Where many wait, a file is in no hurry, and what a row costs depends on how many go together.
      const isOneOfMany = !isArrival(job) && job.stalledCounter === 0 && isSmall(wanted);
      if (isOneOfMany) await needs.gathered();
      await loadFile(file, checked, options, progressOf(job, file.size));
    }
    const done = result(isCopy ? 'unchanged' : 'loaded', records, rejected);
    const loaded = isCopy ? 0 : done.loaded;
    const counts = { sha256, records: BigInt(records), loaded: BigInt(loaded), rejected: BigInt(rejected) };
    // The last write of every load: who sees it, sees all rows.
    const entry = entryOf(isCopy ? 'unchanged' : 'loaded', counts);
    await (own ? overwriteEntry(store, entry, own) : needs.writeRows([ledgerRow(entry)]));
    await settleOthers(needs, wanted, known);
    const said = `${done.loaded} loaded, ${rejected} rejected, in ${done.ms} ms by ${needs.workerName}`;
    await Promise.all([
      job.updateProgress(100),
      job.log(`${done.state}: read ${records} records of ${file.size} bytes: ${said}`),
    ]);
    if (!isCopy) count(needs, kind.dataset.name, done, wanted);
    return done;
  } catch (error) {
    if (error instanceof FileGone && isOutlived(wanted, known)) {
      await job.log('it is gone, and a newer version of it was loaded');
      return await superseded();
    }
    if (!(error instanceof FileProblem)) throw error;
    // What is wrong with bytes of two versions is wrong with neither.
    if (file !== undefined && !isSameVersion(file)) throw new Error('changed while it was read', { cause: error });
    if (young) throw new NotNow(`not whole yet? ${error.message}`, { cause: error });
    throw new UnrecoverableError(error.message);
  } finally {
    if (file !== undefined) closeDataFile(file);
  }
}

/** Whether a version that the provider wrote later was loaded, and may have left the folder since. */
export function isOutlived(file: IngestJob, known: readonly KnownVersion[]): boolean {
  const isLater = ({ version }: KnownVersion) => BigInt(mtimeNsOf(version)) > BigInt(file.mtimeNs);
  return known.some((one) => isLoaded(one.state) && isLater(one));
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
