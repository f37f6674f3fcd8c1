import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { Command, InvalidArgumentError } from 'commander';
import { faults, killAtStep, type Fault, type Scene } from './faults.ts';
import { addFigures, readFigures, tablesOf, type Figures } from './figures.ts';
import { differencesOf, readStored, sorted, type Differences, type Stored } from './invariants.ts';
import { startObserver, type Observer } from './observer.ts';
import { createProvider, type ProvidedFile, type Provider } from './provider.ts';
import { createRandom, type Random } from './random.ts';
import { startRig, type Rig } from './rig.ts';

/** After the last file and the last fault of a round, all has to be right within this time. */
const QUIET_MS = 240_000;
/** Steps that a process takes only when it starts, and so not while it is waited for them. */
const START_ONLY = /schema_migrations|addJob aggregation$/;
/** Older files that are queued again after a round, beside all of the round's own. */
const OLDER_FILES = 50;

interface Options {
  readonly seed: number;
  readonly rounds: number;
  readonly seconds: number;
  readonly faults: string;
  readonly report?: string;
}

/** What the suite looks for: something that is not as it has to be. */
class Violation extends Error {
  override name = 'Violation';
  readonly differences: Differences | undefined;

  constructor(message: string, differences?: Differences) {
    super(message);
    this.differences = differences;
  }
}

/** Deals all of them in a random order, again and again. */
function createDeck<T>(random: Random, all: () => readonly T[]): () => T | undefined {
  let left: T[] = [];
  return () => {
    if (left.length === 0) left = random.shuffle(all());
    return left.pop();
  };
}

/** Steps without which the suite would watch what the program does not use any more. */
const ALWAYS_SEEN = ['process folder open', 'process redis moveToCompleted ingest', 'watch redis addJobs ingest'];

/** A kill before and after each step that was seen in the calm round, in an order that a seed repeats. */
async function killsAtSteps(rig: Rig): Promise<Fault[]> {
  const lines = (await rig.told('steps.txt')).split('\n');
  const steps = new Set(lines.filter((step) => /^(process|watch) /.test(step) && !START_ONLY.test(step)));
  const unseen = ALWAYS_SEEN.filter((step) => !steps.has(step));
  if (unseen.length > 0) throw new Error(`Not seen: ${unseen.join(', ')}. Mend test/torture/failpoints.js.`);
  return [...steps].sort().flatMap((step) => [killAtStep(step, 'before'), killAtStep(step, 'after')]);
}

/** The jobs that are not done, by queue and state; the schedule's next run is none of them. */
async function unfinishedJobs({ queues }: Rig): Promise<string[]> {
  const busy = ['waiting', 'active', 'prioritized', 'waiting-children'] as const;
  const counts = await Promise.all([
    queues.ingest.getJobCounts(...busy, 'delayed', 'failed'),
    queues.deadLetter.getJobCounts(...busy, 'delayed'),
    queues.aggregation.getJobCounts(...busy),
    queues.slices.getJobCounts(...busy, 'delayed'),
  ]);
  return counts.flatMap((states, index) =>
    Object.entries(states).flatMap(([state, count]) =>
      count > 0 ? [`${Object.keys(queues)[index]} ${state}: ${count}`] : [],
    ),
  );
}

/** What a person does with a good file whose processors were killed too often: presses Retry. */
async function retryGivenUp({ queues, note }: Rig, pending: readonly ProvidedFile[]): Promise<number> {
  const good = new Set(pending.filter(({ expected }) => expected === 'loaded').map(({ name }) => name));
  const letters = good.size === 0 ? [] : await queues.deadLetter.getFailed();
  const givenUp = letters.filter(
    ({ data, failedReason }) => good.has(String(data['name'])) && failedReason.startsWith('ended '),
  );
  for (const letter of givenUp) {
    note(`Retry of ${String(letter.data['name'])}: ${letter.failedReason}`);
    await letter.retry();
  }
  return givenUp.length;
}

/** Resolves, with everything that is stored, when all is as it has to be. @throws Violation when it is not in time */
async function allRight(rig: Rig, provider: Provider, observer: Observer, count: { givenUp: number }): Promise<Stored> {
  const until = Date.now() + QUIET_MS;
  let problem = 'nothing was looked at';
  let differences: Differences | undefined;
  while (Date.now() < until) {
    await sleep(300);
    const pending = observer.pending();
    count.givenUp += await retryGivenUp(rig, pending);
    const jobs = await unfinishedJobs(rig);
    if (pending.length + jobs.length > 0) {
      differences = undefined;
      problem = [...jobs, ...pending.slice(0, 10).map(({ name, version }) => `not settled: ${name} ${version}`)].join(
        '\n',
      );
      continue;
    }
    const stored = await readStored(rig);
    differences = await differencesOf(stored, provider.files, rig.data);
    if (Object.values(differences).flat().length === 0) return stored;
    problem = Object.entries(differences)
      .map(([kind, lines]: [string, string[]]) => [`${kind}: ${lines.length}`, ...lines.slice(0, 8)].join('\n  '))
      .join('\n');
  }
  throw new Violation(`Not right ${QUIET_MS / 1_000} s after the last file:\n${problem}`, differences);
}

