import { setTimeout as sleep } from 'node:timers/promises';
import { UsageError, type Config } from '../config.ts';
import { freePort } from '../local/ports.ts';
import { startLocalServices } from '../local/services.ts';
import { createProgress, type Progress } from '../progress.ts';
import { connectQueues, redisAddress } from '../queues/redis.ts';
import { connectStore } from '../storage/client.ts';
import { createRoles } from './roles.ts';
import type { Runtime } from './runtime.ts';

const BOARD_WITHIN_MS = 60_000;

/**
 * Runs the whole pipeline on this machine until asked to stop: the stores that the environment does not point to, then
 * every role as a process of its own.
 *
 * @throws UsageError when a port is taken, a store cannot be reached or started, or a role does not come up
 */
export async function start(runtime: Runtime, options: { generate: boolean }): Promise<void> {
  const { shutdown } = runtime;
  try {
    await bringUp(runtime, options);
  } catch (error) {
    // A step that was cut short by the wish to stop is no failure.
    if (!shutdown.signal.aborted) throw error;
  }
}

async function bringUp({ config, log, shutdown }: Runtime, options: { generate: boolean }): Promise<void> {
  const progress = createProgress();
  const { signal } = shutdown;
  const boardPort = await boardPortOf(config);
  await checkGivenStores({ config, log }, progress);

  const stores = await startLocalServices({ config, progress, signal });
  shutdown.defer('local services', stores.stop);
  const environment: Record<string, string> = { ...stores.environment, BOARD_PORT: String(boardPort) };
  if (config.LOG_FORMAT === undefined && process.stderr.isTTY) {
    environment['LOG_FORMAT'] = 'pretty';
    environment['FORCE_COLOR'] = '1';
  }
  const roles = createRoles({ environment, log });
  shutdown.defer('roles', () => roles.stop());
  signal.throwIfAborted();

  await progress.step(
    'The keyspace and its tables are made',
    () => roles.run('migrate'),
    () => 'The keyspace and its tables are there',
  );
  signal.throwIfAborted();

  const processors = Array.from({ length: config.PROCESSORS }, () => 'process');
  const names = ['board', 'watch', ...processors, ...(options.generate ? ['generate'] : [])];
  const board = `http://${boardHostOf(config)}:${boardPort}`;
  await progress.step(
    `Starting ${names.length} processes`,
    async () => {
      for (const name of names) roles.keep(name);
      await Promise.race([answers(`${board}/readyz`, signal), roles.failed]);
    },
    () => `${names.length} processes run: ${names.join(', ')}`,
  );

  process.stdout.write(summary(config, stores.environment, board));
  const death = await Promise.race([shutdown.requested, stores.died, roles.failed]);
  if (death !== undefined)
    throw new UsageError(`${death} while it was needed; its logs are under ${config.LOCAL_DIR}.`);
}

async function boardPortOf({ BOARD_HOST, BOARD_PORT }: Config): Promise<number> {
  if (BOARD_PORT === 0) return freePort(0, BOARD_HOST);
  if ((await freePort(BOARD_PORT, BOARD_HOST)) === BOARD_PORT) return BOARD_PORT;
  throw new UsageError(
    `Port ${BOARD_PORT} on ${BOARD_HOST} is taken: stop what listens there, or set another, as in BOARD_PORT=${BOARD_PORT + 1} npm start.`,
  );
}

/** Where a browser on this machine finds the board. */
function boardHostOf({ BOARD_HOST }: Config): string {
  if (BOARD_HOST === '0.0.0.0' || BOARD_HOST === '::') return '127.0.0.1';
  return BOARD_HOST.includes(':') ? `[${BOARD_HOST}]` : BOARD_HOST;
}

/** Finds out that a store of the environment is away before anything is started. */
async function checkGivenStores(
  { config, log }: Pick<Runtime, 'config' | 'log'>,
  progress: Progress,
): Promise<void> {
  if (config.REDIS_URL !== undefined) {
    const address = redisAddress(config.REDIS_URL);
    await progress.step(
      `Asking Redis at ${address}`,
      () => connectQueues(config, log).then((queues) => queues.close(), unset('REDIS_URL', 'Redis')),
      () => `Redis answers at ${address} (REDIS_URL)`,
    );
  }
  if (config.CASSANDRA_CONTACT_POINTS !== undefined) {
    const hosts = config.CASSANDRA_CONTACT_POINTS.join(', ');
    await progress.step(
      `Asking Cassandra at ${hosts}`,
      () =>
        connectStore(config, log, '').then(
          (store) => store.close(),
          unset('CASSANDRA_CONTACT_POINTS', 'Cassandra'),
        ),
      () => `Cassandra answers at ${hosts} (CASSANDRA_CONTACT_POINTS)`,
    );
  }
}

function unset(variable: string, name: string) {
  return (error: unknown) => {
    if (!(error instanceof UsageError)) throw error;
    throw new UsageError(`${error.message} Without ${variable}, a local ${name} is started.`);
  };
}

async function answers(url: string, signal: AbortSignal): Promise<void> {
  const late = AbortSignal.timeout(BOARD_WITHIN_MS);
  for (;;) {
    const response = await fetch(url, { signal: AbortSignal.any([signal, late]) }).catch(() => undefined);
    await response?.body?.cancel();
    if (response?.ok === true) return;
    signal.throwIfAborted();
    if (late.aborted) throw new UsageError(`The board does not get ready: ${url} says what is missing.`);
    await sleep(100);
  }
}

function summary(config: Config, local: Record<string, string>, board: string): string {
  const cassandra = local['CASSANDRA_CONTACT_POINTS'] ?? config.CASSANDRA_CONTACT_POINTS?.join(', ');
  const port = local['CASSANDRA_PORT'] ?? config.CASSANDRA_PORT;
  return `
The pipeline runs.

  Dashboard   ${board}/
  Bull Board  ${board}/board
  Files       ${config.DATA_DIR}
  Redis       ${redisAddress(local['REDIS_URL'] ?? config.REDIS_URL ?? '')}
  Cassandra   ${cassandra} port ${port}, keyspace ${config.CASSANDRA_KEYSPACE}
  State       npx pipeline status

Ctrl-C stops everything; the data stays.
`;
}
