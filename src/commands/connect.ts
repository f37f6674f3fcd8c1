import { access, mkdir } from 'node:fs/promises';
import { hostname } from 'node:os';
import { UsageError } from '../config.ts';
import { createCounters } from '../queues/counters.ts';
import { openQueues } from '../queues/open.ts';
import { codeOf, messageOf, type Runtime } from '../runtime.ts';
import { connectStore, type Store } from '../storage/client.ts';
import { requireSchema } from '../storage/migrations.ts';

/** Connects to Cassandra and checks that its tables are those of this version; main releases it. */
export async function openStore({ config, log, shutdown }: Runtime): Promise<Store> {
  const store = await connectStore(config, log);
  shutdown.defer('cassandra', store.close);
  await requireSchema(store);
  return store;
}

/** Opens all queues and Cassandra. */
export async function openAll(runtime: Runtime) {
  return { ...runtime, ...(await openQueues(runtime)), store: await openStore(runtime) };
}

/** Opens what a processor needs; its name is that of this process in the ledger, in Bull Board and in the logs. */
export async function openForWork(runtime: Runtime) {
  const opened = await openAll(runtime);
  const counters = createCounters(opened.queues, runtime.log);
  runtime.shutdown.defer('counters', counters.close);
  return { ...opened, counters, workerName: `${hostname()}:${process.pid}` };
}

/**
 * Makes sure that the data folder can be used. Only where files are looked for it is made: elsewhere, a mount may be missing.
 *
 * @throws UsageError when it cannot be made or entered
 */
export async function openDataFolder({ config, log }: Runtime, { mayMake }: { mayMake: boolean }): Promise<void> {
  try {
    const isMade = mayMake && (await mkdir(config.DATA_DIR, { recursive: true })) !== undefined;
    if (isMade) log.info({ folder: config.DATA_DIR }, 'the data folder was not there, and was made');
    await access(config.DATA_DIR);
  } catch (error) {
    const reason = messageOf(error);
    if (!mayMake && codeOf(error) === 'ENOENT') {
      log.warn({ folder: config.DATA_DIR }, 'the data folder is not there: files wait until it is');
      return;
    }
    throw new UsageError(`DATA_DIR cannot be used (${reason}): name a folder that this user may read and write.`);
  }
}
