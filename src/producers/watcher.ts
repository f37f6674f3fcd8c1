import { open } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { watch } from 'chokidar';
import type { Logger } from 'pino';
import { datasetOf } from '../datasets/catalog.ts';
import type { IngestJob } from '../queues/ingest.ts';
import { currentVersion, isScanned, nameOf } from './data-folder.ts';

/** A file that is written in place is queued after it has stood still for this long. */
const STILL_MS = 200;
/** Bytes of a file's end that are looked at for the array's closing bracket. */
const TAIL_BYTES = 16;

/** The watcher's hints: files that have just arrived and are likely whole. */
export interface Watcher {
  readonly close: () => Promise<void>;
}

/**
 * Watches the data folder for files that arrive or change. It is only a hint: what it misses (a network file system
 * that sends no events, a burst, a restart) reconciliation finds.
 *
 * @param onArrival called once for each version that is likely whole
 */
export async function watchFolder({
  dataDir,
  onArrival,
  log,
}: {
  dataDir: string;
  onArrival: (file: IngestJob) => void;
  log: Logger;
}): Promise<Watcher> {
  const pending = new Map<string, NodeJS.Timeout>();

  async function look(name: string, seen: IngestJob | undefined): Promise<void> {
    pending.delete(name);
    const file = await currentVersion(dataDir, name);
    if (file === undefined) return;
    const stoodStill = seen !== undefined && seen.size === file.size && seen.mtimeNs === file.mtimeNs;
    if (stoodStill || (await endsAsArray(join(dataDir, name), file.size))) onArrival(file);
    else
      pending.set(
        name,
        setTimeout(() => lookSafely(name, file), STILL_MS),
      );
  }
  function lookSafely(name: string, seen: IngestJob | undefined): void {
    look(name, seen).catch((error: unknown) => log.warn({ file: name, err: error }, 'file left to reconciliation'));
  }
  function onEvent(path: string): void {
    const name = nameOf(dataDir, path);
    if (datasetOf(name) === undefined) return;
    clearTimeout(pending.get(name));
    lookSafely(name, undefined);
  }

  const watcher = watch(dataDir, {
    ignoreInitial: true,
    followSymlinks: false,
    ignored: (path, stats) => {
      const below = relative(dataDir, path);
      return below !== '' && (!isScanned(below) || (stats?.isFile() === true && datasetOf(below) === undefined));
    },
  });
  for (const event of ['add', 'change', 'addDir'] as const) watcher.on(event, onEvent);
  watcher.on('error', (error) => log.warn({ err: error }, 'watching failed, reconciliation goes on'));
  await new Promise<void>((resolve) => watcher.once('ready', resolve));

  return {
    close: async () => {
      for (const timer of pending.values()) clearTimeout(timer);
      await watcher.close();
    },
  };
}

/**
 * Whether an uncompressed array's closing bracket is there, so that waiting would be in vain. A file that is cut just
 * there by chance costs a retry: the processor is the judge.
 */
async function endsAsArray(path: string, size: number): Promise<boolean> {
  if (!path.endsWith('.json') || size === 0) return false;
  const handle = await open(path, 'r').catch(() => undefined);
  if (handle === undefined) return false;
  try {
    const buffer = Buffer.alloc(Math.min(TAIL_BYTES, size));
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, size - buffer.length);
    return buffer.toString('latin1', 0, bytesRead).trimEnd().endsWith(']');
  } catch {
    return false;
  } finally {
    await handle.close();
  }
}
