import { pino } from 'pino';
import { enqueueFiles } from '../../src/queues/ingest.ts';
import { openQueues } from '../../src/queues/open.ts';
import { createShutdown } from '../../src/runtime.ts';
import type { Measurement } from '../measurement.ts';
import { createProvider } from '../provider.ts';
import { openSpace } from '../space.ts';
import { providerOf } from './drain.ts';

/** As many as are queued in one round trip. */
const PAGE = 500;

export const redisMemory: Measurement = {
  name: 'redis-memory',
  about: 'what a queued file takes of Redis: the difference of used_memory over many queued files',
  plan: (stores, { quick }) => {
    const files = quick ? 20_000 : 100_000;
    const run = async (round: number) => {
      const space = await openSpace(stores);
      const log = pino({ level: 'silent' });
      const shutdown = createShutdown(log);
      const { ingestQueue } = await openQueues({ config: space.config, log, shutdown });
      const used = async () => Number(/used_memory:(\d+)/.exec(await space.redis.info('memory'))?.[1]);
      try {
        const provider = createProvider(providerOf(round, { records: 0 }));
        const before = await used();
        for (let queued = 0; queued < files; queued += PAGE) {
          const page = Array.from({ length: PAGE }, (_, index) => {
            const { name } = provider.file('events', Date.now());
            return {
              name,
              size: 39_000 + index,
              mtimeNs: String(BigInt(Date.now()) * 1_000_000n + BigInt(queued + index)),
            };
          });
          await enqueueFiles(ingestQueue, page, { backlog: true });
        }
        const waiting = await space.unfinished();
        if (waiting !== files) throw new Error(`${waiting} files are queued, not ${files}`);
        return { figures: { 'a queued file, bytes of Redis': ((await used()) - before) / files } };
      } finally {
        await shutdown.release();
        await space.close();
      }
    };
    const goals = [{ of: 'pipeline', figure: 'a queued file, bytes of Redis', atMost: 1_000 }];
    return { contenders: [{ name: 'pipeline', run }], goals, rounds: 3 };
  },
};
