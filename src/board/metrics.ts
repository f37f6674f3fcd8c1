import { collectDefaultMetrics, Registry } from 'prom-client';
import { readCounters } from '../queues/counters.ts';
import { boundedRead, type Snapshot, type SnapshotNeeds } from './snapshot.ts';

/** What the pipeline's own metrics are, without their prefix. */
const HELP: Readonly<Record<string, string>> = {
  redis_up: 'Whether Redis answers.',
  cassandra_up: 'Whether Cassandra answers.',
  workers: 'Processors that are alive.',
  queue_paused: 'Whether the queue is paused.',
  queued_files: 'Files that wait for a processor or are with one.',
  oldest_waiting_seconds: 'How long the file waits that waits longest.',
  dead_letters: 'Files that wait for a person.',
  watermark_lag_seconds: 'How far the summaries are behind.',
  clock_skew_seconds: "How far this machine's clock is ahead of Cassandra's.",
  files_loaded_total: 'Files that were loaded.',
  bytes_loaded_total: 'Their bytes.',
  records_loaded_total: 'Their records that became rows.',
  records_rejected_total: 'Their records that did not.',
  files_dead_lettered_total: 'Files that became dead letters.',
  file_to_rows_seconds: 'From the last change of a file to its rows.',
  aggregation_runs_total: 'Runs of the aggregation.',
  aggregation_hours_total: 'Vehicle hours that they recomputed.',
  aggregation_seconds_total: 'How long they took.',
  verified_files_total: 'Files that were compared with what is stored.',
  verified_records_total: 'Their records.',
  verification_differences_total: 'What differed.',
};

/** Makes the function that prints everything for Prometheus. It never rejects, and leaves out what is not known. */
export function createMetrics(
  needs: SnapshotNeeds,
  readSnapshot: (withDays: boolean) => Promise<Snapshot>,
): () => Promise<string> {
  const { queues, log } = needs;
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const readQueues = boundedRead(log, async () => {
    const texts = await Promise.all(needs.allQueues.map((queue) => queue.exportPrometheusMetrics()));
    return [...texts, ...[...(await readCounters(queues))].map(sampleText)];
  });
  return async () => {
    const [gauges, texts] = await Promise.all([readSnapshot(false).then(gaugesOf), readQueues()]);
    const own = [...Object.entries(gauges).map(sampleText), await registry.metrics()];
    return merged([...own, ...(texts ?? [])]);
  };
}

function gaugesOf({ redis, cassandra }: Snapshot): Record<string, number | undefined> {
  const { waiting = 0, backlog = 0, delayed = 0, active = 0 } = redis?.queues['ingest'] ?? {};
  const paused = Object.entries(redis?.queues ?? {}).map(
    ([name, queue]) => [`queue_paused{queue="${name}"}`, queue.paused ? 1 : 0] as const,
  );
  return {
    ...Object.fromEntries(paused),
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
  const [, name, suffix] = /^([a-z_]+?)(_bucket|_sum|_count)?(?:\{[a-z_]+="[^"\\\n]*"\})?$/.exec(sample) ?? [];
  const help = HELP[name ?? ''];
  if (name === undefined || help === undefined || value === undefined || !Number.isFinite(value)) return '';
  const type = suffix !== undefined ? 'histogram' : name.endsWith('_total') ? 'counter' : 'gauge';
  return `# HELP vehicle_data_${name} ${help}\n# TYPE vehicle_data_${name} ${type}\nvehicle_data_${sample} ${value}`;
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
