import { collectDefaultMetrics, Registry } from 'prom-client';
import { readCounters } from '../queues/counters.ts';
import { allQueues } from '../queues/open.ts';
import { boundedRead, type Snapshot, type SnapshotNeeds } from './snapshot.ts';

/** Makes the function that prints everything for Prometheus. It never rejects, and leaves out what is not known. */
export function createMetrics(needs: SnapshotNeeds, readSnapshot: () => Promise<Snapshot>): () => Promise<string> {
  const { queues, log } = needs;
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const readQueues = boundedRead(log, async () => {
    const texts = await Promise.all(allQueues(needs).map((queue) => queue.exportPrometheusMetrics()));
    return [...texts, ...[...(await readCounters(queues))].map(sampleText)];
  });
  return async () => {
    const [gauges, texts] = await Promise.all([readSnapshot().then(gaugesOf), readQueues()]);
    const own = [...Object.entries(gauges).map(sampleText), await registry.metrics()];
    return merged([...own, ...(texts ?? [])]);
  };
}

function gaugesOf({ redis, cassandra }: Snapshot): Record<string, number | undefined> {
  const { waiting = 0, backlog = 0, delayed = 0, active = 0 } = redis?.queues['ingest'] ?? {};
  return {
    redis_up: redis ? 1 : 0,
    cassandra_up: cassandra ? 1 : 0,
    workers: redis?.workers.length,
    queued_files: redis ? waiting + backlog + delayed + active : undefined,
    oldest_waiting_seconds: redis?.oldestWaitingSeconds,
    dead_letters: redis?.deadLetters.count,
    watermark_lag_seconds: cassandra?.lagSeconds,
    clock_skew_seconds: cassandra ? cassandra.clockSkewMs / 1000 : undefined,
  };
}

/** What is not known is left out, and what is no sample, because somebody else wrote it into Redis. */
function sampleText([sample, value]: [string, number | undefined]): string {
  const [, name, suffix] = /^([a-z_]+?)(_total|_bucket|_sum|_count)?(?:\{[a-z_]+="[^"\\\n]*"\})?$/.exec(sample) ?? [];
  if (name === undefined || value === undefined || !Number.isFinite(value)) return '';
  if (suffix === '_total') return `# TYPE vehicle_data_${name}_total counter\nvehicle_data_${sample} ${value}`;
  const type = suffix === undefined ? 'gauge' : 'histogram';
  return `# TYPE vehicle_data_${name} ${type}\nvehicle_data_${sample} ${value}`;
}

/** The format wants the lines of a metric together, its HELP and TYPE once and first, and buckets in order. */
function merged(texts: readonly string[]): string {
  const lines = [...new Set(texts.flatMap((text) => text.split('\n')))].filter(Boolean);
  const metricOf = (line: string) => /^(?:# \w+ )?(\w+?)(?:_bucket|_sum|_count)?(?=[{ ])/.exec(line)?.[1] ?? '';
  const bound = (line: string) => Number(/le="\+?([^"]+)"/.exec(line)?.[1]?.replace('Inf', 'Infinity') ?? 0);
  const rank = (line: string) => (line.startsWith('#') ? -1 : bound(line));
  lines.sort((a, b) => metricOf(a).localeCompare(metricOf(b)) || rank(a) - rank(b));
  return lines.map((line) => `${line}\n`).join('');
}
