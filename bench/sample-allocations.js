import { writeFileSync } from 'node:fs';
import { Session } from 'node:inspector';

// Preloaded into a processor: samples what it allocates, also what is garbage by then, and writes that when it ends.
const session = new Session();
session.connect();
session.post('HeapProfiler.startSampling', {
  samplingInterval: 65_536,
  includeObjectsCollectedByMajorGC: true,
  includeObjectsCollectedByMinorGC: true,
});
process.on('exit', () => {
  session.post('HeapProfiler.stopSampling', (_error, { profile }) => {
    writeFileSync('allocations.heapprofile', JSON.stringify(profile));
  });
});
