import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { UsageError } from '../config.ts';
import type { Runtime } from '../runtime.ts';

/** A role that ends sooner than this after its start has failed to start. */
const QUICK_DEATH_MS = 10_000;
const QUICK_DEATHS = 5;

/** Runs one role as a process of the same program, with further variables, to its end or until `signal` stops it. */
export function runRole(role: string, env: Record<string, string>, signal: AbortSignal) {
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
export async function keepRole(role: string, env: Record<string, string>, { log, shutdown: { signal } }: Runtime) {
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
