import { createReadStream, lstatSync, statSync, watch, type FSWatcher } from 'node:fs';
import { opendir } from 'node:fs/promises';
import { join, sep } from 'node:path';
import { text } from 'node:stream/consumers';
import type { Logger } from 'pino';
import { datasetOf } from '../datasets/catalog.ts';
import { versionOf, type IngestJob } from '../queues/ingest.ts';
import { isScanned, UNTOLD_VERSION, versionNow } from '../data-folder.ts';
import { isOfSystem } from '../runtime.ts';

/** A file that is written in place is queued after it has stood still for this long. */
const STILL_MS = 200;
/** A file that is being written is looked at no more often. */
const LOOK_EVERY_MS = 20;
/** A file of a new folder that changed, or came there, longer ago is left to reconciliation. */
const FRESH_MS = 60_000;
/** Bytes of a file's end that are looked at for the array's closing bracket. */
const TAIL_BYTES = 16;

/**
 * Watches the data folder, one watch a folder, and calls back for each version that arrives and is likely whole. It is
 * only a hint: what it misses (a network file system that sends no events, a burst, a restart) reconciliation finds.
 */
export async function watchFolder(dataDir: string, onArrival: (file: IngestJob) => void, log: Logger) {
  const looks = new Map<string, { readonly timer: NodeJS.Timeout; readonly at: number; readonly last: number }>();
  const watches = new Map<string, { readonly id: string; readonly watcher: FSWatcher }>();
  let closed = false;

  /** Looks at a file soon, but not while it is written more often than is of use; one look is to come at most. */
  function lookSoon(name: string): void {
    const { at = Infinity, last = -Infinity } = looks.get(name) ?? {};
    const soon = Math.max(performance.now(), last + LOOK_EVERY_MS);
    if (soon < at) lookAt(soon, name, last);
  }
  function lookAt(at: number, name: string, last: number, before?: IngestJob): void {
    // There may be one again since the look that this one follows has begun.
    clearTimeout(looks.get(name)?.timer);
    const timer = setTimeout(
      () => {
        looks.delete(name);
        look(name, before).catch((error: unknown) =>
          log.warn({ file: name, err: error }, 'file left to reconciliation'),
        );
      },
      Math.max(0, at - performance.now()),
    );
    looks.set(name, { timer, at, last });
  }
  async function look(name: string, before: IngestJob | undefined): Promise<void> {
    const file = versionNow(dataDir, name);
    // Only of a name that a folder lists now can one say that the file is there, and why it cannot be looked at.
    if (file === undefined || versionOf(file) === UNTOLD_VERSION) return;
    const hasStoodStill = before !== undefined && versionOf(before) === versionOf(file);
    if (hasStoodStill || (await endsAsArray(join(dataDir, name), file.size).catch(() => false))) onArrival(file);
    else lookAt(performance.now() + STILL_MS, name, performance.now(), file);
  }

  /** Watches a folder and those below it; of one that is new, what came before the watch is looked at, too. */
  async function watchBelow(folder: string, isNew: boolean): Promise<void> {
    const path = join(dataDir, folder);
    // A link to a folder below is not followed, as by reconciliation.
    const found = (folder === '' ? statSync : lstatSync)(path, { bigint: true, throwIfNoEntry: false });
    const known = watches.get(folder);
    // An inode is used again at once.
    const id = found?.isDirectory() === true ? `${found.ino} ${found.birthtimeNs}` : undefined;
    if (closed || (id !== undefined && id === known?.id)) return;
    known?.watcher.close();
    watches.delete(folder);
    if (id === undefined) return;
    const watcher = watch(path, (_event, name) => {
      if (name !== null) onChange(join(folder, name));
    });
    watcher.on('error', (error) => log.warn({ folder, err: error }, 'watching failed, reconciliation goes on'));
    watches.set(folder, { id, watcher });
    for await (const entry of await opendir(path, { bufferSize: 512 })) {
      const below = join(folder, entry.name);
      if (isNew && (entry.isDirectory() || isFresh(below))) onChange(below);
      else if (entry.isDirectory() && isScanned(below)) await ensure(below, false);
    }
  }
  /** Whether a file of a new folder came there by itself just now. With an old folder that was moved here comes a backlog. */
  function isFresh(path: string): boolean {
    try {
      return Date.now() - lstatSync(join(dataDir, path)).ctimeMs < FRESH_MS;
    } catch (error) {
      if (!isOfSystem(error)) throw error;
      return false;
    }
  }
  function onChange(path: string): void {
    if (datasetOf(path) !== undefined) lookSoon(path.split(sep).join('/'));
    else if (isScanned(path)) void ensure(path, true);
  }
  const ensure = (folder: string, isNew: boolean) =>
    watchBelow(folder, isNew).catch((error: unknown) => {
      log.warn({ folder, err: error }, 'a folder is not watched, its files are left to reconciliation');
    });

  await ensure('', false);
  return {
    /** Watches the data folder anew, if it is another one by now. */
    refresh: () => ensure('', false),
    close: () => {
      closed = true;
      for (const { timer } of looks.values()) clearTimeout(timer);
      for (const { watcher } of watches.values()) watcher.close();
    },
  };
}

/** Whether an array's closing bracket is there, so that waiting would be in vain. The processor is the judge. */
async function endsAsArray(path: string, size: number): Promise<boolean> {
  if (!path.endsWith('.json') || size === 0) return false;
  const tail = await text(createReadStream(path, { start: Math.max(0, size - TAIL_BYTES), end: size }));
  return tail.trimEnd().endsWith(']');
}
