import { setTimeout as sleep } from 'node:timers/promises';
import { piecesOf } from '../../src/pieces.ts';
import { keyOf, type Provided, type ProvidedFile } from './provider.ts';
import type { Rig } from './rig.ts';

const LOOK_EVERY_MS = 150;
const NAMES_PER_QUERY = 100;
/** What Cassandra may have lost when it was killed is younger than this. */
const TAIL_MS = 60_000;

export type Observer = ReturnType<typeof startObserver>;

/** Looks at the ledger and the watermark all the time, and so knows how long what takes. */
export function startObserver(rig: Rig, provided: Provided) {
  /** When each version was seen settled: loaded, or a dead letter that has to be one. */
  const settled = new Map<string, number>();
  const recovering: { fault: string; endedAt: number; left: Set<string> }[] = [];
  const recoveries: { fault: string; ms: number }[] = [];
  const violations: string[] = [];
  let watermark = '';
  let progressAt = Date.now();
  let longestStallMs = 0;
  let stopped = false;

  const pending = (): ProvidedFile[] =>
    [...provided.values()].filter(
      (file) => (file.expected === 'loaded' || file.expected === 'dead letter') && !settled.has(keyOf(file)),
    );

  async function lookAtLedger(): Promise<void> {
    const waiting = pending();
    if (!waiting.some(({ expected }) => expected === 'loaded')) progressAt = Date.now();
    for (const some of piecesOf(waiting, NAMES_PER_QUERY)) {
      const names = some.map(({ name }) => name);
      const rows = await rig.read('SELECT name, version, state FROM files WHERE name IN ?', [names]);
      for (const { name, version, state } of rows) {
        const file = provided.get(keyOf({ name: String(name), version: String(version) }));
        if (file === undefined || settled.has(keyOf(file))) continue;
        const isDone =
          file.expected === 'loaded' ? state === 'loaded' || state === 'unchanged' : state === 'dead_letter';
        if (!isDone) continue;
        settled.set(keyOf(file), Date.now());
        progressAt = Date.now();
      }
    }
    longestStallMs = Math.max(longestStallMs, Date.now() - progressAt);
    for (const one of [...recovering]) {
      for (const key of one.left) if (settled.has(key)) one.left.delete(key);
      if (one.left.size > 0) continue;
      recoveries.push({ fault: one.fault, ms: Date.now() - one.endedAt });
      recovering.splice(recovering.indexOf(one), 1);
    }
  }

  async function lookAtWatermark(): Promise<void> {
    const [row] = await rig.read('SELECT watermark FROM aggregation_state');
    const now = String(row?.['watermark']);
    if (now < watermark) violations.push(`the watermark went back from ${watermark} to ${now}`);
    watermark = now;
  }

  async function look(): Promise<void> {
    while (!stopped) {
      // A store that is away is what this is about.
      await lookAtLedger().catch(() => undefined);
      await lookAtWatermark().catch(() => undefined);
      await sleep(LOOK_EVERY_MS);
    }
  }
  const looking = look();

  return {
    recoveries,
    violations,
    pending,
    longestStallMs: () => longestStallMs,
    /** From now on it is measured how long it takes until all that was written before is settled. */
    faultEnded: (fault: string) => {
      recovering.push({ fault, endedAt: Date.now(), left: new Set(pending().map(keyOf)) });
    },
    /** The newest writes may be gone, and with them the newest watermark. */
    cassandraLostItsTail: () => {
      watermark = '';
      for (const [key, at] of settled) if (Date.now() - at < TAIL_MS) settled.delete(key);
    },
    stop: async () => {
      stopped = true;
      await looking;
    },
  };
}
