import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/{unit,integration,browser}/**/*.test.ts'],
    globalSetup: 'test/global-setup.ts',
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // Measured on two cores: more workers only take turns with Cassandra.
    maxWorkers: 2,
  },
});
