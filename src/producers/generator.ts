import { randomInt, randomUUID } from 'node:crypto';
import { mkdir, open, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** What the simulator writes. Shares are of records, 0 to 1, and independent of each other. */
export interface GeneratorOptions {
  readonly directory: string;
  /** Seconds between two rounds; each round writes a file of events and one of status reports. */
  readonly intervalSeconds: number;
  /** Rounds to write; endless when undefined. */
  readonly rounds: number | undefined;
  /** Records in each file. */
  readonly records: number;
  /** Vehicles of the fleet. */
  readonly vehicles: number;
  /** Records that are up to `lateSeconds` old. */
  readonly late: number;
  readonly lateSeconds: number;
  /** Records that stand twice in their file. */
  readonly duplicate: number;
  /** Whether the records of a file are shuffled. */
  readonly outOfOrder: boolean;
  /** Records that cannot be taken, each for another reason. */
  readonly bad: number;
  /** Write under the final name, piece by piece, instead of renaming a finished file into place. */
  readonly inPlace: boolean;
}

type ProviderRecord = Record<string, unknown>;

const SOURCES = ['engine', 'gps', 'body', 'driver', 'battery'];
const EVENT_TYPES = [
  'speed',
  'location',
  'door_open',
  'door_close',
  'ignition_on',
  'ignition_off',
  'harsh_brake',
  'charge',
];
const STATUSES = ['on', 'off', 'parked', 'charging', 'maintenance'];
const NOTES = ['Within limits.', 'Check at next service.', 'Reported by driver.', 'Repeated reading.'];

function oneOf<T>(values: readonly T[]): T {
  const value = values[randomInt(values.length)];
  if (value === undefined) throw new RangeError('nothing to choose from');
  return value;
}

/** ISO 8601 with six decimals and no zone, as the provider writes it. `us` is µs since the epoch. */
function timeText(us: bigint): string {
  const seconds = new Date(Number(us / 1000n)).toISOString().slice(0, 19);
  return `${seconds}.${String(us % 1_000_000n).padStart(6, '0')}`;
}

function makeEvent(vehicleId: string, us: bigint): ProviderRecord {
  return {
    vehicle_id: vehicleId,
    event_time: timeText(us),
    event_source: oneOf(SOURCES),
    event_type: oneOf(EVENT_TYPES),
    event_value: (randomInt(-180_000_000, 180_000_000) / 1e6).toFixed(6),
    event_extra_data: { note: oneOf(NOTES), boot_time: randomInt(100), emergency_call: randomInt(50) === 0 },
  };
}

function makeStatus(vehicleId: string, us: bigint): ProviderRecord {
  return { vehicle_id: vehicleId, report_time: timeText(us), status_source: oneOf(SOURCES), status: oneOf(STATUSES) };
}

/** Spoils a record in one of the ways that are seen in the field. */
function spoil(record: ProviderRecord): unknown {
  const timeField = 'event_time' in record ? 'event_time' : 'report_time';
  return oneOf<() => unknown>([
    () => ({ ...record, [timeField]: 'yesterday at noon' }),
    () => ({ ...record, [timeField]: '2026-02-30T12:00:00' }),
    () => ({ ...record, [timeField]: '2999-01-01T00:00:00' }),
    () => Object.fromEntries(Object.entries(record).filter(([field]) => field !== 'vehicle_id')),
    () => ({ ...record, vehicle_id: '' }),
    () => 'not a record',
  ])();
}

function makeFile(make: typeof makeEvent, fleet: readonly string[], options: GeneratorOptions): unknown[] {
  const nowUs = BigInt(Date.now()) * 1000n;
  const records: unknown[] = [];
  for (let index = 0; index < options.records; index += 1) {
    const lateUs = Math.random() < options.late ? Math.floor(Math.random() * options.lateSeconds * 1e6) : 0;
    const record = make(oneOf(fleet), nowUs + BigInt(index * 47) - BigInt(lateUs));
    records.push(Math.random() < options.bad ? spoil(record) : record);
    if (Math.random() < options.duplicate) records.push(record);
  }
  return options.outOfOrder ? records.sort(() => Math.random() - 0.5) : records;
}

/** `YYYYMMDDHHMMSSmmm` and a serial number: no name is ever used twice, also by two simulators at once. */
function createNames() {
  const run = randomUUID().slice(0, 4);
  let serial = 0;
  return (kind: string) => {
    serial += 1;
    const digits = new Date().toISOString().replace(/\D/g, '');
    return `vehicles_${kind}_${digits}_${run}${serial}.json`;
  };
}

async function writeInPlace(path: string, text: string): Promise<void> {
  const handle = await open(path, 'wx');
  try {
    const piece = Math.ceil(text.length / 4);
    for (let start = 0; start < text.length; start += piece) {
      await handle.write(text.slice(start, start + piece));
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  } finally {
    await handle.close();
  }
}

/**
 * Simulates the provider until the rounds are written or the signal is aborted.
 *
 * @param onFile called after each file with its name and how many records it holds
 */
export async function generate(
  options: GeneratorOptions,
  onFile: (name: string, records: number) => void,
  signal: AbortSignal,
): Promise<void> {
  await mkdir(options.directory, { recursive: true });
  const fleet = Array.from({ length: options.vehicles }, () => randomUUID());
  const nextName = createNames();
  let due = performance.now();
  for (let round = 0; !signal.aborted && round < (options.rounds ?? Infinity); round += 1) {
    for (const [kind, make] of [
      ['events', makeEvent],
      ['status', makeStatus],
    ] as const) {
      const name = nextName(kind);
      const records = makeFile(make, fleet, options);
      const text = `${JSON.stringify(records, null, 4)}\n`;
      const path = join(options.directory, name);
      if (options.inPlace) await writeInPlace(path, text);
      else {
        await writeFile(`${path}.tmp`, text);
        await rename(`${path}.tmp`, path);
      }
      onFile(name, records.length);
    }
    due += options.intervalSeconds * 1000;
    await pause(due - performance.now(), signal);
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve();
      return;
    }
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, Math.max(0, ms));
    signal.addEventListener('abort', done);
  });
}
