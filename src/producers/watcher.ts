import { createReadStream } from 'node:fs';
import { join, relative, sep } from 'node:path';
import { text } from 'node:stream/consumers';
import { watch } from 'chokidar';
import type { Logger } from 'pino';
import { datasetOf } from '../datasets/catalog.ts';
import { versionOf, type IngestJob } from '../queues/ingest.ts';
import { currentVersion, isScanned } from './data-folder.ts';

/** A file that is written in place is queued after it has stood still for this long. */
const STILL_MS = 200;
/** Bytes of a file's end that are looked at for the array's closing bracket. */
const TAIL_BYTES = 16;

/**
 * Watches the data folder and calls back for each version that arrives and is likely whole. It is only a hint: what it
 * misses (a network file system that sends no events, a burst, a restart) reconciliation finds.
 */
export async function watchFolder(dataDir: string, onArrival: (file: IngestJob) => void, log: Logger) {
  const timers = new Map<string, NodeJS.Timeout>();

  function lookIn(ms: number, name: string, before?: IngestJob): void {
    clearTimeout(timers.get(name));
    const timer = setTimeout(() => {
      timers.delete(name);
      look(name, before).catch((error: unknown) => log.warn({ file: name, err: error }, 'file left to reconciliation'));
    }, ms);
    timers.set(name, timer);
  }
  async function look(name: string, before: IngestJob | undefined): Promise<void> {
    const file = await currentVersion(dataDir, name);
    if (file === undefined) return;
    const hasStoodStill = before !== undefined && versionOf(before) === versionOf(file);
    if (hasStoodStill || (await endsAsArray(join(dataDir, name), file.size).catch(() => false))) onArrival(file);
    else lookIn(STILL_MS, name, file);
  }

  const watcher = watch(dataDir, {
    ignoreInitial: true,
    followSymlinks: false,
    ignored: (path, stats) => {
      const below = relative(dataDir, path);
      return !isScanned(below) || (stats?.isFile() === true && datasetOf(below) === undefined);
    },
  });
  watcher.on('all', (_event, path) => {
    const name = relative(dataDir, path).split(sep).join('/');
    if (datasetOf(name) !== undefined) lookIn(0, name);
  });
  watcher.on('error', (error) => log.warn({ err: error }, 'watching failed, reconciliation goes on'));
  await new Promise<void>((resolve) => watcher.once('ready', resolve));
  const close = async () => {
    for (const timer of timers.values()) clearTimeout(timer);
    await watcher.close();
  };
  return { close };
}

/** Whether an array's closing bracket is there, so that waiting would be in vain. The processor is the judge. */
async function endsAsArray(path: string, size: number): Promise<boolean> {
  if (!path.endsWith('.json') || size === 0) return false;
  const tail = await text(createReadStream(path, { start: Math.max(0, size - TAIL_BYTES), end: size }));
  return tail.trimEnd().endsWith(']');
}