/** Queues files that are settled once more, as somebody with a board can: nothing may change. Not those that kill. */
async function queueAgain(rig: Rig, provider: Provider, round: number, random: Random): Promise<void> {
  const settled = [...provider.files.values()].filter(
    ({ expected, name }) => (expected === 'loaded' || expected === 'dead letter') && !name.includes('poison'),
  );
  const older = random.shuffle(settled.filter((file) => file.round !== round)).slice(0, OLDER_FILES);
  const jobs = [...settled.filter((file) => file.round === round), ...older].map(({ name, size, mtimeNs }, n) => ({
    name,
    data: { name, size, mtimeNs },
    opts: { jobId: `again-${round}-${n}`, attempts: 3, removeOnComplete: true },
  }));
  await rig.queues.ingest.addBulk(jobs);
}

/** The files that were to end a processor did so, as often as one is given. */
async function poisonWorked(rig: Rig, provider: Provider): Promise<void> {
  for (const { name } of provider.files.values()) {
    const kills = Math.min(3, Number(/poison(\d+)/.exec(name)?.[1] ?? 0));
    if (kills > 0 && (await rig.told(`${name}.${kills}`)) === '')
      throw new Error(`${name} has not ended ${kills} processors. Mend test/torture/failpoints.js.`);
  }
}

async function boardAnswers({ boardUrl }: Rig): Promise<void> {
  const until = Date.now() + QUIET_MS;
  for (;;) {
    const status = await fetch(`${boardUrl}/healthz`).then((answer) => answer.status, String);
    if (status === 200) return;
    if (Date.now() > until) throw new Violation(`The board does not answer: ${status}`);
    await sleep(300);
  }
}

interface Run extends Scene {
  readonly dealFault: () => Fault | undefined;
  readonly dealStep: () => Fault | undefined;
  readonly count: { faults: number; givenUp: number; longestQuietMs: number };
}

async function makeFaults(run: Run): Promise<void> {
  const { random, rig, observer } = run;
  const make = async (fault: Fault | undefined) => {
    if (fault === undefined) return;
    rig.note(`fault: ${fault.name}`);
    const happened = await fault.run(run);
    rig.note(`over: ${fault.name}${happened ? '' : ' (did not come to it)'}`);
    if (!happened) return;
    run.count.faults += 1;
    observer.faultEnded(fault.name.replace(/^(killed (before|after)): .*/, 'killed between two steps'));
  };
  const [first, second] = [run.dealFault(), run.dealFault()];
  await make(run.dealStep());
  const together =
    first?.place !== second?.place && ![first?.place, second?.place].includes('all') && random.chance(0.3);
  if (together) await Promise.all([make(first), make(second)]);
  else {
    await make(first);
    await sleep(random.int(0, 1_500));
    await make(second);
  }
  await make(run.dealStep());
}

async function playRound(round: number, run: Run, options: Options): Promise<void> {
  const { rig, provider, observer } = run;
  rig.note(`round ${round}`);
  const end = new AbortController();
  // A rebuild is always cut into slices; the windows of these few files never are.
  await rig.queues.aggregation.add('rebuild by the torture suite', { rebuild: true });
  const writing = provider.write(round, createRandom(options.seed, `files of round ${round}`), end.signal);
  await sleep(run.random.int(500, 2_000));
  if (round > 0) await makeFaults(run);
  else await sleep(3_000);
  end.abort();
  await writing;

  const quietFrom = Date.now();
  const before = await allRight(rig, provider, observer, run.count);
  run.count.longestQuietMs = Math.max(run.count.longestQuietMs, Date.now() - quietFrom);
  await poisonWorked(rig, provider);
  await queueAgain(rig, provider, round, run.random);
  const after = await allRight(rig, provider, observer, run.count);
  if (!isDeepStrictEqual(sorted(after), sorted(before)))
    throw new Violation('queueing every file again changed something');
  if (observer.violations.length > 0) throw new Violation(observer.violations.join('\n'));
  await boardAnswers(rig);
}

