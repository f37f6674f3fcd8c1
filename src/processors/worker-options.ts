import type { WorkerOptions } from 'bullmq';
import type { QueueConnection } from '../queues/redis.ts';

/**
 * What every worker has in common. A lock is renewed at half of its time, so a job of a killed processor is back within
 * 15 s. Stalls are not counted by BullMQ: past its limit a job would fail in another worker, without a processor.
 */
export function workerOptions({ connection, prefix }: QueueConnection, name: string): WorkerOptions {
  return {
    connection,
    prefix,
    name,
    lockDuration: 10_000,
    stalledInterval: 5_000,
    maxStalledCount: Number.MAX_SAFE_INTEGER,
    runRetryDelay: 1_000,
    metrics: { maxDataPoints: 24 * 60 },
  };
}
