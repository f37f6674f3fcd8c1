import { monthOf } from '../datasets/time.ts';
import type { Store } from './client.ts';

const JOB = 'summaries';

/** Times in ms since the epoch; the epoch of a run in µs. */
export interface AggregationState {
  readonly watermark: number;
  readonly epoch: bigint;
}

export async function readAggregationState(store: Store): Promise<AggregationState> {
  const result = await store.run('SELECT watermark, epoch FROM aggregation_state WHERE job = ?', [JOB]);
  const row = result.first();
  const watermark: Date = row.get('watermark');
  return { watermark: watermark.getTime(), epoch: BigInt(row.get('epoch')) };
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
    const claimed = await store.runIf('UPDATE aggregation_state SET epoch = ? WHERE job = ? IF epoch = ?', [
      next,
      JOB,
      epoch,
    ]);
    if (claimed) return { watermark, epoch: next };
  }
}

/** Moves the watermark, unless a newer run has claimed it. Resolves to whether it was moved. */
export function moveWatermark(store: Store, epoch: bigint, watermark: number): Promise<boolean> {
  return store.runIf('UPDATE aggregation_state SET watermark = ? WHERE job = ? IF epoch = ?', [
    new Date(watermark),
    JOB,
    epoch,
  ]);
}

/** One run, as the history has it. Times in ms since the epoch. */
export interface AggregationRun {
  readonly runId: string;
  readonly kind: 'incremental' | 'rebuild';
  readonly startedAt: number;
  readonly windowStart: number;
  readonly windowEnd: number;
  readonly hours: number;
  readonly days: number;
  /** Jobs that shared the work; 0 when the run did it alone. */
  readonly slices: number;
  readonly outcome: 'done' | 'overtaken';
  readonly worker: string;
}

export async function recordRun(store: Store, run: AggregationRun): Promise<void> {
  await store.run(
    'INSERT INTO aggregation_runs (month, started_at, run_id, kind, window_start, window_end, hours, days, slices, ' +
      'outcome, worker, finished_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)',
    [
      monthOf(run.startedAt),
      new Date(run.startedAt),
      run.runId,
      run.kind,
      new Date(run.windowStart),
      new Date(run.windowEnd),
      BigInt(run.hours),
      BigInt(run.days),
      run.slices,
      run.outcome,
      run.worker,
      new Date(store.now()),
    ],
  );
}
