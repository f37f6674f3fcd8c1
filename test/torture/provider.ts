import type { BigIntStats } from 'node:fs';
import { mkdir, open, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { event, status, type ProviderEvent, type ProviderStatus } from '../integration/records.ts';
import type { Random } from './random.ts';

/** What a file holds: records that are to become rows, and by their index the field that each bad one is rejected for. */
interface Content {
  readonly bytes: Buffer;
  readonly events: readonly ProviderEvent[];
  readonly statuses: readonly ProviderStatus[];
  readonly rejected: ReadonlyMap<number, string>;
  readonly records: number;
}

/** One version of a file that the provider wrote, and what has to become of it. */
export interface ProvidedFile extends Content {
  readonly name: string;
  /** `<bytes>-<modification time in ns>` */
  readonly version: string;
  readonly size: number;
  readonly mtimeNs: string;
  readonly round: number;
  /**
   * `replaced` and `removed` versions may have been read before they went, or may not; a removed one may be a dead
   * letter as well.
   */
  readonly expected: 'loaded' | 'dead letter' | 'replaced' | 'removed';
  /** What a dead letter's reason says. */
  readonly reason: RegExp;
}

export type Provided = Map<string, ProvidedFile>;
export const keyOf = ({ name, version }: { name: string; version: string }) => `${name} ${version}`;

const VEHICLES = 12;
const DAYS = 9;
const TYPES = ['speed', 'location', 'door_open', 'ignition_on', 'Ünïcode'];
const NEVER = /^$/;

let serial = 0;

/** A time of one of a few days, the later ones more often; its microseconds are never used twice. */
function timeOf(random: Random, change: 'late' | 'midnight' | 'any'): string {
  serial += 1;
  const day = change === 'late' ? random.int(1, 3) : random.int(4, DAYS);
  const second = change === 'midnight' ? random.pick([-2, -1, 0, 1]) : random.int(0, 86_399);
  const start = Date.parse(`2026-11-0${day}T00:00:00Z`) + second * 1_000;
  return `${new Date(start).toISOString().slice(0, 19)}.${String(serial % 1_000_000).padStart(6, '0')}`;
}

function eventOf(random: Random): ProviderEvent {
  const change = random.pick(['any', 'any', 'any', 'late', 'midnight'] as const);
  const made = event({
    vehicle_id: `vehicle-${random.int(1, VEHICLES)}`,
    event_time: timeOf(random, change),
    event_type: random.pick(TYPES),
    event_source: random.pick(['gps', 'engine', 'driver']),
  });
  return random.chance(0.1) ? { ...made, ...{ firmware: `1.${serial}` } } : made;
}

function statusOf(random: Random): ProviderStatus {
  const vehicle_id = `vehicle-${random.int(1, VEHICLES)}`;
  return status({ vehicle_id, report_time: timeOf(random, 'any'), status: `parked ${serial}` });
}

/** Bad records, by the field that they are rejected for. */
const BAD: Readonly<Record<string, (record: object) => object>> = {
  vehicle_id: (record) => ({ ...record, vehicle_id: 7 }),
  event_time: (record) => ({ ...record, event_time: 'yesterday' }),
  event_type: ({ event_type: _left, ...record }: { event_type?: unknown }) => record,
};

function encode(records: readonly object[], name: string): Buffer {
  const text = name.includes('.jsonl')
    ? records.map((record) => `${JSON.stringify(record)}\n`).join('')
    : JSON.stringify(records, null, 2);
  return name.endsWith('.gz') ? gzipSync(text) : Buffer.from(text);
}

/** So many events, among them same nanoseconds, exact duplicates and, if wanted, bad records. */
function eventContent(random: Random, name: string, { bad = 0, count = random.int(1, 12) } = {}): Content {
  const events = Array.from({ length: count }, () => eventOf(random));
  const [first] = events;
  if (first !== undefined && random.chance(0.3)) events.push(event({ ...first, event_value: `tie ${serial}` }));
  if (first !== undefined && random.chance(0.3)) events.push(first);
  const records: object[] = random.shuffle(events);
  const rejected = new Map<number, string>();
  for (let n = 0; n < bad; n += 1) {
    const field = random.pick(Object.keys(BAD));
    rejected.set(records.length, field);
    records.push(BAD[field]?.(eventOf(random)) ?? {});
  }
  return { bytes: encode(records, name), events, statuses: [], rejected, records: records.length };
}

function statusContent(random: Random, name: string): Content {
  const statuses = Array.from({ length: random.int(1, 10) }, () => statusOf(random));
  return { bytes: encode(statuses, name), events: [], statuses, rejected: new Map(), records: statuses.length };
}

const noContent = (text: string | Buffer): Content => ({
  bytes: Buffer.from(text),
  events: [],
  statuses: [],
  rejected: new Map(),
  records: 0,
});

export type Provider = ReturnType<typeof createProvider>;

/** The provider, that writes files into `folder` whatever happens, and remembers what has to become of each. */
export function createProvider(folder: string) {
  const files: Provided = new Map();
  let round = 0;

  /** To be told what the file is before the pipeline can take it away. */
  function remember(
    name: string,
    { size, mtimeNs }: BigIntStats,
    content: Content,
    expected: ProvidedFile['expected'],
    reason = NEVER,
  ) {
    const version = `${size}-${mtimeNs}`;
    const file = { ...content, name, version, size: Number(size), mtimeNs: String(mtimeNs), round, expected, reason };
    files.set(keyOf(file), file);
  }

  /** Under a temporary name, then renamed. */
  async function put(name: string, content: Content, expected: ProvidedFile['expected'], reason?: RegExp) {
    const path = join(folder, name);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(`${path}.tmp`, content.bytes);
    const stats = await stat(`${path}.tmp`, { bigint: true });
    await rename(`${path}.tmp`, path);
    remember(name, stats, content, expected, reason);
  }

  async function putSlowly(random: Random, name: string, content: Content) {
    const handle = await open(join(folder, name), 'w');
    const step = Math.ceil(content.bytes.length / random.int(2, 5));
    for (let start = 0; start < content.bytes.length; start += step) {
      await handle.write(content.bytes.subarray(start, start + step));
      await sleep(random.int(20, 300));
    }
    const stats = await handle.stat({ bigint: true });
    await handle.close();
    remember(name, stats, content, 'loaded');
  }

  /** What the provider may do, with how often. Each gets the base of a name that nobody else has. */
  const deeds: readonly { weight: number; deed: (random: Random, base: string) => Promise<void> }[] = [
    { weight: 40, deed: (random, base) => put(`${base}.json`, eventContent(random, `${base}.json`), 'loaded') },
    {
      weight: 15,
      deed: (random, base) => {
        const name = `${base.replace('events', 'status')}.json`;
        return put(name, statusContent(random, name), 'loaded');
      },
    },
    {
      weight: 8,
      deed: (random, base) => {
        const name = `folder-${random.int(1, 3)}/${base}${random.pick(['.jsonl', '.jsonl.gz', '.json.gz'])}`;
        return put(name, eventContent(random, name), 'loaded');
      },
    },
    {
      weight: 6,
      deed: (random, base) =>
        put(`${base}.json`, eventContent(random, base, { bad: random.int(1, 3), count: 6 }), 'loaded'),
    },
    {
      weight: 3,
      deed: (random, base) => {
        const { bytes } = eventContent(random, base, { bad: 8, count: 2 });
        return put(`${base}.json`, noContent(bytes), 'dead letter', /records are bad, the first is record \d+: \w+: /);
      },
    },
    {
      weight: 2,
      deed: (_random, base) => put(`${base}.json`, noContent('[{"a": nonsense}]'), 'dead letter', /not JSON/),
    },
    {
      weight: 2,
      deed: (random, base) => {
        const { bytes } = eventContent(random, base, { count: 5 });
        return put(`${base}.json`, noContent(bytes.subarray(0, -random.int(2, 200))), 'dead letter', /ends too early/);
      },
    },
    { weight: 6, deed: (random, base) => putSlowly(random, `${base}.json`, eventContent(random, `${base}.json`)) },
    { weight: 3, deed: (random, base) => putSlowly(random, `${base}.jsonl`, eventContent(random, `${base}.jsonl`)) },
    {
      weight: 5,
      deed: async (random, base) => {
        const [first, second] = [eventContent(random, base), eventContent(random, base)];
        await put(`${base}.json`, first, 'replaced');
        await sleep(random.int(0, 4_000));
        await put(`${base}.json`, random.chance(0.2) ? first : second, 'loaded');
      },
    },
    {
      weight: 2,
      deed: async (random, base) => {
        await put(`${base}.json`, noContent('{"not": "an array"}'), 'replaced');
        await sleep(random.int(0, 5_000));
        await put(`${base}.json`, eventContent(random, base), 'loaded');
      },
    },
    {
      weight: 3,
      deed: async (random, base) => {
        await put(`${base}.json`, eventContent(random, base), 'removed');
        await sleep(random.int(0, 60));
        await rm(join(folder, `${base}.json`), { force: true });
      },
    },
    {
      weight: 5,
      deed: async (random, base) => {
        const loaded = [...files.values()].filter(
          ({ expected, name }) => expected === 'loaded' && /events.*\.json$/.test(name),
        );
        if (loaded.length > 0) await put(`${base}_copy.json`, random.pick(loaded.slice(-50)), 'loaded');
      },
    },
  ];
  const urn = deeds.flatMap(({ weight, deed }) => Array.from({ length: weight }, () => deed));

  return {
    files,
    put,
    eventContent,
    /** Puts another version over a file that was there, loaded or not. */
    replace: async (name: string, content: Content) => {
      for (const [key, file] of files) if (file.name === name) files.set(key, { ...file, expected: 'replaced' });
      await put(name, content, 'loaded');
    },
    /** Writes a file every 30 to 160 ms until it is told to stop, and ends what it has begun. */
    write: async (inRound: number, random: Random, until: AbortSignal): Promise<void> => {
      round = inRound;
      const begun: Promise<void>[] = [];
      for (let n = 1; !until.aborted; n += 1) {
        begun.push(random.pick(urn)(random, `vehicles_events_${round}_${n}`));
        await sleep(random.int(30, 160));
      }
      await Promise.all(begun);
    },
  };
}
