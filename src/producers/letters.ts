import { addDeadLetter } from '../queues/dead-letter.ts';
import { ingestJobId, jobOfVersion } from '../queues/ingest.ts';
import type { Queues } from '../queues/open.ts';
import type { Store } from '../storage/client.ts';
import { NAMES_PER_QUERY, readVersions, type KnownVersion } from '../storage/files.ts';
import { allFiles } from '../storage/verification.ts';

type LetterNeeds = Pick<Queues, 'queues' | 'ingestQueue' | 'deadLetterQueue'> & { readonly store: Store };

/** Puts a dead letter of the ledger back where it is missing in Redis; one that is being retried is left alone. */
export async function restoreLetter({ ingestQueue, deadLetterQueue }: LetterNeeds, row: KnownVersion): Promise<void> {
  const { error, startedAt, finishedAt } = row;
  const state = await ingestQueue.getJobState(ingestJobId(row));
  if (state !== 'unknown' && state !== 'completed') return;
  const letter = { ...jobOfVersion(row), reason: error ?? 'unknown', startedAt, failedAt: finishedAt, attempts: 0 };
  await addDeadLetter(deadLetterQueue, letter);
}

/**
 * Makes what restores all letters of the ledger, to be called again and again: once in the life of a Redis, it reads the
 * whole ledger. Reconciliation alone would restore only letters whose file is still in the folder.
 */
export function createLetterRestorer(needs: LetterNeeds, signal: AbortSignal): () => Promise<void> {
  const { connection, prefix } = needs.queues;
  const marker = `${prefix}:letters-restored`;

  async function restore(files: readonly { name: string; version: string }[]): Promise<void> {
    const wanted = new Set(files.map(({ name, version }) => `${version} ${name}`));
    for (const row of await readVersions(needs.store, ...new Set(files.map(({ name }) => name))))
      if (row.state === 'dead_letter' && wanted.has(`${row.version} ${row.name}`)) await restoreLetter(needs, row);
  }

  return async () => {
    if ((await connection.exists(marker)) > 0) return;
    const page: { name: string; version: string }[] = [];
    for await (const { name, version, state } of allFiles(needs.store)) {
      if (signal.aborted) return;
      if (state !== 'dead_letter') continue;
      if (page.push({ name, version }) === NAMES_PER_QUERY) await restore(page.splice(0));
    }
    await restore(page);
    await connection.set(marker, Date.now());
  };
}
