/** Makes of a task one that is not begun again while it is under way: who asks meanwhile waits for what is. */
export function oneAtATime<T>(task: () => Promise<T>): () => Promise<T> {
  let underWay: Promise<T> | undefined;
  return () => (underWay ??= task().finally(() => (underWay = undefined)));
}

/**
 * Group commit: what is asked for while a call is under way goes together in the next one, at most `max` items. Alone,
 * an item waits for nothing; under load, many share one call, and fail with it.
 *
 * @param run takes the items and resolves to a result for each, in their order
 */
export function together<Item, Result>(max: number, run: (items: Item[]) => Promise<readonly Result[]>) {
  type Waiting = { item: Item; resolve: (result: Result) => void; reject: (error: unknown) => void };
  const waiting: Waiting[] = [];
  let busy = false;

  async function runAll(): Promise<void> {
    busy = true;
    for (let group = waiting.splice(0, max); group.length > 0; group = waiting.splice(0, max)) {
      try {
        const results = await run(group.map(({ item }) => item));
        group.forEach(({ resolve }, index) => resolve(results[index] as Result));
      } catch (error) {
        for (const { reject } of group) reject(error);
      }
    }
    busy = false;
  }
  return (item: Item): Promise<Result> =>
    new Promise((resolve, reject) => {
      waiting.push({ item, resolve, reject });
      // At the end of the turn, so that those who ask in the same one share the first call, too.
      if (!busy) {
        busy = true;
        setImmediate(() => void runAll());
      }
    });
}
