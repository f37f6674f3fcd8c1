import { join } from 'node:path';
import { execa } from 'execa';
import { expect, it } from 'vitest';

const MAIN = join(import.meta.dirname, 'main.ts');

/** The short form of `npm run test:torture`: always the same faults, a few of each kind, in two to three minutes. */
const SHORT = ['--seed', '33', '--rounds', '5', '--seconds', '110'];

it('loses nothing and gets nothing wrong while processes, stores and connections are broken at random', async () => {
  const { all, exitCode } = await execa(process.execPath, ['--import', 'tsx', MAIN, ...SHORT], {
    all: true,
    reject: false,
    timeout: 590_000,
  });
  console.log(all);
  expect(exitCode, all).toBe(0);
}, 600_000);
