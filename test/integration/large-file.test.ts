import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { readFile, rename, utimes } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import { eventually, openSpace, type Role } from './pipeline.ts';
import { stoodStill, TELLS_STANDSTILL } from './standstill.ts';

/** `LARGE_FILE_BYTES=1e9` is how the figures of a gigabyte are had. */
const BYTES = Number(process.env['LARGE_FILE_BYTES'] ?? 30e6);
/** All of it: Node, the program, what is read, what is on its way to Cassandra. */
const MAX_RESIDENT_MB = 300;
const VEHICLES = 20;
const START_MS = Date.parse('2026-11-01T00:00:00Z');
const DAY_MS = 86_400_000;

const space = await openSpace({ AGGREGATION_EVERY_SECONDS: 60, SETTLE_SECONDS: 5 });
const folder = dirname(space.config.DATA_DIR);
let processor: Role;
beforeAll(() => {
  processor = space.startRole('process', TELLS_STANDSTILL);
  space.startWatcher();
});

/** A second apart, a kilobyte each. */
function record(vehicle: string, n: number): string {
  return JSON.stringify({
    vehicle_id: `${vehicle}-${n % VEHICLES}`,
    event_time: new Date(START_MS + n * 1_000).toISOString().slice(0, -1) + String(n % 1_000).padStart(3, '0'),
    event_source: 'gps',
    event_type: n % 3 === 0 ? 'speed' : 'brake',
    event_value: `${n}.5`,
    event_extra_data: { note: 'Within limits. '.repeat(50), boot_time: n, emergency_call: false },
  });
}

/** What is before, between and after the records. */
type Parts = readonly [start: string, between: string, end: string];

/** @returns how many records it holds */
async function write(name: string, vehicle: string, [start, between, end]: Parts): Promise<number> {
  const path = join(folder, name);
  const file = createWriteStream(path);
  let count = 0;
  file.write(start);
  while (file.bytesWritten + file.writableLength < BYTES) {
    const text = (count === 0 ? '' : between) + record(vehicle, count);
    count += 1;
    if (!file.write(text)) await once(file, 'drain');
  }
  file.end(end);
  await once(file, 'close');
  const minuteAgo = Date.now() / 1_000 - 60;
  await utimes(path, minuteAgo, minuteAgo);
  await rename(path, join(space.config.DATA_DIR, name));
  return count;
}

/** Rows in the table, counted a partition at a time. */
async function countRows(vehicle: string, records: number): Promise<number> {
  let sum = 0;
  for (let day = START_MS; day < START_MS + records * 1_000; day += DAY_MS) {
    const query = 'SELECT count(*) AS n FROM vehicle_events WHERE day = ? AND vehicle_id = ?';
    for (let n = 0; n < VEHICLES; n += 1) {
      const [row] = await space.read(query, [new Date(day).toISOString().slice(0, 10), `${vehicle}-${n}`]);
      sum += Number(row?.['n']);
    }
  }
  return sum;
}

it.each<{ kind: string; name: string; parts: Parts }>([
  { kind: 'array', name: 'vehicles_events_large.json', parts: ['[\n', ',\n', '\n]\n'] },
  { kind: 'lines', name: 'vehicles_events_large.jsonl', parts: ['', '\n', '\n'] },
])(
  `a large file of $kind loads once, in less than ${MAX_RESIDENT_MB} MB, and keeps its lock`,
  async ({ kind, name, parts }) => {
    const records = await write(name, kind, parts);
    const started = performance.now();
    await space.loaded([name], { withinMs: 3_000_000 });
    const seconds = (performance.now() - started) / 1_000;

    const status = await readFile(`/proc/${processor.pid}/status`, 'utf8');
    const residentMb = Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024;
    const size = `${Math.round(BYTES / 1e6)} MB of ${kind}, ${records} records`;
    console.log(`large file: ${size}: ${seconds.toFixed(1)} s, ${Math.round(residentMb)} MB resident at most`);
    expect(residentMb).toBeLessThan(MAX_RESIDENT_MB);

    const [row] = (await space.ledger()).filter((version) => version.name === name);
    expect(row).toMatchObject({ state: 'loaded', records, loaded: records, rejected: 0 });
    expect(await countRows(kind, records)).toBe(records);
    const job = await eventually(async () => {
      const [done] = (await space.queue('ingest').getCompleted()).filter(({ data }) => data['name'] === name);
      expect(done).toBeDefined();
      return done;
    });
    const log = await space.said('process');
    // Who stands still loses locks, whatever the program does.
    if (stoodStill(log)) {
      console.log('large file: something stood still, so locks were not looked at');
      return;
    }
    expect(job).toMatchObject({ attemptsStarted: 1, stalledCounter: 0 });
    expect(log.split('\n').filter((line) => /stalled|renew|\block/i.test(line))).toEqual([]);
  },
  3_600_000,
);
