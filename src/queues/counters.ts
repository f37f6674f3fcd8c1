import type { Logger } from 'pino';
import type { QueueConnection } from './redis.ts';

/** Counts go to Redis in one round trip at most this often. */
const FLUSH_MS = 1_000;

export type Counters = ReturnType<typeof createCounters>;

/** Counters that all processes add to and the board shows. They start anew with Redis, as Prometheus expects. */
export function createCounters({ connection, prefix }: QueueConnection, log: Logger) {
  let pending = new Map<string, number>();

  async function flush(): Promise<void> {
    if (pending.size === 0) return;
    const transaction = connection.multi();
    for (const [sample, amount] of pending) transaction.hincrbyfloat(`${prefix}:counters`, sample, amount);
    pending = new Map();
    await transaction.exec();
  }
  const timer = setInterval(() => {
    flush().catch((error: unknown) => log.warn({ err: error }, 'counters not written'));
  }, FLUSH_MS);

  /** @param sample a Prometheus sample without its prefix, such as `records_loaded_total{dataset="events"}` */
  const add = (sample: string, amount: number) => pending.set(sample, (pending.get(sample) ?? 0) + amount);
  const close = () => {
    clearInterval(timer);
    return flush();
  };
  return { add, close };
}

export async function readCounters({ connection, prefix }: QueueConnection): Promise<Map<string, number>> {
  const samples = Object.entries(await connection.hgetall(`${prefix}:counters`));
  return new Map(samples.map(([sample, value]) => [sample, Number(value)]));
}
