import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { parseConfig } from '../../src/config.ts';
import { NotNow } from '../../src/processors/data-file.ts';
import { createTurns } from '../../src/processors/turns.ts';
import type { ProcessorNeeds } from '../../src/processors/processor.ts';

const ingestQueue = { getJobCountByTypes: () => Promise.resolve(0) } as unknown as ProcessorNeeds['ingestQueue'];
const file = (size: number, crashes = 0) => ({ name: 'vehicles_events_1.json', size, mtimeNs: '1', crashes });
const [SMALL, LARGE] = [1_000, 1_000_000_000];

/** Loads of one process; each that was begun is under way until it is ended. */
function turnsOfOne() {
  const { inTurn, suspectInTurn } = createTurns({ config: parseConfig({}), ingestQueue }, () => false);
  const load = (turn: typeof inTurn, size: number, isArrival: boolean, crashes?: number) => {
    let end = () => {};
    let state = 'waits';
    const start = () => {
      state = 'begun';
      return new Promise<void>((resolve) => (end = resolve));
    };
    const done = turn(file(size, crashes), isArrival, start).then(
      () => (state = 'done'),
      (error: unknown) => (state = error instanceof NotNow ? 'put back' : String(error)),
    );
    return {
      state: async () => {
        await sleep(20);
        return state;
      },
      end: async () => {
        end();
        await done;
      },
    };
  };
  return {
    backlog: (size: number) => load(inTurn, size, false),
    arrival: (size: number) => load(inTurn, size, true),
    suspect: (size: number, crashes: number) => load(suspectInTurn, size, false, crashes),
  };
}

it('one that is to be loaded alone does not make arrivals wait for the end of a large file, but further large ones for itself', async () => {
  const turns = turnsOfOne();
  const first = turns.backlog(LARGE);
  expect(await first.state()).toBe('begun');
  const alone = turns.suspect(SMALL, 1);
  expect(await alone.state()).toBe('put back');
  const arrival = turns.arrival(SMALL);
  expect(await arrival.state()).toBe('begun');
  expect(await turns.backlog(LARGE).state()).toBe('put back');
  await first.end();

  const again = turns.suspect(SMALL, 1);
  expect(await again.state()).toBe('waits');
  await arrival.end();
  expect(await again.state()).toBe('begun');
  const next = turns.arrival(SMALL);
  expect(await next.state()).toBe('waits');
  await again.end();
  expect(await next.state()).toBe('begun');
  expect(await turns.backlog(LARGE).state()).toBe('begun');
});

it('large files that wait for their turn are put back for one that is to be loaded alone', async () => {
  const turns = turnsOfOne();
  const large = Array.from({ length: 13 }, () => turns.backlog(LARGE));
  const states = () => Promise.all(large.map((one) => one.state()));
  expect(await states()).toEqual([...Array<string>(12).fill('begun'), 'waits']);
  expect(await turns.suspect(SMALL, 1).state()).toBe('put back');
  expect(await states()).toEqual([...Array<string>(12).fill('begun'), 'put back']);
});

it('what waits, or comes, while a large one is loaded alone is put back', async () => {
  const turns = turnsOfOne();
  const before = turns.backlog(SMALL);
  expect(await before.state()).toBe('begun');
  const alone = turns.suspect(LARGE, 1);
  expect(await alone.state()).toBe('waits');
  const waiting = [turns.backlog(SMALL), turns.arrival(SMALL)];
  expect(await Promise.all(waiting.map((one) => one.state()))).toEqual(['waits', 'waits']);
  await before.end();
  expect(await alone.state()).toBe('begun');
  expect(await Promise.all(waiting.map((one) => one.state()))).toEqual(['put back', 'put back']);
  expect(await turns.arrival(SMALL).state()).toBe('put back');
  await alone.end();
  expect(await turns.arrival(SMALL).state()).toBe('begun');
});

it('a suspect that nothing was held against yet is loaded beside others, also beside large ones', async () => {
  const turns = turnsOfOne();
  expect(await turns.backlog(LARGE).state()).toBe('begun');
  const suspect = turns.suspect(LARGE, 0);
  expect(await suspect.state()).toBe('begun');
  expect(await turns.suspect(SMALL, 0).state()).toBe('put back');
  expect(await turns.arrival(SMALL).state()).toBe('begun');
  await suspect.end();
  expect(await turns.suspect(SMALL, 0).state()).toBe('begun');
});
