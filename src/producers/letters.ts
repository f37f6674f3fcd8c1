import { randomUUID } from 'node:crypto';
import { addDeadLetter } from '../queues/dead-letter.ts';
import { enqueueFiles, ingestJobId, jobOfVersion } from '../queues/ingest.ts';
import { readLedger, type KnownVersion } from '../storage/files.ts';
import type { ProducerNeeds } from './reconciliation.ts';

/** The whole ledger is read again after so many seconds, too. */
const MARK_SECONDS = 86_400;

/** The key that is there once all letters were restored in this Redis, since it was started: the node that holds the key. */
async function markOf({ queues: { connection, prefix } }: ProducerNeeds): Promise<string> {
  const mark = `${prefix}:letters-restored`;
  const info = await connection.eval("return redis.call('INFO', 'server')", 1, mark);
  return `${mark}:${/^run_id:(\w+)/m.exec(String(info))?.[1] ?? ''}`;
}

/**
 * Sees to a file that the ledger calls a dead letter, unless its letter or its job is there. What Redis has lost is put back.
 * Where it has lost nothing, the letter was retried, or given up just now: the file is queued, since Cassandra may have
 * forgotten that it was loaded.
 */
export async function takeUpLetter(needs: ProducerNeeds, row: KnownVersion): Promise<void> {
  const { ingestQueue, deadLetterQueue, queues } = needs;
  const file = jobOfVersion(row);
  const state = await ingestQueue.getJobState(ingestJobId(row));
  if (state !== 'unknown' && state !== 'completed') return;
  if ((await deadLetterQueue.getJob(ingestJobId(row))) !== undefined) return;
  if (state === 'completed' || (await queues.connection.exists(await markOf(needs))) > 0) {
    await enqueueFiles(ingestQueue, [file], { backlog: true });
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

  return async () => {
    const mark = await markOf(needs);
    if ((await connection.exists(mark)) > 0) return;
    const begun = `${mark}:${randomUUID()}`;
    await connection.set(begun, '', 'EX', MARK_SECONDS);
    try {
      for await (const row of readLedger(store)) {
        if (shutdown.signal.aborted) return;
        // One that was loaded or discarded meanwhile goes again with the next sweep of the letters.
        if (row.state === 'dead_letter') await takeUpLetter(needs, row);
      }
      // Fails where Redis was emptied meanwhile.
      await connection.rename(begun, mark);
    } finally {
      await connection.del(begun).catch(() => undefined);
    }
  };
}
