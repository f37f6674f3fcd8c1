import type { Job } from 'bullmq';
import { BadUsage, UsageError } from '../config.ts';
import { deadLetterJobSchema, letterPages, type DeadLetterJob } from '../queues/dead-letter.ts';
import { versionOf } from '../queues/ingest.ts';
import { openQueues } from '../queues/open.ts';
import type { Runtime } from '../runtime.ts';
import { discardDeadLetter } from '../storage/files.ts';
import { print, printable } from '../terminal.ts';
import { openStore } from './connect.ts';

/** Which dead letters are meant, all conditions together, and how they are printed. */
export interface Selection {
  /** Job ids or file names. */
  readonly files: readonly string[];
  /** Texts that the reason, in any case, or the name contains. */
  readonly reason?: string;
  readonly name?: string;
  /** Failed at least, or at most, so long ago, in ms. */
  readonly olderThan?: number;
  readonly newerThan?: number;
  readonly all: boolean;
  readonly json: boolean;
}

/** A letter, and what it says; of one that was added by hand with other data, what BullMQ knows. */
type Letter = { readonly job: Job<DeadLetterJob, void>; readonly data: DeadLetterJob };

function letterOf(job: Letter['job']): Letter {
  const { name, failedReason: reason, finishedOn, timestamp, attemptsMade: attempts } = job;
  const otherwise = { name, size: 0, mtimeNs: '0', reason, failedAt: finishedOn ?? timestamp, attempts };
  return { job, data: deadLetterJobSchema.safeParse(job.data).data ?? otherwise };
}

/** A name may be given as it is, and as it is printed. */
const isCalled = ({ job, data: { name } }: Letter, idOrName: string) =>
  [job.id, name, printable(name)].includes(idOrName);

function matches(letter: Letter, { files, name, reason, olderThan, newerThan }: Selection): boolean {
  const { data } = letter;
  const ageMs = Date.now() - data.failedAt;
  return (
    (files.length === 0 || files.some((file) => isCalled(letter, file))) &&
    data.name.includes(name ?? '') &&
    data.reason.toLowerCase().includes(reason?.toLowerCase() ?? '') &&
    ageMs >= (olderThan ?? -Infinity) &&
    ageMs <= (newerThan ?? Infinity)
  );
}

/** @throws UsageError when one that is named is none, or none of those that the filters mean */
async function select(runtime: Runtime, selection: Selection): Promise<Letter[]> {
  const { deadLetterQueue } = await openQueues(runtime);
  const selected: Letter[] = [];
  for await (const page of letterPages(deadLetterQueue))
    selected.push(...page.map(letterOf).filter((letter) => matches(letter, selection)));
  const unknown = selection.files.filter((file) => !selected.some((letter) => isCalled(letter, file)));
  if (unknown.length > 0)
    throw new UsageError(
      `No such dead letter: ${printable(unknown.join(', '))}. (A file that is mended is loaded by itself, and its letter goes.)`,
    );
  return selected;
}

function requireSelection({ files, reason, name, olderThan, newerThan, all }: Selection): void {
  if (all || files.length > 0 || [reason, name, olderThan, newerThan].some((filter) => filter !== undefined)) return;
  throw new BadUsage('Name files or ids, give a filter (--reason, --name, --older-than, --newer-than), or say --all.');
}

function asData({ job: { id }, data: { name, size, mtimeNs, reason, failedAt, attempts } }: Letter) {
  const version = versionOf({ size, mtimeNs });
  return { id, name, version, reason, failedAt: new Date(failedAt).toISOString(), attempts };
}

export async function listFailed(runtime: Runtime, selection: Selection): Promise<void> {
  const data = (await select(runtime, selection)).map(asData);
  const lines = data.map(({ id, name, failedAt, reason }) => `${id}  ${failedAt}  ${printable(`${name}: ${reason}`)}`);
  print(selection.json, data, [...lines, `${data.length} dead letter(s).`].join('\n'));
}

export async function showFailed(runtime: Runtime, selection: Selection): Promise<void> {
  requireSelection(selection);
  const data = (await select(runtime, selection)).map(asData);
  const linesOf = (letter: object) =>
    Object.entries(letter).map(([key, value]) => `${key.padEnd(9)} ${printable(String(value))}`);
  const letters = data.map((letter) => linesOf(letter).join('\n'));
  print(selection.json, data, [...letters, `${data.length} dead letter(s).`].join('\n\n'));
}

/** Does something to each selected letter; `done` says what that is called when it is done. */
async function toEach(
  runtime: Runtime,
  selection: Selection,
  done: string,
  act: (letter: Letter) => Promise<unknown>,
): Promise<void> {
  const letters = await select(runtime, selection);
  const acted: Letter[] = [];
  for (const letter of letters) {
    if (runtime.shutdown.signal.aborted)
      throw new UsageError(`Stopped; ${acted.length} of ${letters.length} are ${done}.`);
    try {
      await act(letter);
      acted.push(letter);
    } catch (error) {
      // Another version of the file was loaded meanwhile, or somebody else was faster.
      if (await letter.job.isFailed()) throw error;
    }
  }
  print(selection.json, acted.map(asData), `${acted.length} dead letter(s) ${done}.`);
}

/** Sends files back to ingest: what Retry does in Bull Board. */
export async function retryFailed(runtime: Runtime, selection: Selection): Promise<void> {
  requireSelection(selection);
  await toEach(runtime, selection, 'sent back to ingest', ({ job }) => job.retry());
}

/** Gives files up: they stay in the folder and in the ledger, as discarded. */
export async function discardFailed(runtime: Runtime, selection: Selection): Promise<void> {
  requireSelection(selection);
  const store = await openStore(runtime);
  await toEach(runtime, selection, 'discarded', async ({ job, data }) => {
    await discardDeadLetter(store, { name: data.name, version: versionOf(data) }, data.startedAt);
    await job.remove();
  });
}
