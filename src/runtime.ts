import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Config } from './config.ts';

/** All releases together may take this long before the rest is abandoned. */
const DEADLINE_MS = 8_000;

/** What an error says, whatever was thrown; without the stack trace of another one that some repeat. */
export const messageOf = (error: unknown) =>
  (error instanceof Error ? error.message : String(error)).replace(/\n\s+at .*[:(][^]*/, '');
/** The code of an error of the system or of a library, such as ENOENT; '' where it has none. */
export const codeOf = (error: unknown) => (error instanceof Error && 'code' in error ? String(error.code) : '');
/** Whether the system refused something, and says in its own words what. */
export const isOfSystem = (error: unknown) => error instanceof Error && 'syscall' in error;
/** Whether this is what Redis answers when it cannot do what is asked, as with its memory full: a code, then words. */
export function isRedisAnswer(reason: string): boolean {
  return /^(ERR|OOM|READONLY|MISCONF|LOADING|BUSY|MASTERDOWN|CLUSTERDOWN|NOREPLICAS|TRYAGAIN|NOSCRIPT) /.test(reason);
}

/**
 * An answer, or `otherwise` when it does not come within so many ms, and a moment more: where this process stood still, the
 * time is over before an answer that has come is read.
 */
export function within<T, U>(ms: number, answer: Promise<T>, otherwise: U): Promise<T | U> {
  const late = sleep(ms, undefined, { ref: false }).then(() => sleep(100, otherwise, { ref: false }));
  return Promise.race([answer, late]);
}

/** What main hands to every command. A command that returns has ended well; one that throws has failed. */
export interface Runtime {
  readonly config: Config;
  readonly log: Logger;
  /** What the command opens; main releases it whatever happens. */
  readonly shutdown: Shutdown;
}

export type Shutdown = ReturnType<typeof createShutdown>;

/** What has been opened, released last-in-first-out. Whatever a command opens goes on this stack in the next line. */
export function createShutdown(log: Logger) {
  const stack: { name: string; release: () => unknown }[] = [];
  const controller = new AbortController();
  const { signal } = controller;
  const requested = once(signal, 'abort').then(() => undefined);
  return {
    /** Aborted when the process is asked to stop; long waits take it. */
    signal,
    /** Resolves when a stop was asked for. */
    requested,
    /** Asks for the stop. Calling it again changes nothing. */
    request: () => controller.abort(),
    /** Puts one thing on the stack. `name` is what the log calls it. */
    defer: (name: string, release: () => unknown) => void stack.push({ name, release }),
    /** Releases everything, each within what is left of the deadline; never rejects. */
    release: async (): Promise<void> => {
      const deadline = performance.now() + DEADLINE_MS;
      for (let top = stack.pop(); top !== undefined; top = stack.pop()) {
        const { name, release } = top;
        const late = sleep(Math.max(100, deadline - performance.now()), 'late', { ref: false });
        const released = Promise.resolve().then(release);
        await Promise.race([released, late]).then(
          (outcome) => outcome === 'late' && log.warn({ resource: name }, 'not closed in time, abandoned'),
          (error: unknown) => log.warn({ resource: name, err: error }, 'closing failed'),
        );
      }
    },
  };
}
