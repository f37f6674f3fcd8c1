import { DAY_MS } from '../datasets/time.ts';
import { hasRestarted, MEASURE_EVERY_MS, type Generations, type Store } from '../storage/client.ts';
import { isLoaded, type KnownVersion } from '../storage/files.ts';

const JOB = 'folder';
/**
 * So long rows stay in doubt: a load that began before a node was started anew may end long after, and files may come back
 * with a folder that was away. It costs nothing, as what is loaded again is in doubt no more.
 */
const DOUBT_MS = 30 * DAY_MS;

/** Two measurements of one clock differ by less. */
const CLOCK_STEP_MS = 1_000;
/** Within this time all processes have measured Cassandra's clock anew. */
const CLOCK_LAG_MS = 2 * MEASURE_EVERY_MS;

/** Rows that were written after `from`, of loads that began by `until`, may speak of records that are gone. */
interface Doubt {
  readonly from: number;
  readonly until: number;
}
/** What was known when the nodes were looked at, at a time in ms since the epoch. */
interface Seen {
  readonly at: number;
  readonly generations: Generations;
  readonly doubts: readonly Doubt[];
}

async function readSeen(store: Store): Promise<Seen | undefined> {
  const query = 'SELECT seen_at, generations, doubts FROM reconciliation_state WHERE job = ?';
  const [row] = (await store.run(query, [JOB])).rows;
  if (row === undefined) return undefined;
  const doubts = [...((row['doubts'] ?? []) as Iterable<[Date, Date]>)];
  return {
    at: Number(row['seen_at']),
    generations: row['generations'] as Generations,
    doubts: doubts.map(([until, from]) => ({ from: Number(from), until: Number(until) })),
  };
}

const msOf = (writeTime: bigint) => Number(writeTime) / 1_000;

/** Adds a doubt. One that begins before another ends goes on from it: a Cassandra that starts again and again makes few. */
function joined(doubts: readonly Doubt[], { from, until }: Doubt): Doubt[] {
  const overlaps = (one: Doubt) => one.from <= until && from <= one.until;
  const all = [...doubts.filter(overlaps), { from, until }];
  const whole = { from: Math.min(...all.map((one) => one.from)), until: Math.max(...all.map((one) => one.until)) };
  return [...doubts.filter((one) => !overlaps(one)), whole];
}

/**
 * Knows which rows of the ledger may be all that is left of a load. Cassandra flushes each table by itself: a node that
 * was killed may have kept the row and forgotten records that were written before it. So when a node turns out to have
 * been started anew, what was written since the nodes were last seen, and shortly before, is in doubt. All this is
 * remembered in Cassandra, for a producer that is started together with it.
 */
export function createLedgerDoubt(store: Store, durableMs: number) {
  let seen: Seen | undefined;
  /** Addresses of nodes that were down when the nodes were last looked at. */
  let knownDown: readonly string[] = [];
  /** How far Cassandra's clock is ahead of the monotonic one, in ms, and when it was last set by the latter. */
  let clock: { readonly ahead: number; readonly setAt: number } | undefined;

  async function note(now: Seen): Promise<void> {
    const doubts = new Map(now.doubts.map(({ from, until }) => [new Date(until), new Date(from)]));
    const values = { job: JOB, seen_at: new Date(now.at), generations: now.generations, doubts };
    await store.insert({ table: 'reconciliation_state', values });
    seen = now;
  }

  return {
    /** Looks at the nodes, unless that was less than `everyMs` ago. Resolves to whether one was started anew, or went down, since. */
    look: async (everyMs = 0): Promise<boolean> => {
      if (seen !== undefined && store.now() >= seen.at && store.now() - seen.at < everyMs) return false;
      // While this machine stands still, so does the clock that it goes by, and what was loaded then would look like the future's.
      const at = seen?.doubts.length === 0 ? store.now() : await store.freshNow(true);
      const ahead = at - performance.now();
      const isSet = Math.abs(ahead - (clock?.ahead ?? ahead)) > CLOCK_STEP_MS;
      clock = { ahead, setAt: isSet ? performance.now() : (clock?.setAt ?? -Infinity) };
      const { generations, down } = await store.nodes();
      const before = seen ?? (await readSeen(store)) ?? { at, generations, doubts: [] };
      // Of one that is down, only its return will tell whether it was killed, and when that was.
      const isForgetful =
        hasRestarted(before.generations, generations) || !down.every((one) => knownDown.includes(one));
      const doubts = isForgetful
        ? joined(before.doubts, { from: Math.min(before.at, at) - durableMs, until: await store.freshNow(true) })
        : before.doubts;
      await note({ at, generations: new Map([...before.generations, ...generations]), doubts });
      knownDown = down;
      return isForgetful;
    },
    isDoubtful: ({ state, startedAt, writeTime }: KnownVersion): boolean =>
      isLoaded(state) &&
      seen?.doubts.some(
        // What was loaded in the future was loaded before the clock was set back.
        ({ from, until }) => msOf(writeTime) > from && (startedAt <= until || startedAt > store.now()),
      ) === true,
    /** Whether all of a load that the ledger speaks of, and that is not in doubt, is on disk. */
    isDurable: ({ writeTime }: KnownVersion): boolean =>
      seen !== undefined &&
      msOf(writeTime) <= seen.at - durableMs &&
      // What was written before Cassandra's clock was set looks older, or younger, than it is.
      performance.now() - (clock?.setAt ?? Infinity) > durableMs + CLOCK_LAG_MS,
    /** To be called when the whole folder was compared, with when that began, in ms since the epoch: forgets old doubts. */
    compared: async (startedAt: number): Promise<void> => {
      if (seen === undefined) return;
      const doubts = seen.doubts.filter(({ until }) => until > startedAt - DOUBT_MS);
      if (doubts.length < seen.doubts.length) await note({ ...seen, doubts });
    },
  };
}
