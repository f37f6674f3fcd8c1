import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { requireBoardPassword, UsageError } from '../config.ts';
import { holdPort } from '../local/ports.ts';
import { endLeftovers, startLocalServices } from '../local/services.ts';
import { connectQueues } from '../queues/redis.ts';
import { messageOf, type Runtime } from '../runtime.ts';
import { connectStore } from '../storage/client.ts';
import { step } from '../terminal.ts';
import { openDataFolder } from './connect.ts';

/** A role that ends sooner than this after its start has failed to start. */
const QUICK_DEATH_MS = 10_000;
const QUICK_DEATHS = 5;

/**
 * Runs the whole pipeline on this machine until asked to stop: the stores that the environment does not point to, then
 * every role as a process of its own.
 *
 * @throws UsageError when the data folder cannot be used, a port is taken, a store cannot be reached or started, or a role
 * does not come up
 */
export async function start(runtime: Runtime, options: { generate: boolean }): Promise<void> {
  const { config, shutdown } = runtime;
  try {
    const { port: boardPort, release } = await step(
      'The port of the board and the stores of the environment are checked',
      () => checkEnvironment(runtime),
      ({ port }) => `Port ${port} is free for the board, and the stores of the environment, if any, answer`,
    );
    await openDataFolder(runtime, { mayMake: true });
    const { died } = await startLocalServices(config, shutdown);

    const env = { BOARD_PORT: String(boardPort) };
    process.stderr.write('The keyspace and its tables are made\n');
    const migration = await Promise.race([runRole('migrate', env, shutdown.signal), died]);
    if (migration.failed) throw new UsageError('`pipeline migrate` failed: the log above says why.');

    await release();
    const processors = Array<string>(config.PROCESSORS).fill('process');
    const names = ['board', 'watch', ...processors, ...(options.generate ? ['generate'] : [])];
    process.stderr.write(`${names.length} processes start: ${names.join(', ')}\n`);
    const roles = names.map((name) => keepRole(name, env, runtime));
    shutdown.defer('roles', () => Promise.allSettled(roles));

    const host = config.BOARD_HOST.replace(/^(0\.0\.0\.0|::)$/, '127.0.0.1').replace(/.*:.*/, '[$&]');
    const board = `http://${host}:${boardPort}`;
    await Promise.race([answers(`${board}/readyz`, shutdown.signal), died, ...roles]);
    process.stdout.write(`
The pipeline runs.

  Dashboard   ${board}/
  Bull Board  ${board}/board
  Files       ${config.DATA_DIR}
  State       npx pipeline status

Ctrl-C stops everything; the data stays.
`);
    await Promise.race([shutdown.requested, died, ...roles]);
  } catch (error) {
    // A step that was cut short by the wish to stop is no failure.
    if (!shutdown.signal.aborted) throw error;
  }
}

/**
 * Finds out before anything is started that everybody could open the board, that this runs already, that the board's port is
 * taken or a store away.
 *
 * @returns the port of the board, which is held so that no store takes it
 */
async function checkEnvironment({ config, log }: Runtime) {
  requireBoardPassword(config);
  await endLeftovers(config);
  const { BOARD_HOST: host, BOARD_PORT: wanted } = config;
  const held = await holdPort(wanted, host).catch((error: unknown) => {
    const reason = messageOf(error);
    throw new UsageError(
      `The board cannot listen on ${host} (${reason}): set BOARD_HOST to an address of this machine.`,
    );
  });
  if (wanted !== 0 && held.port !== wanted)
    throw new UsageError(
      `Port ${wanted} on ${host} is taken, or not for this user: stop what listens there, or set another, as in BOARD_PORT=${held.port} npm start.`,
    );
  if (config.REDIS_URL !== undefined) (await connectQueues(config, log)).close();
  if (config.CASSANDRA_CONTACT_POINTS !== undefined) await (await connectStore(config, log, '')).close();
  return held;
}

async function answers(url: string, signal: AbortSignal): Promise<void> {
  const isOk = async () => (await fetch(url).catch(() => undefined))?.ok === true;
  while (!(await isOk())) await sleep(100, undefined, { signal });
}

/** Runs one role as a process of the same program, with further variables, to its end or until `signal` stops it. */
function runRole(role: string, env: Record<string, string>, signal: AbortSignal) {
  return execa(process.execPath, [...process.execArgv, ...process.argv.slice(1, 2), role], {
    env,
    // A process group of its own: the terminal's Ctrl-C reaches only us, and we stop the roles before the stores.
    detached: true,
    // The roles notice by the closed channel when we are killed.
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    reject: false,
    cancelSignal: signal,
    forceKillAfterDelay: 4_500,
  });
}

/**
 * Keeps a role running until a stop is asked for: it is started again when it ends unasked.
 *
 * @throws UsageError when it ends again and again at its start
 */
async function keepRole(role: string, env: Record<string, string>, { log, shutdown: { signal } }: Runtime) {
  for (let quickDeaths = 0; quickDeaths < QUICK_DEATHS;) {
    const { durationMs, exitCode, signal: by } = await runRole(role, env, signal);
    if (signal.aborted) return;
    quickDeaths = durationMs < QUICK_DEATH_MS ? quickDeaths + 1 : 0;
    const pauseMs = 500 * 2 ** quickDeaths;
    log.warn({ ended: role, exitCode, by, pauseMs }, 'role ended unasked, starting it again');
    await sleep(pauseMs, undefined, { signal });
  }
  throw new UsageError(`\`pipeline ${role}\` ended ${QUICK_DEATHS} times at its start: the log above says why.`);
}
