import { collectDefaultMetrics, Registry } from 'prom-client';
import { readCounters } from '../queues/counters.ts';
import { createBoundedRead } from './bounded-read.ts';
import type { Snapshot, SnapshotNeeds } from './snapshot.ts';

const PREFIX = 'vehicle_data_';

/** What the counters of the processors mean, by name without the prefix. */
const COUNTER_HELP: Record<string, string> = {
  files_loaded_total: 'Files whose records are all rows or rejections.',
  records_loaded_total: 'Records that became rows.',
  records_rejected_total: 'Records that were not taken, each with its reason in rejected_records.',
  bytes_loaded_total: 'Bytes of loaded files, as they lie in the folder.',
  files_dead_lettered_total: 'Files that could not be loaded.',
  file_to_rows_seconds: 'From the modification time of a file until its rows are in Cassandra.',
  aggregation_runs_total: 'Aggregation runs by outcome.',
  aggregation_hours_total: 'Hourly summaries that were recomputed.',
  aggregation_seconds_total: 'Time that aggregation runs took together.',
};

/** Makes the function that prints everything for Prometheus. It never rejects, and leaves out what is not known. */
export function createMetrics(needs: SnapshotNeeds, readSnapshot: () => Promise<Snapshot>): () => Promise<string> {
  const { queues, ingestQueue, deadLetterQueue, aggregationQueue, sliceQueue, log } = needs;
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const readQueues = createBoundedRead('queue metrics', log, async () => {
    if (queues.connection.status !== 'ready') throw new Error('the connection is lost');
    const all = [ingestQueue, deadLetterQueue, aggregationQueue, sliceQueue];
    const [counters, ...texts] = await Promise.all([
      readCounters(queues),
      ...all.map((queue) => queue.exportPrometheusMetrics()),
    ]);
    return [...[...counters].map(counterText), ...texts];
  });
  return async () => {
    const [snapshot, fromQueues] = await Promise.all([readSnapshot(), readQueues()]);
    return mergeTexts([...gaugeTexts(snapshot), ...(fromQueues ?? []), await registry.metrics()]);
  };
}

function metricText(name: string, type: string, help: string, sample: string, value: number): string {
  const full = PREFIX + name;
  return `# HELP ${full} ${help}\n# TYPE ${full} ${type}\n${PREFIX}${sample} ${value}`;
}

function gaugeTexts({ redis, cassandra }: Snapshot): string[] {
  const { waiting = 0, backlog = 0, delayed = 0, active = 0 } = redis?.queues['ingest'] ?? {};
  const skewMs = cassandra?.clockSkewMs;
  const gauges: [string, string, number | undefined][] = [
    ['redis_up', 'Whether Redis answers the board.', redis ? 1 : 0],
    ['cassandra_up', 'Whether Cassandra answers the board.', cassandra ? 1 : 0],
    ['workers', 'Processors that take files.', redis?.workers.length],
    ['queued_files', 'Files that are yet to be loaded.', redis ? waiting + backlog + delayed + active : undefined],
    ['oldest_waiting_seconds', 'Age of the file that waits longest in the queue.', redis?.oldestWaitingSeconds],
    ['dead_letters', 'Files that could not be loaded and wait for a person.', redis?.deadLetters.count],
    ['watermark_lag_seconds', 'Age of the newest load that is surely in the summaries.', cassandra?.lagSeconds],
    ['clock_skew_seconds', "How far the board's clock is ahead of Cassandra's.", skewMs && skewMs / 1000],
  ];
  return gauges.flatMap(([name, help, value]) =>
    value === undefined ? [] : [metricText(name, 'gauge', help, name, value)],
  );
}

/** What is no sample, because somebody else wrote into Redis, is left out. */
function counterText([sample, value]: [string, number]): string {
  const name = /^([a-z][a-z0-9_]*)(\{[a-z_]+="[^"\\\n]*"\})?$/.exec(sample)?.[1];
  if (name === undefined || !Number.isFinite(value)) return '';
  const isCounter = name.endsWith('_total');
  const base = isCounter ? name : name.replace(/_(bucket|sum|count)$/, '');
  return metricText(base, isCounter ? 'counter' : 'histogram', COUNTER_HELP[base] ?? base, sample, value);
}

/** The format allows HELP and TYPE of a metric once, before all of its samples, and wants buckets in order. */
function mergeTexts(texts: readonly string[]): string {
  const families = new Map<string, { headers: Set<string>; samples: string[] }>();
  let current = { headers: new Set<string>(), samples: new Array<string>() };
  for (const line of texts.flatMap((text) => text.split('\n')).filter(Boolean)) {
    const name = /^# (?:HELP|TYPE) (\S+)/.exec(line)?.[1];
    if (name === undefined) {
      current.samples.push(line);
      continue;
    }
    current = families.get(name) ?? { headers: new Set(), samples: [] };
    families.set(name, current);
    current.headers.add(line);
  }
  return [...families.values()]
    .flatMap(({ headers, samples }) => [...headers, ...samples.sort((a, b) => bucketOf(a) - bucketOf(b))])
    .map((line) => `${line}\n`)
    .join('');
}

function bucketOf(sample: string): number {
  const bound = /le="([^"]+)"/.exec(sample)?.[1];
  return bound === undefined ? 0 : Number(bound.replace('+Inf', 'Infinity'));
}
