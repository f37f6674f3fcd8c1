import { UsageError } from '../config.ts';
import { endLeftovers, startLocalServices } from '../local/services.ts';
import type { Runtime } from '../runtime.ts';

/** Runs the local Redis and Cassandra, those that the environment does not point elsewhere, until asked to stop. */
export async function services({ config, shutdown }: Runtime): Promise<void> {
  if (config.REDIS_URL !== undefined && config.CASSANDRA_CONTACT_POINTS !== undefined)
    throw new UsageError('REDIS_URL and CASSANDRA_CONTACT_POINTS are both set: there is nothing to start here.');
  try {
    await endLeftovers(config);
    const { died } = await startLocalServices(config, shutdown);
    process.stdout.write(`\nThe other commands find them. Ctrl-C stops them; the data stays in ${config.LOCAL_DIR}.\n`);
    await Promise.race([shutdown.requested, died]);
  } catch (error) {
    if (!shutdown.signal.aborted) throw error;
  }
}
