import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pLimit from 'p-limit';
import { loadOf } from '../datasets/dataset.ts';
import { FILE_GONE } from '../queues/dead-letter.ts';
import { enqueueFiles, hasRoom, ingestJobId, isYoungerThan, versionOf, type IngestJob } from '../queues/ingest.ts';
import type { Queues } from '../queues/open.ts';
import { messageOf, type Runtime } from '../runtime.ts';
import type { Store } from '../storage/client.ts';
import {
  forgetFile,
  originOf,
  readLedger,
  readVersions,
  settleDeadLetter,
  type KnownVersion,
} from '../storage/files.ts';
import { namePages, UNTOLD_VERSION, versionNow } from '../data-folder.ts';
import { createLedgerDoubt } from './ledger-doubt.ts';
import { takeUpLetter } from './letters.ts';
import { takeOut } from './removal.ts';

/** Files that are compared with the ledger, and queued, in one go. */
const PAGE = 500;
/** For so many files one pass over the ledger is tried first, as long as it has no more than so many rows for each. */
const MANY_FILES = 5_000;
const LEDGER_ROWS_A_FILE = 4;
/** Shares of the ledger that are read side by side then. */
const LEDGER_SHARES = 4;
const FULL_QUEUE_WAIT_MS = 250;
/** Files that are taken out of the folder at once: each is a handful of round trips on a network file system. */
const REMOVED_AT_ONCE = 16;
/** How often Cassandra's nodes are looked at while a comparison is under way. */
const LOOK_EVERY_MS = 5_000;
/** A younger file may still be written; the watcher, or the next comparison, takes it. */
const STILL_MS = 500;

/** What the parts of the producer share. */
export type ProducerNeeds = Runtime & Queues & { readonly store: Store };

