import { mkdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Contender, Measurement } from '../measurement.ts';
import { handlesOf, usageOf, watchUsage } from '../processes.ts';
import { writePartitions, type Partition } from '../rows.ts';
import { openSpace, until, type Space } from '../space.ts';
import type { Stores } from '../stores.ts';

const AT_ONCE = 200;
const INSERT_FILE =
  "INSERT INTO files (name, version, state, dataset, finished_at) VALUES (?, ?, 'loaded', 'events', ?)";
const RECONCILE_SECONDS = 5;
/** Comparisons of the unchanged folder over which their processor time is taken. */
const COMPARISONS = 4;

/** So many files that the ledger knows as loaded. */
async function fillFolder(space: Space, files: number): Promise<void> {
  await mkdir(space.config.DATA_DIR, { recursive: true });
  for (let first = 0; first < files; first += AT_ONCE) {
    const rows = Array.from({ length: Math.min(AT_ONCE, files - first) }, async (_, index): Promise<Partition> => {
      const name = `vehicles_events_20261122172825${first + index}.json`;
      const path = join(space.config.DATA_DIR, name);
      await writeFile(path, '[]');
      const { size, mtimeNs } = await stat(path, { bigint: true });
      return [{ query: INSERT_FILE, params: [name, `${size}-${mtimeNs}`, new Date()] }];
    });
    await writePartitions(space.client, await Promise.all(rows));
  }
}

/** The watcher starts on a folder of loaded files, one of which is new: when that one is queued, all were compared. */
async function startWatcher(stores: Stores, files: number) {
  const space = await openSpace(stores, { RECONCILE_SECONDS, LOG_LEVEL: 'debug' });
  try {
    await fillFolder(space, files);
    await writeFile(join(space.config.DATA_DIR, 'vehicles_events_new.json'), '[]');
    await sleep(3_000);
    const started = performance.now();
    const watcher = space.startRole('watch');
    const usage = await watchUsage([watcher.pid]);
    await watcher.ready();
    const watching = performance.now();
    await until('the folder is compared', async () =>
      (await watcher.log()).includes('folder compared with the ledger'),
    );
    const compared = performance.now();
    if ((await space.unfinished()) !== 1) throw new Error('what is queued is not the one new file');
    // Until everything that a start entails is over, and the folder was compared again.
    await sleep(RECONCILE_SECONDS * 2_000);
    const before = await usageOf([watcher.pid]);
    await sleep(RECONCILE_SECONDS * COMPARISONS * 1_000);
    const after = await usageOf([watcher.pid]);
    const { peakRssBytes } = await usage.stop();
    const { inotifyWatches } = await handlesOf(watcher.pid);
    return {
      figures: {
        'start to watching, s': (watching - started) / 1_000,
        'start to folder compared, s': (compared - started) / 1_000,
        'peak memory, MB': peakRssBytes / 1e6,
        'a comparison of the unchanged folder, s of processor time':
          (after.cpuSeconds - before.cpuSeconds) / COMPARISONS,
        'inotify watches': inotifyWatches,
      },
    };
  } finally {
    await space.close();
  }
}

function measure(name: string, files: number, startWithin: number, memory?: number): Measurement {
  return {
    name,
    about: `the watcher starts on a folder of ${files} loaded files (a tenth with --quick), and compares it every ${RECONCILE_SECONDS} s`,
    plan: (stores, options) => {
      const count = options.quick ? files / 10 : files;
      const of = `${count} files`;
      const contender: Contender = { name: of, run: () => startWatcher(stores, count) };
      const goals = [
        { of, figure: 'start to folder compared, s', atMost: startWithin },
        ...(memory === undefined ? [] : [{ of, figure: 'peak memory, MB', atMost: memory }]),
        { of, figure: 'a comparison of the unchanged folder, s of processor time', atMost: count / 100_000 },
      ];
      return { contenders: [contender], goals, warmUps: 0, rounds: Math.min(options.rounds, files > 100_000 ? 1 : 3) };
    },
  };
}

export const folder = measure('folder', 100_000, 5, 200);
export const folderOfAMillion = measure('folder-of-a-million', 1_000_000, 60);
