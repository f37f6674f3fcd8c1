import { setTimeout as sleep } from 'node:timers/promises';
import { checkSummaries, createSummaryFold } from '../check.ts';
import { spreadOf, type Measurement, type Options } from '../measurement.ts';
import { handlesOf, usageOf } from '../processes.ts';
import { createProvider, prepare } from '../provider.ts';
import { openSpace, until } from '../space.ts';
import type { Stores } from '../stores.ts';
import { providerOf } from './drain.ts';

/** Ten times the provider's rate of two files each half second. */
const EVERY_MS = 50;
const LOOK_EVERY_MS = 5_000;
/** What grows by more than this from the second quarter of the run to the last one grows. */
const MOST_GROWTH = 1.15;

type Points = (readonly [number, number])[];

/** How much the median of the last quarter is above that of the second one, when everything was warm. */
function growthOf(points: Points): number {
  const quarter = (index: number) => points.slice((points.length * index) / 4, (points.length * (index + 1)) / 4);
  const median = (part: Points) => spreadOf(part.map(([, value]) => value))?.median ?? NaN;
  return median(quarter(3)) / Math.max(1, median(quarter(1)));
}

async function runSoak(stores: Stores, { minutes }: Options) {
  // Loaded files leave the folder, as on a machine that is to run for ever.
  const space = await openSpace(stores, { AFTER_LOAD: 'delete', BOARD_PORT: 0 });
  try {
    const names = ['watch', 'process', 'process', 'board'];
    const roles = names.map((name) => space.startRole(name));
    const provider = createProvider(providerOf(1, { start: Date.now() }));
    const series: Record<string, Points> = {};
    const started = performance.now();
    const note = (name: string, value: number) => {
      (series[name] ??= []).push([(performance.now() - started) / 1_000, value]);
    };
    const look = async () => {
      for (const [index, { pid }] of roles.entries()) {
        const name = index === 2 ? 'process 2' : names[index];
        const { rssBytes } = await usageOf([pid]);
        const { descriptors, inotifyWatches } = await handlesOf(pid);
        note(`${name ?? ''}: memory, MB`, rssBytes / 1e6);
        note(`${name ?? ''}: descriptors`, descriptors);
        if (name === 'watch') note('watch: inotify watches', inotifyWatches);
      }
      note('redis: used memory, MB', Number(/used_memory:(\d+)/.exec(await space.redis.info('memory'))?.[1]) / 1e6);
      note('redis: keys', await space.redis.dbsize());
      note('files that wait', await space.unfinished());
    };
    const timer = setInterval(() => void look(), LOOK_EVERY_MS);
    const fold = createSummaryFold();
    let files = 0;
    for (let due = started; due < started + minutes * 60_000; due += EVERY_MS) {
      for (const kind of ['events', 'status'] as const) {
        const file = provider.file(kind, Date.now());
        fold.add(file.events);
        files += 1;
        await (
          await prepare(space.config.DATA_DIR, file)
        )();
      }
      await sleep(Math.max(0, due + EVERY_MS - performance.now()));
    }
    clearInterval(timer);
    const loadedAll = async () => {
      let loaded = 0;
      // Page by page: to count as many in one question takes longer than Cassandra allows.
      for await (const row of await space.client.execute('SELECT state FROM files'))
        if (row['state'] === 'loaded') loaded += 1;
      return loaded === files;
    };
    await until('all files are loaded', loadedAll, { everyMs: 1_000, withinMs: 120_000 });
    const expected = fold.result();
    const isRight = async () =>
      (await checkSummaries(space.client, expected).catch((error: unknown) => error)) === undefined;
    await until('the summaries are right', isRight, { everyMs: 2_000, withinMs: 180_000 });
    const grown = Object.entries(series).map(([name, points]) => [`${name}: growth`, growthOf(points)] as const);
    const most = Math.max(...grown.filter(([name]) => !name.startsWith('files')).map(([, growth]) => growth));
    return { figures: { files, ...Object.fromEntries(grown), 'greatest growth': most }, series };
  } finally {
    await space.close();
  }
}

export const soak: Measurement = {
  name: 'soak',
  about: 'ten times the provider’s rate: what processes and Redis hold over time',
  plan: (stores, options) => ({
    contenders: [{ name: 'pipeline', run: () => runSoak(stores, options) }],
    goals: [{ of: 'pipeline', figure: 'greatest growth', atMost: MOST_GROWTH }],
    warmUps: 0,
    rounds: 1,
  }),
};
