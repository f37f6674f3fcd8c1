import type { Job } from 'bullmq';
import { UsageError } from '../config.ts';
import { deadLetterJobSchema, type DeadLetterJob, type DeadLetterQueue } from '../queues/dead-letter.ts';
import { versionOf } from '../queues/ingest.ts';
import { settleDeadLetter } from '../storage/files.ts';
import { openQueues, openStore } from './connect.ts';
import { printable } from './printable.ts';
import type { Runtime } from './runtime.ts';

const PAGE = 500;

/** Which dead letters are meant; all conditions hold together. */
export interface Selection {
  /** Job ids or file names. */
  readonly files: readonly string[];
  /** A text that the reason contains, in any case. */
  readonly reason: string | undefined;
  /** A text that the name contains. */
  readonly name: string | undefined;
  /** Failed at least this long ago, in ms. */
  readonly olderThanMs: number | undefined;
  /** Failed at most this long ago, in ms. */
  readonly newerThanMs: number | undefined;
  readonly all: boolean;
}

type Letter = Job<DeadLetterJob, void>;

function matches(letter: Letter, selection: Selection): boolean {
  const { name, reason, failedAt } = letter.data;
  const ageMs = Date.now() - failedAt;
  return (
    (selection.files.length === 0 || selection.files.includes(letter.id ?? '') || selection.files.includes(name)) &&
    (selection.name === undefined || name.includes(selection.name)) &&
    (selection.reason === undefined || reason.toLowerCase().includes(selection.reason.toLowerCase())) &&
    (selection.olderThanMs === undefined || ageMs >= selection.olderThanMs) &&
    (selection.newerThanMs === undefined || ageMs <= selection.newerThanMs)
  );
}

async function select(queue: DeadLetterQueue, selection: Selection): Promise<Letter[]> {
  const selected: Letter[] = [];
  for (let start = 0; ; start += PAGE) {
    const page = await queue.getFailed(start, start + PAGE - 1);
    selected.push(
      ...page.filter((letter) => deadLetterJobSchema.safeParse(letter.data).success && matches(letter, selection)),
    );
    if (page.length < PAGE) return selected;
  }
}

function requireSelection({ all, files, ...filters }: Selection): void {
  if (!all && files.length === 0 && Object.values(filters).every((filter) => filter === undefined)) {
    throw new UsageError(
      'Name files or ids, give a filter (--reason, --name, --older-than, --newer-than), or say --all.',
    );
  }
}

function asData(letter: Letter) {
  const { name, size, mtimeNs, reason, failedAt, attempts } = letter.data;
  return {
    id: letter.id,
    name,
    version: versionOf({ size, mtimeNs }),
    reason,
    failedAt: new Date(failedAt).toISOString(),
    attempts,
  };
}

export async function listFailed(runtime: Runtime, selection: Selection, options: { json: boolean }): Promise<void> {
  const { deadLetterQueue } = await openQueues(runtime);
  const letters = (await select(deadLetterQueue, selection)).map(asData);
  if (options.json) {
    process.stdout.write(`${JSON.stringify(letters)}\n`);
    return;
  }
  for (const { id, name, failedAt, reason } of letters) {
    process.stdout.write(`${id}  ${failedAt}  ${printable(name)}\n    ${printable(reason)}\n`);
  }
  process.stdout.write(letters.length === 0 ? 'No dead letters.\n' : `${letters.length} dead letter(s).\n`);
}

export async function showFailed(runtime: Runtime, idOrName: string, options: { json: boolean }): Promise<void> {
  const { deadLetterQueue } = await openQueues(runtime);
  const letters = await select(deadLetterQueue, { ...NOTHING_ASKED, files: [idOrName] });
  if (letters.length === 0) throw new UsageError(`No dead letter has the id or name ${printable(idOrName)}.`);
  for (const letter of letters) {
    const data = asData(letter);
    process.stdout.write(
      options.json
        ? `${JSON.stringify(data)}\n`
        : Object.entries(data)
            .map(([key, value]) => `${key.padEnd(9)} ${printable(String(value))}\n`)
            .join(''),
    );
  }
}

/** Sends files back to ingest: what Retry does in Bull Board. */
export async function retryFailed(runtime: Runtime, selection: Selection, options: { json: boolean }): Promise<void> {
  requireSelection(selection);
  const { deadLetterQueue } = await openQueues(runtime);
  const letters = await select(deadLetterQueue, selection);
  for (const letter of letters) await letter.retry();
  report(letters, 'sent back to ingest', options);
}

/** Gives files up: they stay in the folder and in the ledger, as discarded. */
export async function discardFailed(runtime: Runtime, selection: Selection, options: { json: boolean }): Promise<void> {
  requireSelection(selection);
  const { deadLetterQueue } = await openQueues(runtime);
  const store = await openStore(runtime);
  const letters = await select(deadLetterQueue, selection);
  for (const letter of letters) {
    await settleDeadLetter(store, { name: letter.data.name, version: versionOf(letter.data) }, 'discarded');
    await letter.remove();
  }
  report(letters, 'discarded', options);
}

const NOTHING_ASKED: Selection = {
  files: [],
  reason: undefined,
  name: undefined,
  olderThanMs: undefined,
  newerThanMs: undefined,
  all: false,
};

function report(letters: readonly Letter[], what: string, { json }: { json: boolean }): void {
  if (json) process.stdout.write(`${JSON.stringify(letters.map(asData))}\n`);
  else
    process.stdout.write(
      letters.length === 0 ? 'No dead letter fits.\n' : `${letters.length} dead letter(s) ${what}.\n`,
    );
}
