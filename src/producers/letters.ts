import { randomUUID } from 'node:crypto';
import { addDeadLetter } from '../queues/dead-letter.ts';
import { enqueueFiles, ingestJobId, jobOfVersion } from '../queues/ingest.ts';
import { NAMES_PER_QUERY, readVersions, type KnownVersion } from '../storage/files.ts';
import { allFiles } from '../storage/verification.ts';
import type { ProducerNeeds } from './reconciliation.ts';

/** The whole ledger is read again after so many seconds, too. */
const MARK_SECONDS = 7 * 86_400;

/**
 * Puts a dead letter of the ledger back where it is missing in Redis; one that is being retried is left alone. One that was
 * retried and loaded, which Cassandra has forgotten, is loaded again.
 */
export async function restoreLetter(
  { config, ingestQueue, deadLetterQueue }: ProducerNeeds,
  row: KnownVersion,
): Promise<void> {
  const state = await ingestQueue.getJobState(ingestJobId(row));
  const file = jobOfVersion(row);
  if (state === 'completed')
    await enqueueFiles(ingestQueue, [file], { attempts: config.INGEST_ATTEMPTS, backlog: true });
  if (state !== 'unknown') return;
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
  const { connection, prefix } = needs.queues;
  const { store, shutdown } = needs;

  async function restore(files: readonly { name: string; version: string }[]): Promise<void> {
    const wanted = new Set(files.map(({ name, version }) => `${version} ${name}`));
    for (const row of await readVersions(store, ...new Set(files.map(({ name }) => name))))
      if (row.state === 'dead_letter' && wanted.has(`${row.version} ${row.name}`)) await restoreLetter(needs, row);
  }

  return async () => {
    const runId = /^run_id:(\w+)/m.exec(await connection.info('server'))?.[1] ?? '';
    const mark = `${prefix}:letters-restored:${runId}`;
    if ((await connection.exists(mark)) > 0) return;
    const begun = `${mark}:${randomUUID()}`;
    await connection.set(begun, '', 'EX', MARK_SECONDS);
    const page: { name: string; version: string }[] = [];
    for await (const { name, version, state } of allFiles(store)) {
      if (shutdown.signal.aborted) return;
      if (state !== 'dead_letter') continue;
      if (page.push({ name, version }) === NAMES_PER_QUERY) await restore(page.splice(0));
    }
    await restore(page);
    // Fails where Redis was emptied meanwhile.
    await connection.rename(begun, mark);
  };
}
