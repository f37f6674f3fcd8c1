import { createHash } from 'node:crypto';
import { types } from 'cassandra-driver';
import { Queue } from 'bullmq';
import { SHARDS } from '../../src/storage/change-log.ts';
import { checkLedger, checkSummaries, summariesOf } from '../check.ts';
import type { Contender, Figures, Measurement } from '../measurement.ts';
import { watchUsage } from '../processes.ts';
import { createProvider, putAll, type EventRecord, type Provider, type ProviderFile } from '../provider.ts';
import { eventWrite, writePartitions, type Partition } from '../rows.ts';
import { openSpace, until, type Space } from '../space.ts';
import { startSpark } from '../spark/peer.ts';
import type { Stores } from '../stores.ts';
import { providerOf } from './drain.ts';

const RUN = 'a run, s';
const VEHICLES = 100;
const RECORDS = 100;
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** No runs beside those that are measured. */
const NO_SCHEDULE = { AGGREGATION_EVERY_SECONDS: 86_400 };

/** The start of the UTC day so many days ago, in ms since the epoch. */
const dayBefore = (days: number) => Math.floor(Date.now() / DAY_MS - days) * DAY_MS;

/** Adds a run to the queue, as the schedule does, and waits for it. @returns the ms that it says it took */
async function runOnce(space: Space): Promise<number> {
  const queue = new Queue<object, { outcome: string; ms: number } | null>('aggregation', {
    connection: space.redis,
    prefix: space.config.QUEUE_PREFIX,
  });
  try {
    const job = await queue.add('bench', {});
    let state = await job.getState();
    await until('the run is done', async () => {
      state = await job.getState();
      return state === 'completed' || state === 'failed';
    });
    const done = await queue.getJob(job.id ?? '');
    if (state === 'failed' || done?.returnvalue?.outcome !== 'done')
      throw new Error(`the run ended as ${state}: ${done?.failedReason ?? JSON.stringify(done?.returnvalue)}`);
    return done.returnvalue.ms;
  } finally {
    await queue.close();
  }
}

/** Waits until the change log's newest entries are older than the settle time. */
const settle = (space: Space) =>
  new Promise((resolve) => setTimeout(resolve, space.config.SETTLE_SECONDS * 1_000 + 500));

/** Raw rows of the days before, which no run reads again, by the bare driver: so many of each vehicle and day. */
async function storeOldDays(space: Space, { fleet }: Provider, days: number, rowsPerDay: number): Promise<void> {
  const partitions = function* (): Generator<Partition> {
    for (let day = 2; day < days + 2; day += 1) {
      for (const vehicle_id of fleet) {
        yield Array.from({ length: rowsPerDay }, (_, index) => {
          const time = new Date(dayBefore(day) + Math.floor((index * DAY_MS) / rowsPerDay))
            .toISOString()
            .replace('Z', '000');
          const rest = { event_source: 'gps', event_type: `type ${index % 50}`, event_value: String(index) };
          const extra = { note: 'Within limits.', boot_time: index % 100, emergency_call: false };
          return eventWrite({ vehicle_id, event_time: time, ...rest, event_extra_data: extra }, 'stored before');
        });
      }
    }
  };
  await writePartitions(space.client, partitions());
}

/** A space with so many stored rows of ten days, or of `times` as many days, and all that it takes to load more. */
async function openStored(stores: Stores, rows: number, times: number, say: (line: string) => void) {
  const space = await openSpace(stores, NO_SCHEDULE);
  const perDay = rows / 10;
  // The first files fill yesterday's first half; those of the rounds follow.
  const spacingUs = Math.floor((DAY_MS * 1_000) / (perDay * 2));
  const provider = createProvider({ ...providerOf(1, { vehicles: VEHICLES, records: RECORDS }), spacingUs });
  let time = dayBefore(1);
  const loaded: ProviderFile[] = [];
  const load = async (events: number) => {
    const files = Array.from({ length: events / RECORDS }, () => {
      const file = provider.file('events', time);
      time += (RECORDS * spacingUs) / 1_000;
      return file;
    });
    loaded.push(...files);
    await putAll(space.config.DATA_DIR, files);
    await until('the files are loaded', async () => {
      const [row] = (await space.client.execute('SELECT count(*) AS files FROM files')).rows;
      return Number(row?.['files']) === loaded.length;
    });
    await checkLedger(space.client, loaded);
    await settle(space);
  };
  const roles = [space.startRole('watch'), space.startRole('process'), space.startRole('process')];
  await Promise.all(roles.map((role) => role.ready()));
  const started = performance.now();
  await storeOldDays(space, provider, 10 * times - 1, perDay / VEHICLES);
  await load(perDay);
  await runOnce(space);
  say(`  ${rows * times} rows are stored, in ${Math.round((performance.now() - started) / 1_000)} s`);
  return {
    space,
    /** Loads the new rows, not timed, then aggregates. */
    round: async (): Promise<{ figures: Figures }> => {
      await load(rows / 100);
      const ms = await runOnce(space);
      await checkSummaries(space.client, summariesOf(loaded.flatMap(({ events }) => events)));
      return { figures: { [RUN]: ms / 1_000 } };
    },
  };
}

