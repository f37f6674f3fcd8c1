import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Job, Worker } from 'bullmq';
import { allFiles, countFiles, isInFolder, placesOf } from '../data-folder.ts';
import type { FileVersion } from '../datasets/dataset.ts';
import { dayOf } from '../datasets/time.ts';
import { hasJob } from '../queues/ingest.ts';
import { emptyReport, VERIFICATION_QUEUE, type VerificationReport } from '../queues/verification.ts';
import { claimEpoch, readAggregationState } from '../storage/aggregation-state.ts';
import { createChangeLog, pendingHours, SHARDS, type TouchedHour } from '../storage/change-log.ts';
import type { Store } from '../storage/client.ts';
import { readLedger } from '../storage/files.ts';
import { recomputeDay, storedDays, wrongSummaries, type Doubt, type StoredDay } from '../storage/summaries.ts';
import { reportedMonths, strayFiles, type StrayFile } from '../storage/verification.ts';
import { createDayHours, type DayHours } from './day-hours.ts';
import { startWorker, type ProcessorNeeds } from './processor.ts';
import { createFileCheck, mendAll, unreadable, type Claim, type Judge, type VerificationNeeds } from './verify-file.ts';

/** Files, or days, that are compared at once. */
const AT_ONCE = 16;
/** Differences that are reported one by one; more are counted. */
const MAX_EXAMPLES = 1_000;
/** Shares of the token ring, each so small that the days of one fit into memory. */
const TOKEN_SHARES = SHARDS * 8;
/** Hours of vehicles that are recomputed for a sample of files; a scheduled one looks at fewer. */
const SAMPLED_HOURS = 20_000;
const SCHEDULED = { files: 200, hours: 1_000 };
const STRAY = 'rows of files that the ledger does not call loaded';

export interface VerificationOptions {
  /** The share of the files that is read, drawn at random. */
  readonly share: number;
  /** Without it, and with all files, every stored summary is recomputed; else hours that the files have records of. */
  readonly maxHours?: number;
  readonly repair: boolean;
  readonly goesOn: () => boolean;
  /** Called after each file, whether it was drawn or not. */
  readonly onFile?: (report: VerificationReport) => void;
}

/**
 * Compares the ledger, the rows and the summaries with what the files and the rows say, and mends what differs.
 *
 * Settings that decide how files are read have to be those that they were loaded with.
 */
export async function verify(needs: VerificationNeeds, options: VerificationOptions): Promise<VerificationReport> {
  const { store, config } = needs;
  const { share, repair, goesOn, maxHours } = options;
  const isWhole = share === 1 && maxHours === undefined;
  const report = emptyReport();
  const judge = createJudge(report, repair);
  const sample = createDayHours();
  const onTouched = (hour: TouchedHour) => {
    if (!isWhole && sample.keys() < (maxHours ?? SAMPLED_HOURS)) sample.add(hour);
  };
  const checkFile = createFileCheck(needs, judge, report, onTouched, repair);
  const unread: Claim[] = [];
  const files = allFiles(config.DATA_DIR, (folder, error) => unread.push(unreadable(folder, error)));
  for await (const batch of inBatches(files, goesOn)) {
    await Promise.all(batch.filter(() => Math.random() < share).map(checkFile));
    for (const _file of batch) options.onFile?.(report);
  }
  await judge(unread);

  /** What `find` finds of a day and the next aggregation is not about to change, by what was announced after `since`. */
  async function dueProblem(
    stored: StoredDay,
    find: () => Promise<readonly Doubt[]>,
    since = -Infinity,
  ): Promise<string | undefined> {
    // In this order: a row that is found has been aggregated before, or announced in an entry that is read after it.
    const { watermark } = await readAggregationState(store);
    const doubts = await find();
    if (doubts.length === 0) return undefined;
    const pending = await pendingHours(store, stored.vehicleId, Math.max(watermark, since));
    const isPending = [...pending].some((hour) => dayOf(hour) === stored.day);
    const due = doubts.filter(({ hour }) => (hour === undefined ? !isPending : !pending.has(hour)));
    report.notDue += due.length === 0 ? 1 : 0;
    return due.length === 0 ? undefined : due.map(({ what }) => what).join(', ');
  }
  /** Of a file that is there and that the ledger does not know, or is about to load once more, its own check tells. */
  const isStray = ({ what: name, version, state }: StrayFile) => {
    const file = { name, version };
    const isToBeLoaded = state === undefined || (state === 'superseded' && isInFolder(config.DATA_DIR, file));
    return !isToBeLoaded || !isThere(needs, file);
  };
  /** Whether no job is about to load it, once more perhaps. */
  const isIdle = async ({ what: name, version }: StrayFile) => !(await hasJob(needs.ingestQueue, { name, version }));
  const announced = createChangeLog(store, config.SETTLE_SECONDS * 1000);
  /** An aggregation that is under way may make the day of hours that it read before: a later one makes it again. */
  function mendDay({ stored, hours }: DayHours, epoch: Promise<bigint>): Promise<void> {
    const some = hours === 'all' ? [Date.parse(stored.day)] : [...hours];
    const touched = some.map((hour) => ({ vehicleId: stored.vehicleId, hour }));
    return announced(undefined, touched, async () => recomputeDay(store, stored, hours, await epoch));
  }
  for await (const days of inBatches(isWhole ? allDays(store) : sample.take(), goesOn)) {
    let claimed: ReturnType<typeof claimEpoch> | undefined;
    const claims = days.map(({ stored, hours }): Claim => {
      // What mending announces is no excuse for what is wrong after it.
      let mendedAt: number | undefined;
      return {
        what: `${stored.day} of vehicle ${stored.vehicleId}: not what its rows give`,
        problem: () => dueProblem(stored, () => wrongSummaries(store, stored, hours), mendedAt),
        mend: async () => {
          await mendDay({ stored, hours }, (claimed ??= claimEpoch(store)));
          mendedAt = store.now();
        },
      };
    });
    const strays = days.map(({ stored }): Claim => {
      const find = async () => (await strayFiles(store, stored)).filter(isStray);
      return {
        what: `${stored.day} of vehicle ${stored.vehicleId}: ${STRAY}`,
        problem: () => dueProblem(stored, find),
      };
    });
    await judge(isWhole ? [...claims, ...strays] : claims);
    report.days += days.length;
  }
  for await (const months of inBatches(isWhole ? reportedMonths(store) : [], goesOn)) {
    const strays = months.map(({ vehicleId, month }): Claim => {
      const problem = async () => {
        const found = (await strayFiles(store, { vehicleId, month })).filter(isStray);
        const idle = await Promise.all(found.map(isIdle));
        return found.flatMap(({ what }, index) => (idle[index] === true ? [what] : [])).join(', ') || undefined;
      };
      return { what: `${month} of vehicle ${vehicleId}: status reports, ${STRAY}`, problem };
    });
    await judge(strays);
  }
  if (isWhole && goesOn()) report.gone = await countGone(needs);
  return report;
}

