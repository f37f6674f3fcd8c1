import { microsOfClock, monthOf } from '../datasets/time.ts';
import { hasRestarted, type Generations, type Store } from './client.ts';

const JOB = 'summaries';
/** A move of the watermark is remembered when the one before is older than this share of the time to be durable. */
const MOVES_APART = 1 / 4;

/** A run may write at its epoch, or at so many microseconds from there: a later run's epoch is greater than all of them. */
export const TURNS = 10_000n;

/** Of epochs that are ahead of a clock that was set back, a node that was started anew may have forgotten less than this, in µs. */
const FORGOTTEN = 1_000_000_000n;

/** When the watermark was moved, and to what; both in ms since the epoch. */
type Move = readonly [at: number, watermark: number];

/** Sets the first watermark, where there is none. */
export function startAggregation(store: Store, watermark: number): Promise<boolean> {
  const start = 'INSERT INTO aggregation_state (job, watermark, epoch) VALUES (?, ?, ?) IF NOT EXISTS';
  return store.runIf(start, [JOB, new Date(watermark), 0n]);
}

/**
 * The watermark in ms since the epoch; the epoch of the newest run in µs; the window that it claimed; the generations of
 * Cassandra's nodes by then; and the moves of the watermark since the newest one that was on disk for sure, oldest first.
 */
export async function readAggregationState(store: Store) {
  const columns = 'watermark, epoch, window_start, window_end, generations, moves';
  const read = () => store.run(`SELECT ${columns} FROM aggregation_state WHERE job = ?`, [JOB]);
  let [row] = (await read()).rows;
  if (row === undefined) {
    // Cassandra lost it: the next run makes every summary anew.
    await startAggregation(store, 0);
    row = (await read()).first();
  }
  const watermark = Number(row['watermark']);
  const moves = [...((row['moves'] ?? []) as Iterable<[Date, Date]>)].map(([at, to]): Move => [Number(at), Number(to)]);
  return {
    watermark,
    epoch: BigInt(row['epoch']),
    windowStart: Number(row['window_start'] ?? watermark),
    windowEnd: Number(row['window_end'] ?? watermark),
    generations: (row['generations'] ?? new Map()) as Generations,
    moves: moves.length > 0 ? moves : [[0, watermark] as const],
  };
}

/** The end of the newest window that was claimed, in ms since the epoch. */
export async function readWindowEnd(store: Pick<Store, 'run'>): Promise<number> {
  const result = await store.run('SELECT watermark, window_end FROM aggregation_state WHERE job = ?', [JOB]);
  const [row] = result.rows;
  return Math.max(Number(row?.['watermark'] ?? 0), Number(row?.['window_end'] ?? 0));
}

const toMap = (moves: readonly Move[]) => new Map(moves.map(([at, to]) => [new Date(at), new Date(to)]));

/** Takes the right to move the watermark from every earlier run, with an epoch that is greater than all before it. */
export async function claimEpoch(store: Store): Promise<bigint> {
  for (;;) {
    const { epoch } = await readAggregationState(store);
    const next = epochAfter(epoch, store.now());
    const claim = 'UPDATE aggregation_state SET epoch = ? WHERE job = ? IF epoch = ?';
    if (await store.runIf(claim, [next, JOB, epoch])) return next;
  }
}

function epochAfter(epoch: bigint, nowMs: number, isForgetful = false): bigint {
  const now = microsOfClock(nowMs);
  const next = epoch + TURNS + (isForgetful && epoch > now ? FORGOTTEN : 0n);
  return now > next ? now : next;
}

/**
 * Claims an epoch and the window (after, until] of the change log. Who appends to the log and sees a claimed window that
 * includes the entry appends it again behind the window, so that no entry is passed over, whatever the clocks say.
 *
 * The window starts at the watermark. But where a node of Cassandra was started anew since the last claim, it may have
 * kept the watermark and forgotten summaries before it: the window starts where all was on disk by then.
 */
export async function claimWindow(store: Store, settleMs: number) {
  for (;;) {
    const startedAt = store.now();
    const { generations } = await store.nodes();
    const state = await readAggregationState(store);
    const { watermark, windowStart, windowEnd } = state;
    const isForgetful = hasRestarted(state.generations, generations);
    const moves = isForgetful ? state.moves.slice(0, 1) : state.moves;
    const [, onDisk = watermark] = moves[0] ?? [];
    const isUnfinished = windowEnd > watermark;
    const after = Math.min(watermark, isUnfinished ? windowStart : watermark, isForgetful ? onDisk : watermark);
    const until = Math.max(watermark + 1, Math.floor(startedAt - settleMs));
    const epoch = epochAfter(state.epoch, startedAt, isForgetful);
    const columns = 'epoch = ?, window_start = ?, window_end = ?, generations = ?, moves = ?';
    const known = new Map([...state.generations, ...generations]);
    const values = [epoch, new Date(after), new Date(until), known, toMap(moves)];
    const claim = `UPDATE aggregation_state SET ${columns} WHERE job = ? IF epoch = ? AND watermark = ?`;
    // The run before may have moved it since it was read.
    if (await store.runIf(claim, [...values, JOB, state.epoch, new Date(watermark)]))
      return { startedAt, epoch, after, until };
  }
}

/**
 * Moves the watermark to the end of a window, unless a newer run has claimed one, or Cassandra may have forgotten some of
 * what this one wrote. Resolves to whether it was moved.
 */
export async function moveWatermark(
  store: Store,
  { epoch, until, startedAt }: { readonly epoch: bigint; readonly until: number; readonly startedAt: number },
  durableMs: number,
): Promise<boolean> {
  const { moves, generations } = await readAggregationState(store);
  const nodes = await store.nodes();
  if (hasRestarted(generations, nodes.generations)) return false;

  const [newest = 0] = moves.at(-1) ?? [];
  const isFar = store.now() - newest >= durableMs * MOVES_APART;
  const known: readonly Move[] = isFar ? [...moves, [store.now(), until]] : moves;
  const onDisk = known.filter(([at]) => at <= startedAt - durableMs).length;
  // A crash that this claim does not know of was after its start; or it is of a node that is down, and says so when it is back.
  const kept = nodes.down.length > 0 ? moves : known.slice(Math.max(0, onDisk - 1));
  const values = [new Date(until), toMap(kept)];
  const move = 'UPDATE aggregation_state SET watermark = ?, moves = ? WHERE job = ? IF epoch = ?';
  return store.runIf(move, [...values, JOB, epoch]);
}

/** Writes down a run, by the columns of aggregation_runs. */
export function recordRun(store: Store, run: Readonly<Record<string, unknown>> & { started_at: Date }): Promise<void> {
  const values = { month: monthOf(run.started_at.getTime()), ...run, finished_at: new Date(store.now()) };
  return store.insert({ table: 'aggregation_runs', values });
}
