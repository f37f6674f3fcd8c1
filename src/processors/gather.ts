/**
 * Makes what lets loads start in step, so that their rows of one partition go together: each waits until there are
 * `size` of them, and `maxMs` after the first one at most.
 */
export function createGathering(size: number, maxMs: number): () => Promise<void> {
  let waiting: (() => void)[] = [];
  let timer: NodeJS.Timeout | undefined;

  function release(): void {
    clearTimeout(timer);
    const released = waiting;
    waiting = [];
    for (const start of released) start();
  }
  return () =>
    new Promise((resolve) => {
      if (waiting.push(resolve) >= size) release();
      else if (waiting.length === 1) timer = setTimeout(release, maxMs);
    });
}