/**
 * Set by the first Ctrl-C: the round is ended and the figures are printed. Other signals end all at once, with the stores, and so
 * does a second Ctrl-C; the first one comes twice, from the terminal and from the program that started this one.
 */
let stoppedAt: number | undefined;
process.on('SIGINT', () => {
  if (stoppedAt !== undefined && performance.now() - stoppedAt > 1_000) process.exit(1);
  stoppedAt ??= performance.now();
});
for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(1));

async function torture(options: Options): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'torture-'));
  console.log(`seed ${options.seed}, in ${folder}`);
  const startedAt = Date.now();
  const rig = await startRig(folder);
  const provider = createProvider(rig.data);
  const observer = startObserver(rig, provider.files);
  const wanted = new RegExp(options.faults);
  let steps: Fault[] = [];
  const run: Run = {
    ...{ rig, provider, observer, random: createRandom(options.seed, 'round 0') },
    tail: { kills: 0, ledgerRows: 0, eventRows: 0 },
    count: { faults: 0, givenUp: 0, longestQuietMs: 0 },
    dealFault: createDeck(createRandom(options.seed, 'faults'), () => faults.filter(({ name }) => wanted.test(name))),
    dealStep: createDeck(createRandom(options.seed, 'steps'), () => steps.filter(({ name }) => wanted.test(name))),
  };

  let round = 0;
  let violation: Violation | undefined;
  try {
    let lastStart = Infinity;
    // Two rounds with faults are played on a slow machine, too.
    const isTime = () => stoppedAt === undefined && (round <= 2 || Date.now() < lastStart);
    for (; round <= options.rounds && isTime(); round += 1) {
      const from = Date.now();
      await playRound(round, { ...run, random: createRandom(options.seed, `round ${round}`) }, options);
      if (round === 0) {
        steps = await killsAtSteps(rig);
        lastStart = Date.now() + options.seconds * 1_000;
      }
      console.log(
        `round ${round}: ${run.count.faults} faults, ${provider.files.size} files, ${((Date.now() - from) / 1_000).toFixed(1)} s`,
      );
    }
  } catch (error) {
    violation =
      error instanceof Violation ? error : new Violation(error instanceof Error ? String(error.stack) : String(error));
  }
  await observer.stop();
  await rig.close();

  const files = [...provider.files.values()];
  const recoveries: Record<string, number[]> = {};
  for (const { fault, ms } of observer.recoveries) (recoveries[fault] ??= []).push(ms);
  const figures: Figures = {
    seeds: [options.seed],
    rounds: Math.max(0, round - 1),
    ...run.count,
    files: files.length,
    records: files.reduce((sum, { records }) => sum + records, 0),
    lost: violation?.differences?.lost.length ?? 0,
    doubled: violation?.differences?.doubled.length ?? 0,
    wrong: violation?.differences?.wrong.length ?? 0,
    summariesWrong: violation?.differences?.summaries.length ?? 0,
    cassandraKills: run.tail.kills,
    ledgerRowsLost: run.tail.ledgerRows,
    eventRowsLost: run.tail.eventRows,
    longestStallMs: observer.longestStallMs(),
    seconds: (Date.now() - startedAt) / 1_000,
    recoveries,
  };
  console.log(tablesOf(figures));
  console.log(JSON.stringify(figures));
  if (options.report !== undefined) await addFigures(options.report, figures);
  if (violation === undefined) await rm(folder, { recursive: true, maxRetries: 10 });
  else {
    console.log(`VIOLATION with --seed ${options.seed} in round ${round}: ${violation.message}\nkept: ${folder}`);
    process.exitCode = 1;
  }
}

function wholeNumber(text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('Expected a whole number.');
}

await new Command('test:torture')
  .description('Breaks the pipeline and its stores in every way it knows while files arrive, and checks every promise.')
  .option('--seed <n>', 'repeats the decisions of a run', wholeNumber, Math.floor(Math.random() * 1_000_000))
  .option('--rounds <n>', 'rounds at most, after a calm one', wholeNumber, 10)
  .option('--seconds <n>', 'no round begins so long after the first one, which is without faults', wholeNumber, 86_400)
  .option('--faults <pattern>', 'only faults whose name matches the regular expression', '')
  .option('--report <file>', 'add the figures to those in this file')
  .option('--show', 'only print the tables of the report')
  .action(async (options: Options & { show?: boolean }) => {
    if (options.show === true) console.log(tablesOf(await readFigures(options.report ?? '')));
    else await torture(options);
  })
  .parseAsync();
process.exit();
