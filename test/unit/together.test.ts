import { expect, it } from 'vitest';
import { together } from '../../src/storage/together.ts';

it('what is asked for in one turn, or while a call is under way, goes together, so many at once', async () => {
  const calls: number[][] = [];
  const double = together<number, number>(4, async (items) => {
    calls.push(items);
    await new Promise((resolve) => setImmediate(resolve));
    return items.map((item) => item * 2);
  });
  const numbers = Array.from({ length: 10 }, (_, n) => n);
  expect(await Promise.all(numbers.map(double))).toEqual(numbers.map((n) => n * 2));
  expect(calls).toEqual([
    [0, 1, 2, 3],
    [4, 5, 6, 7],
    [8, 9],
  ]);
  expect(await double(21)).toBe(42);
});

it('a call that fails fails those who shared it, and the next one is made all the same', async () => {
  const half = together<number, number>(2, async (items) => {
    await Promise.resolve();
    if (items.includes(13)) throw new Error('unlucky');
    return items.map((item) => item / 2);
  });
  const results = await Promise.allSettled([8, 13, 6].map(half));
  expect(results.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'fulfilled']);
});
