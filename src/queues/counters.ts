import type { Logger } from 'pino';
import type { QueueConnection } from './redis.ts';

/** Counts go to Redis in one round trip at most this often. */
const FLUSH_MS = 1_000;

/** Counters that all processes add to and the board shows. They start anew with Redis, as Prometheus expects. */
export interface Counters {
  /** @param sample a Prometheus sample without its prefix, such as `records_loaded_total{dataset="events"}` */
  add(sample: string, amount: number): void;
  readonly close: () => Promise<void>;
}

function keyOf({ prefix }: QueueConnection): string {
  return `${prefix}:counters`;
}

export function createCounters(queues: QueueConnection, log: Logger): Counters {
  let pending = new Map<string, number>();

  async function flush(): Promise<void> {
    if (pending.size === 0) return;
    const amounts = pending;
    pending = new Map();
    const transaction = queues.connection.multi();
    for (const [sample, amount] of amounts) transaction.hincrbyfloat(keyOf(queues), sample, amount);
    await transaction.exec();
  }
  const timer = setInterval(() => {
    flush().catch((error: unknown) => log.warn({ err: error }, 'counters not written'));
  }, FLUSH_MS);

  return {
    add: (sample, amount) => pending.set(sample, (pending.get(sample) ?? 0) + amount),
    close: async () => {
      clearInterval(timer);
      await flush();
    },
  };
}

/** All samples with their values. */
export async function readCounters(queues: QueueConnection): Promise<Map<string, number>> {
  const samples = await queues.connection.hgetall(keyOf(queues));
  return new Map(Object.entries(samples).map(([sample, value]) => [sample, Number(value)]));
}
