import { defineConfig } from 'vitest/config';

/** Tests with several nodes of a store; one file after the other, each has most of a small machine for itself. */
export default defineConfig({
  test: {
    include: ['test/cluster/**/*.test.ts'],
    globalSetup: 'test/global-setup.ts',
    testTimeout: 600_000,
    hookTimeout: 300_000,
    expect: { poll: { timeout: 60_000, interval: 100 } },
    fileParallelism: false,
  },
});
