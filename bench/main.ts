import { mkdir } from 'node:fs/promises';
import { resolve } from 'node:path';
import { Command, Option } from 'commander';
import { runPlan, type Measurement, type Options, type Runs } from './measurement.ts';
import { aggregation, aggregationKeys } from './measurements/aggregation.ts';
import { drainNow, drainSpread } from './measurements/drain.ts';
import { folder, folderOfAMillion } from './measurements/folder.ts';
import { latency } from './measurements/latency.ts';
import { profile } from './measurements/profile.ts';
import { redisMemory } from './measurements/redis-memory.ts';
import { fileSizes, fleets, replicas } from './measurements/scale.ts';
import { soak } from './measurements/soak.ts';
import { startToRow } from './measurements/start.ts';
import { describeMachine, save, tableOf, type Result } from './report.ts';
import { prepareSpark } from './spark/peer.ts';
import { storage } from './measurements/storage.ts';
import { startStores } from './stores.ts';

const RESULTS = resolve(import.meta.dirname, 'results');

const measurements: readonly Measurement[] = [
  ...[drainNow, drainSpread, latency, aggregation, aggregationKeys, replicas, fleets, fileSizes],
  ...[folder, folderOfAMillion, startToRow, redisMemory, storage, profile, soak],
];
/** Run only when they are asked for by name, for they take long. */
const ASKED_FOR: readonly Measurement[] = [folderOfAMillion, storage, profile, soak];

const program = new Command('bench')
  .description('Measures the pipeline beside its baselines, and writes bench/results/.')
  .option('--quick', 'smaller loads and fewer rounds: a few minutes', false)
  .option('--with-spark', 'fetch Spark and measure it, too, in the same rounds', false)
  .option('--rounds <n>', 'counted rounds of each', Number)
  .option('--minutes <n>', 'of the soak', Number, 60)
  .option('--processors <n...>', 'numbers of replicas that drain; 1 and 2 unless said otherwise')
  .option('--nodes <path...>', 'other Nodes that drain in the same rounds, beside the one that runs this')
  .addOption(
    new Option('--only <name...>', 'only these; the long ones run only when they are named').choices(
      measurements.map(({ name }) => name),
    ),
  );

const { only, quick, withSpark, rounds, minutes, processors, nodes } = program
  .parse()
  .opts<{
    only?: string[];
    quick: boolean;
    withSpark: boolean;
    rounds?: number;
    minutes: number;
    processors?: string[];
    nodes?: string[];
  }>();
const options: Options = {
  quick,
  withSpark,
  rounds: rounds ?? (quick ? 2 : 5),
  minutes: quick ? Math.min(minutes, 2) : minutes,
  processors: processors?.map(Number) ?? [1, 2],
  nodes: nodes ?? [],
  say: (line) => console.log(line),
};

if (withSpark) await prepareSpark();
await mkdir(RESULTS, { recursive: true });
console.log(await describeMachine());
const stores = await startStores();
// Ctrl-C: the roles hear it, too, and the stores are stopped last.
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => void stores.stop().then(() => process.exit(130)));
let failed = false;
try {
  for (const measurement of measurements) {
    if (only === undefined ? ASKED_FOR.includes(measurement) : !only.includes(measurement.name)) continue;
    console.log(`\n${measurement.name}: ${measurement.about}`);
    const plan = await measurement.plan(stores, options);
    const result = (runs: readonly Runs[]): Result => {
      return { measurement: measurement.name, about: measurement.about, options, runs, goals: plan.goals ?? [] };
    };
    const runs = await runPlan(plan, options, (soFar) => save(RESULTS, result(soFar))).finally(plan.close);
    console.log(`\n${tableOf(result(runs))}`);
    failed ||= runs.some(({ failures }) => failures.length > 0);
  }
} finally {
  await stores.stop();
}
process.exit(failed ? 1 : 0);
