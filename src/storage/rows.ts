import type { Row } from '../datasets/dataset.ts';
import type { Store } from './client.ts';

/** Cassandra warns about a batch of several partitions over 5 KiB, and about one of over ten partitions. */
const MIXED_BYTES = 4_500;
const MIXED_PARTITIONS = 10;
/** One of a single partition is one mutation, of whatever size; beyond some tens of rows nothing is gained. */
const SINGLE_BYTES = 16_000;
/** What a row and each of its cells cost beside the texts, as Cassandra reckons. On the high side. */
const ROW_BYTES = 60;
const CELL_BYTES = 18;
/** Batches under way at once: enough to keep Cassandra busy. While all are, rows gather, so that those of one partition go together. */
const MAX_BATCHES = 32;
/** Those of a backlog while files arrive: each that is under way is one that an arrival's request waits behind in Cassandra. */
const BATCHES_BESIDE_ARRIVALS = 6;

/** One call of `write`: how many of its rows were not tried yet, and what went wrong with one that was. */
type Call = { left: number; failure?: { error: unknown }; resolve: () => void; reject: (error: unknown) => void };
/** A row that waits, and those who wait for it. */
type Waiting = { row: Row; size: number; readonly calls: Call[] };
type Group = Map<string, Waiting>;
/** By table and partition, in the order in which they are to go; in them by the key of the row. */
type Lane = Map<string, Group>;

function estimatedBytes({ values }: Row): number {
  let bytes = ROW_BYTES + CELL_BYTES * values.length;
  for (const value of values) if (typeof value === 'string') bytes += Buffer.byteLength(value);
  return bytes;
}

/** Whether a row would win over another one of the same key. */
function isNewer(row: Row, other: Row): boolean {
  const [own, others] = [row.timestamp ?? 0n, other.timestamp ?? 0n];
  return own === others ? (row.rank ?? '') > (other.rank ?? '') : own > others;
}

function add(lane: Lane, row: Row, call: Call): void {
  const id = `${row.table} ${row.partition}`;
  let group = lane.get(id);
  if (group === undefined) lane.set(id, (group = new Map()));
  const waiting = group.get(row.key);
  if (waiting === undefined) {
    group.set(row.key, { row, size: estimatedBytes(row), calls: [call] });
    return;
  }
  // Only one of them is sent: in one batch they would have one time, and be mixed column by column.
  waiting.calls.push(call);
  if (isNewer(waiting.row, row)) return;
  waiting.row = row;
  waiting.size = estimatedBytes(row);
}

function fits(group: Group, room: number): boolean {
  for (const { size } of group.values()) if ((room -= size) < 0) return false;
  return true;
}

/** Takes rows of the partition that waited longest, and all of further ones where they are few and there is room. */
function takeBatch(lane: Lane, maxPartitions: number): Waiting[] {
  const batch: Waiting[] = [];
  let bytes = 0;
  let partitions = 0;
  for (const [id, group] of lane) {
    if (partitions > 0 && !fits(group, MIXED_BYTES - bytes)) break;
    lane.delete(id);
    for (const [key, waiting] of group) {
      if (partitions === 0 && batch.length > 0 && bytes + waiting.size > SINGLE_BYTES) break;
      group.delete(key);
      batch.push(waiting);
      bytes += waiting.size;
    }
    partitions += 1;
    // What is left goes to the end, so that a partition that is never empty does not hold up the others.
    if (group.size > 0) lane.set(id, group);
    if (group.size > 0 || partitions === maxPartitions) break;
  }
  return batch;
}

/** A call ends when all of its rows were tried: none is left behind that nobody waits for. */
function settle(calls: readonly Call[], failure?: { error: unknown }): void {
  for (const call of calls) {
    if (failure !== undefined) call.failure ??= failure;
    if ((call.left -= 1) > 0) continue;
    if (call.failure === undefined) call.resolve();
    else call.reject(call.failure.error);
  }
}

/**
 * Makes the writer that all loads of a process share. It sends unlogged batches: of one partition, or of several where
 * every node has all of them, so that no coordinator has to ask others. Rows are sent again without harm.
 *
 * @param filesArrive whether urgent rows are to be expected
 */
export function createRowWriter(store: Pick<Store, 'insertRows' | 'everyNodeHasAll'>, filesArrive: () => boolean) {
  const urgent: Lane = new Map();
  const others: Lane = new Map();
  let underWay = 0;
  let othersUnderWay = 0;

  async function sendBatch(lane: Lane): Promise<void> {
    const batch = takeBatch(lane, store.everyNodeHasAll() ? MIXED_PARTITIONS : 1);
    const isOther = lane === others ? 1 : 0;
    underWay += 1;
    othersUnderWay += isOther;
    let failure: { error: unknown } | undefined;
    try {
      await store.insertRows(batch.map(({ row }) => row));
    } catch (error) {
      failure = { error };
    }
    underWay -= 1;
    othersUnderWay -= isOther;
    for (const { calls } of batch) settle(calls, failure);
    send();
  }
  function send(): void {
    const mayOthers = () => othersUnderWay < (filesArrive() ? BATCHES_BESIDE_ARRIVALS : MAX_BATCHES);
    while (underWay < MAX_BATCHES && (urgent.size > 0 || (others.size > 0 && mayOthers())))
      void sendBatch(urgent.size > 0 ? urgent : others);
  }

  /**
   * Resolves when every row is acknowledged; rejects when all were tried and one failed. Writing them again changes
   * nothing. Urgent ones go before all others.
   */
  return (rows: readonly Row[], isUrgent = false): Promise<void> =>
    new Promise((resolve, reject) => {
      if (rows.length === 0) {
        resolve();
        return;
      }
      const call = { left: rows.length, resolve, reject };
      for (const row of rows) add(isUrgent ? urgent : others, row, call);
      // At the end of the turn, so that what is read in the same one goes together.
      setImmediate(send);
    });
}
