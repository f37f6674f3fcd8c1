import { fork } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { checkAggregated, checkLedger, checkRows } from '../check.ts';
import type { Contender, Goal, Measurement, Options } from '../measurement.ts';
import { usageOf, watchUsage } from '../processes.ts';
import { createProvider, putAll, type ProviderOptions } from '../provider.ts';
import { openSpace, until } from '../space.ts';
import { drainWithSpark } from '../spark/peer.ts';
import type { Stores } from '../stores.ts';

/** A younger file may still be written; reconciliation leaves it for a moment. */
const YOUNG_MS = 2_100;
export const SPEED = 'drained, records/s';
const CPU = 'processor time, s';
const MEMORY = 'peak memory, MB';
const CASSANDRA = 'processor time of Cassandra, s';
const REDIS = 'of which Redis, s';

/** A backlog of files, queued and not yet loaded, and who is to load it. */
export interface Backlog {
  readonly provider: ProviderOptions;
  /** Of an event and a status file each. */
  readonly pairs: number;
  readonly processors: number;
  /** Variables of the pipeline. */
  readonly environment?: Readonly<Record<string, string | number>>;
  /** Path of the Node that all run on; the one that runs this unless said otherwise. */
  readonly node?: string | undefined;
}

/** What the provider of the backlog is; other records each round. */
export function providerOf(round: number, changes: Partial<ProviderOptions> = {}): ProviderOptions {
  const start = Date.now() - 7_200_000;
  return { records: 100, vehicles: 100, statusTimes: 'now', seed: round + 1, start, ...changes };
}

/**
 * A space whose files lie in the folder and are queued, with a watcher and processors that work; nothing is loaded.
 *
 * @param nodeArgs options of Node for the processors
 */
export async function openBacklog(
  stores: Stores,
  { provider, pairs, processors, environment, node }: Backlog,
  nodeArgs: readonly string[] = [],
) {
  const space = await openSpace(stores, environment);
  try {
    const files = [...createProvider(provider).pairs(pairs)];
    await putAll(space.config.DATA_DIR, files);
    await sleep(YOUNG_MS);
    const watcher = space.startRole('watch', [], node);
    await watcher.ready();
    await until('all files are queued', async () => (await space.unfinished()) === files.length);
    await space.ingest.pause();
    const replicas = Array.from({ length: processors }, () => space.startRole('process', nodeArgs, node));
    await Promise.all(replicas.map((replica) => replica.ready()));
    const pids = [watcher.pid, stores.redisPid, ...replicas.map(({ pid }) => pid)];
    // Asked seldom, since each time costs the machine that is measured.
    const isDone = async () => (await space.unfinished()) === 0;
    const drained = () => until('all files are done', isDone, { everyMs: 100 });
    return { space, files, pids, replicas, drained };
  } catch (error) {
    await space.close();
    throw error;
  }
}

/** The pipeline: watcher, processors and Redis, each a process, drain a backlog to the last row of the ledger. */
export async function drain(stores: Stores, backlog: Backlog) {
  const { space, files, pids, drained } = await openBacklog(stores, backlog);
  try {
    const usage = await watchUsage(pids);
    const ofStores = () => Promise.all([stores.cassandraPid, stores.redisPid].map((pid) => usageOf([pid])));
    const before = await ofStores();
    const started = performance.now();
    await space.ingest.resume();
    await drained();
    const seconds = (performance.now() - started) / 1_000;
    const { cpuSeconds, peakRssBytes } = await usage.stop();
    const after = await ofStores();
    const [ofCassandra = 0, ofRedis = 0] = after.map((now, of) => now.cpuSeconds - (before[of]?.cpuSeconds ?? 0));
    await checkLedger(space.client, files);
    await checkRows(space.client, files);
    await checkAggregated(space, files);
    const records = files.length * backlog.provider.records;
    const figures = { [SPEED]: records / seconds, [CPU]: cpuSeconds, [REDIS]: ofRedis, [MEMORY]: peakRssBytes / 1e6 };
    return { figures: { ...figures, [CASSANDRA]: ofCassandra } };
  } finally {
    await space.close();
  }
}

/** The ceiling: the bare driver writes the rows of the same files, in memory and sorted by partition beforehand. */
async function writeBare(stores: Stores, pairs: number, provider: ProviderOptions) {
  const space = await openSpace(stores);
  const task = { port: stores.cassandraPort, keyspace: space.config.CASSANDRA_KEYSPACE, pairs, provider };
  const writer = fork(new URL('../ceiling.ts', import.meta.url), [JSON.stringify(task)], {
    execArgv: ['--import', 'tsx'],
  });
  try {
    const pid = writer.pid ?? 0;
    await once(writer, 'message');
    const before = await usageOf([pid]);
    const cassandra = await usageOf([stores.cassandraPid]);
    const done = once(writer, 'message');
    writer.send('go');
    const [seconds] = await done;
    const { cpuSeconds, rssBytes } = await usageOf([pid]);
    const after = (await usageOf([stores.cassandraPid])).cpuSeconds;
    writer.send('end');
    await checkRows(space.client, [...createProvider(provider).pairs(pairs)]);
    const figures = {
      [SPEED]: (pairs * 2 * provider.records) / Number(seconds),
      [CPU]: cpuSeconds - before.cpuSeconds,
    };
    return { figures: { ...figures, [MEMORY]: rssBytes / 1e6, [CASSANDRA]: after - cassandra.cpuSeconds } };
  } finally {
    writer.kill();
    await space.close();
  }
}

async function plan(statusTimes: ProviderOptions['statusTimes'], stores: Stores, options: Options) {
  const pairs = options.quick ? 300 : 2_000;
  const provider = (round: number) => providerOf(round, { statusTimes });
  const onNode = (node?: string, version = '') =>
    options.processors.map((processors): Contender => {
      const name = `pipeline, ${processors} processor${processors === 1 ? '' : 's'}${version}`;
      return { name, run: (round) => drain(stores, { provider: provider(round), pairs, processors, node }) };
    });
  const ours = onNode();
  for (const node of options.nodes) ours.push(...onNode(node, `, Node ${(await execa(node, ['--version'])).stdout}`));
  const bare: Contender = { name: 'ceiling', run: (round) => writeBare(stores, pairs, provider(round)) };
  const spark: Contender = { name: 'Spark', run: (round) => drainWithSpark(stores, pairs, provider(round)) };
  const goals = ours.flatMap(({ name: of }): Goal[] => [
    { of, figure: SPEED, against: bare.name, atLeast: 0.9 },
    ...(options.withSpark
      ? [
          { of, figure: SPEED, against: spark.name, atLeast: 3 },
          { of, figure: CPU, against: spark.name, atMost: 0.25 },
          { of, figure: MEMORY, against: spark.name, atMost: 0.2 },
        ]
      : []),
  ]);
  // The first millions of rows are what Cassandra compiles its code by; after four rounds, that takes some 2 of its 15 s.
  return { contenders: [...ours, bare, ...(options.withSpark ? [spark] : [])], goals, warmUps: options.quick ? 1 : 4 };
}

export const drainNow: Measurement = {
  name: 'drain',
  about: 'a backlog of event and status files of 100 records, fleet of 100 vehicles, reports of the moment',
  plan: (stores, options) => plan('now', stores, options),
};

export const drainSpread: Measurement = {
  name: 'drain-spread',
  about: 'the same, with status reports of any time since 1970, as in the samples: hardly two share a partition',
  plan: (stores, options) => plan('spread', stores, options),
};
