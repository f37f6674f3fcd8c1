import { expect, it, onTestFinished, vi } from 'vitest';
import { createGathering } from '../../src/processors/gather.ts';

const HOUR_MS = 3_600_000;

/** Whether each of some promises is fulfilled once everything that can go on has done so. */
async function areDone(promises: readonly Promise<unknown>[]): Promise<boolean[]> {
  const done = promises.map(() => false);
  promises.forEach((one, index) => void one.then(() => (done[index] = true)));
  await new Promise((resolve) => setImmediate(resolve));
  return done;
}

it('all wait until there are enough, and the next ones for each other again', async () => {
  const gathered = createGathering(3, HOUR_MS);
  const first = [gathered(), gathered()];
  expect(await areDone(first)).toEqual([false, false]);
  const next = [gathered(), gathered()];
  expect(await areDone([...first, ...next])).toEqual([true, true, true, false]);
  await Promise.all([gathered(), gathered(), ...next]);
});

it('who would be alone waits for nobody', async () => {
  const gathered = createGathering(0.5, HOUR_MS);
  await gathered();
  await gathered();
});

it('too few go after a while, and those of the next while have all of it', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  onTestFinished(() => void vi.useRealTimers());
  const gathered = createGathering(3, 300);
  const early = [gathered()];
  vi.advanceTimersByTime(200);
  early.push(gathered());
  vi.advanceTimersByTime(99);
  expect(await areDone(early)).toEqual([false, false]);
  vi.advanceTimersByTime(1);
  expect(await areDone(early)).toEqual([true, true]);
  const late = gathered();
  vi.advanceTimersByTime(299);
  expect(await areDone([late])).toEqual([false]);
  vi.advanceTimersByTime(1);
  await late;
});