/** Makes what compares the folder with the ledger, which is the truth, and queues what is not loaded. */
export function createReconciliation(needs: ProducerNeeds) {
  const { config, store, ingestQueue, deadLetterQueue, log } = needs;
  const { signal } = needs.shutdown;
  const { DATA_DIR, AFTER_LOAD, MAX_QUEUED_FILES } = config;
  /** Versions in the folder that need nothing any more, by name: the ledger need not be asked for them again. */
  let settled = new Map<string, string>();
  const doubt = createLedgerDoubt(store, config.DURABLE_SECONDS * 1000);
  const limit = pLimit(REMOVED_AT_ONCE);

  /** What Cassandra may have forgotten is not settled any more. */
  async function lookAtNodes(everyMs?: number): Promise<void> {
    if (await doubt.look(everyMs)) settled = new Map();
  }

  /**
   * Settles what the ledger, read as a whole, calls loaded: of a large folder, a fraction of what it costs to ask for each
   * name. What it does not settle is asked for.
   */
  async function settleTogether(below: string): Promise<void> {
    const before = settled;
    const there = new Set<string>();
    for await (const names of namePages(DATA_DIR, below)) for (const name of names) there.add(name);
    if (there.size < MANY_FILES) return;
    const versions = new Map<string, string>();
    let left = there.size * LEDGER_ROWS_A_FILE;
    const read = async (_: unknown, share: number) => {
      for await (const row of readLedger(store, share, LEDGER_SHARES)) {
        if (signal.aborted || (left -= 1) < 0) return;
        if (row.state === 'loaded' && !doubt.isDoubtful(row) && there.has(row.name))
          versions.set(row.name, row.version);
      }
    };
    await Promise.all(Array.from({ length: LEDGER_SHARES }, read));
    await lookAtNodes();
    // Unless Cassandra was started anew meanwhile.
    if (settled === before) settled = versions;
  }

  /** Takes a file out of the folder when what was loaded of it is on disk. */
  async function removeLoaded(file: IngestJob, row: KnownVersion): Promise<boolean> {
    if (!doubt.isDurable(row)) return false;
    try {
      return await takeOut(DATA_DIR, file, AFTER_LOAD === 'archive');
    } catch (error) {
      log.warn({ file: file.name, reason: messageOf(error) }, 'a loaded file could not leave the folder');
      return false;
    }
  }

  const unread = new Set<string>();
  function onUnread(folder: string, error: unknown): void {
    if (unread.has(folder)) return;
    unread.add(folder);
    log.warn({ folder, reason: messageOf(error) }, 'a folder cannot be read: its files are not loaded');
  }

  function onLedgerUnread(error: unknown): void {
    log.info({ reason: messageOf(error) }, 'the ledger cannot be read as a whole, and is asked for each file');
  }

  /**
   * Compares the folder, or `below`, a folder of it, once. Files that may still be written are left, and counted as
   * `young`. `onProgress` is called with the counts so far after each page. Once `woken` is aborted, it does not wait for room
   * in the queue: whoever did that begins anew, as Redis may have lost what was queued before.
   */
  async function run(
    below = '',
    onProgress: (soFar: { seen: number; queued: number }) => void = () => undefined,
    woken?: AbortSignal,
  ) {
    const givenUp = new AbortController();
    const isOver = () => signal.aborted || givenUp.signal.aborted;
    const total = { seen: 0, queued: 0, removed: 0, young: 0, deadLetters: 0 };
    const startedAt = store.now();
    await lookAtNodes();
    if (AFTER_LOAD === 'keep' && settled.size === 0) await settleTogether(below).catch(onLedgerUnread);
    const before = settled;
    const settledNow = new Map<string, string>();

    async function comparePage(page: readonly IngestJob[]): Promise<void> {
      await lookAtNodes(LOOK_EVERY_MS);
      const rows = await readVersions(store, ...page.map(({ name }) => name));
      const known = new Map(rows.map((row) => [loadOf(row), row]));
      const missing: IngestJob[] = [];
      const leaving: (() => Promise<boolean>)[] = [];
      const doubtful = rows.filter(doubt.isDoubtful);
      const certain = ({ name }: IngestJob) => rows.filter((row) => row.name === name && !doubtful.includes(row));
      const forget = async (some: readonly KnownVersion[]) => {
        for (const one of some) await forgetFile(store, one);
      };
      for (const file of page) {
        const untold = known.get(loadOf({ name: file.name, version: UNTOLD_VERSION }));
        if (untold?.state === 'dead_letter' && versionOf(file) !== UNTOLD_VERSION) {
          // Who looks may look again.
          await settleDeadLetter(store, untold, 'superseded');
          await deadLetterQueue.remove(ingestJobId(untold));
        }
        const row = known.get(loadOf({ name: file.name, version: versionOf(file) }));
        const inDoubt = doubtful.filter(({ name }) => name === file.name);
        if (row === undefined || row.state === 'superseded') {
          // What it may turn out to be a copy of, or its content would be taken for loaded.
          await forget(inDoubt);
          missing.push(file);
        } else if (doubt.isDoubtful(row) || (row.state === 'unchanged' && originOf(row, certain(file)) === undefined)) {
          await forget([row, ...inDoubt.filter((one) => one !== row && one.sha256 === row.sha256)]);
          missing.push(file);
        } else if (row.state === 'dead_letter' && row.error === FILE_GONE && existsSync(join(DATA_DIR, file.name))) {
          // It has come back, or the processor's mount of the folder was missing.
          await deadLetterQueue.remove(ingestJobId(row));
          missing.push(file);
        } else if (row.state === 'dead_letter') {
          total.deadLetters += 1;
          await takeUpLetter(needs, row);
        } else if (AFTER_LOAD === 'keep' || row.state === 'discarded') settledNow.set(file.name, row.version);
        else leaving.push(async () => !isOver() && removeLoaded(file, row));
      }
      total.removed += (await Promise.all(leaving.map((leave) => limit(leave)))).filter(Boolean).length;
      while (missing.length > 0 && !isOver() && !(await hasRoom(ingestQueue, MAX_QUEUED_FILES, { backlog: true }))) {
        await Promise.all([sleep(FULL_QUEUE_WAIT_MS), lookAtNodes(LOOK_EVERY_MS)]);
        if (woken?.aborted === true) givenUp.abort();
      }
      if (isOver()) return;
      await enqueueFiles(ingestQueue, missing, { backlog: true });
      total.queued += missing.length;
      onProgress(total);
    }

    const page: IngestJob[] = [];
    // Cassandra looks up one page while the next one is read from the folder.
    let comparing = Promise.resolve();
    try {
      for await (const names of namePages(DATA_DIR, below, onUnread))
        for (const name of names) {
          if (isOver()) return total;
          const file = versionNow(DATA_DIR, name);
          if (file === undefined) continue;
          total.seen += 1;
          const version = versionOf(file);
          if (before.get(name) === version) settledNow.set(name, version);
          else if (isYoungerThan(STILL_MS, file, store.now())) total.young += 1;
          else if (page.push(file) === PAGE) {
            await comparing;
            comparing = comparePage(page.splice(0));
            // What goes wrong is told where it is awaited.
            comparing.catch(() => undefined);
          }
        }
    } finally {
      await comparing.catch(() => undefined);
    }
    await comparing;
    await comparePage(page);
    // Unless Cassandra was started anew meanwhile. What has left the folder is forgotten, too.
    if (settled === before && !isOver()) settled = settledNow;
    if (below === '' && !isOver()) await doubt.compared(startedAt);
    return total;
  }

  return run;
}