export const aggregation: Measurement = {
  name: 'aggregation',
  about: 'a run after 1 % of new rows: the last hours of a fleet of 100, of which ten days, or a hundred, are stored',
  plan: async (stores, options) => {
    const rows = options.quick ? 100_000 : 1_000_000;
    const few = await openStored(stores, rows, 1, options.say);
    const many = await openStored(stores, rows, 10, options.say);
    const contenders: Contender[] = [
      { name: `${rows} rows`, run: few.round },
      { name: `${rows * 10} rows`, run: many.round },
    ];
    if (options.withSpark) contenders.push({ name: 'Spark', run: () => summarizeWithSpark(few.space) });
    const [first, second] = contenders.map(({ name }) => name);
    const goals = [
      { of: first ?? '', figure: RUN, atMost: 1 },
      { of: second ?? '', figure: RUN, against: first ?? '', atMost: 1.1 },
    ];
    const close = async () => {
      await few.space.close();
      await many.space.close();
    };
    return { contenders, goals, close };
  },
};

/** The peer's batch over everything that the space holds. */
async function summarizeWithSpark(space: Space): Promise<{ figures: Figures }> {
  const spark = await startSpark('summary', space);
  const seconds = await spark.work();
  await spark.end();
  return { figures: { [RUN]: seconds } };
}

/** Events of so many vehicles, one in each of so many hours, and what the change log says of them. */
async function storeKeys(space: Space, vehicles: number, hours: number): Promise<EventRecord[]> {
  const { fleet } = createProvider(providerOf(1, { vehicles }));
  const start = dayBefore(10);
  const eventsOf = (vehicle_id: string) =>
    Array.from({ length: hours }, (_, hour): EventRecord => {
      const event_time = new Date(start + hour * HOUR_MS).toISOString().replace('Z', '000');
      const rest = { event_source: 'gps', event_type: `type ${hour % 7}`, event_value: '1' };
      return {
        vehicle_id,
        event_time,
        ...rest,
        event_extra_data: { note: '', boot_time: hour, emergency_call: false },
      };
    });
  const events = fleet.flatMap(eventsOf);
  const days = function* (): Generator<Partition> {
    for (let first = 0; first < events.length; first += 24)
      yield events.slice(first, first + 24).map((event) => eventWrite(event, 'stored before'));
  };
  await writePartitions(space.client, days());
  const entries = function* (): Generator<Partition> {
    const at = Date.now();
    const bucket = new Date(Math.floor(at / 600_000) * 600_000);
    const query = 'INSERT INTO change_log (bucket, shard, at, hours) VALUES (?, ?, ?, ?)';
    for (const vehicle of fleet) {
      const shard = createHash('md5').update(vehicle).digest().readUInt32BE(0) % SHARDS;
      const touched = new Map(
        Array.from({ length: hours }, (_, hour) => [new Date(start + hour * HOUR_MS), new Set([vehicle])]),
      );
      yield [{ query, params: [bucket, shard, types.TimeUuid.fromDate(new Date(at)), touched] }];
    }
  };
  await writePartitions(space.client, entries(), { partitionsAtMost: 1 });
  return events;
}

async function aggregateKeys(stores: Stores, processors: number, vehicles: number, hours: number) {
  const space = await openSpace(stores, NO_SCHEDULE);
  try {
    const events = await storeKeys(space, vehicles, hours);
    await settle(space);
    const replicas = Array.from({ length: processors }, () => space.startRole('process'));
    await Promise.all(replicas.map((replica) => replica.ready()));
    const usage = await watchUsage(replicas.map(({ pid }) => pid));
    const ms = await runOnce(space);
    const { cpuSeconds, peakRssBytes } = await usage.stop();
    await checkSummaries(space.client, summariesOf(events));
    const memory = { 'peak memory of a processor, MB': peakRssBytes / processors / 1e6 };
    return { figures: { [RUN]: ms / 1_000, 'processor time, s': cpuSeconds, ...memory } };
  } finally {
    await space.close();
  }
}

export const aggregationKeys: Measurement = {
  name: 'aggregation-keys',
  about: 'one run over a million changed (vehicle, hour) keys, and over a tenth of them, by 1 and 2 processors',
  plan: (stores, options) => {
    const sizes = options.quick ? [1_000] : [1_000, 10_000];
    const hours = options.quick ? 24 : 96;
    const contenders = sizes.flatMap((vehicles) =>
      [1, 2].map((processors): Contender => {
        const name = `${vehicles * hours} keys, ${processors} processor${processors === 1 ? '' : 's'}`;
        return { name, run: () => aggregateKeys(stores, processors, vehicles, hours) };
      }),
    );
    return { contenders, warmUps: 0, rounds: 1 };
  },
};
