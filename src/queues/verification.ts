import { Queue } from 'bullmq';
import type { QueueConnection } from './redis.ts';

/** The queue of scheduled verifications of a sample: one at a time in the whole fleet. */
export const VERIFICATION_QUEUE = 'verification';

/** Something that is not as the files say, and whether it is mended by now. */
export interface Difference {
  readonly what: string;
  readonly problem: string;
  readonly mended: boolean;
}
/**
 * What a verification compared and found. Files that `wait` are not loaded yet; `gone` ones are loaded and neither in
 * the folder nor in the archive; days that are `notDue` have changed since the last aggregation.
 */
export type VerificationReport = Record<
  'files' | 'records' | 'days' | 'waiting' | 'deadLetters' | 'discarded' | 'gone' | 'notDue' | 'differences' | 'mended',
  number
> & { examples: Difference[] };

export type VerificationQueue = Queue<object, VerificationReport>;

export async function createVerificationQueue({ connection, prefix }: QueueConnection): Promise<VerificationQueue> {
  const defaultJobOptions = { stackTraceLimit: 0, removeOnComplete: { count: 100 }, removeOnFail: { count: 100 } };
  const queue: VerificationQueue = new Queue(VERIFICATION_QUEUE, { connection, prefix, defaultJobOptions });
  await queue.setGlobalConcurrency(1);
  return queue;
}
