import { Queue } from 'bullmq';
import { z } from 'zod';
import { ingestJobSchema, ingestJobId, versionOf, type IngestJob } from './ingest.ts';
import type { QueueConnection } from './redis.ts';

/** The queue of files that could not be loaded: each a failed job, whose failure reason is the file's. */
export const DEAD_LETTER_QUEUE = 'dead-letter';

/** The file, why it could not be loaded, and when that was, in ms since the epoch. */
export const deadLetterJobSchema = ingestJobSchema.extend({
  reason: z.string(),
  failedAt: z.number(),
  attempts: z.number().int(),
});

export type DeadLetterJob = z.infer<typeof deadLetterJobSchema>;
export type DeadLetterQueue = Queue<DeadLetterJob, void>;

export function createDeadLetterQueue({ connection, prefix }: QueueConnection): DeadLetterQueue {
  return new Queue(DEAD_LETTER_QUEUE, { connection, prefix, streams: { events: { maxLen: 1_000 } } });
}

/** Puts a file among the dead letters; one that is there already stays as it is. The id is that of its ingest job. */
export async function addDeadLetter(queue: DeadLetterQueue, letter: DeadLetterJob): Promise<void> {
  await queue.add(letter.name, letter, {
    jobId: deadLetterId(letter),
    attempts: 1,
    keepLogs: 20,
    stackTraceLimit: 0,
    removeOnComplete: true,
    removeOnFail: false,
  });
}

export function deadLetterId(file: IngestJob): string {
  return ingestJobId({ name: file.name, version: versionOf(file) });
}
