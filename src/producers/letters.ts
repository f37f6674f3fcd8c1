import { randomUUID } from 'node:crypto';
import { addDeadLetter } from '../queues/dead-letter.ts';
import { enqueueFiles, ingestJobId, jobOfVersion } from '../queues/ingest.ts';
import { NAMES_PER_QUERY, readLedger, readVersions, type KnownVersion } from '../storage/files.ts';
import type { ProducerNeeds } from './reconciliation.ts';

/** The whole ledger is read again after so many seconds, too. */
const MARK_SECONDS = 7 * 86_400;

/** The key that is there once all letters were restored in this Redis, since it was started. */
async function markOf({ queues: { connection, prefix } }: ProducerNeeds): Promise<string> {
  const runId = /^run_id:(\w+)/m.exec(await connection.info('server'))?.[1] ?? '';
  return `${prefix}:letters-restored:${runId}`;
}

/**
 * Sees to a file that the ledger calls a dead letter, unless its letter or its job is there. What Redis has lost is put back.
 * Where it has lost nothing, the letter was retried, or given up just now: the file is queued, since Cassandra may have
 * forgotten that it was loaded.
 */
export async function takeUpLetter(needs: ProducerNeeds, row: KnownVersion): Promise<void> {
  const { config, ingestQueue, deadLetterQueue, queues } = needs;
  const file = jobOfVersion(row);
  const state = await ingestQueue.getJobState(ingestJobId(row));
  if (state !== 'unknown' && state !== 'completed') return;
  if ((await deadLetterQueue.getJob(ingestJobId(row))) !== undefined) return;
  if (state === 'completed' || (await queues.connection.exists(await markOf(needs))) > 0) {
    await enqueueFiles(ingestQueue, [file], { attempts: config.INGEST_ATTEMPTS, backlog: true });
    return;
  }
  const { error, startedAt, finishedAt } = row;
  const letter = { ...file, reason: error ?? 'unknown', startedAt, failedAt: finishedAt, attempts: 0 };
  await addDeadLetter(deadLetterQueue, letter);
}

/**
 * Makes what restores all letters of the ledger, to be called again and again: it reads the whole ledger when Redis was
 * started anew, perhaps from an old snapshot, when another one took over, or when it was emptied. Reconciliation alone
 * would restore only letters whose file is still in the folder.
 */
export function createLetterRestorer(needs: ProducerNeeds): () => Promise<void> {
  const { connection } = needs.queues;
  const { store, shutdown } = needs;

  async function restore(files: readonly { name: string; version: string }[]): Promise<void> {
    const wanted = new Set(files.map(({ name, version }) => `${version} ${name}`));
    for (const row of await readVersions(store, ...new Set(files.map(({ name }) => name))))
      if (row.state === 'dead_letter' && wanted.has(`${row.version} ${row.name}`)) await takeUpLetter(needs, row);
  }

  return async () => {
    const mark = await markOf(needs);
    if ((await connection.exists(mark)) > 0) return;
    const begun = `${mark}:${randomUUID()}`;
    await connection.set(begun, '', 'EX', MARK_SECONDS);
    const page: { name: string; version: string }[] = [];
    for await (const { name, version, state } of readLedger(store)) {
      if (shutdown.signal.aborted) return;
      if (state !== 'dead_letter') continue;
      if (page.push({ name, version }) === NAMES_PER_QUERY) await restore(page.splice(0));
    }
    await restore(page);
    // Fails where Redis was emptied meanwhile.
    await connection.rename(begun, mark);
  };
}