function createJudge(report: VerificationReport, repair: boolean): Judge {
  return async (claims, mend = mendAll) => {
    const judged = await Promise.all(claims.map(async (claim) => ({ claim, problem: await claim.problem() })));
    const wrong = judged.filter(({ problem }) => problem !== undefined);
    if (repair && wrong.length > 0) await mend(wrong.map(({ claim }) => claim));
    for (const { claim, problem = '' } of wrong) {
      const mended = repair && claim.mend !== undefined && (await claim.problem()) === undefined;
      report.differences += 1;
      report.mended += mended ? 1 : 0;
      if (report.examples.length < MAX_EXAMPLES) report.examples.push({ what: claim.what, problem, mended });
    }
  };
}

/** Every day that has rows or summaries, once. */
async function* allDays(store: Store): AsyncGenerator<DayHours> {
  for (let share = 0; share < TOKEN_SHARES; share += 1) {
    const days = createDayHours();
    for await (const stored of storedDays(store, share, TOKEN_SHARES)) days.add(stored);
    yield* days.take();
  }
}

/** Whether a file of the name is in the folder or in the archive. */
function isThere({ config }: VerificationNeeds, version: FileVersion): boolean {
  return placesOf(version).some((place) => existsSync(join(config.DATA_DIR, place)));
}

/** Versions that the ledger says are loaded, of whose name no file is left. */
async function countGone(needs: VerificationNeeds): Promise<number> {
  let gone = 0;
  for await (const { name, version, state } of readLedger(needs.store))
    if (state === 'loaded' && !isThere(needs, { name, version })) gone += 1;
  return gone;
}

async function* inBatches<T>(items: AsyncIterable<T> | Iterable<T>, goesOn: () => boolean): AsyncGenerator<T[]> {
  let batch: T[] = [];
  for await (const item of items) {
    if (!goesOn()) return;
    if (batch.push(item) < AT_ONCE) continue;
    yield batch;
    batch = [];
  }
  yield batch;
}

/** Starts the worker that verifies a sample when the schedule says so; it reports and mends nothing. */
export function createVerificationWorker(needs: ProcessorNeeds): Worker {
  const { config, counters, log } = needs;
  const goesOn = () => worker.closing === undefined;
  const run = async (job: Job): Promise<VerificationReport> => {
    const files = await countFiles(config.DATA_DIR, goesOn);
    const share = Math.min(config.VERIFY_SAMPLE, SCHEDULED.files / (files + 1));
    const report = await verify(needs, { share, maxHours: SCHEDULED.hours, repair: false, goesOn });
    const { differences, examples } = report;
    counters.add('verified_files_total', report.files);
    counters.add('verified_records_total', report.records);
    counters.add('verification_differences_total', differences);
    for (const { what, problem } of examples.slice(0, 50)) await job.log(`${what}: ${problem}`);
    if (differences > 0) log.error({ queue: VERIFICATION_QUEUE, differences }, 'stored data differs from the files');
    return { ...report, examples: examples.slice(0, 50) };
  };
  const worker = startWorker(VERIFICATION_QUEUE, run, needs);
  return worker;
}
