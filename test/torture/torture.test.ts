import { join } from 'node:path';
import { execa } from 'execa';
import { expect, it } from 'vitest';
import type { Figures } from './figures.ts';

const MAIN = join(import.meta.dirname, 'main.ts');

/** The short form of `npm run test:torture`, in two to three minutes: a seed that deals what no other test breaks, always the same. */
const SHORT = ['--seed', '1508', '--rounds', '5', '--seconds', '110'];

it('loses nothing and gets nothing wrong while processes, stores and connections are broken at random', async () => {
  const { all, exitCode } = await execa(process.execPath, ['--import', 'tsx', MAIN, ...SHORT], {
    all: true,
    reject: false,
    timeout: 1_700_000,
  });
  console.log(all);
  expect(exitCode, all).toBe(0);
  const figures = JSON.parse(all.trim().split('\n').at(-1) ?? '') as Figures;
  expect(figures).toMatchObject({ lost: 0, doubled: 0, wrong: 0, summariesWrong: 0 });
  expect(figures.rounds).toBeGreaterThanOrEqual(2);
  expect(figures.faults).toBeGreaterThanOrEqual(4);
  expect(figures.recoveries).toHaveProperty('killed between two steps');
}, 1_800_000);
