import { setTimeout as sleep } from 'node:timers/promises';
import { Mutex, Semaphore, withTimeout } from 'async-mutex';
import type { IngestJob } from '../queues/ingest.ts';
import { oneAtATime } from '../storage/together.ts';
import { NotNow } from './data-file.ts';
import type { ProcessorNeeds } from './processor.ts';

/** What one process loads at once, in units of a small file; a large one counts as so many, a piece of it is in memory. */
const UNITS_AT_ONCE = 256;
const UNIT_BYTES = 64 * 1024;
const MAX_UNITS = 16;
/** Large files at once: others would have to wait for the end of one of them, minutes perhaps, if they took all units. */
const LARGE_AT_ONCE = 12;
/** What large files take of the places of a process, INGEST_CONCURRENCY, for longer than a moment. */
const LARGE_SHARE = 0.75;
const LARGE_WAIT_MS = 2_000;
/** For so long large files wait for one that is to be loaded alone, which may be put back to other processors meanwhile. */
const ALONE_WAIT_MS = 30_000;
/** What a file of the backlog takes at least while files arrive: 21 of them leave some units to these. */
const UNITS_BESIDE_ARRIVALS = 12;
/** While no file has arrived for so long, none is expected. */
const NOTHING_ARRIVED_MS = 10_000;
/** How often it is looked whether files that arrive find no place, how many are given up to them, and when it is looked again. */
const LOOK_EVERY_MS = 25;
const PLACES_GIVEN_UP = 8;
const GIVEN_UP_MS = 100;
/** Files that arrive now, and those that may have ended a processor, do not wait behind the backlog. */
const [LATER, FIRST] = [0, 1];

/** How many units a load takes. */
function unitsOf({ name, size }: IngestJob): number {
  return name.endsWith('.gz') ? MAX_UNITS : Math.min(MAX_UNITS, Math.ceil((size + 1) / UNIT_BYTES));
}

/** Whether a file is one that is read and written in one piece. */
export const isSmall = (file: IngestJob) => unitsOf(file) === 1;

/**
 * Makes what says when a file that has a place in this process, one of INGEST_CONCURRENCY, may be loaded. What waits for its
 * turn rejects with NotNow where its place is of more use to others: its job is to be put back.
 */
export function createTurns(
  { config, ingestQueue }: Pick<ProcessorNeeds, 'config' | 'ingestQueue'>,
  isClosing: () => boolean,
) {
  const forArrivals = new NotNow('its place is for a file that arrives');
  const largeAlone = new NotNow('a large file that may have ended its processor is loaded alone');
  const soonAlone = new NotNow('a file that may have ended its processor is to be loaded alone');
  const room = new Semaphore(UNITS_AT_ONCE, largeAlone);
  const suspects = new Mutex(new NotNow('another file that may have ended its processor is loaded first'));
  let isLargeSuspected = false;
  let isLargeAlone = false;
  /** When a file that is to be loaded alone was last put back, as large ones were under way. */
  let aloneWanted = -Infinity;
  const large = new Semaphore(LARGE_AT_ONCE, soonAlone);
  const largeForAWhile = withTimeout(large, LARGE_WAIT_MS, new NotNow('as many large files wait as may'));
  let largeFiles = 0;
  let lastArrival = -Infinity;
  const filesArrive = () => performance.now() - lastArrival < NOTHING_ARRIVED_MS;

  /** Files of the backlog, but for large ones, that have a place and no room yet: each with what makes it give its place up. */
  const idle = new Set<() => void>();
  /** The queue hands out what arrives, or comes back from a processor that died, first, but only to who has a place for it. */
  const makePlaces = oneAtATime(async () => {
    for (let pauseMs = LOOK_EVERY_MS; ;) {
      await sleep(pauseMs);
      if (idle.size === 0 || isClosing()) return;
      const wanted = await ingestQueue.getJobCountByTypes('wait').catch(() => 0);
      for (const giveUp of [...idle].toReversed().slice(0, Math.min(wanted, PLACES_GIVEN_UP))) giveUp();
      pauseMs = wanted > 0 ? GIVEN_UP_MS : LOOK_EVERY_MS;
    }
  });

  function whenThereIsRoom<T>(units: number, start: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const giveUp = (reason = forArrivals) => {
        idle.delete(giveUp);
        reject(reason);
      };
      idle.add(giveUp);
      void makePlaces();
      // When there is room, one that gave its place up is idle no more, and nothing is left to do.
      const startIfIdle = async () => {
        if (idle.delete(giveUp)) await start().then(resolve, reject);
      };
      room.runExclusive(startIfIdle, units, LATER).catch(() => giveUp(largeAlone));
    });
  }

  /** Large files wait for each other, but only for a while where they have most of the places of this process already. */
  async function largeInTurn<T>(start: () => Promise<T>, priority: number): Promise<T> {
    if (performance.now() - aloneWanted < ALONE_WAIT_MS) throw soonAlone;
    const turns = largeFiles < config.INGEST_CONCURRENCY * LARGE_SHARE ? large : largeForAWhile;
    largeFiles += 1;
    try {
      return await turns.runExclusive(() => room.runExclusive(start, MAX_UNITS, priority), 1, priority);
    } finally {
      largeFiles -= 1;
    }
  }

  return {
    /** Whether files arrive, so that those of the backlog have to leave them room. */
    filesArrive,
    inTurn: async <T>(file: IngestJob, isArrival: boolean, start: () => Promise<T>): Promise<T> => {
      if (isArrival) lastArrival = performance.now();
      if (isLargeAlone) throw largeAlone;
      const units = unitsOf(file);
      if (units === MAX_UNITS) return largeInTurn(start, isArrival ? FIRST : LATER);
      if (isArrival) return room.runExclusive(start, units, FIRST);
      return whenThereIsRoom(filesArrive() ? Math.max(units, UNITS_BESIDE_ARRIVALS) : units, start);
    },
    /**
     * A file whose processor died. Perhaps it was this file that ended it, so one such file is loaded at a time, and only what
     * happens then is held against it; once something was, it is loaded alone. None keeps places from others for minutes: what
     * would wait for a large one is put back, further suspects, too, and so is one that is to be alone beside large ones, for
     * which no further ones are begun.
     */
    suspectInTurn: async <T>(file: IngestJob, isArrival: boolean, start: () => Promise<T>): Promise<T> => {
      if (isArrival) lastArrival = performance.now();
      const units = unitsOf(file);
      const isAlone = (file.crashes ?? 0) > 0;
      const startFirst = async () => {
        isLargeAlone = isAlone && isLargeSuspected;
        if (isLargeAlone) room.cancel();
        return await start();
      };
      const startAsSuspect = async () => {
        if (isAlone && large.getValue() < LARGE_AT_ONCE) {
          aloneWanted = performance.now();
          large.cancel();
          throw new NotNow('it is to be loaded alone, once no large file is under way');
        }
        if (isAlone) aloneWanted = -Infinity;
        isLargeSuspected = units === MAX_UNITS;
        if (isLargeSuspected) suspects.cancel();
        try {
          return await room.runExclusive(startFirst, isAlone ? UNITS_AT_ONCE : units, FIRST);
        } finally {
          isLargeSuspected = isLargeAlone = false;
        }
      };
      const turn = suspects.runExclusive(startAsSuspect, -units);
      if (isLargeSuspected) suspects.cancel();
      return await turn;
    },
  };
}
