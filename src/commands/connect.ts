import { hostname } from 'node:os';
import { access, mkdir } from 'node:fs/promises';
import { UsageError } from '../config.ts';
import { createAggregationQueue, createAggregationSliceQueue } from '../queues/aggregation.ts';
import { createDeadLetterQueue } from '../queues/dead-letter.ts';
import { createIngestQueue } from '../queues/ingest.ts';
import { connectQueues } from '../queues/redis.ts';
import { createVerificationQueue } from '../queues/verification.ts';
import { connectStore, type Store } from '../storage/client.ts';
import { requireSchema } from '../storage/migrations.ts';
import type { Runtime } from './runtime.ts';

/** Connects to Redis and opens all queues; main releases them. */
export async function openQueues({ config, log, shutdown }: Runtime) {
  const queues = await connectQueues(config, log);
  shutdown.defer('redis', queues.close);
  const ingestQueue = createIngestQueue(queues);
  shutdown.defer('ingest queue', () => ingestQueue.close());
  const deadLetterQueue = createDeadLetterQueue(queues);
  shutdown.defer('dead-letter queue', () => deadLetterQueue.close());
  const aggregationQueue = await createAggregationQueue(queues);
  shutdown.defer('aggregation queue', () => aggregationQueue.close());
  const sliceQueue = createAggregationSliceQueue(queues);
  shutdown.defer('aggregation slice queue', () => sliceQueue.close());
  const verificationQueue = await createVerificationQueue(queues);
  shutdown.defer('verification queue', () => verificationQueue.close());
  for (const queue of [ingestQueue, deadLetterQueue, aggregationQueue, sliceQueue, verificationQueue]) {
    queue.on('error', (error) => log.debug({ queue: queue.name, reason: error.message }, 'queue connection error'));
  }
  return { queues, ingestQueue, deadLetterQueue, aggregationQueue, sliceQueue, verificationQueue };
}

/** Connects to Cassandra and checks that its tables are those of this version; main releases it. */
export async function openStore({ config, log, shutdown }: Runtime): Promise<Store> {
  const store = await connectStore(config, log);
  shutdown.defer('cassandra', store.close);
  await requireSchema(store);
  return store;
}

/** Makes sure that the data folder is there. @throws UsageError when it cannot be made or entered */
export async function openDataFolder({ config }: Runtime): Promise<void> {
  try {
    await mkdir(config.DATA_DIR, { recursive: true });
    await access(config.DATA_DIR);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new UsageError(`DATA_DIR cannot be used (${reason}): name a folder that this user may read and write.`);
  }
}

/** How this process is called in the ledger, in Bull Board and in the logs. */
export function processName(): string {
  return `${hostname()}:${process.pid}`;
}
