import { monthOf } from '../datasets/time.ts';
import type { Store } from './client.ts';

const JOB = 'summaries';

/** Sets the first watermark, where there is none. */
export function startAggregation(store: Store, watermark: number): Promise<boolean> {
  const start = 'INSERT INTO aggregation_state (job, watermark, epoch) VALUES (?, ?, ?) IF NOT EXISTS';
  return store.runIf(start, [JOB, new Date(watermark), 0n]);
}

/** The watermark in ms since the epoch; the epoch of the newest run in µs. */
export async function readAggregationState(store: Store) {
  const result = await store.run('SELECT watermark, epoch FROM aggregation_state WHERE job = ?', [JOB]);
  const { watermark, epoch } = result.first();
  return { watermark: Number(watermark), epoch: BigInt(epoch) };
}

/** Takes the right to move the watermark from every earlier run, with an epoch that is greater than all before it. */
export async function claimEpoch(store: Store) {
  for (;;) {
    const { watermark, epoch } = await readAggregationState(store);
    const now = BigInt(Math.floor(store.now() * 1000));
    const next = now > epoch ? now : epoch + 1n;
    const claim = 'UPDATE aggregation_state SET epoch = ? WHERE job = ? IF epoch = ?';
    if (await store.runIf(claim, [next, JOB, epoch])) return { watermark, epoch: next };
  }
}

/** Moves the watermark, unless a newer run has claimed it. Resolves to whether it was moved. */
export function moveWatermark(store: Store, epoch: bigint, watermark: number): Promise<boolean> {
  return store.runIf('UPDATE aggregation_state SET watermark = ? WHERE job = ? IF epoch = ?', [watermark, JOB, epoch]);
}

/** Writes down a run, by the columns of aggregation_runs. */
export function recordRun(store: Store, run: Readonly<Record<string, unknown>> & { started_at: Date }): Promise<void> {
  const values = { month: monthOf(run.started_at.getTime()), ...run, finished_at: new Date(store.now()) };
  return store.insert({ table: 'aggregation_runs', values });
}
