import { UsageError } from '../config.ts';
import { startLocalServices } from '../local/services.ts';
import { createProgress } from '../progress.ts';
import type { Runtime } from './runtime.ts';

/** Runs the local Redis and Cassandra, those that the environment does not point elsewhere, until asked to stop. */
export async function services({ config, shutdown }: Runtime): Promise<void> {
  if (config.REDIS_URL !== undefined && config.CASSANDRA_CONTACT_POINTS !== undefined) {
    throw new UsageError(
      'REDIS_URL and CASSANDRA_CONTACT_POINTS are both set: there is nothing to start here.',
    );
  }
  const { signal } = shutdown;
  const stores = await startLocalServices({ config, progress: createProgress(), signal });
  shutdown.defer('local services', stores.stop);
  const addresses = Object.entries(stores.environment).map(([name, value]) => `  ${name}=${value}\n`);
  process.stdout.write(
    `\n${addresses.join('')}\nCtrl-C stops them; the data stays in ${config.LOCAL_DIR}.\n`,
  );
  const death = await Promise.race([shutdown.requested, stores.died]);
  if (death !== undefined)
    throw new UsageError(`${death} while it was needed; its logs are under ${config.LOCAL_DIR}.`);
}
