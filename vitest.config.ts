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
    // For a machine that is ten times slower than usual; what goes wrong is mostly told by a shorter wait of the test itself.
    testTimeout: 300_000,
    hookTimeout: 300_000,
    expect: { poll: { timeout: 60_000, interval: 100 } },
    // Measured on two cores: more workers only take turns with Cassandra.
    maxWorkers: 2,
    sequence: { sequencer: TortureLast },
  },
});
