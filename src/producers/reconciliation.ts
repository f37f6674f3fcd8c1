import { mkdir, rename, stat, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Logger } from 'pino';
import type { Config } from '../config.ts';
import { addDeadLetter, deadLetterId, type DeadLetterQueue } from '../queues/dead-letter.ts';
import {
  countUnfinished,
  enqueueFiles,
  mtimeMs,
  versionOf,
  type IngestJob,
  type IngestQueue,
} from '../queues/ingest.ts';
import type { Store } from '../storage/client.ts';
import { readManyVersions, readVersions, type KnownVersion } from '../storage/files.ts';
import { ARCHIVE_FOLDER, currentVersion, namesBelow } from './data-folder.ts';

/** Files that are compared with the ledger, and queued, in one go. */
const PAGE = 500;
const FULL_QUEUE_WAIT_MS = 250;
/** A younger file may still be written; the watcher, or the next comparison, takes it. */
const STILL_MS = 500;

export interface ReconciliationNeeds {
  readonly config: Pick<Config, 'DATA_DIR' | 'INGEST_ATTEMPTS' | 'MAX_QUEUED_FILES' | 'AFTER_LOAD' | 'DURABLE_SECONDS'>;
  readonly store: Store;
  readonly ingestQueue: IngestQueue;
  readonly deadLetterQueue: DeadLetterQueue;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** What one comparison of the folder with the ledger found. */
export interface Reconciled {
  readonly seen: number;
  readonly queued: number;
  readonly removed: number;
  /** Files that were too young to be judged. */
  readonly young: number;
}

/** Compares the folder with the ledger, which is the truth, and queues what is not loaded. */
export interface Reconciliation {
  /** @param below a folder of the data folder; @param onProgress called with the counts so far after each page */
  run(below?: string, onProgress?: (soFar: Reconciled) => void): Promise<Reconciled>;
  /** Forgets what the ledger said: after a loss of the connection it may no longer say so. */
  forget(): void;
  /** Resolves when fewer files than MAX_QUEUED_FILES are unfinished. */
  hasRoom(): Promise<boolean>;
}

function isYoung(file: IngestJob): boolean {
  const ageMs = Date.now() - mtimeMs(file);
  return ageMs >= 0 && ageMs < STILL_MS;
}

export function createReconciliation(needs: ReconciliationNeeds): Reconciliation {
  const { config, store, ingestQueue, deadLetterQueue, log, signal } = needs;
  /** Versions in the folder that need nothing any more, by name; the ledger need not be asked for them again. */
  let settled = new Map<string, string>();

  async function hasRoom(): Promise<boolean> {
    return (await countUnfinished(ingestQueue)) < config.MAX_QUEUED_FILES;
  }

  async function waitForRoom(): Promise<void> {
    while (!signal.aborted && !(await hasRoom())) {
      await new Promise((resolve) => setTimeout(resolve, FULL_QUEUE_WAIT_MS));
    }
  }

  /** @returns how many files of the page were queued and removed; what is settled is put into `settledNow` */
  async function reconcilePage(
    page: readonly IngestJob[],
    settledNow: Map<string, string>,
  ): Promise<{ queued: number; removed: number }> {
    const known = new Map<string, KnownVersion>();
    const names = page.map(({ name }) => name);
    for await (const version of readManyVersions(store, names))
      known.set(`${version.name}\0${version.version}`, version);
    const missing: IngestJob[] = [];
    let removed = 0;
    for (const file of page) {
      const version = known.get(`${file.name}\0${versionOf(file)}`);
      if (version === undefined || version.state === 'superseded') missing.push(file);
      else if (version.state === 'dead_letter') await restoreDeadLetter(file, version);
      else if (config.AFTER_LOAD === 'keep' || version.state === 'discarded')
        settledNow.set(file.name, versionOf(file));
      else if (await removeLoaded(file, version)) removed += 1;
    }
    if (missing.length > 0) {
      await waitForRoom();
      if (signal.aborted) return { queued: 0, removed };
      await enqueueFiles(ingestQueue, missing, { attempts: config.INGEST_ATTEMPTS, backlog: true });
    }
    return { queued: missing.length, removed };
  }

  /** Redis may have lost it; one that is there stays as it is, and one that is being retried is left alone. */
  async function restoreDeadLetter(file: IngestJob, { error, finishedAt }: KnownVersion): Promise<void> {
    const state = await ingestQueue.getJobState(deadLetterId(file));
    if (state !== 'unknown' && state !== 'completed') return;
    await addDeadLetter(deadLetterQueue, { ...file, reason: error ?? 'unknown', failedAt: finishedAt, attempts: 0 });
  }

  /** Takes a file out of the folder when its ledger row is old enough to be on disk, and is still there. */
  async function removeLoaded(file: IngestJob, { finishedAt }: KnownVersion): Promise<boolean> {
    if (store.now() - finishedAt < config.DURABLE_SECONDS * 1000) return false;
    const known = await readVersions(store, file.name);
    const state = known.find(({ version }) => version === versionOf(file))?.state;
    if (state !== 'loaded' && state !== 'unchanged') return false;
    const path = join(config.DATA_DIR, file.name);
    const now = await currentVersion(config.DATA_DIR, file.name);
    if (now === undefined || versionOf(now) !== versionOf(file)) return false;
    try {
      if (config.AFTER_LOAD === 'delete') await unlink(path);
      else await moveToArchive(path, file);
      return true;
    } catch (error) {
      log.warn({ file: file.name, err: error }, 'a loaded file could not leave the folder');
      return false;
    }
  }

  /** An earlier version of the same name in the archive is kept: the later one gets its version behind its name. */
  async function moveToArchive(path: string, file: IngestJob): Promise<void> {
    const plain = join(config.DATA_DIR, ARCHIVE_FOLDER, file.name);
    await mkdir(dirname(plain), { recursive: true });
    const taken = await stat(plain).then(
      () => true,
      () => false,
    );
    await rename(path, taken ? `${plain}.${versionOf(file)}` : plain);
  }

  return {
    forget: () => {
      settled = new Map();
    },
    hasRoom,
    run: async (below = '', onProgress = () => undefined) => {
      const total = { seen: 0, queued: 0, removed: 0, young: 0 };
      const before = settled;
      const settledNow = new Map<string, string>();
      let page: IngestJob[] = [];
      const flush = async () => {
        const done = await reconcilePage(page, settledNow);
        total.queued += done.queued;
        total.removed += done.removed;
        page = [];
        onProgress({ ...total });
      };
      for await (const name of namesBelow(config.DATA_DIR, below)) {
        if (signal.aborted) return total;
        const file = await currentVersion(config.DATA_DIR, name);
        if (file === undefined) continue;
        total.seen += 1;
        const version = before.get(name);
        if (version === versionOf(file)) settledNow.set(name, version);
        else if (isYoung(file)) total.young += 1;
        else page.push(file);
        if (page.length >= PAGE) await flush();
      }
      await flush();
      // Unless it was told to forget meanwhile. A whole run also forgets what has left the folder.
      if (settled === before) settled = below === '' ? settledNow : new Map([...before, ...settledNow]);
      return total;
    },
  };
}
