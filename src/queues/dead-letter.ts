import type { Queue } from 'bullmq';
import { z } from 'zod';
import { piecesOf } from '../pieces.ts';
import { ingestJobId, ingestJobSchema, MAX_DATE_MS } from './ingest.ts';

/** The queue of files that could not be loaded: each a failed job, whose failure reason is the file's. */
export const DEAD_LETTER_QUEUE = 'dead-letter';

/** The reason of a file that a processor did not find. Where the producer finds it, it is queued again. */
export const FILE_GONE = 'not in the data folder any more, or a link that leads nowhere';

const time = z.number().min(0).max(MAX_DATE_MS);
/**
 * The file, why it could not be loaded, and when that was, in ms since the epoch. The name may be any: that it leads
 * out of the data folder may be the very reason, and ingest checks it again. `startedAt` is the ledger's, by Cassandra's
 * clock; a letter without it is not in the ledger.
 */
export const deadLetterJobSchema = ingestJobSchema.extend({
  name: z.string().min(1),
  reason: z.string(),
  failedAt: time,
  startedAt: time.optional(),
  attempts: z.number().int(),
});
export type DeadLetterJob = z.infer<typeof deadLetterJobSchema>;
export type DeadLetterQueue = Queue<DeadLetterJob, void>;

export const DEAD_LETTER_JOBS = { keepLogs: 20, stackTraceLimit: 0, removeOnComplete: true };

/** Puts a file among the dead letters, under the id of its ingest job; one that is there already stays as it is. */
export async function addDeadLetter(queue: DeadLetterQueue, letter: DeadLetterJob): Promise<void> {
  await queue.add(letter.name, letter, { jobId: ingestJobId(letter) });
}

/** Letters that are read in one round trip. */
const PAGE = 500;

/** All letters of now but some, a page in memory. By their ids: where some leave meanwhile, the places of the others change. */
export async function* letterPages(queue: DeadLetterQueue, but: ReadonlySet<string> = new Set()) {
  const ids = (await queue.getRanges(['failed'], 0, -1)).filter((id) => !but.has(id));
  for (const some of piecesOf(ids, PAGE)) {
    const page = await Promise.all(some.map((id) => queue.getJob(id)));
    yield page.filter((letter) => letter !== undefined);
  }
}
