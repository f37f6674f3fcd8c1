import { monthOf } from '../datasets/time.ts';
import type { Store } from './client.ts';

const JOB = 'summaries';

/** The watermark in ms since the epoch; the epoch of the newest run in µs. */
export interface AggregationState {
  readonly watermark: number;
  readonly epoch: bigint;
}

export async function readAggregationState(store: Store): Promise<AggregationState> {
  const result = await store.run('SELECT watermark, epoch FROM aggregation_state WHERE job = ?', [JOB]);
  const { watermark, epoch } = result.first();
  return { watermark: Number(watermark), epoch: BigInt(epoch) };
}

/**
 * Takes the right to move the watermark from every earlier run.
 *
 * @returns the new epoch, greater than all before it, and the watermark as it stands
 */
export async function claimEpoch(store: Store): Promise<AggregationState> {
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
  const move = 'UPDATE aggregation_state SET watermark = ? WHERE job = ? IF epoch = ?';
  return store.runIf(move, [new Date(watermark), JOB, epoch]);
}

/** One run, by the columns of its history; `slices` is 0 when one job did it alone. */
export interface AggregationRun {
  readonly run_id: string;
  readonly kind: 'incremental' | 'rebuild';
  readonly started_at: Date;
  readonly window_start: Date;
  readonly window_end: Date;
  readonly hours: bigint;
  readonly days: bigint;
  readonly slices: number;
  readonly outcome: 'done' | 'overtaken';
  readonly worker: string;
}

export function recordRun(store: Store, run: AggregationRun): Promise<void> {
  const values = { month: monthOf(run.started_at.getTime()), ...run, finished_at: new Date(store.now()) };
  return store.insert({ table: 'aggregation_runs', values });
}
