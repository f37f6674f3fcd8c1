import { defineConfig } from 'vitest/config';
import type { TestSequencer, TestSpecification } from 'vitest/node';

/** The torture suite comes last: it starts stores and roles of its own, and would slow the others down. */
class TortureLast implements TestSequencer {
  shard(files: TestSpecification[]): TestSpecification[] {
    return files;
  }

  sort(files: TestSpecification[]): TestSpecification[] {
    const isTorture = ({ moduleId }: TestSpecification) => Number(moduleId.includes('/torture/'));
    return files.toSorted((a, b) => isTorture(a) - isTorture(b));
  }
}

export default defineConfig({
  test: {
    include: ['test/{unit,integration,browser,torture}/**/*.test.ts'],
    globalSetup: 'test/global-setup.ts',
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // Measured on two cores: more workers only take turns with Cassandra.
    maxWorkers: 2,
    sequence: { sequencer: TortureLast },
  },
});
