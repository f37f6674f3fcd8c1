import { fork } from 'node:child_process';
import { once } from 'node:events';
import type { Contender, Measurement } from '../measurement.ts';
import type { Stores } from '../stores.ts';
import { drain, providerOf, SPEED } from './drain.ts';

/** Each way, so that an answer takes 5 ms longer. */
const DELAY_MS = 2.5;

/** Runs with both stores behind a proxy that delays what it passes. */
async function faraway<T>(
  stores: Stores,
  run: (environment: Record<string, string | number>) => Promise<T>,
): Promise<T> {
  const ports = [Number(new URL(stores.redisUrl).port), stores.cassandraPort];
  const argument = JSON.stringify({ ports, delayMs: DELAY_MS });
  const proxy = fork(new URL('../delay-proxy.ts', import.meta.url), [argument], { execArgv: ['--import', 'tsx'] });
  try {
    const [[redis, cassandra]] = (await once(proxy, 'message')) as [[number, number]];
    return await run({ REDIS_URL: `redis://127.0.0.1:${redis}`, CASSANDRA_PORT: cassandra });
  } finally {
    proxy.kill();
  }
}

export const replicas: Measurement = {
  name: 'replicas',
  about: 'a backlog, stores 5 ms away, 1, 2 and 4 processors of one file at a time, so that waiting is what takes long',
  plan: (stores, options) => {
    const pairs = options.quick ? 100 : 300;
    const contenders = [1, 2, 4].map((processors): Contender => {
      const run = (round: number) =>
        faraway(stores, (environment) =>
          drain(stores, {
            provider: providerOf(round),
            // As many for each, so that the start of a processor's compiler has the same share in each of the runs.
            pairs: pairs * processors,
            processors,
            environment: { ...environment, INGEST_CONCURRENCY: 1 },
          }),
        );
      return { name: `${processors} processor${processors === 1 ? '' : 's'}`, run };
    });
    const goals = [2, 4].map((count) => {
      return { of: `${count} processors`, figure: SPEED, against: '1 processor', atLeast: 0.9 * count };
    });
    return { contenders, goals, rounds: Math.min(3, options.rounds) };
  },
};

export const fleets: Measurement = {
  name: 'fleets',
  about: 'a backlog of files of 100 records, of fleets of 100 and of 100,000 vehicles',
  plan: (stores, options) => {
    const pairs = options.quick ? 200 : 1_000;
    const contenders = [100, 100_000].map((vehicles): Contender => {
      const run = (round: number) => drain(stores, { provider: providerOf(round, { vehicles }), pairs, processors: 1 });
      return { name: `${vehicles} vehicles`, run };
    });
    return { contenders, rounds: Math.min(3, options.rounds) };
  },
};

export const fileSizes: Measurement = {
  name: 'file-sizes',
  about: 'a backlog of pairs of files of 1, 100, 10,000 and 1,000,000 records, one processor',
  plan: (stores, options) => {
    const sizes = [
      { records: 1, pairs: 1_000 },
      { records: 100, pairs: options.quick ? 200 : 1_000 },
      { records: 10_000, pairs: options.quick ? 2 : 10 },
      ...(options.quick ? [] : [{ records: 1_000_000, pairs: 1 }]),
    ];
    const contenders = sizes.map(({ records, pairs }): Contender => {
      const run = (round: number) => drain(stores, { provider: providerOf(round, { records }), pairs, processors: 1 });
      return { name: `files of ${records}`, run };
    });
    return { contenders, warmUps: 0, rounds: Math.min(2, options.rounds) };
  },
};
