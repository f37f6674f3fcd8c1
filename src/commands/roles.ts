import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import type { Logger } from 'pino';
import { UsageError } from '../config.ts';

/** A role that ends sooner than this after its start has failed to start. */
const QUICK_DEATH_MS = 10_000;
const QUICK_DEATHS = 5;
const STOP_WITHIN_MS = 4_500;

/** Runs the roles as processes of the same program, and starts those again that end unasked. */
export interface Roles {
  /** Runs one to its end. @throws UsageError when it fails */
  run(role: string): Promise<void>;
  /** Keeps one running until `stop`. */
  keep(role: string): void;
  /** Rejects with a sentence when a role ends again and again at its start. */
  readonly failed: Promise<never>;
  /** Asks all to stop and returns when all are gone; after 4.5 s they are killed. */
  stop(): Promise<void>;
}

/** @param environment variables on top of this process's own */
export function createRoles({
  environment,
  log,
}: {
  environment: Record<string, string>;
  log: Logger;
}): Roles {
  const stopping = new AbortController();
  const isStopping = () => stopping.signal.aborted;
  const running = new Set<ReturnType<typeof spawnRole>>();
  const keepers: Promise<void>[] = [];
  let fail: (error: unknown) => void = () => undefined;
  const failed = new Promise<never>((_, reject) => (fail = reject));
  failed.catch(() => undefined);

  function spawnRole(role: string) {
    const program = [...process.execArgv, ...process.argv.slice(1, 2)];
    return execa(process.execPath, [...program, role], {
      env: environment,
      // A process group of its own: the terminal's Ctrl-C reaches only us, and we stop the roles before the stores.
      detached: true,
      // The roles notice by the closed channel when we are killed.
      ipc: true,
      stdin: 'ignore',
      stdout: 'ignore',
      stderr: ['pipe'],
      buffer: false,
      reject: false,
    });
  }

  async function runToItsEnd(role: string): Promise<string | undefined> {
    const child = spawnRole(role);
    running.add(child);
    // Through us rather than inherited, so that the lines do not end up inside a spinner.
    child.stderr.on('data', (chunk: Buffer) => process.stderr.write(chunk));
    const { failed: badly, exitCode, signal } = await child;
    running.delete(child);
    return badly ? (signal ?? `exit code ${exitCode}`) : undefined;
  }

  async function keepRunning(role: string): Promise<void> {
    for (let quickDeaths = 0; ;) {
      const since = performance.now();
      const end = await runToItsEnd(role);
      if (isStopping()) return;
      quickDeaths = performance.now() - since < QUICK_DEATH_MS ? quickDeaths + 1 : 0;
      if (quickDeaths === QUICK_DEATHS) {
        throw new UsageError(
          `\`pipeline ${role}\` ended ${QUICK_DEATHS} times at its start, for the reason in the log above: mend that and start again.`,
        );
      }
      const pauseMs = 500 * 2 ** quickDeaths;
      log.warn({ ended: role, how: end ?? 'exit code 0', pauseMs }, 'role ended unasked, starting it again');
      await sleep(pauseMs, undefined, { signal: stopping.signal }).catch(() => undefined);
      if (isStopping()) return;
    }
  }

  return {
    failed,
    run: async (role) => {
      const end = await runToItsEnd(role);
      if (end !== undefined)
        throw new UsageError(`\`pipeline ${role}\` failed (${end}), for the reason above.`);
    },
    keep: (role) => {
      keepers.push(keepRunning(role).catch(fail));
    },
    stop: async () => {
      stopping.abort();
      for (const child of running) child.kill('SIGTERM');
      const timer = setTimeout(() => {
        for (const child of running) child.kill('SIGKILL');
      }, STOP_WITHIN_MS);
      await Promise.all([...keepers, ...running]);
      clearTimeout(timer);
    },
  };
}
