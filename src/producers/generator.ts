import { randomInt, randomUUID } from 'node:crypto';
import { appendFile, mkdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * What the simulator writes: every `interval` seconds a file of events and one of status reports, `count` times or
 * endlessly. `late` (by up to `lateSeconds`), `duplicate` and `bad` are shares of records, from 0 to 1. `inPlace`
 * writes a file under its final name, piece by piece, instead of renaming a finished one.
 */
export type GeneratorOptions = Record<'outOfOrder' | 'inPlace', boolean> &
  Record<'interval' | 'records' | 'vehicles' | 'late' | 'lateSeconds' | 'duplicate' | 'bad', number> & {
    directory: string;
    count?: number;
  };

const SOURCES = ['engine', 'gps', 'body', 'driver', 'battery'];
const TYPES = ['speed', 'location', 'door_open', 'door_close', 'ignition_on', 'ignition_off', 'harsh_brake', 'charge'];
const STATUSES = ['on', 'off', 'parked', 'charging', 'maintenance'];
const NOTES = ['Within limits.', 'Check at next service.', 'Reported by driver.', 'Repeated reading.'];

const oneOf = <T>(values: readonly T[]) => values[randomInt(values.length)] as T;

type MakeRecord = (vehicle_id: string | undefined, time: string) => object;

const KINDS: Readonly<Record<string, MakeRecord>> = {
  events: (vehicle_id, event_time) => ({
    vehicle_id,
    event_time,
    event_source: oneOf(SOURCES),
    event_type: oneOf(TYPES),
    event_value: (randomInt(-180_000_000, 180_000_000) / 1e6).toFixed(6),
    event_extra_data: { note: oneOf(NOTES), boot_time: randomInt(100), emergency_call: randomInt(50) === 0 },
  }),
  status: (vehicle_id, report_time) => {
    return { vehicle_id, report_time, status_source: oneOf(SOURCES), status: oneOf(STATUSES) };
  },
};

/** A record that is spoiled in one of the ways that are seen in the field. */
function makeBad(make: MakeRecord, vehicleId: string, time: string): unknown {
  const badTimes = ['yesterday at noon', '2026-02-30T12:00:00', '2999-01-01T00:00:00'];
  return oneOf([...badTimes.map((bad) => make(vehicleId, bad)), make('', time), make(undefined, time), 'not a record']);
}

/** ISO 8601 with six decimals and no zone, as the provider writes it, from µs since the epoch. */
function timeText(us: number): string {
  return new Date(us / 1000).toISOString().replace('Z', String(us % 1000).padStart(3, '0'));
}

function makeFile(make: MakeRecord, fleet: readonly string[], options: GeneratorOptions): unknown[] {
  const happens = (share: number) => Math.random() < share;
  const nowUs = Date.now() * 1000;
  const records: unknown[] = [];
  for (let index = 0; index < options.records; index += 1) {
    const lateUs = happens(options.late) ? Math.floor(Math.random() * options.lateSeconds * 1e6) : 0;
    const of = [oneOf(fleet), timeText(nowUs + index * 47 - lateUs)] as const;
    const record = happens(options.bad) ? makeBad(make, ...of) : make(...of);
    records.push(record, ...(happens(options.duplicate) ? [record] : []));
  }
  return options.outOfOrder ? records.sort(() => Math.random() - 0.5) : records;
}

async function writeFileAs(path: string, text: string, inPlace: boolean): Promise<void> {
  if (!inPlace) {
    await writeFile(`${path}.tmp`, text);
    return rename(`${path}.tmp`, path);
  }
  const piece = Math.ceil(text.length / 4);
  for (let start = 0; start < text.length; start += piece) {
    await appendFile(path, text.slice(start, start + piece));
    await sleep(20);
  }
}

/** Simulates the provider until the rounds are written or the signal is aborted; tells `onFile` of each file. */
export async function generate(
  options: GeneratorOptions,
  onFile: (name: string, records: number) => void,
  signal: AbortSignal,
): Promise<void> {
  await mkdir(options.directory, { recursive: true });
  const fleet = Array.from({ length: options.vehicles }, () => randomUUID());
  // With it and the round no name is ever used twice, also by two simulators at once.
  const run = randomUUID().slice(0, 4);
  let due = performance.now();
  for (let round = 1; !signal.aborted && round <= (options.count ?? Infinity); round += 1) {
    for (const [kind, make] of Object.entries(KINDS)) {
      const name = `vehicles_${kind}_${new Date().toISOString().replace(/\D/g, '')}_${run}${round}.json`;
      const records = makeFile(make, fleet, options);
      const text = `${JSON.stringify(records, null, 4)}\n`;
      await writeFileAs(join(options.directory, name), text, options.inPlace);
      onFile(name, records.length);
    }
    due += options.interval * 1000;
    // It rejects when the signal is aborted, which ends the loop.
    await sleep(Math.max(0, due - performance.now()), undefined, { signal }).catch(() => undefined);
  }
}
