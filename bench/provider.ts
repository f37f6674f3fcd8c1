import { randomUUID } from 'node:crypto';
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

// The provider's files as they are seen in the field, the same ones again for the same seed. Nothing here is imported
// from src: what the tables must hold is worked out from these records.

export type Kind = 'events' | 'status';

export interface EventRecord {
  readonly vehicle_id: string;
  readonly event_time: string;
  readonly event_source: string;
  readonly event_type: string;
  readonly event_value: string;
  readonly event_extra_data: { readonly note: string; readonly boot_time: number; readonly emergency_call: boolean };
}

export interface StatusRecord {
  readonly vehicle_id: string;
  readonly report_time: string;
  readonly status_source: string;
  readonly status: string;
}

export interface ProviderFile {
  readonly name: string;
  readonly kind: Kind;
  readonly events: readonly EventRecord[];
  readonly statuses: readonly StatusRecord[];
}

/**
 * How files are made. Status reports of the provider's samples are from anywhere between 1970 and today (`spread`), so
 * that hardly two of them share a partition of the history; `now` is a provider whose reports are from the moment.
 */
export interface ProviderOptions {
  readonly records: number;
  readonly vehicles: number;
  readonly statusTimes: 'spread' | 'now';
  readonly seed: number;
  /** ms since the epoch of the first file; the others follow in pairs, half a second apart. */
  readonly start: number;
  /** µs between two records of a file; 47 unless said otherwise. */
  readonly spacingUs?: number;
}

/** Numbers from 0 to 1, the same ones for the same seed (mulberry32). */
export function createRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const STARTS = ['ba', 'co', 'de', 'fa', 'gre', 'ha', 'ki', 'lo', 'ma', 'ne', 'po', 'ra', 'so', 'ti', 'vo', 'wi'];
const ENDS = ['ble', 'ction', 'der', 'field', 'ght', 'ing', 'ject', 'ler', 'ment', 'nce', 'our', 'ption', 'rd', 'se'];
const WORDS = STARTS.flatMap((first) =>
  STARTS.slice(0, 4).flatMap((second) => ENDS.map((end) => first + second + end)),
);

export type Provider = ReturnType<typeof createProvider>;

/** A provider and its fleet. */
export function createProvider({ records, vehicles, statusTimes, seed, start, spacingUs = 47 }: ProviderOptions) {
  const random = createRandom(seed);
  const below = (limit: number) => Math.floor(random() * limit);
  const word = () => WORDS[below(WORDS.length)] ?? '';
  const hex = (digits: number) => Array.from({ length: digits }, () => below(16).toString(16)).join('');
  const fleet = Array.from({ length: vehicles }, () => [hex(8), hex(4), hex(4), hex(4), hex(12)].join('-'));
  const vehicle = () => fleet[below(vehicles)] ?? '';
  /** ISO 8601 with six decimals and no zone, from µs since the epoch. */
  const timeText = (us: number) =>
    new Date(Math.floor(us / 1000)).toISOString().replace('Z', String(us % 1000).padStart(3, '0'));

  function event(us: number): EventRecord {
    return {
      vehicle_id: vehicle(),
      event_time: timeText(us),
      event_source: word(),
      event_type: word(),
      event_value: (random() * 360 - 180).toFixed(6),
      event_extra_data: {
        note: `${word()} ${word()} ${word()}.`,
        boot_time: below(100),
        emergency_call: below(2) === 0,
      },
    };
  }
  function status(us: number): StatusRecord {
    const reported = statusTimes === 'now' ? us : Math.floor(random() * start) * 1000 + below(1000);
    return { vehicle_id: vehicle(), report_time: timeText(reported), status_source: word(), status: word() };
  }

  let made = 0;
  return {
    fleet,
    /** The next file of a kind, at a time in ms since the epoch. */
    file: (kind: Kind, ms: number): ProviderFile => {
      made += 1;
      const name = `vehicles_${kind}_${new Date(ms).toISOString().replace(/\D/g, '')}_${made}.json`;
      const times = Array.from({ length: records }, (_, index) => ms * 1000 + index * spacingUs);
      const isEvents = kind === 'events';
      return { name, kind, events: isEvents ? times.map(event) : [], statuses: isEvents ? [] : times.map(status) };
    },
    /** So many pairs of files, half a second apart. */
    pairs: function* (count: number): Generator<ProviderFile> {
      for (let round = 0; round < count; round += 1) {
        yield this.file('events', start + round * 500);
        yield this.file('status', start + round * 500);
      }
    },
  };
}

/** The text of a file as the provider lays it out, a thousand records at a time. */
export function* textOf({ events, statuses }: ProviderFile): Generator<string> {
  const records = [...events, ...statuses];
  for (let first = 0; first < records.length; first += 1_000) {
    const text = JSON.stringify(records.slice(first, first + 1_000), null, 4);
    yield (first === 0 ? '[' : ',') + text.slice(1, -2);
  }
  yield '\n]\n';
}

/** Writes a file under a temporary name, and resolves to what renames it, as a careful provider does at once. */
export async function prepare(directory: string, file: ProviderFile): Promise<() => Promise<void>> {
  const temporary = join(directory, `.${randomUUID()}.tmp`);
  await writeFile(temporary, textOf(file));
  return () => rename(temporary, join(directory, file.name));
}

/** Writes files into a folder, some at once. */
export async function putAll(directory: string, files: readonly ProviderFile[]): Promise<void> {
  await mkdir(directory, { recursive: true });
  for (let first = 0; first < files.length; first += 32)
    await Promise.all(files.slice(first, first + 32).map(async (file) => (await prepare(directory, file))()));
}
