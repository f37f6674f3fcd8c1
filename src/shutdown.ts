import type { Logger } from 'pino';

/**
 * What has been opened, released last-in-first-out. Whatever a command opens goes on this stack in the next line.
 */
export interface Shutdown {
  /** Aborted when the process is asked to stop; long waits take it. */
  readonly signal: AbortSignal;
  /** Puts one thing on the stack. `name` is what the log calls it. */
  defer(name: string, release: () => Promise<unknown> | unknown): void;
  /** Asks for the stop; `requested` resolves. Calling it again changes nothing. */
  request(): void;
  /** Resolves when a stop was asked for. */
  readonly requested: Promise<void>;
  /** Releases everything, each within what is left of the deadline; never rejects. */
  release(): Promise<void>;
}

/** @param deadlineMs how long all releases together may take before the rest is abandoned */
export function createShutdown(log: Logger, deadlineMs = 8_000): Shutdown {
  const stack: { name: string; release: () => Promise<unknown> | unknown }[] = [];
  const controller = new AbortController();
  const requested = new Promise<void>((resolve) => {
    controller.signal.addEventListener('abort', () => resolve(), { once: true });
  });

  async function releaseOne(name: string, release: () => Promise<unknown> | unknown, msLeft: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<'late'>((resolve) => {
      timer = setTimeout(() => resolve('late'), Math.max(msLeft, 100));
    });
    try {
      const outcome = await Promise.race([Promise.resolve().then(release), late]);
      if (outcome === 'late') log.warn({ resource: name }, 'not closed in time, abandoned');
    } catch (error) {
      log.warn({ resource: name, err: error }, 'closing failed');
    } finally {
      clearTimeout(timer);
    }
  }

  return {
    signal: controller.signal,
    requested,
    defer: (name, release) => {
      stack.push({ name, release });
    },
    request: () => controller.abort(),
    release: async () => {
      const deadline = performance.now() + deadlineMs;
      for (let top = stack.pop(); top !== undefined; top = stack.pop()) {
        await releaseOne(top.name, top.release, deadline - performance.now());
      }
    },
  };
}
