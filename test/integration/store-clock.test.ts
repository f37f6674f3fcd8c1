import { expect, it, onTestFinished, vi } from 'vitest';
import { openStore } from '../../src/commands/connect.ts';
import { openSpace } from './pipeline.ts';

const TEN_MINUTES_MS = 600_000;

it("a process that stood still, as on a machine that was suspended, asks for Cassandra's time before it says when a load began", async () => {
  const store = await openStore((await openSpace()).runtime());
  const monotonic = performance.now.bind(performance);
  expect(Math.abs(store.now() - Date.now())).toBeLessThan(1_000);
  // The monotonic clock does not go on in a suspended machine.
  vi.spyOn(performance, 'now').mockImplementation(() => monotonic() - TEN_MINUTES_MS);
  onTestFinished(() => void vi.restoreAllMocks());
  expect(store.now() - Date.now()).toBeLessThan(-TEN_MINUTES_MS + 1_000);
  expect(Math.abs((await store.freshNow()) - Date.now())).toBeLessThan(1_000);
  expect(Math.abs(store.now() - Date.now())).toBeLessThan(1_000);
});
