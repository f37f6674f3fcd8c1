import { collectDefaultMetrics, Registry } from 'prom-client';
import { readCounters } from '../queues/counters.ts';
import { createBoundedRead } from './bounded-read.ts';
import type { Snapshot, SnapshotNeeds } from './snapshot.ts';

const PREFIX = 'vehicle_data_';

/** What the counters of the processors mean, by name without the prefix. One that is not here is shown without help. */
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

/** A metric's lines in the text format: HELP and TYPE once, then all of its samples together. */
interface Family {
  readonly header: string[];
  readonly samples: string[];
}
type Families = Map<string, Family>;

/** Makes the function that prints everything for Prometheus. It takes some seconds at most and never rejects. */
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
    return { counters, texts };
  });

  return async () => {
    const [snapshot, fromQueues] = await Promise.all([readSnapshot(), readQueues()]);
    const families: Families = new Map();
    addGauges(families, snapshot);
    addCounters(families, fromQueues?.counters ?? new Map());
    for (const text of fromQueues?.texts ?? []) mergeText(families, text);
    mergeText(families, await registry.metrics());
    return [...families.values()].map(({ header, samples }) => `${[...header, ...samples].join('\n')}\n`).join('');
  };
}

function addGauges(families: Families, { redis, cassandra }: Snapshot): void {
  const gauge = (name: string, help: string, value: number | undefined) => {
    if (value === undefined) return;
    const full = PREFIX + name;
    families.set(full, { header: [`# HELP ${full} ${help}`, `# TYPE ${full} gauge`], samples: [`${full} ${value}`] });
  };
  const ingest = redis?.queues['ingest'];
  gauge('redis_up', 'Whether Redis answers the board.', redis === null ? 0 : 1);
  gauge('cassandra_up', 'Whether Cassandra answers the board.', cassandra === null ? 0 : 1);
  gauge('workers', 'Processors that take files.', redis?.workers.length);
  gauge('queued_files', 'Files that are yet to be loaded.', ingest && ingest.waiting + ingest.backlog + ingest.delayed + ingest.active);
  gauge('oldest_waiting_seconds', 'Age of the file that waits longest in the queue.', redis?.oldestWaitingSeconds);
  gauge('dead_letters', 'Files that could not be loaded and wait for a person.', redis?.deadLetters.count);
  gauge('watermark_lag_seconds', 'Age of the newest load that is surely in the summaries.', cassandra?.lagSeconds);
  const skewMs = cassandra?.clockSkewMs;
  gauge('clock_skew_seconds', "How far the board's clock is ahead of Cassandra's.", skewMs && skewMs / 1000);
}

function addCounters(families: Families, counters: ReadonlyMap<string, number>): void {
  for (const [sample, value] of [...counters].sort(([a], [b]) => bucketOrder(a) - bucketOrder(b))) {
    const name = /^([a-z][a-z0-9_]*)(\{[a-z_]+="[^"\\\n]*"\})?$/.exec(sample)?.[1];
    if (name === undefined || !Number.isFinite(value)) continue;
    const isCounter = name.endsWith('_total');
    const base = isCounter ? name : name.replace(/_(bucket|sum|count)$/, '');
    const full = PREFIX + base;
    const help = COUNTER_HELP[base] ?? base.replaceAll('_', ' ');
    const type = isCounter ? 'counter' : 'histogram';
    const family = families.get(full) ?? { header: [`# HELP ${full} ${help}`, `# TYPE ${full} ${type}`], samples: [] };
    families.set(full, family);
    family.samples.push(`${PREFIX}${sample} ${value}`);
  }
}

/** Buckets of a histogram have to come in the order of their bounds. */
function bucketOrder(sample: string): number {
  const bound = /le="([^"]+)"/.exec(sample)?.[1];
  return bound === undefined ? 0 : bound === '+Inf' ? Number.MAX_VALUE : Number(bound);
}

/** Each of several exports repeats HELP and TYPE of the same metric, which the format allows once. */
function mergeText(families: Families, text: string): void {
  let current: Family | undefined;
  for (const line of text.split('\n')) {
    const name = /^# (?:HELP|TYPE) (\S+)/.exec(line)?.[1];
    if (name === undefined) {
      if (line !== '') current?.samples.push(line);
      continue;
    }
    current = families.get(name) ?? { header: [], samples: [] };
    families.set(name, current);
    if (current.samples.length === 0) current.header.push(line);
  }
}
