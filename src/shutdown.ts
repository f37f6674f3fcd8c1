import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';

/** What has been opened, released last-in-first-out. Whatever a command opens goes on this stack in the next line. */
export interface Shutdown {
  /** Aborted when the process is asked to stop; long waits take it. */
  readonly signal: AbortSignal;
  /** Resolves when a stop was asked for. */
  readonly requested: Promise<void>;
  /** Asks for the stop. Calling it again changes nothing. */
  request(): void;
  /** Puts one thing on the stack. `name` is what the log calls it. */
  defer(name: string, release: () => unknown): void;
  /** Releases everything, each within what is left of the deadline; never rejects. */
  release(): Promise<void>;
}

/** @param deadlineMs how long all releases together may take before the rest is abandoned */
export function createShutdown(log: Logger, deadlineMs = 8_000): Shutdown {
  const stack: { name: string; release: () => unknown }[] = [];
  const controller = new AbortController();
  const { signal } = controller;
  const requested = new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
  return {
    signal,
    requested,
    request: () => controller.abort(),
    defer: (name, release) => stack.push({ name, release }),
    release: async () => {
      const deadline = performance.now() + deadlineMs;
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
