import { appendFile, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'cassandra-driver';
import { percentile, type Contender, type Measurement } from '../measurement.ts';
import { createProvider, prepare, textOf, type ProviderFile } from '../provider.ts';
import { openSpace, until, type Space } from '../space.ts';
import { startSpark } from '../spark/peer.ts';
import type { Stores } from '../stores.ts';
import { openBacklog, providerOf } from './drain.ts';

/** The provider's rate: an event and a status file. */
const EVERY_MS = 500;
const POLL_MS = 2;
const PROCESSORS = 2;
/** Pairs of files before the counted ones: the first ones of a process are slower, those of Spark by far. */
const UNCOUNTED = 20;
/** During a backlog, whose first half has warmed the processes up: until no file waits for others any more. */
const UNCOUNTED_OF_BACKLOG = 4;

/** Puts a file into the folder. Resolves to when it was whole there, by the clock of this process. */
type Deliver = (directory: string, file: ProviderFile) => Promise<number>;

const renamedIn: Deliver = async (directory, file) => {
  const rename = await prepare(directory, file);
  // Taken before: the file may be seen before the call returns.
  const whole = performance.now();
  await rename();
  return whole;
};

const inPlace: Deliver = async (directory, file) => {
  const text = [...textOf(file)].join('');
  const piece = Math.ceil(text.length / 4);
  let whole = 0;
  for (let first = 0; first < text.length; first += piece) {
    if (first > 0) await sleep(20);
    whole = performance.now();
    await appendFile(join(directory, file.name), text.slice(first, first + piece));
  }
  return whole;
};

/** The query that finds the last record of a file. */
function lastRow({ events, statuses }: ProviderFile): { query: string; params: unknown[] } {
  const event = events.at(-1);
  const status = statuses.at(-1);
  if (event !== undefined) {
    const query = 'SELECT file_name FROM vehicle_events WHERE vehicle_id = ? AND day = ? AND event_time = ?';
    const time = event.event_time;
    return { query, params: [event.vehicle_id, time.slice(0, 10), new Date(`${time.slice(0, 23)}Z`)] };
  }
  const query = 'SELECT file_name FROM vehicle_status_history WHERE vehicle_id = ? AND month = ? AND report_time = ?';
  const time = status?.report_time ?? '';
  return { query, params: [status?.vehicle_id, time.slice(0, 7), new Date(`${time.slice(0, 23)}Z`)] };
}

/** Asks every 2 ms until the last row of the file is readable. @returns when that was, and how long each question took */
async function readable(client: Client, file: ProviderFile): Promise<{ at: number; asked: number[] }> {
  const { query, params } = lastRow(file);
  const asked: number[] = [];
  for (;;) {
    const started = performance.now();
    const { rows } = await client.execute(query, params, { prepare: true });
    const at = performance.now();
    asked.push(at - started);
    if (rows.some((row) => row['file_name'] === file.name)) return { at, asked };
    if (asked.length > 60_000) throw new Error(`${file.name} is not readable after two minutes`);
    await sleep(Math.max(0, POLL_MS - (at - started)));
  }
}

/** Lets the provider deliver pairs of files while `goesOn`. @returns the percentiles of what the files took, in ms */
async function deliver(
  space: Space,
  round: number,
  way: Deliver,
  goesOn: (pairs: number) => Promise<boolean> | boolean,
  uncounted = UNCOUNTED,
) {
  const provider = createProvider(providerOf(1_000 + round, { start: Date.now() }));
  const took: number[] = [];
  const asked: number[] = [];
  const one = async (kind: 'events' | 'status', isCounted: boolean) => {
    const file = provider.file(kind, Date.now());
    const whole = await way(space.config.DATA_DIR, file);
    const found = await readable(space.client, file);
    if (!isCounted) return;
    took.push(found.at - whole);
    asked.push(...found.asked);
  };
  const files: Promise<void>[] = [];
  let due = performance.now();
  for (let pairs = 0; await goesOn(pairs); pairs += 1) {
    files.push(one('events', pairs >= uncounted), one('status', pairs >= uncounted));
    due += EVERY_MS;
    await sleep(Math.max(0, due - performance.now()));
  }
  await Promise.all(files);
  if (took.length === 0) throw new Error('it was done before a file was to be counted');
  const of = (numbers: number[], share: number) => percentile(numbers, share);
  return {
    figures: {
      'readable p50, ms': of(took, 0.5),
      'readable p95, ms': of(took, 0.95),
      'readable p99, ms': of(took, 0.99),
      'a poll p50, ms': of(asked, 0.5),
      files: took.length,
    },
  };
}

async function atRate(stores: Stores, round: number, way: Deliver, pairs: number) {
  const space = await openSpace(stores);
  try {
    const replicas = Array.from({ length: PROCESSORS }, () => space.startRole('process'));
    const roles = [space.startRole('watch'), ...replicas];
    await Promise.all(roles.map((role) => role.ready()));
    return await deliver(space, round, way, (delivered) => delivered < pairs + UNCOUNTED);
  } finally {
    await space.close();
  }
}

/** New files arrive while the second half of a backlog drains; only those count that came before it was done. */
async function duringBacklog(stores: Stores, round: number, pairs: number) {
  const backlog = { provider: providerOf(round), pairs: 2 * pairs, processors: PROCESSORS };
  const opened = await openBacklog(stores, backlog);
  try {
    await opened.space.ingest.resume();
    const left = () => opened.space.unfinished();
    await until('half of the backlog is done', async () => (await left()) <= 2 * pairs, { everyMs: 100 });
    const goesOn = async () => (await left()) > pairs / 20;
    const result = await deliver(opened.space, round, renamedIn, goesOn, UNCOUNTED_OF_BACKLOG);
    await opened.drained();
    return result;
  } finally {
    await opened.space.close();
  }
}

async function withSpark(stores: Stores, round: number, pairs: number) {
  const space = await openSpace(stores);
  try {
    await mkdir(space.config.DATA_DIR, { recursive: true });
    const spark = await startSpark('stream', space);
    const result = await deliver(space, round, renamedIn, (delivered) => delivered < pairs + UNCOUNTED);
    await spark.work();
    await spark.end();
    return result;
  } finally {
    await space.close();
  }
}

export const latency: Measurement = {
  name: 'latency',
  about: 'two files each 0.5 s, two processors: from a file that is whole in the folder to its last row readable',
  plan: (stores, options) => {
    const pairs = options.quick ? 30 : 100;
    const backlogPairs = options.quick ? 500 : 2_000;
    const contenders: Contender[] = [
      { name: 'renamed in', run: (round) => atRate(stores, round, renamedIn, pairs) },
      { name: 'written in place', run: (round) => atRate(stores, round, inPlace, pairs) },
      { name: 'during a backlog', run: (round) => duringBacklog(stores, round, backlogPairs) },
      ...(options.withSpark ? [{ name: 'Spark', run: (round: number) => withSpark(stores, round, pairs) }] : []),
    ];
    const [p50, p99] = ['readable p50, ms', 'readable p99, ms'];
    const goals = [
      { of: 'renamed in', figure: p50, atMost: 50 },
      { of: 'renamed in', figure: p99, atMost: 150 },
      { of: 'written in place', figure: p50, atMost: 250 },
      { of: 'written in place', figure: p99, atMost: 350 },
      { of: 'during a backlog', figure: p99, atMost: 500 },
    ];
    return { contenders, goals, rounds: Math.min(3, options.rounds) };
  },
};
